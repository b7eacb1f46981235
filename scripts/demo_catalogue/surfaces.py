"""Volume: an outline becomes a patch of pixels with a normal and texture coordinates at every pixel.

Suffix legend: `_HW` a crop of the canvas. Normals point at the viewer (z > 0) in canvas axes (x right, y down).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from demo_catalogue.curves import Points, curve, ellipse

Field = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Pose:
    """How object coordinates (about -1..1, y down) lie on the canvas of `size` pixels."""

    size: int
    turn: float
    scale: float
    flip: bool
    shift: tuple[float, float]

    @property
    def matrix(self) -> NDArray[np.float64]:
        """Object axes to canvas axes, in units of half a canvas."""
        angle = np.radians(self.turn)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return np.asarray(rotation @ np.diag([-1.0 if self.flip else 1.0, 1.0]) * self.scale)

    def pixels(self, points: Points) -> Points:
        """Object points to canvas pixels."""
        return np.asarray((points @ self.matrix.T + np.array(self.shift) + 1.0) * (self.size / 2))

    def objects(self, x: Field, y: Field) -> tuple[Field, Field]:
        """Canvas pixels to object coordinates."""
        inverse = np.linalg.inv(self.matrix)
        a = x / (self.size / 2) - 1.0 - self.shift[0]
        b = y / (self.size / 2) - 1.0 - self.shift[1]
        return (
            (inverse[0, 0] * a + inverse[0, 1] * b).astype(np.float32),
            (inverse[1, 0] * a + inverse[1, 1] * b).astype(np.float32),
        )

    @property
    def unit(self) -> float:
        """Pixels in one object unit."""
        return self.scale * self.size / 2


@dataclass
class Surface:
    """A patch: where it lies, what it covers, its normals, its texture coordinates (object units)."""

    rows: slice
    columns: slice
    mask: Field
    normal: tuple[Field, Field, Field]
    u: Field
    v: Field
    edge: Field
    outline: Points


def cropped(pose: Pose, outline: Points) -> tuple[slice, slice, Field, Field, Field]:
    """Rows, columns, mask and object coordinates of the smallest crop that holds the outline."""
    pixels = pose.pixels(outline)
    low = np.clip(np.floor(pixels.min(axis=0)).astype(int) - 2, 0, pose.size - 4)
    high = np.clip(np.ceil(pixels.max(axis=0)).astype(int) + 3, low + 4, pose.size)
    rows, columns = slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))
    image = Image.new("L", (columns.stop - columns.start, rows.stop - rows.start))
    ImageDraw.Draw(image).polygon([(float(x), float(y)) for x, y in pixels - low], fill=255)
    mask = np.asarray(image, dtype=np.float32) / 255.0
    y, x = np.mgrid[rows, columns].astype(np.float32)
    u, v = pose.objects(x, y)
    return rows, columns, mask, u, v


def _edge_distance(pose: Pose, mask: Field) -> Field:
    return np.asarray(ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] / pose.unit, dtype=np.float32)


def normalised(nx: Field, ny: Field, nz: Field) -> tuple[Field, Field, Field]:
    """Unit vectors."""
    length = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-6
    return nx / length, ny / length, nz / length


def inflated(pose: Pose, outline: Points, depth: float, *, soft: float = 0.25) -> Surface:
    """A cushion-like volume: it rises from the outline over the distance `depth`, then lies flat.

    `soft` (share of depth) smooths the ridge that the distance to the outline has in its middle.
    """
    rows, columns, mask, u, v = cropped(pose, outline)
    edge = _edge_distance(pose, mask)
    rise = np.clip(edge / depth, 0.0, 1.0)
    height = depth * np.sqrt(np.clip(1.0 - (1.0 - rise) ** 2, 0.0, 1.0)) * pose.unit
    height = ndimage.gaussian_filter(height, max(soft * depth * pose.unit, 0.8))
    gy, gx = np.gradient(height)
    normal = normalised(-gx, -gy, np.ones_like(gx))
    return Surface(rows, columns, mask, normal, u, v, edge, outline)


def tube(pose: Pose, outline: Points, width: float) -> Surface:
    """A round bar, for outlines made by `stroke` with about this width."""
    return inflated(pose, outline, width * 0.52, soft=0.12)


def sheet(pose: Pose, outline: Points, *, bevel: float = 0.035) -> Surface:
    """A flat thing with a soft edge; `draped` adds folds."""
    return inflated(pose, outline, bevel, soft=0.6)


def draped(surface: Surface, height: Field, pose: Pose) -> Surface:
    """The surface with a height field (object units, on its crop) added to its normals: folds of cloth."""
    gy, gx = np.gradient(height * pose.unit)
    nx, ny, nz = surface.normal
    surface.normal = normalised(nx - gx, ny - gy, nz)
    return surface


@dataclass(frozen=True)
class Profile:
    """A body turned on a lathe: radius as a smooth function of height, seen from slightly above."""

    line: Points
    tilt: float

    @classmethod
    def through(cls, spots: Sequence[Sequence[float]], tilt: float) -> "Profile":
        """Spots are (radius, y), top to bottom; a third value makes a sharp corner."""
        return cls(curve(spots, closed=False, steps=24), tilt)

    def radius(self, y: Field) -> Field:
        """Radius at a height."""
        order = np.argsort(self.line[:, 1], kind="stable")
        return np.asarray(np.interp(y, self.line[order, 1], self.line[order, 0]), dtype=np.float32)

    @property
    def top(self) -> tuple[float, float]:
        """Radius and y of the upper end."""
        return float(self.line[0, 0]), float(self.line[0, 1])

    @property
    def bottom(self) -> tuple[float, float]:
        """Radius and y of the lower end."""
        return float(self.line[-1, 0]), float(self.line[-1, 1])

    def outline(self) -> Points:
        """The silhouette: both sides, the front of the bottom ellipse and the back of the top one."""
        (r0, y0), (r1, y1) = self.top, self.bottom
        under = ellipse(0, y1, r1, r1 * self.tilt, start=0, end=180)
        over = ellipse(0, y0, r0, r0 * self.tilt, start=180, end=360)
        return np.concatenate([self.line, under, (self.line * [-1.0, 1.0])[::-1], over])


def turned(pose: Pose, profile: Profile, *, x: float = 0.0, outline: Points | None = None) -> Surface:
    """A body of revolution about the vertical line at `x`; its texture wraps around it."""
    shape = profile.outline() + np.array([x, 0.0]) if outline is None else outline
    rows, columns, mask, u, v = cropped(pose, shape)
    edge = _edge_distance(pose, mask)
    across = u - np.float32(x)
    radius = np.maximum(profile.radius(v), 1e-3)
    height = v
    for _ in range(2):
        height = v - profile.tilt * np.sqrt(np.clip(radius**2 - across**2, 0.0, None))
        radius = np.maximum(profile.radius(height), 1e-3)
    side = np.clip(across / radius, -0.995, 0.995)
    slope = (profile.radius(height + 0.01) - profile.radius(height - 0.01)) / 0.02
    slope = np.clip(slope, -2.0, 2.0)
    front = np.sqrt(1.0 - side**2)
    nx, ny, nz = normalised(side, -slope, front)
    matrix = pose.matrix / pose.scale
    normal = (
        (matrix[0, 0] * nx + matrix[0, 1] * ny).astype(np.float32),
        (matrix[1, 0] * nx + matrix[1, 1] * ny).astype(np.float32),
        nz.astype(np.float32),
    )
    mean = float(np.median(profile.line[:, 0]))
    return Surface(rows, columns, mask, normal, np.arcsin(side) * np.float32(mean), height, edge, shape)
