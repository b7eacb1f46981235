"""Smaller things: watch, umbrella, guitar, headphones, sunglasses."""

from itertools import pairwise

import numpy as np

from demo_catalogue.curves import box, curve, ellipse, flipped, mirrored, moved, stroke
from demo_catalogue.painter import BRASS, CHALK, INK, OAK, STEEL, WALNUT, Look, Painter, mixed


def watch(p: Painter, look: Look) -> None:
    """A wristwatch laid flat; the strap wears the look."""
    rng = p.rng
    w = rng.uniform(0.2, 0.25)
    case = STEEL if rng.random() < 0.6 else BRASS
    r = rng.uniform(0.38, 0.44)
    for side in (-1, 1):
        end = 1.0
        spots = [
            (-w, side * 0.2, 0),
            (w, side * 0.2, 0),
            (w * 0.92, side * 0.6),
            (w * 0.8, side * end * 0.94),
            (0, side * end),
            (-w * 0.8, side * end * 0.94),
            (-w * 0.92, side * 0.6),
        ]
        p.blob(curve(spots), look, depth=0.08)
        if look.material == "metal":
            for y in np.arange(0.42, 0.98, 0.1):
                p.line(np.array([(-w, side * y), (w, side * y)]), (0.08, 0.08, 0.1), 0.022, 0.75)
            for x in (-w * 0.4, w * 0.4):
                p.line(np.array([(x, side * 0.3), (x, side * 0.98)]), (0.08, 0.08, 0.1), 0.016, 0.6)
        elif side > 0:
            for y in (0.62, 0.74, 0.86):
                p.flat(ellipse(0, y, 0.026, 0.026), (0.05, 0.04, 0.04), 0.9)
    square = rng.random() < 0.3
    rim = box(-r * 0.86, -r * 0.86, r * 0.86, r * 0.86, 0.12) if square else ellipse(0, 0, r, r)
    p.blob(box(r - 0.05, -0.05, r + 0.08, 0.05, 0.03), case, depth=0.04)
    p.blob(rim, case, depth=0.09)
    dial = [(0.96, 0.95, 0.92), (0.1, 0.1, 0.13), (0.85, 0.87, 0.9)][int(rng.integers(3))]
    p.flat(rim * 0.82, mixed(dial, (0, 0, 0), 0.3))
    p.flat(rim * 0.8, dial)
    ink = (0.1, 0.1, 0.12) if sum(dial) > 1.5 else (0.95, 0.93, 0.88)
    for hour in range(12):
        mark = moved(box(-0.014, -r * 0.72, 0.014, -r * (0.58 if hour % 3 else 0.52), 0.004), turn=hour * 30)
        p.flat(mark, ink, 0.9)
    p.flat(moved(stroke([(0, 0.05), (0, -r * 0.4)], 0.045), turn=rng.uniform(0, 360)), ink)
    p.flat(moved(stroke([(0, 0.07), (0, -r * 0.6)], 0.032), turn=rng.uniform(0, 360)), ink)
    p.flat(ellipse(0, 0, 0.035, 0.035), ink)
    p.flat(
        curve([(-r * 0.5, -r * 0.5), (0, -r * 0.72), (r * 0.3, -r * 0.64), (-r * 0.2, -r * 0.1), (-r * 0.66, 0.1)]),
        (1, 1, 1),
        0.16,
    )


def umbrella(p: Painter, look: Look) -> None:
    """An open umbrella from the side: ribs, scalloped edge, a hooked or straight grip."""
    rng = p.rng
    w, high = rng.uniform(0.86, 0.98), rng.uniform(0.62, 0.78)
    grip = [OAK, WALNUT, INK][int(rng.integers(3))]
    y = 0.0
    p.bar(stroke([(0, -high + 0.05), (0, 0.78)], 0.04), STEEL, 0.04, drop=0)
    if rng.random() < 0.65:
        p.bar(stroke([(0, 0.6), (0, 0.84), (0.1, 0.97), (0.22, 0.92), (0.24, 0.8)], 0.08), grip, 0.08)
    else:
        p.bar(stroke([(0, 0.62), (0, 0.95)], [0.08, 0.1]), grip, 0.09)
    count = int(rng.choice([5, 6, 7]))
    edges = -w * np.cos(np.linspace(0, np.pi, count + 1))
    lower: list[tuple[float, ...]] = []
    for left, right in pairwise(edges):
        dip = 0.05 + 0.02 * (right - left)
        lower += [(left, y + 0.02, 0), ((left + right) / 2, y - dip)]
    lower.append((w, y + 0.02, 0))
    dome = [(w * 0.93, y - 0.28), (w * 0.62, -high * 0.8), (0, -high), (-w * 0.62, -high * 0.8), (-w * 0.93, y - 0.28)]
    p.flat(moved(ellipse(0, -0.03, w * 0.93, 0.07), 0, y), mixed(look.colour, (0, 0, 0), 0.6))
    p.blob(curve([*lower, *dome]), look, depth=0.5)
    for x in edges[1:-1]:
        rib = curve([(0, -high), (x * 0.72, -high * 0.62), (x, y + 0.02)], closed=False)
        p.line(rib, mixed(look.colour, (0, 0, 0), 0.55), 0.016, 0.7)
        p.line(moved(rib, 0.018), (1, 1, 1), 0.014, 0.2)
    p.bar(stroke([(0, -high + 0.02), (0, -high - 0.14)], [0.05, 0.025]), STEEL, 0.04)


def guitar(p: Painter, look: Look) -> None:
    """A guitar: a waisted acoustic body with a sound hole, or an electric one with horns and pick-ups."""
    rng = p.rng
    neck = [WALNUT, OAK, INK][int(rng.integers(3))]
    head = curve([(-0.09, -0.86), (-0.12, -1.08), (0.0, -1.12), (0.12, -1.08), (0.09, -0.86)])
    acoustic = look.material == "wood" or rng.random() < 0.3
    if acoustic:
        body = mirrored(
            [(0, -0.1), (0.26, -0.09), (0.4, 0.08), (0.31, 0.32), (0.4, 0.5), (0.55, 0.72), (0.4, 1.0), (0, 1.06)]
        )
    else:
        body = curve(
            [
                (-0.14, 0.1),
                (-0.34, -0.18),
                (-0.46, -0.1),
                (-0.4, 0.2),
                (-0.36, 0.4),
                (-0.52, 0.7),
                (-0.36, 1.0),
                (0.05, 1.02),
                (0.42, 0.92),
                (0.48, 0.62),
                (0.34, 0.36),
                (0.38, 0.12),
                (0.34, -0.04),
                (0.22, 0.0),
                (0.12, 0.14),
            ]
        )
    p.blob(body, look, depth=0.1 if acoustic else 0.14)
    if acoustic:
        p.line(np.concatenate([body, body[:1]]) * [0.97, 0.98] + [0, 0.008], (0.93, 0.88, 0.75), 0.026, 0.9)
        p.flat(ellipse(0, 0.34, 0.165, 0.165), (0.85, 0.7, 0.45))
        p.flat(ellipse(0, 0.34, 0.135, 0.135), (0.07, 0.05, 0.04))
    else:
        guard = curve([(0.0, 0.2), (0.25, 0.2), (0.3, 0.5), (0.26, 0.8), (0.06, 0.84), (-0.02, 0.5)])
        p.blob(guard, CHALK if sum(look.colour) < 2.2 else INK, depth=0.02, drop=0.15)
        for y in (0.34, 0.54):
            p.blob(box(-0.13, y, 0.13, y + 0.08, 0.03), INK if sum(look.colour) > 0.9 else STEEL, depth=0.03)
        for x, y in ((0.28, 0.72), (0.18, 0.82)):
            p.blob(ellipse(x, y, 0.04, 0.04), STEEL, depth=0.03)
    p.blob(box(-0.13, 0.74, 0.13, 0.8, 0.02), neck.plain(0.7), depth=0.03)
    p.blob(box(-0.068, -0.92, 0.068, 0.24, 0.01), neck, depth=0.06)
    for share in np.linspace(0, 1, 12):
        y = -0.84 + 1.02 * (1 - (1 - share) ** 1.5)
        p.flat(box(-0.066, y - 0.008, 0.066, y + 0.008, 0.001), (0.85, 0.83, 0.78), 0.8)
    p.blob(head, neck, depth=0.05)
    for side in (-1, 1):
        for y in (-0.92, -0.99, -1.06):
            p.blob(ellipse(side * 0.155, y, 0.035, 0.024), STEEL, depth=0.02)
    for x in (-0.04, -0.013, 0.013, 0.04):
        p.line(np.array([(x, -0.95), (x, 0.78)]), (0.93, 0.92, 0.88), 0.008, 0.8)


def headphones(p: Painter, look: Look) -> None:
    """Over-ear headphones from the front: the band and the cups wear the look."""
    rng = p.rng
    w, high = rng.uniform(0.6, 0.7), rng.uniform(0.74, 0.86)
    arch = [
        (-w, 0.2),
        (-w * 0.98, -high * 0.45),
        (-w * 0.6, -high * 0.93),
        (0, -high * 1.05),
        (w * 0.6, -high * 0.93),
        (w * 0.98, -high * 0.45),
        (w, 0.2),
    ]
    p.bar(stroke([(x * 0.93, y + 0.05) for x, y in arch], 0.1), INK, 0.1)
    p.bar(stroke(arch, [0.07, 0.15, 0.2, 0.15, 0.07]), look, 0.17)
    tilt = rng.uniform(3, 10)
    long, thick = rng.uniform(0.34, 0.42), rng.uniform(0.16, 0.2)
    for side in (-1, 1):
        pad = moved(box(-thick * 0.5, -long, thick * 0.6, long, 0.12), w * 0.86 - 0.05, 0.32, turn=tilt)
        cup = moved(
            curve([(0, -long * 0.95), (thick, -long * 0.8), (thick * 1.5, 0), (thick, long * 0.8), (0, long * 0.95)]),
            w * 0.86 + 0.05,
            0.32,
            turn=tilt,
        )
        p.blob(pad if side > 0 else flipped(pad), Look("leather", (0.14, 0.13, 0.13)), depth=0.12)
        p.blob(cup if side > 0 else flipped(cup), look, depth=0.2)
        joint = stroke([(side * w, -0.15), (side * (w + 0.03), 0.25)], [0.06, 0.09])
        p.bar(joint, STEEL if rng.random() < 0.5 else look.plain(0.8), 0.07)


def sunglasses(p: Painter, look: Look) -> None:
    """Sunglasses from the front, arms folded back: round, square or cat-eye."""
    rng = p.rng
    kind = rng.integers(3)
    tint = [(0.13, 0.12, 0.13), (0.3, 0.19, 0.1), (0.15, 0.22, 0.3), (0.18, 0.25, 0.18)][int(rng.integers(4))]
    thick = rng.uniform(0.09, 0.13)
    rx, ry = rng.uniform(0.36, 0.4), rng.uniform(0.28, 0.34)
    if kind == 0:
        ring = ellipse(0, 0, rx, rx * 0.95)
    elif kind == 1:
        ring = curve(
            [
                (-rx, -ry),
                (0, -ry * 1.05),
                (rx, -ry * 0.95),
                (rx * 0.95, 0.05),
                (rx * 0.75, ry),
                (0, ry * 1.05),
                (-rx * 0.8, ry * 0.95),
                (-rx * 0.98, 0),
            ]
        )
    else:
        ring = curve(
            [
                (-rx * 0.95, -ry * 0.6),
                (0, -ry * 0.85),
                (rx * 1.2, -ry * 1.35),
                (rx, 0),
                (rx * 0.5, ry * 0.85),
                (-rx * 0.3, ry * 0.9),
                (-rx * 0.95, ry * 0.2),
            ]
        )
    gap = rx + 0.1
    for side in (-1, 1):
        arm = stroke(
            [
                (side * (gap + rx * 0.95), -ry * 0.6),
                (side * (gap + rx * 0.9), -ry * 1.7),
                (side * (gap + rx * 0.35), -ry * 2.1),
            ],
            [0.11, 0.08, 0.1],
        )
        p.bar(arm, look, 0.09)
    p.bar(stroke([(-0.16, -ry * 0.3), (0, -ry * 0.52), (0.16, -ry * 0.3)], thick * 0.9), look, thick)
    for side in (-1, 1):
        shape = ring if side > 0 else flipped(ring)
        centre = (side * gap, 0.0)
        scale = 1.0 + thick * 0.9
        p.blob(moved(shape, *centre, scale=scale), look, depth=thick * 0.9)
        lens = moved(shape, *centre, scale=1.0 - thick * 0.85)
        p.blob(lens, Look("glass", tint), depth=0.05, drop=0)
        p.flat(lens, tint, 0.8)
        low = moved(curve([(-rx * 0.6, ry * 0.6), (0, ry * 0.75), (rx * 0.6, ry * 0.55), (0, ry * 0.2)]), *centre)
        p.flat(low, mixed(tint, (1, 1, 1), 0.35), 0.35, blur=0.04)
        gleam = moved(stroke([(-rx * 0.35, ry * 0.25), (rx * 0.1, -ry * 0.45)], [0.05, 0.11, 0.05]), *centre)
        p.flat(gleam, (1, 1, 1), 0.35)
    for side in (-1, 1):
        p.flat(ellipse(side * (gap + rx * 1.0), -ry * 0.62, 0.03, 0.02), (0.9, 0.88, 0.8), 0.9)
