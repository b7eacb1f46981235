"""What a study found: tables in Markdown, and whether methods differ.

Legend: M methods · S seeds · P pairs of a task.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Cells = Sequence[Mapping[str, Any]]
Floats = npt.NDArray[np.float64]


def compare(found: Cells, resamples: int) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Mean STS of each method less that of each other one: setting → a → b → difference, low, high (95 %) and p.

    Paired bootstrap: each resample draws seeds, and of every task pairs, the same for all methods; p is two-sided,
    twice the share of resamples on the other side of 0 (at least 2 / resamples). Only seeds that all methods have.
    """
    differences: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for setting in dict.fromkeys(cell["setting"] for cell in found):
        cosines: dict[str, dict[int, Mapping[str, Any]]] = {}
        for cell in found:
            if cell["setting"] == setting and cell["cosines"]:
                cosines.setdefault(cell["method"], {})[cell["seed"]] = cell["cosines"]
        methods = list(cosines)
        seeds = sorted(set.intersection(*(set(cosines[method]) for method in methods))) if len(methods) > 1 else []
        if not seeds:
            continue
        tasks = [name for name in cosines[methods[0]][seeds[0]] if not name.endswith(".gold")]
        gold = {task: cosines[methods[0]][seeds[0]][f"{task}.gold"] for task in tasks}
        stacked = {task: np.stack([[cosines[m][s][task] for s in seeds] for m in methods]) for task in tasks}
        whole_M = np.mean([_spearman(stacked[task], gold[task]) for task in tasks], axis=0).mean(axis=1)
        generator = np.random.default_rng(0)
        drawn = np.empty((resamples, len(methods)))
        for number in range(resamples):
            some = generator.integers(len(seeds), size=len(seeds))
            scores = []
            for task in tasks:
                pairs = generator.integers(len(gold[task]), size=len(gold[task]))
                scores.append(_spearman(stacked[task][:, :, pairs], gold[task][pairs]))
            drawn[number] = np.mean(scores, axis=0)[:, some].mean(axis=1)
        for a, one in enumerate(methods):
            for b, other in enumerate(methods):
                if a != b:
                    differences.setdefault(setting, {}).setdefault(one, {})[other] = _difference(
                        whole_M[a] - whole_M[b], drawn[:, a] - drawn[:, b]
                    )
    return differences


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


def tables(found: Cells, baseline: str, differences: Mapping[str, Any] | None = None) -> str:
    """The study so far in Markdown: of every setting what sentences, other tasks and training cost."""
    parts = []
    for setting in dict.fromkeys(cell["setting"] for cell in found):
        of_method: dict[str, list[Mapping[str, Any]]] = {}
        for cell in found:
            if cell["setting"] == setting:
                of_method.setdefault(cell["method"], []).append(cell)
        parts.append(f"## {setting}\n")
        against = (differences or {}).get(setting, {})
        for columns in (_sts_columns(of_method), _other_columns(of_method)):
            if columns:
                parts.append(_table(of_method, columns, baseline, against if "mean" in columns else None))
    return "\n".join(parts)


Column = Callable[[Mapping[str, Any]], float | None]


def _sts_columns(of_method: Mapping[str, Cells]) -> dict[str, Column]:
    cell = next((cell for cells in of_method.values() for cell in cells if "sts" in cell), None)
    if cell is None:
        return {}
    columns: dict[str, Column] = {task: _reader("sts", task) for task in cell["sts"]["pairs"]}
    return {**columns, "mean": _reader("sts", "avg")}


def _other_columns(of_method: Mapping[str, Cells]) -> dict[str, Column]:
    columns: dict[str, Column] = {
        "STS-B dev": lambda cell: cell["dev"],
        "transfer (7)": _reader("transfer", "avg7"),
        "transfer (8)": _reader("transfer", "avg8"),
        "alignment": _reader("geometry", "alignment"),
        "uniformity": _reader("geometry", "uniformity"),
        "text→image MRR": _reader("retrieval", "text_to_image", "mrr"),
        "image→text MRR": _reader("retrieval", "image_to_text", "mrr"),
        "examples/s": _reader("cost", "examples_per_second"),
        "GiB": _reader("cost", "peak_memory_gib"),
        "minutes": lambda cell: (cell["cost"].get("seconds") or 0) / 60 or None,
    }
    everything = [cell for cells in of_method.values() for cell in cells]
    return {name: read for name, read in columns.items() if any(read(cell) is not None for cell in everything)}


def _reader(*keys: str) -> Column:
    def read(cell: Mapping[str, Any]) -> float | None:
        value: Any = cell
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return None if value is None else float(value)

    return read


def _table(
    of_method: Mapping[str, Cells], columns: Mapping[str, Column], baseline: str, against: Mapping[str, Any] | None
) -> str:
    header = ["method", "seeds", *columns, *([f"less {baseline}", "p"] if against else [])]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for method, cells in of_method.items():
        row = [method, str(len(cells))]
        for read in columns.values():
            values = [value for cell in cells if (value := read(cell)) is not None]
            row.append(_mean_and_deviation(values))
        if against:
            told = against.get(method, {}).get(baseline)
            row += [f"{told['difference']:+.2f} [{told['low']:+.2f}, {told['high']:+.2f}]" if told else ""]
            row += [f"{told['p']:.3f}" if told else ""]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _mean_and_deviation(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean
