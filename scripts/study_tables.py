"""What a study found: tables in Markdown, and whether methods differ.

Legend: M methods · S seeds · P queries of a task.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Cells = Sequence[Mapping[str, Any]]
Floats = npt.NDArray[np.float64]
Scores = Mapping[str, npt.NDArray[Any]]
Differences = dict[str, dict[str, dict[str, float]]]
Column = Callable[[Mapping[str, Any]], float | None]
DIRECTIONS = ("text_to_image", "image_to_text")


def compare(found: Cells, resamples: int) -> dict[str, dict[str, Differences]]:
    """How far methods differ: setting → figure → a → b → difference, low, high (95 %) and p of a less b.

    The figures are `sts`, the mean Spearman of its tasks, and the mean score of each direction of retrieval, all
    × 100. Paired bootstrap: each resample draws seeds, and of every task queries, the same for all methods; p is
    two-sided, twice the share of resamples on the other side of 0 (at least 2 / resamples). Only seeds that all methods
    with the figure have, and only where they have the same queries in all of them.
    """
    differences: dict[str, dict[str, Differences]] = {}
    for setting in dict.fromkeys(cell["setting"] for cell in found):
        by_figure: dict[str, dict[str, dict[int, Scores]]] = {}
        for cell in found:
            if cell["setting"] == setting:
                for figure, scores in _figures(cell["scores"]):
                    by_figure.setdefault(figure, {}).setdefault(cell["method"], {})[cell["seed"]] = scores
        for figure, scores_of in by_figure.items():
            if told := _differences(scores_of, resamples):
                differences.setdefault(setting, {})[figure] = told
    return differences


def _figures(scores: Mapping[str, Scores]) -> Iterator[tuple[str, Scores]]:
    """What is compared as one figure: the STS tasks together, each direction of retrieval by itself."""
    for measure, by_task in scores.items():
        if measure == "sts":
            yield measure, by_task
        else:
            yield from ((f"{measure} {task}", {task: values}) for task, values in by_task.items())


def _differences(scores: Mapping[str, Mapping[int, Scores]], resamples: int) -> Differences:
    methods = list(scores)
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in scores.values()))) if len(methods) > 1 else []
    shapes = {tuple((name, len(x)) for name, x in scores[m][s].items()) for m in methods for s in seeds}
    if len(shapes) != 1:
        return {}
    first = scores[methods[0]][seeds[0]]
    gold = {name.removesuffix(".gold"): values for name, values in first.items() if name.endswith(".gold")}
    tasks = [name for name in first if not name.endswith(".gold")]
    stacked = {task: np.stack([[scores[m][s][task] for s in seeds] for m in methods]) for task in tasks}

    def means(chosen: Mapping[str, Any]) -> Floats:
        """The figure of each method and seed over the chosen queries of each task, (M, S)."""
        found = []
        for task, values_MSP in stacked.items():
            some = values_MSP[:, :, chosen[task]]
            found.append(_spearman(some, gold[task][chosen[task]]) if task in gold else 100 * some.mean(axis=-1))
        joined: Floats = np.mean(found, axis=0)
        return joined

    whole_M = means(dict.fromkeys(tasks, slice(None))).mean(axis=1)
    generator = np.random.default_rng(0)
    drawn = np.empty((resamples, len(methods)))
    for number in range(resamples):
        some = generator.integers(len(seeds), size=len(seeds))
        sizes = {task: values.shape[-1] for task, values in stacked.items()}
        queries = {task: generator.integers(size, size=size) for task, size in sizes.items()}
        drawn[number] = means(queries)[:, some].mean(axis=1)
    return {
        one: {
            other: _difference(whole_M[a] - whole_M[b], drawn[:, a] - drawn[:, b])
            for b, other in enumerate(methods)
            if a != b
        }
        for a, one in enumerate(methods)
    }


def _spearman(cosines_MSP: Floats, gold_P: Floats) -> Floats:
    """Spearman × 100 along the last axis, (M, S); 0 where all cosines are equal."""
    x = rankdata(cosines_MSP, axis=-1)
    y = rankdata(gold_P)
    x, y = x - x.mean(axis=-1, keepdims=True), y - y.mean()
    lengths = np.sqrt((x**2).sum(axis=-1) * (y**2).sum())
    found: Floats = 100 * (x @ y) / np.where(lengths > 0, lengths, 1.0)
    return found


def _difference(whole: float, drawn: Floats) -> dict[str, float]:
    low, high = np.percentile(drawn, [2.5, 97.5])
    beyond = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p = min(1.0, 2 * max(beyond, 1) / len(drawn))
    values = {"difference": whole, "low": low, "high": high, "p": p}
    return {name: round(float(value), 4) for name, value in values.items()}


def tables(found: Cells, baseline: str, differences: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """The study so far in Markdown: of every setting sentences, retrieval, other tasks, and what training cost.

    A table that has differences ends in them: the figure less that of `baseline`, its 95 % interval and p.
    """
    parts = []
    for setting in dict.fromkeys(cell["setting"] for cell in found):
        of_method: dict[str, list[Mapping[str, Any]]] = {}
        for cell in found:
            if cell["setting"] == setting:
                of_method.setdefault(cell["method"], []).append(cell)
        parts.append(f"## {setting}\n")
        told = (differences or {}).get(setting, {})
        for columns, figures in _column_groups(of_method):
            against = {figure: told[figure] for figure in figures if figure in told}
            parts.append(_table(of_method, columns, baseline, against))
    return "\n".join(parts)


def _column_groups(of_method: Mapping[str, Cells]) -> Iterator[tuple[dict[str, Column], list[str]]]:
    """The tables of a setting: their columns, as far as any cell has them, and the differences they end in."""
    everything = [cell for cells in of_method.values() for cell in cells]
    tasks = next((list(cell["sts"]["pairs"]) for cell in everything if "sts" in cell), [])
    sts = {**{task: _reader("sts", task) for task in tasks}, "mean": _reader("sts", "avg")}
    retrieval: dict[str, Column] = {}
    for direction, name in zip(DIRECTIONS, ("text→image", "image→text"), strict=True):
        retrieval |= {f"{name} {m}": _reader("retrieval", direction, m.lower()) for m in ("MRR", "nDCG@10", "recall@1")}
        retrieval[f"{name} graded nDCG@10"] = _reader("graded", direction, "ndcg@10")
    others: dict[str, Column] = {
        "selected by": lambda cell: cell["dev"],
        "transfer (7)": _reader("transfer", "avg7"),
        "transfer (8)": _reader("transfer", "avg8"),
        "alignment": _reader("geometry", "alignment"),
        "uniformity": _reader("geometry", "uniformity"),
        "examples/s": _reader("cost", "examples_per_second"),
        "GiB": _reader("cost", "peak_memory_gib"),
        "minutes": lambda cell: (cell["cost"].get("seconds") or 0) / 60 or None,
    }
    compared = [f"{measure} {direction}" for measure in ("retrieval", "graded") for direction in DIRECTIONS]
    for columns, figures in ((sts, ["sts"]), (retrieval, compared), (others, [])):
        there = {name: read for name, read in columns.items() if any(read(cell) is not None for cell in everything)}
        if there:
            yield there, figures


def _reader(*keys: str) -> Column:
    def read(cell: Mapping[str, Any]) -> float | None:
        value: Any = cell
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return None if value is None else float(value)

    return read


def _table(
    of_method: Mapping[str, Cells], columns: Mapping[str, Column], baseline: str, against: Mapping[str, Differences]
) -> str:
    single = len(against) == 1
    told = [title for figure in against for title in (f"{'' if single else figure} less {baseline}".strip(), "p")]
    header = ["method", "seeds", *columns, *told]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for method, cells in of_method.items():
        row = [method, str(len(cells))]
        for read in columns.values():
            row.append(_mean_and_deviation([value for cell in cells if (value := read(cell)) is not None]))
        for differences in against.values():
            found = differences.get(method, {}).get(baseline)
            row += [f"{found['difference']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]" if found else ""]
            row += [f"{found['p']:.3f}" if found else ""]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _mean_and_deviation(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean
