"""Clothing: T-shirt, dress, jumper, trousers, skirt, cap, scarf, mitten, sock."""

import numpy as np

from demo_catalogue.curves import box, curve, ellipse, flipped, mirrored, moved, stroke
from demo_catalogue.painter import Look, Painter, mixed


def _crease(p: Painter, spots: list[tuple[float, float]], strength: float = 0.22) -> None:
    p.flat(stroke(spots, [0.015, 0.05, 0.012]), (0, 0, 0), strength, blur=0.012)


def _ribbed(p: Painter, x0: float, y0: float, x1: float, y1: float, look: Look, *, turn: float = 0.0) -> None:
    """A ribbed cuff or hem in the plain colour."""
    middle = ((x0 + x1) / 2, (y0 + y1) / 2)
    w, h = (x1 - x0) / 2, (y1 - y0) / 2
    p.blob(moved(box(-w, -h, w, h, 0.03), *middle, turn=turn), Look("cotton", look.plain(0.82).colour), depth=0.05)
    for at in np.arange(-w + 0.03, w - 0.01, 0.055):
        ridge = moved(np.array([[at, -h * 0.85], [at, h * 0.85]]), *middle, turn=turn)
        p.line(ridge, mixed(look.colour, (0, 0, 0), 0.55), 0.014, 0.55)


def tshirt(p: Painter, look: Look) -> None:
    """A T-shirt laid flat: round or V neck, wider or narrower."""
    rng = p.rng
    w, h, sleeve = rng.uniform(0.46, 0.54), rng.uniform(0.72, 0.86), rng.uniform(0.3, 0.42)
    vneck = rng.random() < 0.35
    neck = 0.19
    dip = 0.3 if vneck else 0.16
    back = mirrored([(0, -h - 0.03), (neck, -h - 0.05), (neck + 0.02, -h + 0.05), (0, -h + dip)])
    p.cloth(back, look.plain(0.55), folds=0.2, drop=0)
    sx, sy = w + sleeve, -h + 0.34
    spots = [
        (0, -h + dip, *([0] if vneck else [])),
        (neck, -h - 0.04, 0),
        (w * 0.75, -h + 0.03),
        (w + 0.06, -h + 0.1),
        (sx, sy, 0),
        (sx - 0.2, sy + 0.17, 0),
        (w, -h + 0.42, 0),
        (w * 0.95, 0),
        (w + 0.02, h, 0),
        (0, h + 0.02),
    ]
    p.cloth(mirrored(spots), look, folds=1.0)
    for side in (-1, 1):
        _crease(p, [(side * w, -h + 0.4), (side * w * 0.7, -h + 0.5), (side * w * 0.45, -h + 0.52)])
        p.line(np.array([(side * (w - 0.01), -h + 0.41), (side * (w - 0.04), -h + 0.06)]), (0, 0, 0), 0.012, 0.3)
    collar = [
        (-neck, -h - 0.03),
        (-neck * 0.75, -h + dip * 0.66),
        (0, -h + dip),
        (neck * 0.75, -h + dip * 0.66),
        (neck, -h - 0.03),
    ]
    if vneck:
        collar = [(-neck, -h - 0.03), (0, -h + dip, 0), (neck, -h - 0.03)]  # type: ignore[list-item]
    p.bar(stroke(collar, 0.06), Look("cotton", look.plain(0.85).colour), 0.06, drop=0.15)


def dress(p: Painter, look: Look) -> None:
    """A dress: strappy or with sleeves, a waist, a wide or narrow skirt."""
    rng = p.rng
    waist, hem = rng.uniform(0.24, 0.3), rng.uniform(0.46, 0.72)
    level = rng.uniform(-0.28, -0.15)
    strappy = rng.random() < 0.5
    low = rng.uniform(0.8, 0.98)
    if strappy:
        for side in (-1, 1):
            p.bar(stroke([(side * 0.2, -0.66), (side * 0.17, -0.95)], 0.05), look.plain(0.9), 0.05)
        top = [(0, -0.6), (0.12, -0.66), (0.22, -0.72), (0.3, -0.6, 0), (0.31, -0.45)]
    else:
        p.cloth(mirrored([(0, -0.92), (0.16, -0.94), (0, -0.76)]), look.plain(0.55), folds=0, drop=0)
        top = [(0, -0.74), (0.17, -0.95, 0), (0.36, -0.88), (0.54, -0.6, 0), (0.41, -0.48, 0), (0.3, -0.56, 0)]
    side_line = [
        (waist, level),
        (waist + (hem - waist) * 0.4, level + (low - level) * 0.35),
        (hem, low, 0),
        (hem * 0.5, low + 0.04),
        (0, low + 0.05),
    ]
    p.cloth(mirrored([*top, *side_line]), look, folds=1.1, hang=0.22)
    for at in np.linspace(-0.75, 0.75, 6):
        _crease(
            p,
            [(at * waist * 0.8, level + 0.06), (at * hem * 0.62, (level + low) / 2), (at * hem * 0.95, low - 0.02)],
            0.26,
        )
    if rng.random() < 0.6:
        band = curve(
            [
                (-waist, level - 0.04),
                (0, level - 0.02),
                (waist, level - 0.04),
                (waist, level + 0.05),
                (0, level + 0.07),
                (-waist, level + 0.05),
            ]
        )
        p.blob(band, look.plain(0.7), depth=0.05)


def jumper(p: Painter, look: Look) -> None:
    """A long-sleeved jumper with ribbed hem, cuffs and collar."""
    rng = p.rng
    w, h = rng.uniform(0.46, 0.54), rng.uniform(0.66, 0.76)
    out = rng.uniform(0.32, 0.42)
    cuff = (w + out, h * 0.62)
    for side in (-1, 1):
        arm = curve(
            [
                (0.2, -h - 0.02),
                (w + 0.02, -h + 0.14),
                (w + out * 0.62, -0.05),
                (cuff[0] + 0.08, cuff[1], 0),
                (cuff[0] - 0.13, cuff[1] + 0.03, 0),
                (w + 0.05, 0.05),
                (w - 0.1, -0.2),
            ]
        )
        p.cloth(arm if side > 0 else flipped(arm), look, folds=1.2, bevel=0.1)
        _ribbed(p, side * cuff[0] - 0.13, cuff[1] - 0.02, side * cuff[0] + 0.09, cuff[1] + 0.13, look)
    body = mirrored(
        [(0, -h + 0.1), (0.2, -h - 0.06, 0), (w * 0.86, -h + 0.08), (w, -0.2), (w, h - 0.05), (w - 0.06, h), (0, h)]
    )
    p.cloth(body, look, folds=1.0, bevel=0.1)
    _ribbed(p, -w + 0.03, h - 0.06, w - 0.03, h + 0.1, look)
    if rng.random() < 0.4:
        p.blob(box(-0.2, -h - 0.22, 0.2, -h + 0.12, 0.07), look.plain(0.92), depth=0.1)
        p.line(np.array([(-0.19, -h - 0.04), (0.19, -h - 0.04)]), (0, 0, 0), 0.02, 0.35)
    else:
        p.flat(ellipse(0, -h - 0.02, 0.17, 0.07), mixed(look.colour, (0, 0, 0), 0.6))
        p.bar(
            stroke([(-0.2, -h - 0.05), (-0.13, -h + 0.07), (0, -h + 0.12), (0.13, -h + 0.07), (0.2, -h - 0.05)], 0.085),
            look.plain(0.82),
            0.085,
        )


def trousers(p: Painter, look: Look) -> None:
    """A pair of trousers with a waistband, pockets and a fly."""
    rng = p.rng
    w, flare = rng.uniform(0.34, 0.4), rng.uniform(0.16, 0.27)
    spread = rng.uniform(0.08, 0.2)
    leg = [
        (0, -0.9),
        (w * 0.9, -0.9, 0),
        (w * 1.12, -0.45),
        (w + spread * 0.6, 0.2),
        (spread + flare * 2 - 0.02, 0.95, 0),
        (spread, 0.97, 0),
        (spread * 0.5, 0.3),
        (0.015, -0.3, 0),
    ]
    p.cloth(mirrored(leg), look, folds=0.8, hang=0.3)
    seam = mixed(look.colour, (0.9, 0.6, 0.25), 0.7) if look.material == "denim" else mixed(look.colour, (0, 0, 0), 0.6)
    p.flat(stroke([(0, -0.88), (0, -0.32)], 0.02), (0, 0, 0), 0.35)
    p.line(np.array([(0.06, -0.8), (0.06, -0.5), (0.01, -0.4)]), seam, 0.016, 0.8, dash=0.05)
    for side in (-1, 1):
        pocket = np.array([(side * w * 0.45, -0.8), (side * w * 0.6, -0.66), (side * w * 0.98, -0.6)])
        p.line(pocket, (0, 0, 0), 0.02, 0.45)
        p.line(moved(pocket, 0, 0.025), seam, 0.014, 0.8, dash=0.05)
        _crease(p, [(side * 0.03, -0.28), (side * 0.16, -0.2), (side * 0.3, -0.22)])
        _crease(
            p, [(side * (spread + 0.05), 0.22), (side * (spread + 0.14), 0.26), (side * (spread + 0.24), 0.22)], 0.16
        )
        p.line(
            np.array([(side * (spread + flare * 2 - 0.02), 0.88), (side * spread, 0.9)]), seam, 0.016, 0.7, dash=0.05
        )
    p.blob(box(-w * 0.93, -0.97, w * 0.93, -0.83, 0.02), look.plain(0.88), depth=0.04)
    for x in (-0.7, -0.25, 0.25, 0.7):
        p.blob(box(x * w - 0.022, -0.98, x * w + 0.022, -0.8, 0.01), look.plain(0.75), depth=0.02)
    p.blob(ellipse(0, -0.9, 0.035, 0.035), Look("metal", (0.85, 0.7, 0.4)), depth=0.03)


def skirt(p: Painter, look: Look) -> None:
    """A skirt: pleated, straight or flared."""
    rng = p.rng
    waist, hem, low = rng.uniform(0.32, 0.38), rng.uniform(0.55, 0.85), rng.uniform(0.45, 0.75)
    outline = mirrored(
        [
            (0, -0.6),
            (waist, -0.6, 0),
            (waist + (hem - waist) * 0.5, -0.1),
            (hem, low, 0),
            (hem * 0.5, low + 0.06),
            (0, low + 0.08),
        ]
    )
    p.cloth(outline, look, folds=1.0, hang=0.2)
    pleats = int(rng.integers(5, 10)) if rng.random() < 0.6 else 3
    for at in np.linspace(-0.85, 0.85, pleats):
        _crease(
            p, [(at * waist, -0.52), (at * (waist + hem) / 2, 0), (at * hem, low + 0.04)], 0.34 if pleats > 3 else 0.2
        )
    p.blob(box(-waist - 0.01, -0.68, waist + 0.01, -0.53, 0.03), look.plain(0.8), depth=0.05)
    if rng.random() < 0.5:
        p.blob(ellipse(waist * 0.5, -0.6, 0.035, 0.035), Look("metal", (0.85, 0.7, 0.4)), depth=0.03)


def cap(p: Painter, look: Look) -> None:
    """A baseball cap from the side: panels, a button, a peak."""
    rng = p.rng
    peak_look = (
        look.plain(0.78)
        if rng.random() < 0.5
        else Look(look.material, look.colour, look.accent, look.pattern, look.scale)
    )
    high = rng.uniform(0.6, 0.72)
    dome = curve(
        [
            (-0.62, 0.22, 0),
            (-0.64, -0.1),
            (-0.42, -high * 0.78),
            (0, -high),
            (0.36, -high * 0.8),
            (0.55, -0.2),
            (0.56, 0.2, 0),
            (0.2, 0.3),
            (-0.3, 0.32),
        ]
    )
    p.blob(dome, look, depth=0.42)
    dark = mixed(look.colour, (0, 0, 0), 0.5)
    p.line(curve([(0, -high), (0.12, -0.3), (0.1, 0.28)], closed=False), dark, 0.016, 0.7)
    p.line(curve([(0, -high), (-0.3, -0.3), (-0.38, 0.28)], closed=False), dark, 0.016, 0.7)
    for x, y in ((-0.13, -0.34), (0.3, -0.3)):
        p.flat(ellipse(x, y, 0.028, 0.024), dark, 0.9)
    visor = curve(
        [(0.02, 0.27, 0), (0.3, 0.18), (0.56, 0.1), (0.86, 0.16), (1.06, 0.32), (1.0, 0.4), (0.7, 0.36), (0.35, 0.38)]
    )
    p.blob(visor, peak_look, depth=0.1)
    for share in (0.9, 0.8):
        p.line(
            moved(visor, 0.055 * (1 - share) * 10 - 0.02, 0.03 * (1 - share), scale=share)[28:70],
            dark,
            0.012,
            0.5,
            dash=0.05,
        )
    p.blob(ellipse(-0.01, -high, 0.055, 0.035), look.plain(0.75), depth=0.04)


def scarf(p: Painter, look: Look) -> None:
    """A scarf looped once, its two fringed ends hanging."""
    rng = p.rng
    wide = rng.uniform(0.27, 0.34)
    lean = rng.uniform(0.04, 0.16)
    for side, low in ((-1, rng.uniform(0.7, 0.8)), (1, rng.uniform(0.5, 0.78))):
        x = side * (0.14 + lean)
        for at in np.linspace(-wide / 2 + 0.03, wide / 2 - 0.03, 7):
            p.bar(
                stroke([(x + at, low - 0.02), (x + at + side * 0.015, low + 0.16)], 0.026),
                look.plain(0.9),
                0.026,
                drop=0,
            )
        end = curve(
            [
                (side * 0.1 - wide / 2, -0.35),
                (side * 0.1 + wide / 2, -0.35),
                (x + wide / 2, low, 0),
                (x - wide / 2, low, 0),
            ]
        )
        p.cloth(end, look, folds=1.2, bevel=0.09, hang=0.3)
    behind = [(0.42, -0.48), (0.26, -0.68), (0, -0.74), (-0.26, -0.68), (-0.42, -0.48)]
    before = [(-0.47, -0.56), (-0.4, -0.32), (-0.14, -0.18), (0.16, -0.18), (0.42, -0.34), (0.47, -0.56)]
    p.flat(ellipse(0, -0.54, 0.32, 0.15), mixed(look.colour, (0, 0, 0), 0.75))
    p.bar(stroke(behind, wide * 0.66), look, wide * 0.6)
    p.bar(stroke(before, [wide * 0.7, wide * 1.15, wide * 0.7]), look, wide * 1.1)
    _crease(p, [(-0.44, -0.44), (-0.1, -0.24), (0.4, -0.42)], 0.3)
    _crease(p, [(-0.34, -0.26), (0, -0.12), (0.3, -0.2)], 0.22)


def mitten(p: Painter, look: Look) -> None:
    """A pair of mittens, the second half hidden."""
    rng = p.rng
    hand = curve(
        [
            (-0.3, 0.35),
            (-0.33, -0.1),
            (-0.27, -0.5),
            (-0.02, -0.68),
            (0.22, -0.52),
            (0.29, -0.15),
            (0.42, -0.27),
            (0.52, -0.4),
            (0.65, -0.32),
            (0.6, -0.1),
            (0.44, 0.15),
            (0.32, 0.35),
        ]
    )
    apart = rng.uniform(0.4, 0.46)
    for number, (dx, turn) in enumerate(((-apart, rng.uniform(-4, 10)), (apart, rng.uniform(-10, 4)))):
        shape = flipped(hand) if number == 0 else hand
        p.cloth(moved(shape, dx, 0.02, turn=turn), look, folds=0.8, bevel=0.2, drop=0.5)
        angle = np.radians(turn)
        x, y = dx - np.sin(angle) * 0.46, 0.02 + np.cos(angle) * 0.46
        _ribbed(p, x - 0.28, y - 0.14, x + 0.28, y + 0.14, look, turn=turn)


def sock(p: Painter, look: Look) -> None:
    """A pair of socks from the side, heel and toe in the plain colour."""
    rng = p.rng
    long = rng.uniform(0.75, 0.95)
    foot = curve(
        [
            (-0.2, -long),
            (0.2, -long),
            (0.21, -0.1),
            (0.3, 0.18),
            (0.62, 0.36),
            (0.72, 0.55),
            (0.6, 0.7),
            (0.2, 0.66),
            (-0.16, 0.56),
            (-0.27, 0.34),
            (-0.2, 0.02),
        ]
    )
    heel = curve([(-0.21, 0.1), (-0.27, 0.34), (-0.16, 0.56), (0.04, 0.62), (-0.02, 0.4)])
    toe = curve([(0.52, 0.32), (0.64, 0.38), (0.72, 0.55), (0.6, 0.7), (0.46, 0.69), (0.44, 0.5)])
    for dx, dy, turn in ((0.14, -0.06, rng.uniform(-12, -4)), (-0.22, 0.1, rng.uniform(0, 6))):
        p.cloth(moved(foot, dx, dy, turn=turn), look, folds=0.8, bevel=0.16, drop=0.5)
        for part in (heel, toe):
            p.cloth(moved(part, dx, dy, turn=turn), look.plain(0.72), folds=0.5, bevel=0.1, drop=0)
        angle = np.radians(turn)
        x, y = dx + np.sin(angle) * long, dy - np.cos(angle) * long
        _ribbed(p, x - 0.21, y - 0.07, x + 0.21, y + 0.14, look, turn=turn)
