"""The summary as one HTML file that needs nothing else: pictures and the chart are inside, no script, no font."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dalr.catalogue.summary import Summary, curve
from dalr.data.images import open_image
from dalr.files import write_atomically

SMALL_FILE = 24_000
THUMBNAIL = 224
WEB_TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png"}
METRICS = ("recall@1", "recall@5", "recall@10", "mrr", "ndcg@10", "map@10", "median_rank")
METRIC_NAMES = {"mrr": "MRR", "ndcg@10": "NDCG@10", "map@10": "MAP@10", "median_rank": "median rank"}


def write_summary(path: str | Path, summary: Summary) -> None:
    """Write the page at `path`, whole or not at all. Raises DataError for a picture that cannot be read."""
    write_atomically(path, render(summary))


def render(summary: Summary) -> str:
    """The page as HTML; every text of the catalogue is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["picture"] = picture_uri
    environment.filters["count"] = lambda value: f"{value:,}"
    environment.filters["metric_name"] = lambda name: METRIC_NAMES.get(name, name)
    environment.filters["duration"] = duration
    metric = summary.run.get("metric") or "mrr"
    page = environment.get_template("summary.html").render(
        s=summary,
        charts=[
            found
            for found in (
                chart(
                    METRIC_NAMES.get(metric, metric) + " on the validation part",
                    curve(summary.history, "evaluation", metric),
                ),
                chart("loss on the training part", curve(summary.history, "step", "loss"), from_zero=True),
            )
            if found is not None
        ],
        metrics=METRICS,
    )
    return "\n".join(line.rstrip() for line in page.splitlines() if line.strip()) + "\n"


def picture_uri(path: str | Path) -> str:
    """A picture as a data URI: a small JPEG or PNG file as it is, anything else as a thumbnail.

    Raises DataError when it cannot be read.
    """
    path = Path(path)
    if path.is_file() and path.stat().st_size <= SMALL_FILE:
        data = path.read_bytes()
        for start, kind in WEB_TYPES.items():
            if data.startswith(start):
                return f"data:{kind};base64,{base64.b64encode(data).decode()}"
    image = open_image(path)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def duration(seconds: float) -> str:
    """`48 s`, `2 min 5 s`, `3 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


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
