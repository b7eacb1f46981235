"""Outlines: smooth curves through a few points, mirrored halves, strokes, ellipses. Points are (n, 2), y grows down."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Spot = Sequence[float]


def curve(spots: Sequence[Spot], *, closed: bool = True, steps: int = 14) -> Points:
    """A Catmull-Rom spline through the spots; a spot with a third value (any) is a sharp corner."""
    points = np.array([spot[:2] for spot in spots], dtype=np.float64)
    sharp = [len(spot) > 2 for spot in spots]
    count = len(points)
    pieces = []
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    for start in range(count if closed else count - 1):
        end = (start + 1) % count
        chord = points[end] - points[start]
        before = points[start - 1] if closed or start else points[start]
        after = points[(end + 1) % count] if closed or end + 1 < count else points[end]
        leave = chord if sharp[start] or (not closed and start == 0) else (points[end] - before) / 2
        arrive = chord if sharp[end] or (not closed and end == count - 1) else (after - points[start]) / 2
        # A long neighbour must not throw a short piece into a loop.
        length = np.hypot(*chord) + 1e-9
        leave = leave * min(1.0, 1.6 * length / (np.hypot(*leave) + 1e-9))
        arrive = arrive * min(1.0, 1.6 * length / (np.hypot(*arrive) + 1e-9))
        pieces.append(
            (2 * t**3 - 3 * t**2 + 1) * points[start]
            + (t**3 - 2 * t**2 + t) * leave
            + (-2 * t**3 + 3 * t**2) * points[end]
            + (t**3 - t**2) * arrive
        )
    if not closed:
        pieces.append(points[-1:])
    return np.concatenate(pieces)


def mirrored(right: Sequence[Spot], *, steps: int = 14) -> Points:
    """A closed outline symmetric about x = 0 from its right half, top to bottom; spots on the axis are kept once."""
    left = [(-spot[0], *spot[1:]) for spot in reversed(right) if abs(spot[0]) > 1e-9]
    return curve([*right, *left], steps=steps)


def ellipse(x: float, y: float, rx: float, ry: float, *, start: float = 0.0, end: float = 360.0) -> Points:
    """An arc of an ellipse, angles in degrees clockwise from the right (y grows down)."""
    angle = np.radians(np.linspace(start, end, 72, endpoint=end - start < 360))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def box(x0: float, y0: float, x1: float, y1: float, radius: float) -> Points:
    """A rectangle with rounded corners."""
    radius = min(radius, (x1 - x0) / 2, (y1 - y0) / 2)
    corners = [(x1, y1, 0), (x0, y1, 90), (x0, y0, 180), (x1, y0, 270)]
    arcs = []
    for x, y, first in corners:
        angle = np.radians(np.linspace(first, first + 90, 9))
        cx, cy = x + (-radius if x == x1 else radius), y + (-radius if y == y1 else radius)
        arcs.append(np.stack([cx + radius * np.cos(angle), cy + radius * np.sin(angle)], axis=1))
    return np.concatenate(arcs)


def stroke(spots: Sequence[Spot] | Points, width: float | Sequence[float], *, smooth: bool = True) -> Points:
    """The outline of a line drawn with a round brush whose width runs evenly through `width` along the line."""
    path = curve(list(spots), closed=False) if smooth else np.asarray(spots, dtype=np.float64)
    widths = np.atleast_1d(np.asarray(width, dtype=np.float64))
    radius = np.interp(np.linspace(0, 1, len(path)), np.linspace(0, 1, len(widths)), widths) / 2
    tangent = np.gradient(path, axis=0)
    tangent /= np.hypot(tangent[:, 0], tangent[:, 1])[:, None] + 1e-9
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    left, right = path + normal * radius[:, None], path - normal * radius[:, None]
    return np.concatenate(
        [left, _cap(path[-1], normal[-1], radius[-1]), right[::-1], _cap(path[0], -normal[0], radius[0])]
    )


def _cap(centre: Points, normal: Points, radius: float) -> Points:
    angle = np.linspace(0, np.pi, 10)[1:-1]
    forward = np.array([normal[1], -normal[0]])
    return np.asarray(centre + radius * (np.cos(angle)[:, None] * normal + np.sin(angle)[:, None] * forward))


def moved(points: Points, dx: float = 0.0, dy: float = 0.0, *, turn: float = 0.0, scale: float = 1.0) -> Points:
    """The points scaled, turned by `turn` degrees about the origin and shifted."""
    angle = np.radians(turn)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    return np.asarray(points @ matrix.T + np.array([dx, dy]))


def flipped(points: Points) -> Points:
    """The points mirrored about x = 0."""
    return np.asarray(points * np.array([-1.0, 1.0]))


def evenly(points: Points, spacing: float, *, closed: bool = True) -> Points:
    """The outline resampled at equal distances of about `spacing`."""
    path = np.concatenate([points, points[:1]]) if closed else points
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    count = max(int(length[-1] / spacing), 4)
    at = np.linspace(0, length[-1], count, endpoint=not closed)
    return np.stack([np.interp(at, length, path[:, 0]), np.interp(at, length, path[:, 1])], axis=1)
