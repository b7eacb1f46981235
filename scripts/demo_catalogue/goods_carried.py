"""Things one carries or puts on feet: backpack, handbag, suitcase, boot, sneaker, heel."""

import numpy as np

from demo_catalogue.curves import box, curve, ellipse, mirrored, moved, stroke
from demo_catalogue.painter import BRASS, GUM, INK, STEEL, Look, Painter, mixed

METALS = (STEEL, BRASS)


def backpack(p: Painter, look: Look) -> None:
    """A rounded backpack with a front pocket, a zip, a grip and shoulder straps at the sides."""
    rng = p.rng
    w, h = rng.uniform(0.5, 0.6), rng.uniform(0.76, 0.88)
    trim = look.plain(0.62) if rng.random() < 0.6 else Look("leather", (0.45, 0.28, 0.16))
    for side in (-1, 1):
        p.bar(
            stroke([(side * w * 0.6, -h * 0.8), (side * (w + 0.18), -h * 0.2), (side * (w + 0.1), h * 0.7)], 0.1),
            trim,
            0.1,
        )
    p.bar(stroke([(-0.14, -h + 0.04), (-0.12, -h - 0.14), (0.12, -h - 0.14), (0.14, -h + 0.04)], 0.06), trim, 0.06)
    body = mirrored(
        [
            (0, -h),
            (w * 0.6, -h * 0.97),
            (w * 0.95, -h * 0.6),
            (w, 0),
            (w * 1.02, h * 0.75),
            (w * 0.85, h),
            (0, h * 1.02),
        ]
    )
    p.blob(body, look, depth=0.3)
    arc = curve(
        [(-w * 0.86, 0.0), (-w * 0.8, -h * 0.55), (0, -h * 0.8), (w * 0.8, -h * 0.55), (w * 0.86, 0.0)], closed=False
    )
    p.line(arc, mixed(look.colour, (0, 0, 0), 0.65), 0.035, 0.9)
    p.line(arc, (0.8, 0.78, 0.72), 0.014, 0.9, dash=0.03)
    top = rng.uniform(0.0, 0.14)
    pocket = mirrored(
        [
            (0, top),
            (w * 0.7, top + 0.01),
            (w * 0.78, top + 0.12),
            (w * 0.8, h * 0.82),
            (w * 0.68, h * 0.93),
            (0, h * 0.94),
        ]
    )
    p.blob(pocket, look, depth=0.14, drop=0.55)
    if rng.random() < 0.5:
        flap = mirrored(
            [(0, top - 0.04), (w * 0.78, top - 0.03), (w * 0.8, top + 0.16), (w * 0.5, top + 0.27), (0, top + 0.3)]
        )
        p.blob(flap, trim, depth=0.06, drop=0.5)
        p.blob(box(-0.045, top + 0.2, 0.045, top + 0.36, 0.02), METALS[int(rng.integers(2))], depth=0.03)
    else:
        p.line(np.array([(-w * 0.66, top + 0.08), (w * 0.66, top + 0.08)]), (0.12, 0.12, 0.12), 0.03, 0.8)
        p.blob(box(w * 0.3, top + 0.07, w * 0.3 + 0.05, top + 0.2, 0.02), METALS[int(rng.integers(2))], depth=0.02)


def handbag(p: Painter, look: Look) -> None:
    """A handbag: a trapeze, a half-moon or a tote, with one or two handles and a clasp."""
    rng = p.rng
    w, h = rng.uniform(0.62, 0.78), rng.uniform(0.42, 0.56)
    kind = rng.integers(3)
    strap = look.plain(0.75) if look.material != "wicker" else Look("leather", (0.5, 0.31, 0.18))
    reach = rng.uniform(0.38, 0.55)
    top = -h + 0.3
    p.bar(
        stroke(
            [
                (-w * 0.5, top + 0.04),
                (-w * 0.42, top - reach * 0.8),
                (0, top - reach),
                (w * 0.42, top - reach * 0.8),
                (w * 0.5, top + 0.04),
            ],
            0.075,
        ),
        strap.plain(0.8),
        0.075,
    )
    if kind == 0:
        body = mirrored(
            [(0, top), (w * 0.78, top, 0), (w * 0.9, 0.2), (w, h + 0.2), (w * 0.92, h + 0.3), (0, h + 0.31)]
        )
    elif kind == 1:
        body = mirrored(
            [
                (0, top + 0.06),
                (w * 0.85, top - 0.02, 0),
                (w, 0.2),
                (w * 0.8, h + 0.1),
                (w * 0.4, h + 0.28),
                (0, h + 0.32),
            ]
        )
    else:
        body = mirrored([(0, top), (w * 0.98, top, 0), (w * 0.94, 0.3), (w * 0.82, h + 0.3, 0), (0, h + 0.31)])
    p.blob(body, look, depth=0.22)
    if kind == 0 and look.material != "wicker":
        flap = mirrored(
            [(0, top - 0.02), (w * 0.8, top - 0.02, 0), (w * 0.82, top + 0.2), (w * 0.5, top + 0.38), (0, top + 0.44)]
        )
        p.blob(flap, look, depth=0.08, drop=0.6)
        p.blob(box(-0.08, top + 0.36, 0.08, top + 0.5, 0.04), METALS[int(rng.integers(2))], depth=0.05)
    else:
        p.line(np.array([(-w * 0.8, top + 0.09), (w * 0.8, top + 0.09)]), mixed(look.colour, (0, 0, 0), 0.6), 0.02, 0.6)
        p.blob(ellipse(0, top + 0.1, 0.05, 0.05), METALS[int(rng.integers(2))], depth=0.05)
    front = [
        (-w * 0.46, top + 0.12),
        (-w * 0.4, top - reach * 0.7),
        (0, top - reach * 0.88),
        (w * 0.4, top - reach * 0.7),
        (w * 0.46, top + 0.12),
    ]
    p.bar(stroke(front, 0.075), strap, 0.075)
    for side in (-1, 1):
        p.blob(ellipse(side * w * 0.46, top + 0.12, 0.05, 0.05), METALS[int(rng.integers(2))], depth=0.04)


def suitcase(p: Painter, look: Look) -> None:
    """A trolley with ribs or corner guards, wheels and a handle pulled out."""
    rng = p.rng
    w, h = rng.uniform(0.44, 0.54), rng.uniform(0.6, 0.72)
    pull = rng.uniform(0.2, 0.38)
    for x in (-w * 0.42, w * 0.42):
        p.bar(stroke([(x, -h + 0.1), (x, -h - pull)], 0.045), STEEL, 0.045)
    p.bar(stroke([(-w * 0.5, -h - pull), (w * 0.5, -h - pull)], 0.09), INK, 0.09)
    for x in (-w * 0.72, w * 0.72):
        p.blob(box(x - 0.07, h - 0.04, x + 0.07, h + 0.17, 0.05), INK, depth=0.06)
    p.blob(box(-w, -h, w, h, rng.uniform(0.1, 0.18)), look, depth=0.13)
    if look.material in ("plastic", "metal"):
        for x in np.linspace(-0.7, 0.7, int(rng.integers(4, 7))) * w:
            p.flat(stroke([(x, -h + 0.12), (x, h - 0.12)], 0.03), (0, 0, 0), 0.22, blur=0.008)
            p.flat(stroke([(x + 0.03, -h + 0.12), (x + 0.03, h - 0.12)], 0.02), (1, 1, 1), 0.28, blur=0.008)
    else:
        strap = Look("leather", (0.33, 0.2, 0.12)) if look.material != "leather" else look.plain(0.6)
        for x in (-w * 0.55, w * 0.55):
            p.blob(box(x - 0.06, -h, x + 0.06, h, 0.01), strap, depth=0.03)
            p.blob(box(x - 0.08, -0.1, x + 0.08, 0.06, 0.02), BRASS, depth=0.03)
        for x in (-1, 1):
            for y in (-1, 1):
                corner = curve([(w, h - 0.24, 0), (w, h - 0.1), (w - 0.1, h), (w - 0.24, h, 0), (w - 0.16, h - 0.16)])
                p.blob(corner * [x, y], Look("leather", strap.colour), depth=0.04)
    p.bar(stroke([(-0.16, -h + 0.03), (-0.14, -h - 0.08), (0.14, -h - 0.08), (0.16, -h + 0.03)], 0.06), INK, 0.06)


def _sole(p: Painter, look: Look, x0: float, x1: float, y: float, thick: float, toe: float) -> None:
    shape = curve(
        [
            (x0, y - 0.02, 0),
            (0.2, y - 0.01),
            (x1, y - toe, 0),
            (x1 + 0.03, y - toe + thick * 0.6),
            (x1 - 0.12, y + thick),
            (x0 + 0.04, y + thick),
            (x0 - 0.02, y + thick * 0.5),
        ]
    )
    p.blob(shape, look, depth=0.06)


def _laces(p: Painter, spots: list[tuple[float, float]], colour: tuple[float, float, float], length: float) -> None:
    for x, y in spots:
        p.bar(
            stroke([(x - length * 0.35, y + length * 0.55), (x + length * 0.4, y - length * 0.2)], 0.04),
            Look("cotton", colour),
            0.04,
            drop=0.45,
        )


def boot(p: Painter, look: Look) -> None:
    """An ankle or calf boot from the side: laced, elastic or plain."""
    rng = p.rng
    top = -rng.uniform(0.62, 0.98)
    heel = rng.uniform(0.08, 0.2)
    sole = [INK, Look("wood", (0.5, 0.33, 0.2)), Look("rubber", (0.2, 0.17, 0.15))][int(rng.integers(3))]
    p.blob(box(-0.6, 0.62, -0.22, 0.72 + heel, 0.02), sole, depth=0.06)
    shape = curve(
        [
            (-0.56, top, 0),
            (-0.02, top - 0.03, 0),
            (0.0, -0.2),
            (0.1, 0.12),
            (0.45, 0.24),
            (0.78, 0.4),
            (0.84, 0.6),
            (0.78, 0.7, 0),
            (-0.58, 0.7, 0),
            (-0.62, 0.45),
            (-0.54, 0.1),
        ]
    )
    p.blob(shape, look, depth=0.3)
    p.flat(ellipse(-0.29, top - 0.01, 0.27, 0.055), (0.09, 0.07, 0.06), 0.85)
    dark = mixed(look.colour, (0, 0, 0), 0.55)
    p.line(curve([(-0.6, 0.36), (-0.2, 0.3), (0.06, 0.42), (0.16, 0.68)], closed=False), dark, 0.018, 0.7)
    kind = rng.integers(3)
    if kind == 0:
        spots = [(-0.1 + share * 0.16, top * (1 - share) + 0.16 * share + 0.12) for share in np.linspace(0, 1, 5)]
        _laces(p, spots, [(0.9, 0.85, 0.75), (0.1, 0.1, 0.1), (0.8, 0.6, 0.2)][int(rng.integers(3))], 0.17)
    elif kind == 1:
        p.blob(
            curve([(-0.36, top + 0.03), (-0.16, top + 0.03), (-0.2, 0.05), (-0.28, 0.12), (-0.35, 0.05)]),
            Look("cotton", dark),
            depth=0.04,
            drop=0,
        )
    else:
        p.blob(curve([(-0.6, 0.05), (0.05, -0.06), (0.1, 0.05), (-0.58, 0.18)]), look.plain(0.7), depth=0.04)
        p.blob(box(-0.2, -0.05, -0.06, 0.14, 0.03), BRASS, depth=0.03)
    p.bar(stroke([(-0.56, top + 0.02), (-0.02, top - 0.01)], 0.055), look.plain(0.75), 0.055, drop=0)
    _sole(p, sole, -0.6, 0.84, 0.7, rng.uniform(0.07, 0.13), 0.03)


def sneaker(p: Painter, look: Look) -> None:
    """A low or high sneaker from the side with laces, a toe cap and a pale sole."""
    rng = p.rng
    high = rng.random() < 0.35
    top = -0.62 if high else -0.28
    shape = curve(
        [
            (-0.82, top + (0.0 if high else 0.04)),
            (-0.62, top + 0.02),
            (-0.3, top + 0.08, 0),
            (0.0, -0.12),
            (0.3, 0.06),
            (0.66, 0.14),
            (0.88, 0.3),
            (0.9, 0.44, 0),
            (-0.84, 0.44, 0),
            (-0.9, 0.15),
            (-0.84, -0.1),
        ]
    )
    p.blob(shape, look, depth=0.26)
    p.flat(moved(ellipse(0, 0, 0.25, 0.055), -0.55, top + 0.06, turn=8), (0.12, 0.1, 0.1), 0.85)
    tongue = curve([(-0.36, top + 0.12), (-0.26, top - 0.1), (-0.14, top - 0.05), (-0.12, top + 0.24)])
    p.blob(tongue, look.plain(0.85), depth=0.06)
    panel = look.plain(0.62) if rng.random() < 0.5 else Look("leather", mixed(look.colour, (1, 1, 1), 0.6))
    p.blob(
        curve([(-0.86, 0.08), (-0.6, 0.0), (-0.5, 0.2), (-0.55, 0.44, 0), (-0.85, 0.44, 0), (-0.89, 0.25)]),
        panel,
        depth=0.06,
    )
    if rng.random() < 0.55:
        p.blob(
            curve([(0.56, 0.16), (0.76, 0.19), (0.89, 0.32), (0.9, 0.44, 0), (0.44, 0.44, 0), (0.46, 0.28)]),
            GUM,
            depth=0.1,
        )
    else:
        p.blob(curve([(0.4, 0.44, 0), (0.5, 0.26), (0.72, 0.26), (0.9, 0.36), (0.9, 0.44, 0)]), panel, depth=0.06)
    if rng.random() < 0.45:
        stripe = curve([(-0.42, 0.3), (-0.1, 0.26), (0.24, 0.06), (0.3, 0.12), (0.0, 0.36), (-0.36, 0.4)])
        p.blob(stripe, panel, depth=0.03, drop=0.2)
    start = (-0.24, top + 0.2)
    spots = [
        (start[0] + share * (0.3 - start[0]), start[1] + share * (0.1 - start[1])) for share in np.linspace(0, 1, 5)
    ]
    _laces(p, spots, (0.95, 0.94, 0.9), 0.2)
    sole = GUM if rng.random() < 0.75 else Look("rubber", (0.55, 0.36, 0.2))
    _sole(p, sole, -0.86, 0.9, 0.43, rng.uniform(0.13, 0.2), 0.0)
    p.line(np.array([(-0.84, 0.52), (0.86, 0.5)]), mixed(look.colour, (0.2, 0.2, 0.2), 0.3), 0.02, 0.8)


def heel(p: Painter, look: Look) -> None:
    """A high-heeled court shoe from the side, stiletto or block."""
    rng = p.rng
    block = rng.random() < 0.4
    tall = rng.uniform(0.42, 0.62)
    y = 0.55 - tall
    if block:
        spike = curve([(-0.86, y + 0.1), (-0.5, y + 0.18), (-0.52, 0.6, 0), (-0.78, 0.6, 0)])
    else:
        spike = curve(
            [(-0.88, y + 0.05), (-0.52, y + 0.16), (-0.68, 0.3), (-0.71, 0.62, 0), (-0.79, 0.62, 0), (-0.82, 0.3)]
        )
    p.blob(spike, look.plain(0.85) if rng.random() < 0.6 else INK, depth=0.08)
    sole = curve(
        [
            (-0.9, y + 0.08),
            (-0.45, y + 0.2),
            (0.0, 0.5),
            (0.3, 0.62),
            (0.9, 0.62),
            (0.95, 0.56),
            (0.3, 0.5),
            (-0.3, y + 0.1),
        ]
    )
    p.blob(sole, Look("leather", (0.2, 0.12, 0.1)), depth=0.04)
    upper = curve(
        [
            (-0.93, y - 0.22),
            (-0.84, y - 0.3),
            (-0.7, y - 0.2),
            (-0.45, y + 0.02),
            (-0.1, 0.24),
            (0.2, 0.32),
            (0.4, 0.25, 0),
            (0.66, 0.34),
            (0.94, 0.5),
            (0.97, 0.57, 0),
            (0.5, 0.6),
            (0.15, 0.54),
            (-0.2, 0.34),
            (-0.52, y + 0.2),
            (-0.86, y + 0.1),
        ]
    )
    p.blob(upper, look, depth=0.16)
    p.flat(
        curve(
            [
                (-0.82, y - 0.26),
                (-0.68, y - 0.16),
                (-0.42, y + 0.05),
                (-0.08, 0.27),
                (0.2, 0.34),
                (0.37, 0.28),
                (0.1, 0.3),
                (-0.3, 0.05),
                (-0.6, y - 0.2),
            ]
        ),
        mixed(look.colour, (0.75, 0.6, 0.45), 0.5),
        0.9,
    )
    kind = rng.integers(3)
    if kind == 0:
        p.blob(moved(ellipse(0.07, 0, 0.1, 0.06), 0.42, 0.27, turn=-25), look.plain(0.8), depth=0.05)
        p.blob(moved(ellipse(-0.07, 0, 0.1, 0.06), 0.42, 0.27, turn=25), look.plain(0.8), depth=0.05)
    elif kind == 1:
        ankle = [
            (-0.86, y - 0.24),
            (-0.9, y - 0.4),
            (-0.66, y - 0.47),
            (-0.42, y - 0.4),
            (-0.44, y - 0.3),
            (-0.66, y - 0.28),
            (-0.86, y - 0.32),
        ]
        p.bar(stroke(ankle, 0.05), look.plain(0.9), 0.05)
