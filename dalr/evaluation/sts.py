"""Semantic textual similarity: the correlation between cosines and people's scores, × 100.

Spearman's rank correlation is what is compared between models; Pearson's stands beside it. The sets are STS12 to
STS16, the STS benchmark and SICK relatedness in the SentEval layout, their dev parts, and own files of scored pairs.
A year has several subsets: "all" joins them before the correlation is taken, as the SimCSE and DALR papers do; "mean"
and "weighted" average the correlations of the subsets, plainly or by their pairs. STS13 is without SMT, as everywhere.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from dalr.config import nearest
from dalr.data.records import BadRow
from dalr.data.scored_pairs import ScoredPairs, joined, read_benchmark, read_scored_pairs, read_year
from dalr.errors import UsageError
from dalr.evaluation.sentences import (
    Embedded,
    SentenceModel,
    check_finite,
    cosines,
    embed_sentences,
)
from dalr.progress import ProgressSink

Aggregate = Literal["all", "mean", "weighted"]
Subsets = Mapping[str, ScoredPairs]
YEARS = ("STS12", "STS13", "STS14", "STS15", "STS16")
TASKS = (*YEARS, "STSB", "SICKR")
FILES = {
    "STSB": "STSBenchmark/sts-test.csv",
    "SICKR": "SICK/SICK_test_annotated.txt",
    "STSB-dev": "STSBenchmark/sts-dev.csv",
    "SICKR-dev": "SICK/SICK_trial.txt",
}
DEV_TASKS = ("STSB-dev", "SICKR-dev")


def evaluate_sts(
    model: SentenceModel,
    folder: str | Path | None,
    *,
    tasks: Sequence[str] = TASKS,
    files: Sequence[str | Path] = (),
    aggregate: Aggregate = "all",
    low: float | None = 0.0,
    high: float | None = 5.0,
    progress: ProgressSink | None = None,
) -> dict[str, Any]:
    """Spearman × 100 of each task and their mean as `avg`, each distinct sentence embedded once.

    Args:
        model: anything with `encode_text(list, space="sentence")`.
        folder: holds STS12-en-test … STS16-en-test, STSBenchmark and SICK; None with no tasks.
        tasks: which of STS12 … STS16, STSB, SICKR, and of the dev parts STSB-dev, SICKR-dev.
        files: own files of scored pairs, as `read_scored_pairs` reads them.
        aggregate: how the subsets of a year become one number.
        low, high: the range of the scores in `files`; None is open.

    Returns:
        the test tasks asked for and `avg` (None without any); `pearson`, the same by Pearson; `pairs`, the pairs of
        each; `dev` and `files`, name → {spearman, pearson, pairs}; `dropped`, file → rows that cannot be used;
        `aggregate`.

    Raises:
        DataError: a file is missing, has another layout, or no usable pair.
        UsageError: a task is not known.
        DalrError: an embedding is not finite.
    """
    check_aggregate(aggregate)
    sets, dropped = read_sets(folder, tasks, files, low=low, high=high)
    return score_sets(sets, embed_sentences(model, sentences_of(sets), progress), dropped, aggregate)


def read_sets(
    folder: str | Path | None,
    tasks: Sequence[str] = TASKS,
    files: Sequence[str | Path] = (),
    *,
    low: float | None = 0.0,
    high: float | None = 5.0,
) -> tuple[dict[str, Subsets], dict[str, int]]:
    """Every set asked for by its name (the path of an own file), and how many rows of which file were dropped."""
    sets: dict[str, Subsets] = {}
    dropped: Counter[str] = Counter()
    for task in tasks:
        sets[task], bad = read_task(_given(folder), task)
        dropped.update(row.file for row in bad)
    for path in files:
        pairs, bad = read_scored_pairs(path, low=low, high=high)
        sets[str(path)] = {"": pairs}
        if bad:
            dropped[str(path)] = len(bad)
    return sets, dict(dropped)


def sentences_of(sets: Mapping[str, Subsets]) -> Iterator[str]:
    """All sentences of all sets, repeated ones too."""
    return (text for subsets in sets.values() for pairs in subsets.values() for text in (*pairs.first, *pairs.second))


def score_sets(
    sets: Mapping[str, Subsets], embedded: Embedded, dropped: Mapping[str, int], aggregate: Aggregate = "all"
) -> dict[str, Any]:
    """`evaluate_sts` on what `read_sets` has read, its sentences embedded."""
    check_aggregate(aggregate)
    measured = {name: _measured(embedded, subsets, aggregate) for name, subsets in sets.items()}
    tests = {name: found for name, found in measured.items() if name in TASKS}
    spearmans, pearsons = ({name: found[kind] for name, found in tests.items()} for kind in ("spearman", "pearson"))
    return {
        **spearmans,
        "avg": _mean(spearmans),
        "pearson": {**pearsons, "avg": _mean(pearsons)},
        "pairs": {name: found["pairs"] for name, found in tests.items()},
        "dev": {name: found for name, found in measured.items() if name in DEV_TASKS},
        "files": {name: found for name, found in measured.items() if name not in TASKS + DEV_TASKS},
        "dropped": dict(dropped),
        "aggregate": aggregate,
    }


def check_aggregate(aggregate: str) -> None:
    """UsageError for what is no way to join subsets."""
    if aggregate not in get_args(Aggregate):
        raise UsageError(f"aggregate {aggregate!r}; expected one of {', '.join(get_args(Aggregate))}")


def sts_dev(model: SentenceModel, folder: str | Path) -> dict[str, float]:
    """`{"sts_dev": …}`: Spearman × 100 on the dev part of STS-B, to select by while training, never to report.

    `folder` is that of `evaluate_sts`.
    """
    return sts_dev_evaluator(folder)(model)


def sts_dev_evaluator(folder: str | Path) -> Callable[[SentenceModel], dict[str, float]]:
    """`sts_dev` for many measurements: the file is read now."""
    pairs, _ = read_benchmark(Path(folder) / FILES["STSB-dev"])
    return lambda model: {"sts_dev": pairs_dev(model, pairs)["spearman"]}


def pairs_dev(model: SentenceModel, pairs: ScoredPairs) -> dict[str, float]:
    """`{"spearman": …, "pearson": …}` of scored pairs, both × 100."""
    embedded = embed_sentences(model, pairs.sentences())
    first, second = embedded(pairs.first), embedded(pairs.second)
    return {"spearman": spearman(first, second, pairs.score), "pearson": pearson(first, second, pairs.score)}


def spearman(first_PD: npt.NDArray[Any], second_PD: npt.NDArray[Any], gold_P: Sequence[float]) -> float:
    """Spearman × 100 between the cosines of P pairs and their scores; 0 where all cosines are equal."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, first_PD, second_PD, gold_P)


def pearson(first_PD: npt.NDArray[Any], second_PD: npt.NDArray[Any], gold_P: Sequence[float]) -> float:
    """Pearson × 100 between the cosines of P pairs and their scores; 0 where all cosines are equal."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, first_PD, second_PD, gold_P)


def read_task(folder: str | Path, task: str) -> tuple[Subsets, list[BadRow]]:
    """The subsets of one of `TASKS` or `DEV_TASKS`, and the rows that cannot be used.

    Raises DataError when its files are not there or not in the SentEval layout, UsageError for another task.
    """
    folder = Path(folder)
    if task in YEARS:
        return read_year(folder / f"{task}-en-test")
    if task not in FILES:
        raise UsageError(f"task {task!r} is not known; {nearest(task, (*TASKS, *DEV_TASKS))}")
    path = folder / FILES[task]
    pairs, bad = read_benchmark(path) if task.startswith("STSB") else read_scored_pairs(path)
    return {"": pairs}, [BadRow(FILES[task], row.row, row.key, row.reason) for row in bad]


def _measured(embedded: Embedded, subsets: Subsets, aggregate: Aggregate) -> dict[str, Any]:
    parts = [joined(subsets.values())] if aggregate == "all" else list(subsets.values())
    weights = [len(part) if aggregate == "weighted" else 1 for part in parts]
    scores = {
        kind: [measure(embedded(part.first), embedded(part.second), part.score) for part in parts]
        for kind, measure in (("spearman", spearman), ("pearson", pearson))
    }
    found = {kind: round(float(np.average(values, weights=weights)), 4) for kind, values in scores.items()}
    return {**found, "pairs": sum(map(len, subsets.values()))}


def _correlation(
    measure: Any, first_PD: npt.NDArray[Any], second_PD: npt.NDArray[Any], gold_P: Sequence[float]
) -> float:
    check_finite(first_PD)
    check_finite(second_PD)
    # Rounding in float32 must not make an order out of equal embeddings.
    cosine_P = cosines(first_PD, second_PD).round(7)
    if np.ptp(cosine_P) == 0 or np.ptp(gold_P) == 0:
        return 0.0
    return round(100 * float(measure(cosine_P, gold_P).statistic), 4)


def _mean(scores: Mapping[str, float]) -> float | None:
    return round(float(np.mean(list(scores.values()))), 4) if scores else None


def _given(folder: str | Path | None) -> str | Path:
    if folder is None:
        raise UsageError("no folder of the STS sets is given; name it, or leave the tasks out")
    return folder
