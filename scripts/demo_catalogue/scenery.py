"""What stands behind a product, the light that falls on it, and the finished picture."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from demo_catalogue.painter import Colour, Painter
from demo_catalogue.patterns import Noise
from demo_catalogue.surfaces import Field

Rng = np.random.Generator
PASTELS: tuple[Colour, ...] = (
    (0.95, 0.86, 0.84),
    (0.86, 0.92, 0.95),
    (0.89, 0.94, 0.87),
    (0.96, 0.93, 0.83),
    (0.91, 0.88, 0.95),
    (0.87, 0.94, 0.92),
)


def _plane(size: int) -> tuple[Field, Field]:
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    return x, y


def _filled(size: int, colour: Colour) -> Field:
    return np.broadcast_to(np.asarray(colour, np.float32), (size, size, 3)).copy()


def studio(size: int, rng: Rng) -> Field:
    """A grey paper roll: brighter where the lamp stands."""
    x, y = _plane(size)
    level = float(rng.choice([rng.uniform(0.84, 0.97), rng.uniform(0.84, 0.97), rng.uniform(0.3, 0.6)]))
    warm = rng.uniform(-0.02, 0.02)
    glow = 1.0 - 0.35 * np.hypot(x - rng.uniform(0.3, 0.7), y - rng.uniform(0.25, 0.6)) ** 1.5
    return np.asarray(_filled(size, (level + warm, level, level - warm)) * glow[..., None], np.float32)


def pastel(size: int, rng: Rng) -> Field:
    """One pale colour, a little darker to one side."""
    x, y = _plane(size)
    colour = PASTELS[int(rng.integers(len(PASTELS)))]
    slope = rng.uniform(-0.12, 0.12) * (x - 0.5) + rng.uniform(-0.1, 0.1) * (y - 0.5)
    return np.asarray(_filled(size, colour) * (1 + slope)[..., None], np.float32)


def room(size: int, rng: Rng) -> Field:
    """A wall and a table top that meet in a soft line."""
    _, y = _plane(size)
    wall = np.asarray(PASTELS[int(rng.integers(len(PASTELS)))]) * rng.uniform(0.82, 1.0)
    table = wall * rng.uniform(0.76, 0.9) if rng.random() < 0.6 else np.array([0.93, 0.92, 0.9])
    share = np.clip((y - rng.uniform(0.6, 0.74)) / 0.02 + 0.5, 0, 1)[..., None]
    return np.asarray(wall + (table - wall) * share, np.float32) * np.asarray(1.03 - 0.1 * y, np.float32)[..., None]


def wood(size: int, rng: Rng) -> Field:
    """Boards, lying or standing."""
    noise = Noise(rng)
    x, y = _plane(size)
    if rng.random() < 0.5:
        x, y = y, x
    tone = np.asarray([(0.79, 0.66, 0.5), (0.66, 0.5, 0.35), (0.86, 0.79, 0.69)][int(rng.integers(3))])
    boards = rng.uniform(2.5, 4.5)
    row = np.floor(y * boards)
    own = noise(row * 9.7, row * 3.1)
    grain = noise.layered(x * 2.2 + row * 13, y * 34, 2)
    gap = np.clip(np.abs(y * boards - np.round(y * boards)) * size / boards / 3, 0, 1)
    value = (0.84 + 0.14 * own + 0.2 * (grain - 0.5)) * (0.72 + 0.28 * gap)
    return np.asarray(tone * value[..., None] * 1.12, np.float32)


def fabric(size: int, rng: Rng) -> Field:
    """A cloth spread out, with soft folds."""
    noise = Noise(rng)
    x, y = _plane(size)
    tone = np.asarray(
        [(0.88, 0.85, 0.79), (0.78, 0.78, 0.79), (0.74, 0.78, 0.8), (0.86, 0.79, 0.75)][int(rng.integers(4))]
    )
    folds = noise.layered(x * 2.6 + y, y * 2.6 - x, 3)
    weave = 0.1 * (noise(x * 6, y * 110) + noise(x * 110, y * 6 + 40) - 1.0)
    return np.asarray(tone * (0.86 + 0.26 * folds + weave)[..., None], np.float32)


def plaster(size: int, rng: Rng) -> Field:
    """Rough plaster or concrete."""
    noise = Noise(rng)
    x, y = _plane(size)
    tone = np.asarray([(0.8, 0.79, 0.77), (0.68, 0.68, 0.67), (0.85, 0.8, 0.74)][int(rng.integers(3))])
    value = 0.88 + 0.2 * (noise.layered(x * 5, y * 5, 4) - 0.4) + 0.05 * noise(x * 60, y * 60)
    return np.asarray(tone * value[..., None], np.float32)


def sunlit(size: int, rng: Rng) -> Field:
    """A pale wall with the light of a window on it."""
    x, y = _plane(size)
    tone = np.asarray(PASTELS[int(rng.integers(len(PASTELS)))]) * 0.86
    lean = rng.uniform(-0.5, 0.5)
    across = (x + lean * y - rng.uniform(-0.1, 0.2)) * 3.1
    down = (y - 0.3 * x * lean + rng.uniform(-0.1, 0.1)) * 2.4
    pane = (np.abs(across - np.round(across)) > 0.09) & (np.abs(down - np.round(down)) > 0.07)
    pane &= (across > 0.0) & (across < 3.0) & (down > 0.0) & (down < 2.0)
    light = ndimage.gaussian_filter(pane.astype(np.float32), size * 0.018)
    return np.asarray(tone * (0.9 + 0.28 * light)[..., None], np.float32)


SCENES: tuple[Callable[[int, Rng], Field], ...] = (studio, studio, pastel, room, wood, fabric, plaster, sunlit)
STANDING_SCENES: tuple[Callable[[int, Rng], Field], ...] = (studio, studio, pastel, room, room, plaster, sunlit)


def shadow(alpha: Field, light: NDArray[np.float64], standing: bool, rng: Rng) -> Field:
    """How dark the ground is under and beside the product, 0..1."""
    size = alpha.shape[0]
    reach = size * rng.uniform(0.025, 0.05)
    offset = -light[:2] / (np.linalg.norm(light[:2]) + 1e-6) * reach
    soft = ndimage.gaussian_filter(
        ndimage.shift(alpha, (offset[1] * 0.8 + size * 0.008, offset[0]), order=0), reach * 0.6
    )
    if not standing:
        return np.asarray(0.42 * soft, np.float32)
    rows = np.flatnonzero(alpha.max(axis=1) > 0.4)
    floor = int(rows[-1]) if len(rows) else size - 1
    # The shadow on the floor: the silhouette pressed flat and laid to the side away from the light.
    pressed = np.zeros_like(alpha)
    columns = np.arange(size)
    for number, row in enumerate(range(floor, max(floor - int(size * 0.62), 0), -4)):
        lay = floor - number * 0.55
        at = round(lay)
        if at < 0:
            break
        moved = columns + round(float(np.sign(light[0])) * number * 1.1)
        moved = np.clip(moved, 0, size - 1)
        pressed[at] = np.maximum(pressed[at], alpha[row, moved])
    pressed = ndimage.grey_dilation(pressed, size=(3, 1))
    cast = ndimage.gaussian_filter(pressed, (size * 0.012, size * 0.02))
    touch = np.zeros_like(alpha)
    low = alpha[max(floor - int(size * 0.035), 0) : floor + 1].max(axis=0)
    touch[max(floor - int(size * 0.012), 0) : min(floor + int(size * 0.012), size)] = low
    contact = ndimage.gaussian_filter(touch, (size * 0.012, size * 0.016))
    return np.asarray(np.clip(0.5 * cast + 0.75 * contact + 0.1 * soft, 0, 0.8), np.float32)


def finished(painter: Painter, standing: bool, rng: Rng, pixels: int) -> Image.Image:
    """The product on its ground, exposed, with a vignette, at its final size."""
    size = painter.pose.size
    rgb, alpha = painter.picture()
    solid = alpha > 0.3
    mean = (rgb[solid] / alpha[solid][:, None]).mean(axis=0) if solid.any() else np.zeros(3)
    scenes = STANDING_SCENES if standing else SCENES
    ground = scenes[int(rng.integers(len(scenes)))](size, rng)
    for _ in range(4):  # a product that its ground swallows gets another one
        if np.abs(ground.mean(axis=(0, 1)) - mean).max() > 0.2:
            break
        ground = scenes[int(rng.integers(len(scenes)))](size, rng)
    dark = shadow(alpha, painter.light, standing, rng)[..., None]
    ground = ground * (1.0 - dark * np.array([0.95, 0.97, 1.0], dtype=np.float32) * 0.9)
    image = rgb + ground * (1.0 - alpha[..., None])
    x, y = _plane(size)
    image = image * (1.0 - rng.uniform(0.0, 0.22) * ((x - 0.5) ** 2 + (y - 0.5) ** 2) * 2)[..., None]
    warmth = rng.uniform(-0.025, 0.03)
    image = image * np.array([1 + warmth, 1.0, 1 - warmth]) * rng.uniform(0.93, 1.05)
    full = Image.fromarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8))
    return full.resize((pixels, pixels), Image.Resampling.LANCZOS)
