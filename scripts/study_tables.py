"""What a study found: tables in Markdown, and whether methods differ.

Legend: C cells (a method with a seed) · S seeds · P queries of a task.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from scipy.stats import t as student_t

from dalr.evaluation.retrieval import DIRECTIONS
from dalr.files import hash_json

Cells = Sequence[Mapping[str, Any]]
Floats = npt.NDArray[np.float64]
Scores = Mapping[str, npt.NDArray[Any]]
Differences = dict[str, dict[str, dict[str, float]]]
Column = Callable[[Mapping[str, Any]], float | None]
Counts = npt.NDArray[np.int64]
# Beside the scores of a task: what people say of its pairs, and which queries belong together.
GOLD, GROUP = ".gold", ".group"


def compare(found: Cells, resamples: int) -> dict[str, dict[str, Differences]]:
    """How far methods differ: setting → figure → a → b → difference, low, high (95 %), p and seeds of a less b.

    The figures are `sts`, the mean Spearman of its tasks, `transfer`, the mean accuracy of the usual seven, and the
    mean score of each direction of retrieval, all × 100. Two methods are compared on the seeds that both have. The
    error has two parts: of the queries, by a bootstrap that draws the same ones for both methods (of captions, whole
    photos); and of the seeds, from the differences at single seeds, since so few cannot be resampled. Interval and
    two-sided p are Student's with degrees of freedom by Satterthwaite (1946); with one seed they are of the queries
    alone.
    """
    differences: dict[str, dict[str, Differences]] = {}
    for setting in dict.fromkeys(cell["setting"] for cell in found):
        by_figure: dict[str, dict[tuple[str, int], Scores]] = {}
        for cell in found:
            if cell["setting"] == setting:
                for figure, scores in _figures(cell["scores"]):
                    by_figure.setdefault(figure, {})[cell["method"], cell["seed"]] = scores
        for figure, scores_of in by_figure.items():
            if told := _differences(scores_of, resamples):
                differences.setdefault(setting, {})[figure] = told
    return differences


def _figures(scores: Mapping[str, Scores]) -> Iterator[tuple[str, Scores]]:
    """What is compared as one figure: the tasks of STS or transfer together, each direction of retrieval by itself."""
    for measure, arrays in scores.items():
        if measure in ("sts", "transfer"):
            yield measure, arrays
        else:
            for task in (name for name in DIRECTIONS if name in arrays):
                yield f"{measure} {task}", {name: values for name, values in arrays.items() if name.startswith(task)}


def _differences(scores: Mapping[tuple[str, int], Scores], resamples: int) -> Differences:
    """Of one figure. Cells that were measured on the same queries share their draws; a seed whose two cells were not is
    no part of the difference."""
    cells = list(scores)
    alike: dict[str, list[int]] = {}
    for number, arrays in enumerate(scores.values()):
        alike.setdefault(_queries(arrays), []).append(number)
    whole_C = np.empty(len(cells))
    drawn = np.empty((resamples, len(cells)))
    queries: dict[int, tuple[str, int]] = {}
    generator = np.random.default_rng(0)
    for name, members in alike.items():
        of_members = [scores[cells[number]] for number in members]
        first = of_members[0]
        tasks = [task for task in first if not task.endswith((GOLD, GROUP))]
        queries |= dict.fromkeys(members, (name, sum(len(_groups(first, task)[0]) for task in tasks)))
        whole_C[members] = _means(of_members, tasks, {task: np.ones(len(first[task]), np.int64) for task in tasks})
        for number in range(resamples):
            counts = {task: _counts(first, task, generator) for task in tasks}
            drawn[number, members] = _means(of_members, tasks, counts)
    found: Differences = {}
    for a, b in permutations(dict.fromkeys(method for method, _ in cells), 2):
        seeds = sorted(
            seed
            for method, seed in cells
            if method == a and (b, seed) in scores
            if queries[cells.index((a, seed))] == queries[cells.index((b, seed))]
        )
        if seeds:
            left, right = ([cells.index((method, seed)) for seed in seeds] for method in (a, b))
            found.setdefault(a, {})[b] = _difference(
                whole_C[left] - whole_C[right],
                (drawn[:, left] - drawn[:, right]).mean(axis=1),
                sum(size for _, size in {queries[number] for number in left}),
            )
    return found


def _queries(arrays: Scores) -> str:
    """What tells the queries of a cell from those of another: their number, gold scores and groups."""
    fixed = {name: values.tolist() if name.endswith((GOLD, GROUP)) else len(values) for name, values in arrays.items()}
    return hash_json(fixed)


def _groups(arrays: Scores, task: str) -> tuple[npt.NDArray[Any], Counts]:
    """The independent queries of a task, and which of them each entry belongs to."""
    group = arrays.get(task + GROUP)
    names, place = np.unique(np.arange(len(arrays[task])) if group is None else group, return_inverse=True)
    return names, place


def _counts(arrays: Scores, task: str, generator: np.random.Generator) -> Counts:
    """How often each query of a task is drawn; queries of one group together."""
    names, place = _groups(arrays, task)
    drawn: Counts = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))[place]
    return drawn


def _means(scores: Sequence[Scores], tasks: Sequence[str], counts: Mapping[str, Counts]) -> Floats:
    """The figure of each of C cells, × 100, with every query as often as `counts` says."""
    found = []
    for task in tasks:
        chosen = np.repeat(np.arange(len(counts[task])), counts[task])
        values_CP = np.stack([arrays[task][chosen] for arrays in scores])
        gold = scores[0].get(task + GOLD)
        found.append(100 * values_CP.mean(axis=-1) if gold is None else _spearman(values_CP, gold[chosen]))
    joined: Floats = np.mean(found, axis=0)
    return joined


def _spearman(cosines_CP: Floats, gold_P: Floats) -> Floats:
    """Spearman × 100 along the last axis, (C,); 0 where all cosines are equal."""
    x, y = rankdata(cosines_CP, axis=-1), rankdata(gold_P)
    x, y = x - x.mean(axis=-1, keepdims=True), y - y.mean()
    lengths = np.sqrt((x**2).sum(axis=-1) * (y**2).sum())
    found: Floats = 100 * (x @ y) / np.where(lengths > 0, lengths, 1.0)
    return found


def _difference(by_seed_S: Floats, drawn: Floats, queries: int) -> dict[str, float]:
    """The degrees of freedom of a sum of two variances are Satterthwaite's: few where the seeds are most of it, many
    where the queries are. Of one seed, those of the queries alone."""
    seeds = len(by_seed_S)
    whole = float(by_seed_S.mean())
    of_queries = float(drawn.var())
    of_seeds = float(by_seed_S.var(ddof=1)) / seeds if seeds > 1 else 0.0
    error = math.sqrt(of_queries + of_seeds)
    values = {"difference": whole, "low": whole, "high": whole, "p": float(whole == 0)}
    if error > 0:
        shares = of_queries**2 / max(queries - 1, 1) + (of_seeds**2 / (seeds - 1) if seeds > 1 else 0.0)
        law = student_t(error**4 / shares)
        half = float(law.ppf(0.975) * error)
        values |= {"low": whole - half, "high": whole + half, "p": float(2 * law.sf(abs(whole) / error))}
    return {**{name: round(value, 4) for name, value in values.items()}, "seeds": seeds}


def tables(found: Cells, baseline: str, differences: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """The study so far in Markdown: of every setting STS, transfer, retrieval, and what training cost; then commands.

    A table that has differences ends in them: the figure less that of `baseline` (where that has no such figure, of the
    first method that has), its 95 % interval and p.
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
    if found:
        parts.append("## Commands\n\n" + "\n".join(f"    {cell['command']}" for cell in found) + "\n")
    return "\n".join(parts)


def _column_groups(of_method: Mapping[str, Cells]) -> Iterator[tuple[dict[str, Column], list[str]]]:
    """The tables of a setting: their columns, as far as any cell has them, and the differences they end in."""
    everything = [cell for cells in of_method.values() for cell in cells]
    tasks = next((list(cell["sts"]["pairs"]) for cell in everything if "sts" in cell), [])
    sts = {**{task: _reader("sts", task) for task in tasks}, "mean": _reader("sts", "avg")}
    known = next((list(cell["transfer"]["counts"]) for cell in everything if "transfer" in cell), [])
    transfer = {task: _reader("transfer", task) for task in known}
    transfer |= {"mean of 7": _reader("transfer", "avg7"), "mean of 8": _reader("transfer", "avg8")}
    retrieval: dict[str, Column] = {}
    for direction, name in zip(DIRECTIONS, ("text→image", "image→text"), strict=True):
        retrieval |= {f"{name} {m}": _reader("retrieval", direction, m.lower()) for m in ("MRR", "nDCG@10", "recall@1")}
        retrieval[f"{name} graded nDCG@10"] = _reader("graded", direction, "ndcg@10")
    others: dict[str, Column] = {
        "selected by": lambda cell: cell["dev"],
        "alignment": _reader("geometry", "alignment"),
        "uniformity": _reader("geometry", "uniformity"),
        "examples/s": _reader("cost", "examples_per_second"),
        "GiB": _reader("cost", "peak_memory_gib"),
        "GiB of the GPU": _reader("cost", "gpu_memory_gib"),
        "minutes": lambda cell: cell["cost"]["seconds"] / 60,
    }
    compared = [f"{measure} {direction}" for measure in ("retrieval", "graded") for direction in DIRECTIONS]
    for columns, figures in ((sts, ["sts"]), (transfer, ["transfer"]), (retrieval, compared), (others, [])):
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
    bases = {figure: baseline if baseline in found else next(iter(found)) for figure, found in against.items()}
    titles = {figure: f"{'' if len(against) == 1 else figure} less {base}".strip() for figure, base in bases.items()}
    told = [title for figure in against for title in (titles[figure], "p (seeds)")]
    header = ["method", "seeds", *columns, *told]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for method, cells in of_method.items():
        row = [method, str(len(cells))]
        for read in columns.values():
            row.append(_mean_and_deviation([value for cell in cells if (value := read(cell)) is not None]))
        for figure, differences in against.items():
            found = differences.get(method, {}).get(bases[figure])
            row += [f"{found['difference']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]" if found else ""]
            row += [f"{found['p']:.3f} ({found['seeds']})" if found else ""]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _mean_and_deviation(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean
