"""The figures of a study, drawn from its JSON.

    python scripts/draw_study.py assets/results/study_sentences.json --out assets/study --terms dalr

Writes sts.svg (the mean of the STS tasks by method, a bar a setting, its 95 % interval over seeds), retrieval.svg (the
same against finding photos, a point a seed) and terms.svg (each term of a method's loss over the steps of one run).
"""

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from scipy.stats import t as student_t

from dalr.config import nearest
from dalr.evaluation.retrieval import DIRECTIONS

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

# The same input makes the same file.
STYLE = {
    "svg.hashsalt": "dalr",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "axes.prop_cycle": cycler(color=["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]),
}
MARKERS = "o^sDv"
Cells = Sequence[Mapping[str, Any]]


def main() -> None:
    """Draw what the JSON has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="JSON of scripts/run_study.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--terms", metavar="METHOD", help="draw the terms of its first run")
    options = parser.parse_args()

    cells: Cells = json.loads(options.study.read_text(encoding="utf-8"))["cells"]
    options.out.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):  # type: ignore[arg-type]
        if any("sts" in cell for cell in cells):
            save(bars(cells), options.out / "sts.svg")
        if any("sts" in cell and "retrieval" in cell for cell in cells):
            save(points(cells), options.out / "retrieval.svg")
        if options.terms is not None:
            known = {cell["method"]: cell["terms"] for cell in reversed(cells) if cell.get("terms")}
            if options.terms not in known:
                parser.error(f"--terms {options.terms}: {nearest(options.terms, list(known))}")
            save(terms(known[options.terms]), options.out / "terms.svg")


def bars(cells: Cells) -> Figure:
    """Mean STS by method, a bar a setting, with Student's 95 % interval over seeds."""
    methods, settings = (list(dict.fromkeys(cell[key] for cell in cells)) for key in ("method", "setting"))
    figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    width = 0.8 / len(settings)
    lowest = []
    for place, setting in enumerate(settings):
        of = [[c["sts"]["avg"] for c in cells if (c["setting"], c["method"]) == (setting, m)] for m in methods]
        at = [number + (place - (len(settings) - 1) / 2) * width for number, values in enumerate(of) if values]
        means = [statistics.mean(values) for values in of if values]
        spread = [interval(values) for values in of if values]
        drawn = axes.bar(at, means, width * 0.92, yerr=spread, capsize=2, label=setting, error_kw={"linewidth": 0.8})
        if len(methods) * len(settings) <= 16:
            axes.bar_label(drawn, fmt="%.1f", padding=2, fontsize=8)
        lowest.append(min(means))
    axes.set_xticks(range(len(methods)), methods)
    # Differences of a few points are the subject: the axis does not begin at 0, and says so.
    bottom = max(0, int(min(lowest)) - 5)
    axes.set_ylim(bottom=bottom)
    axes.set_ylabel(f"STS, mean of seven, from {bottom}\n(Spearman × 100)")
    axes.grid(axis="y")
    if len(settings) > 1:
        axes.legend(frameon=False)
    return figure


def points(cells: Cells) -> Figure:
    """Mean STS against finding photos by captions and captions by photos, a point a trained model."""
    figure, axes = plt.subplots(figsize=(7.2, 3.8), layout="constrained")
    both = [cell for cell in cells if "sts" in cell and "retrieval" in cell]
    methods, settings = (list(dict.fromkeys(cell[key] for cell in both)) for key in ("method", "setting"))
    for number, method in enumerate(methods):
        for setting, marker in zip(settings, cycle(MARKERS), strict=False):
            own = [cell for cell in both if (cell["method"], cell["setting"]) == (method, setting)]
            found = [statistics.mean(c["retrieval"][d]["mrr"] for d in DIRECTIONS) for c in own]
            name = method if len(settings) == 1 else f"{method}, {setting}"
            colour = f"C{number}"
            axes.scatter([cell["sts"]["avg"] for cell in own], found, s=28, marker=marker, color=colour, label=name)
    axes.set_xlabel("STS, mean of seven (Spearman × 100)")
    axes.set_ylabel("texts and photos found, MRR × 100,\nmean of both directions")
    axes.grid()
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def interval(values: Sequence[float]) -> float:
    """Half of the 95 % interval of the mean, by Student's t; 0 of one value."""
    count = len(values)
    return float(student_t.ppf(0.975, count - 1)) * statistics.stdev(values) / math.sqrt(count) if count > 1 else 0.0


def terms(curves: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """Each term of the loss over the steps of one run, every one in its own scale."""
    figure, rows = plt.subplots(
        len(curves), 1, figsize=(7.2, 1.1 * len(curves) + 0.6), sharex=True, squeeze=False, layout="constrained"
    )
    for axes, (name, points_of) in zip(rows[:, 0], curves.items(), strict=True):
        axes.plot(*zip(*points_of, strict=True), linewidth=1)
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        axes.grid(axis="y")
    rows[-1, 0].set_xlabel("step")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write without a date, so that the file changes only where the picture does."""
    figure.savefig(path, metadata={"Date": None}, facecolor="white")
    plt.close(figure)
    print(path)


if __name__ == "__main__":
    main()
