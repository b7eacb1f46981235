"""Things for the home: mug, teapot, vase, bottle, lamp, chair, sofa, cushion."""

import numpy as np

from demo_catalogue.curves import box, curve, ellipse, mirrored, moved, stroke
from demo_catalogue.painter import BRASS, INK, OAK, STEEL, WALNUT, Look, Painter, mixed
from demo_catalogue.surfaces import Profile

DARK = (0.06, 0.05, 0.05)


def _opening(
    p: Painter, look: Look, radius: float, y: float, tilt: float, filled: tuple[float, float, float] | None
) -> None:
    """The rim of a vessel and what one sees in it."""
    p.flat(ellipse(0, y, radius, radius * tilt), mixed(look.colour, (1, 1, 1), 0.35), 0.9)
    inner = radius * 0.9
    inside = mixed(look.colour, (0.1, 0.09, 0.09), 0.55)
    p.flat(ellipse(0, y + 0.005, inner, inner * tilt), inside, 0.55 if look.material == "glass" else 1.0)
    if filled:
        p.flat(ellipse(0, y + radius * tilt * 0.3, inner * 0.93, inner * tilt * 0.68), filled, 0.9)
    p.flat(ellipse(0, y - radius * tilt * 0.25, inner * 0.92, inner * tilt * 0.6), (1, 1, 1), 0.08)


def mug(p: Painter, look: Look) -> None:
    """A mug: straight, tapered or bellied, with one of three handles."""
    rng = p.rng
    tilt = rng.uniform(0.16, 0.3)
    r, h = rng.uniform(0.46, 0.56), rng.uniform(0.5, 0.66)
    kind = rng.integers(3)
    if kind == 0:
        spots = [(r, -h), (r, 0), (r * 0.98, h - 0.05), (r * 0.92, h)]
    elif kind == 1:
        spots = [(r * 1.08, -h), (r * 0.98, 0), (r * 0.82, h - 0.06), (r * 0.74, h)]
    else:
        spots = [(r * 0.92, -h), (r * 0.98, -h * 0.4), (r * 1.08, h * 0.3), (r * 0.9, h * 0.85), (r * 0.72, h)]
    handle = look.plain(0.97)
    top, low = -h * rng.uniform(0.5, 0.66), h * rng.uniform(0.35, 0.6)
    reach = rng.uniform(0.3, 0.42)
    if rng.random() < 0.35:
        loop = [(r - 0.08, top), (r + reach, top, 0), (r + reach, low * 0.6), (r - 0.12, low)]
    else:
        loop = [
            (r - 0.1, top),
            (r + reach * 0.75, top - 0.02),
            (r + reach, (top + low) / 2),
            (r + reach * 0.6, low),
            (r - 0.12, low + 0.03),
        ]
    width = rng.uniform(0.12, 0.17)
    p.bar(stroke(loop, width), handle, width)
    body = Profile.through(spots, tilt)
    p.turned(body, look)
    drink = [(0.25, 0.14, 0.08), (0.55, 0.33, 0.16), None, None][int(rng.integers(4))]
    _opening(p, look, *body.top, tilt, drink)


def teapot(p: Painter, look: Look) -> None:
    """A round pot with a spout, a lid and a handle behind or above."""
    rng = p.rng
    tilt, r, h = 0.16, rng.uniform(0.5, 0.56), rng.uniform(0.36, 0.46)
    plain = look.plain()
    tip = rng.uniform(0.3, 0.42)
    spout = curve(
        [
            (-r * 0.75, 0.22),
            (-r - 0.18, 0.02),
            (-r - 0.3, -tip, 0),
            (-r - 0.17, -tip - 0.05, 0),
            (-r - 0.06, -0.14),
            (-r * 0.7, -0.12),
        ]
    )
    p.blob(spout, plain, depth=0.12)
    p.flat(moved(ellipse(0, 0, 0.075, 0.03), -r - 0.235, -tip - 0.025, turn=20), DARK, 0.7)
    if rng.random() < 0.6:
        loop = [(r * 0.75, -0.24), (r + 0.3, -0.3), (r + 0.36, 0.0), (r + 0.12, 0.24), (r * 0.8, 0.24)]
        p.bar(stroke(loop, [0.11, 0.13, 0.08]), plain, 0.12)
    else:
        arch = [(-r * 0.7, -0.28), (-r * 0.62, -0.8), (0, -1.0), (r * 0.62, -0.8), (r * 0.7, -0.28)]
        p.bar(stroke(arch, 0.085), OAK if rng.random() < 0.5 else plain, 0.085)
    belly = Profile.through(
        [
            (r * 0.5, -h),
            (r * 0.86, -h * 0.72),
            (r, 0.02),
            (r * 0.86, h * 0.75),
            (r * 0.58, h + 0.06),
            (r * 0.58, h + 0.1),
        ],
        tilt,
    )
    p.turned(belly, look)
    lid = Profile.through([(0.03, -h - 0.19), (r * 0.3, -h - 0.15), (r * 0.52, -h - 0.03), (r * 0.54, -h + 0.01)], tilt)
    p.turned(lid, plain, drop=0.45)
    p.blob(ellipse(0, -h - 0.25, 0.085, 0.08), plain if rng.random() < 0.6 else OAK, depth=0.08)


def vase(p: Painter, look: Look) -> None:
    """A vase of one of five profiles, sometimes with twigs."""
    rng = p.rng
    tilt = rng.uniform(0.14, 0.24)
    kinds = [
        [(0.2, -0.85), (0.17, -0.6), (0.3, -0.3), (0.5, 0.15), (0.42, 0.6), (0.27, 0.82)],
        [(0.3, -0.8), (0.27, -0.68), (0.52, -0.25), (0.5, 0.1), (0.3, 0.6), (0.25, 0.82)],
        [(0.36, -0.8), (0.3, -0.3), (0.3, 0.3), (0.36, 0.75), (0.36, 0.82)],
        [(0.13, -0.9), (0.11, -0.45), (0.18, -0.1), (0.52, 0.3), (0.46, 0.7), (0.32, 0.84)],
        [(0.5, -0.55), (0.42, -0.2), (0.24, 0.15), (0.3, 0.45), (0.44, 0.7), (0.44, 0.78)],
    ]
    spots = kinds[int(rng.integers(len(kinds)))]
    wide = rng.uniform(0.92, 1.1)
    body = Profile.through([(r * wide, y) for r, y in spots], tilt)
    radius, top = body.top
    if rng.random() < 0.4:
        leaf = Look("cotton", mixed((0.3, 0.45, 0.25), (0.7, 0.6, 0.35), rng.random()))
        for lean in rng.uniform(-0.45, 0.45, size=3):
            end = (lean, max(top - rng.uniform(0.35, 0.6), -1.25))
            stem = stroke([(lean * 0.15, top + 0.2), (lean * 0.4, (top + end[1]) / 2), end], 0.025)
            p.bar(stem, Look("wood", (0.4, 0.36, 0.22)), 0.025, drop=0)
            for share in (0.35, 0.6, 0.85, 1.0):
                x, y = lean * share, top + (end[1] - top) * share
                for side in (-1, 1):
                    blade = moved(ellipse(0.1, 0, 0.1, 0.042), x, y, turn=-90 + lean * 60 + side * 50)
                    p.blob(blade, leaf, depth=0.05, drop=0)
    p.turned(body, look)
    _opening(p, look, radius, top, tilt, None)


def bottle(p: Painter, look: Look) -> None:
    """A bottle with a shoulder, a neck and a cap of another material."""
    rng = p.rng
    tilt, r = 0.15, rng.uniform(0.26, 0.36)
    kind = rng.integers(3)
    if kind == 0:
        spots = [(r * 0.36, -0.72), (r * 0.38, -0.42), (r * 0.95, -0.1), (r, 0.1), (r, 0.82), (r * 0.9, 0.88)]
        neck = r * 0.36
    elif kind == 1:
        spots = [(r * 0.62, -0.72), (r * 0.62, -0.6), (r, -0.42), (r, 0), (r, 0.8), (r * 0.94, 0.88)]
        neck = r * 0.62
    else:
        spots = [
            (r * 0.5, -0.72),
            (r * 0.5, -0.5),
            (r * 0.9, -0.28),
            (r * 1.02, 0.05),
            (r * 0.86, 0.4),
            (r * 0.98, 0.7),
            (r * 0.9, 0.88),
        ]
        neck = r * 0.5
    body = Profile.through(spots, tilt)
    p.turned(body, look)
    cap = [STEEL, OAK, INK, BRASS][int(rng.integers(4))]
    height = rng.uniform(0.14, 0.22)
    top = Profile.through(
        [(neck * 0.98, -0.72 - height), (neck * 1.12, -0.72 - height * 0.5), (neck * 1.12, -0.68)], tilt
    )
    p.turned(top, cap)
    p.flat(ellipse(0, -0.72 - height, neck * 0.96, neck * 0.96 * tilt), mixed(cap.colour, (1, 1, 1), 0.25))
    if kind == 1 and rng.random() < 0.6:
        ring = [
            (-neck * 0.5, -0.74 - height),
            (-neck * 0.7, -0.98),
            (0, -1.06),
            (neck * 0.7, -0.98),
            (neck * 0.5, -0.74 - height),
        ]
        p.bar(stroke(ring, 0.045), cap, 0.045)


def lamp(p: Painter, look: Look) -> None:
    """A table lamp: the shade wears the look, the foot is wood, brass or ceramic."""
    rng = p.rng
    foot = [OAK, WALNUT, BRASS, STEEL, Look("ceramic", (0.9, 0.88, 0.83))][int(rng.integers(5))]
    kind = rng.integers(3)
    p.turned(Profile.through([(0.06, 0.76), (0.3, 0.8), (0.33, 0.88)], 0.16), foot)
    if kind == 0:
        p.turned(Profile.through([(0.045, -0.2), (0.045, 0.82)], 0.1), foot)
    elif kind == 1:
        p.turned(Profile.through([(0.05, -0.1), (0.1, 0.05), (0.24, 0.4), (0.2, 0.7), (0.1, 0.82)], 0.15), foot)
    else:
        for y in (0.22, 0.47, 0.7):
            p.blob(ellipse(0, y, 0.17, 0.135), foot, depth=0.15)
        p.turned(Profile.through([(0.04, -0.1), (0.04, 0.12)], 0.1), foot)
    top, low = rng.uniform(0.24, 0.45), rng.uniform(0.56, 0.66)
    bulge = rng.choice([0.0, 0.0, 0.1, -0.06])
    h0, h1 = -0.85, rng.uniform(0.02, 0.12)
    tilt = 0.12
    p.flat(ellipse(0, h1, low, low * tilt), (1.0, 0.93, 0.72))
    shade = Profile.through([(top, h0), ((top + low) / 2 + bulge, (h0 + h1) / 2), (low, h1)], tilt)
    p.turned(shade, look)
    if rng.random() < 0.55:  # the lamp is on
        for radius, opacity in ((0.42, 0.1), (0.3, 0.12), (0.18, 0.14)):
            p.flat(ellipse(0, h1 - 0.3, radius, radius * 0.9), (1.0, 0.9, 0.62), opacity, blur=0.09)
    p.flat(ellipse(0, h0, top, top * tilt), mixed(look.colour, (0.2, 0.18, 0.15), 0.35), 0.7)


def chair(p: Painter, look: Look) -> None:
    """A chair seen from the front and above; the back and the seat wear the look."""
    rng = p.rng
    legs = look.plain(0.85) if look.material == "wood" else [OAK, WALNUT, STEEL, INK][int(rng.integers(4))]
    w, seat = rng.uniform(0.42, 0.5), rng.uniform(0.02, 0.1)
    thick = 0.09 if legs.material == "wood" else 0.06
    for side in (-1, 1):
        p.bar(stroke([(side * w * 0.72, seat), (side * w * 0.78, 0.72)], thick * 0.9), legs.plain(0.75), thick)
        p.bar(stroke([(side * w * 0.8, seat), (side * w * 0.8, -0.4)], thick), legs, thick)
    kind = rng.integers(3)
    if kind == 0:
        back = mirrored(
            [(0, -0.98), (w * 0.72, -0.93), (w * 0.95, -0.72), (w * 0.9, -0.3), (w * 0.7, -0.16), (0, -0.14)]
        )
        p.blob(back, look, depth=0.1)
    elif kind == 1:
        p.blob(box(-w * 0.95, -0.95, w * 0.95, -0.2, 0.09), look, depth=0.07)
    else:
        for share in (0.0, 0.36, 0.72):
            y = -0.93 + share * 0.75
            rail = curve(
                [
                    (-w * 0.92, y),
                    (0, y - 0.05),
                    (w * 0.92, y),
                    (w * 0.92, y + 0.19),
                    (0, y + 0.14),
                    (-w * 0.92, y + 0.19),
                ]
            )
            p.blob(rail, look, depth=0.06)
    for side in (-1, 1):
        p.bar(
            stroke([(side * w * 0.98, seat + 0.12), (side * w * 1.08, 0.95)], [thick * 1.15, thick * 0.85]), legs, thick
        )
    if legs.material == "wood":
        p.bar(stroke([(-w * 1.02, 0.52), (w * 1.02, 0.52)], 0.05), legs, 0.05)
    pad = curve(
        [
            (-w * 0.82, seat - 0.13),
            (0, seat - 0.16),
            (w * 0.82, seat - 0.13),
            (w * 1.12, seat + 0.12),
            (w * 1.08, seat + 0.24),
            (0, seat + 0.27),
            (-w * 1.08, seat + 0.24),
            (-w * 1.12, seat + 0.12),
        ]
    )
    p.blob(pad, look, depth=0.11)


def sofa(p: Painter, look: Look) -> None:
    """A sofa with arms, two or three seats and short legs."""
    rng = p.rng
    w, seats = rng.uniform(0.86, 0.98), int(rng.integers(2, 4))
    arm = rng.uniform(0.15, 0.2)
    high = rng.uniform(0.42, 0.55)
    feet = [OAK, WALNUT, STEEL][int(rng.integers(3))]
    for x in (-w + 0.16, w - 0.16, -w + 0.4, w - 0.4):
        p.bar(stroke([(x, 0.42), (x + 0.03 * np.sign(x), 0.62)], [0.07, 0.045]), feet, 0.06)
    p.blob(box(-w + arm * 0.5, -high, w - arm * 0.5, 0.35, rng.uniform(0.1, 0.28)), look, depth=0.16)
    inner = w - arm
    step = 2 * inner / seats
    for number in range(seats):
        x = -inner + number * step
        p.blob(box(x + 0.005, -high + 0.1, x + step - 0.005, 0.16, 0.09), look, depth=0.12, drop=0.5)
    for number in range(seats):
        x = -inner + number * step
        p.blob(box(x + 0.004, 0.06, x + step - 0.004, 0.26, 0.06), look, depth=0.1, drop=0.5)
    p.blob(box(-inner, 0.24, inner, 0.46, 0.03), look, depth=0.06)
    rolled = rng.random() < 0.5
    for side in (-1, 1):
        x0, x1 = sorted((side * inner, side * w))
        if rolled:
            p.blob(box(x0, -0.04, x1, 0.48, 0.05), look, depth=0.08)
            p.blob(ellipse((x0 + x1) / 2, -0.06, arm * 0.68, arm * 0.62), look, depth=0.14)
        else:
            p.blob(box(x0, -0.14, x1, 0.48, 0.09), look, depth=0.1)


def cushion(p: Painter, look: Look) -> None:
    """A stuffed square or oblong with pointed corners, now and then piped, buttoned or tasselled."""
    rng = p.rng
    w = rng.uniform(0.68, 0.8)
    h = w * rng.choice([1.0, 1.0, 0.68])
    hollow = rng.uniform(0.86, 0.94)
    spots = [
        (0, -h * hollow),
        (w * 0.6, -h * 0.93),
        (w, -h, 0),
        (w * 0.93, -h * 0.5),
        (w * hollow, 0),
        (w * 0.93, h * 0.5),
        (w, h, 0),
        (w * 0.6, h * 0.93),
        (0, h * hollow),
    ]
    outline = mirrored(spots)
    trim = rng.integers(3)
    if trim == 1:
        for x in (-w, w):
            for y in (-h, h):
                p.bar(stroke([(x, y), (x * 1.1, y * 1.12)], [0.05, 0.12]), look.plain(0.8), 0.1)
    p.blob(outline, look, depth=0.62, soft=0.3)
    if trim == 0:
        p.line(np.concatenate([outline, outline[:1]]) * 0.985, mixed(look.colour, (0, 0, 0), 0.35), 0.03, 0.8)
    if rng.random() < 0.25:
        p.flat(ellipse(0, 0, 0.16, 0.14), (0, 0, 0), 0.35, blur=0.05)
        p.blob(ellipse(0, 0, 0.06, 0.06), look.plain(0.9), depth=0.05)
