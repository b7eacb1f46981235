"""Patterns: where the second colour shows, as a field in 0..1 over texture coordinates (object units)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from demo_catalogue.surfaces import Field

Rng = np.random.Generator
SOFT = 0.012


class Noise:
    """Smooth value noise on an endless plane, a function of its generator's state when made."""

    def __init__(self, rng: Rng) -> None:
        self.lattice = rng.random((64, 64), dtype=np.float32)

    def __call__(self, x: Field, y: Field) -> Field:
        """Noise in 0..1 with features of size one."""
        x, y = x + np.float32(500.0), y + np.float32(500.0)
        column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        fx, fy = x - column, y - row
        fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
        c0, c1, r0, r1 = column % 64, (column + 1) % 64, row % 64, (row + 1) % 64
        grid = self.lattice
        top = grid[r0, c0] * (1 - fx) + grid[r0, c1] * fx
        low = grid[r1, c0] * (1 - fx) + grid[r1, c1] * fx
        return np.asarray(top * (1 - fy) + low * fy, dtype=np.float32)

    def layered(self, x: Field, y: Field, octaves: int = 3) -> Field:
        """Noise with finer noise on it, in 0..1."""
        total = np.zeros_like(x)
        weight = 0.0
        for octave in range(octaves):
            share = 0.5**octave
            total += share * self(x * 2**octave + 17 * octave, y * 2**octave + 31 * octave)
            weight += share
        return np.asarray(total / weight, dtype=np.float32)


def step(distance: Field) -> Field:
    """1 where `distance` is positive, with a soft edge of a fixed width in object units."""
    return np.asarray(np.clip(distance / SOFT * 0.5 + 0.5, 0.0, 1.0), dtype=np.float32)


def _turned(u: Field, v: Field, degrees: float) -> tuple[Field, Field]:
    angle = np.radians(degrees)
    return (
        np.asarray(np.cos(angle) * u + np.sin(angle) * v, dtype=np.float32),
        np.asarray(-np.sin(angle) * u + np.cos(angle) * v, dtype=np.float32),
    )


def _cell(x: Field, size: float) -> Field:
    """Position in a repeating cell, -size/2..size/2."""
    return np.asarray((x / size - np.floor(x / size) - 0.5) * size, dtype=np.float32)


def striped(u: Field, v: Field, scale: float, rng: Rng) -> Field:
    """Straight bands, lying, standing or aslant."""
    _, across = _turned(u, v, float(rng.choice([0.0, 0.0, 90.0, 90.0, 45.0])))
    period = 0.26 * scale * rng.uniform(0.85, 1.2)
    share = rng.uniform(0.38, 0.5)
    return step(period * share / 2 - np.abs(_cell(across + rng.uniform(0, 1), period)))


def dotted(u: Field, v: Field, scale: float, rng: Rng) -> Field:
    """Round dots on a staggered grid."""
    u, v = _turned(u, v, rng.uniform(-8, 8))
    period = 0.25 * scale * rng.uniform(0.9, 1.2)
    row = np.floor(v / (period * 0.866))
    x = _cell(u + (row % 2) * period / 2, period)
    y = _cell(v, period * 0.866)
    return step(period * rng.uniform(0.25, 0.31) - np.hypot(x, y))


def checked(u: Field, v: Field, scale: float, rng: Rng) -> Field:
    """Two sets of bands that are darker where they cross, as in woven gingham."""
    u, v = _turned(u, v, float(rng.choice([0.0, 0.0, 45.0])))
    period = 0.26 * scale * rng.uniform(0.9, 1.15)
    lying = step(period / 4 - np.abs(_cell(v + 0.3, period)))
    standing = step(period / 4 - np.abs(_cell(u + 0.1, period)))
    return np.asarray(0.5 * (lying + standing), dtype=np.float32)


def floral(u: Field, v: Field, scale: float, rng: Rng) -> Field:
    """Five-petalled flowers with a bare centre, each turned and sized its own way."""
    period = 0.34 * scale * rng.uniform(0.9, 1.15)
    table = rng.random((32, 32, 4), dtype=np.float32)
    row = np.floor(v / period).astype(np.int64)
    u = u + np.float32(period / 2) * (row % 2)
    column = np.floor(u / period).astype(np.int64)
    chance = table[row % 32, column % 32]
    x = _cell(u, period) + (chance[..., 0] - 0.5) * period * 0.25
    y = _cell(v, period) + (chance[..., 1] - 0.5) * period * 0.25
    radius = period * (0.36 + 0.1 * chance[..., 2])
    angle = np.arctan2(y, x) + chance[..., 3] * 6.28
    petals = radius * (0.62 + 0.38 * np.cos(5 * angle))
    distance = np.hypot(x, y)
    flower = step(petals - distance)
    return np.asarray(flower * (1 - step(radius * 0.24 - distance)), dtype=np.float32)


def zigzag(u: Field, v: Field, scale: float, rng: Rng) -> Field:
    """Chevrons: bands that run up and down."""
    u, v = _turned(u, v, float(rng.choice([0.0, 0.0, 90.0])))
    period = 0.27 * scale * rng.uniform(0.9, 1.15)
    wave = 2 * np.abs(_cell(u, period * 1.25))
    return step(period * 0.23 - np.abs(_cell(v + wave, period)))


PATTERNS: dict[str, Callable[[Field, Field, float, Rng], NDArray[np.float32]]] = {
    "striped": striped,
    "polka dot": dotted,
    "checked": checked,
    "floral": floral,
    "zigzag": zigzag,
}
