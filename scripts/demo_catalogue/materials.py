"""Materials: how a surface is rough, how it takes light, and what its colour does.

Every material answers three questions over texture coordinates in object units: the fine relief (`relief`), what
the relief's nature does to the colour (`tint`, a factor around 1) and how light comes back (`gloss`, …).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from demo_catalogue.patterns import Noise
from demo_catalogue.surfaces import Field

Texture = Callable[[Field, Field, Noise], Field]


def _none(u: Field, v: Field, noise: Noise) -> Field:
    return np.zeros_like(u)


def _one(u: Field, v: Field, noise: Noise) -> Field:
    return np.ones_like(u)


def _wave(x: Field) -> Field:
    return np.asarray(0.5 + 0.5 * np.cos(2 * np.pi * x), dtype=np.float32)


def _knit_relief(u: Field, v: Field, noise: Noise) -> Field:
    """Columns of V-shaped stitches."""
    x, y = u / 0.085, v / 0.075
    across = x - np.floor(x)
    lean = np.abs(across - 0.5) * 1.5
    return np.asarray(_wave(y - lean) * np.sqrt(np.sin(np.pi * across).clip(0)) * 0.03, dtype=np.float32)


def _knit_tint(u: Field, v: Field, noise: Noise) -> Field:
    return np.asarray(0.72 + 0.4 * _knit_relief(u, v, noise) / 0.03, dtype=np.float32)


def _twill_relief(u: Field, v: Field, noise: Noise) -> Field:
    return np.asarray(_wave((u + v) / 0.066) * 0.006, dtype=np.float32)


def _twill_tint(u: Field, v: Field, noise: Noise) -> Field:
    """Diagonal threads, pale flecks and worn patches."""
    threads = 0.2 * (_wave((u + v) / 0.066) - 0.5)
    flecks = 0.5 * (noise(u * 40 + v * 18, v * 40 - u * 18) - 0.5)
    worn = 0.5 * (noise.layered(u * 2.2, v * 2.2) - 0.45)
    return np.asarray(1.02 + threads + flecks * 0.6 + worn, dtype=np.float32)


def _weave_relief(u: Field, v: Field, noise: Noise) -> Field:
    """A coarse plain weave: threads over and under."""
    x, y = u / 0.06, v / 0.06
    over = (np.floor(x) + np.floor(y)) % 2
    fx, fy = np.sin(np.pi * (x - np.floor(x))), np.sin(np.pi * (y - np.floor(y)))
    return np.asarray(np.where(over > 0.5, fy * (0.55 + 0.45 * fx), fx * (0.55 + 0.45 * fy)) * 0.011, dtype=np.float32)


def _weave_tint(u: Field, v: Field, noise: Noise) -> Field:
    thread = 0.12 * (noise(u * 1.5, v * 16) + noise(u * 16, v * 1.5 + 9) - 1.0)
    return np.asarray(0.84 + 0.24 * _weave_relief(u, v, noise) / 0.011 + thread, dtype=np.float32)


def _wicker_relief(u: Field, v: Field, noise: Noise) -> Field:
    """Strands that run over one post and under the next."""
    x, y = u / 0.15, v / 0.085
    row = np.floor(y)
    strand = np.sqrt(np.sin(np.pi * (y - row)).clip(0))
    return np.asarray(strand * (0.35 + 0.65 * _wave(x / 2 + (row % 2) / 2)) * 0.045, dtype=np.float32)


def _wicker_tint(u: Field, v: Field, noise: Noise) -> Field:
    x, y = u / 0.15, v / 0.085
    row = np.floor(y)
    own = noise(np.floor(x / 2 + (row % 2) / 2) * 7.3, row * 5.1)
    relief = _wicker_relief(u, v, noise) / 0.045
    return np.asarray((0.42 + 0.68 * relief) * (0.85 + 0.3 * own), dtype=np.float32)


def _leather_relief(u: Field, v: Field, noise: Noise) -> Field:
    """Pebbled grain."""
    grain = np.abs(noise(u * 26, v * 26) - 0.5) + np.abs(noise(u * 41 + 5, v * 41) - 0.5)
    return np.asarray(grain * 0.0055, dtype=np.float32)


def _leather_tint(u: Field, v: Field, noise: Noise) -> Field:
    patina = 0.7 * (noise.layered(u * 1.8 + 40, v * 1.8) - 0.5)
    creases = -0.2 * np.exp(-45 * np.abs(noise.layered(u * 2.6, v * 2.6 + 11, 2) - 0.5))
    return np.asarray(0.97 + patina + creases, dtype=np.float32)


def _wood_tint(u: Field, v: Field, noise: Noise) -> Field:
    """Growth rings cut lengthwise, and pores."""
    bend = noise.layered(u * 0.9, v * 2.2, 2)
    rings = _wave(v * 5.5 + u * 0.6 + bend * 3.2)
    pores = noise(u * 5, v * 48)
    return np.asarray(1.1 - 0.42 * rings**2 - 0.22 * pores, dtype=np.float32)


def _velvet_tint(u: Field, v: Field, noise: Noise) -> Field:
    """Pile brushed this way and that."""
    return np.asarray(0.9 + 0.75 * (noise.layered(u * 3.2, v * 3.2) - 0.5), dtype=np.float32)


def _satin_relief(u: Field, v: Field, noise: Noise) -> Field:
    """Long soft folds that the light runs along."""
    return np.asarray(noise(u * 4.2 + 0.8 * noise(u * 1.5, v * 1.5), v * 1.0) * 0.16, dtype=np.float32)


def _cotton_tint(u: Field, v: Field, noise: Noise) -> Field:
    return np.asarray(0.97 + 0.08 * noise(u * 45, v * 45), dtype=np.float32)


def _brushed_tint(u: Field, v: Field, noise: Noise) -> Field:
    return np.asarray(0.86 + 0.28 * noise(u * 2.2, v * 42), dtype=np.float32)


@dataclass(frozen=True)
class Material:
    """How one material looks.

    diffuse: share of light scattered; wrap: how far light creeps round (soft materials); gloss and shine: width
    and strength of the highlight; rim: light caught at grazing angles (pile); mirror: share of the surroundings
    reflected in the material's own colour (metal); clear: how far one sees through (glass); seam: colour and
    share of the outline that is stitched, none when empty.
    """

    relief: Texture = _none
    tint: Texture = _one
    diffuse: float = 1.0
    wrap: float = 0.25
    gloss: float = 20.0
    shine: float = 0.0
    rim: float = 0.0
    mirror: float = 0.0
    clear: float = 0.0
    seam: str = ""
    folds: float = 0.0
    saturation: float = 1.0


MATERIALS: dict[str, Material] = {
    "ceramic": Material(gloss=90, shine=0.85, wrap=0.3),
    "glass": Material(gloss=160, shine=1.0, clear=0.72, wrap=0.6),
    "metal": Material(tint=_brushed_tint, diffuse=0.42, gloss=38, shine=0.75, mirror=0.8, saturation=0.9),
    "plastic": Material(gloss=26, shine=0.38, wrap=0.55, saturation=1.12),
    "wood": Material(tint=_wood_tint, gloss=14, shine=0.12, saturation=0.86),
    "wicker": Material(relief=_wicker_relief, tint=_wicker_tint, shine=0.06, saturation=0.85),
    "leather": Material(
        relief=_leather_relief, tint=_leather_tint, gloss=16, shine=0.5, seam="pale", saturation=0.92, folds=0.3
    ),
    "denim": Material(relief=_twill_relief, tint=_twill_tint, seam="orange", saturation=0.74, folds=0.5),
    "wool": Material(relief=_knit_relief, tint=_knit_tint, wrap=0.5, folds=0.4),
    "velvet": Material(tint=_velvet_tint, diffuse=0.8, wrap=0.1, rim=0.65, folds=0.7, saturation=1.08),
    "satin": Material(relief=_satin_relief, diffuse=0.75, gloss=9, shine=0.7, wrap=0.1, folds=1.0),
    "canvas": Material(relief=_weave_relief, tint=_weave_tint, wrap=0.3, folds=0.35, saturation=0.9),
    "cotton": Material(tint=_cotton_tint, wrap=0.45, folds=0.8),
    "rubber": Material(gloss=10, shine=0.16, wrap=0.3),
    "card": Material(wrap=0.5),
}
