"""Charts as SVG paths: places and ticks are worked out here, drawn by the templates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Chart:
    """A line in a box of `width` × `height`, its ticks, and the value at its end."""

    title: str
    path: str
    end: tuple[float, float]
    last: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    x_name: str = "epoch"
    width: int = 440
    height: int = 200
    left: int = 40
    bottom: int = 30


def chart(title: str, points: Sequence[tuple[float, float]], *, from_zero: bool = False) -> Chart | None:
    """A chart of (x, y) points, or None for fewer than two."""
    if len(points) < 2:
        return None
    xs, ys = [x for x, _ in points], [y for _, y in points]
    y_ticks = _ticks(0.0 if from_zero else min(0.0, *ys), max(ys))
    x_ticks = _ticks(0.0, max(xs))
    plot = Chart(title, "", (0, 0), "", [], [])
    inner_w, inner_h = plot.width - plot.left - 44, plot.height - plot.bottom - 12
    low, high = y_ticks[0], max(y_ticks[-1], max(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            round(plot.left + inner_w * x / max(xs), 1),
            round(12 + inner_h * (1 - (y - low) / ((high - low) or 1)), 1),
        )

    placed = [place(x, y) for x, y in points]
    return Chart(
        title=title,
        path="M" + " L".join(f"{x} {y}" for x, y in placed),
        end=placed[-1],
        last=f"{ys[-1]:.1f}" if max(ys) >= 10 else f"{ys[-1]:.2f}",
        x_ticks=[(place(tick, low)[0], f"{tick:g}") for tick in x_ticks if tick <= max(xs)],
        y_ticks=[(place(0, tick)[1], f"{tick:g}") for tick in y_ticks if tick <= high],
    )


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from at or below `low` up to `high`, about `count` of them."""
    rough = ((high - low) or 1.0) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= rough * 0.999)
    first = math.floor(low / step)
    return [round(step * number, 12) for number in range(first, math.floor(high / step * 1.0001) + 1)]
