"""Semantic textual similarity: Spearman's rank correlation between cosines and people's scores, × 100.

Reads the SentEval layout (STS12 to STS16, STS benchmark, SICK relatedness). A year's subsets are joined before the
correlation is taken ("all"), as in the SimCSE and DALR papers. STS13 is without SMT, as everywhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dalr.errors import DalrError, DataError

YEARS = ("STS12", "STS13", "STS14", "STS15", "STS16")
TASKS = (*YEARS, "STSB", "SICKR")
ProgressSink = Callable[[int, int], None]
# Sentences of one call of the encoder, between two steps of the progress bar.
CALL = 8192


class SentenceModel(Protocol):
    """What is evaluated: a DualEncoder is one."""

    def encode_text(self, texts: list[str], *, space: Any = ...) -> npt.NDArray[Any]: ...


@dataclass(frozen=True)
class Pairs:
    """Scored sentence pairs."""

    first: list[str]
    second: list[str]
    gold: list[float]


def evaluate_sts(
    model: SentenceModel, folder: str | Path, *, tasks: Sequence[str] = TASKS, progress: ProgressSink | None = None
) -> dict[str, float]:
    """Spearman × 100 of each task and their mean as `avg`, each distinct sentence embedded once.

    Args:
        model: anything with `encode_text(list, space="sentence")`.
        folder: holds STS12-en-test … STS16-en-test, STSBenchmark and SICK.
        tasks: which of STS12 … STS16, STSB, SICKR.

    Raises:
        DataError: a file is missing or does not have the SentEval layout.
        DalrError: an embedding is not finite.
    """
    pairs = {task: read_task(folder, task) for task in tasks}
    sentences = list(dict.fromkeys(text for some in pairs.values() for text in (*some.first, *some.second)))
    # By length, so that a call of the encoder pads little.
    sentences.sort(key=len)
    parts = []
    for start in range(0, len(sentences), CALL):
        parts.append(model.encode_text(sentences[start : start + CALL], space="sentence"))
        if progress:
            progress(min(start + CALL, len(sentences)), len(sentences))
    row_of = {text: row for row, text in enumerate(sentences)}
    embeddings = np.concatenate(parts)
    scores = {
        task: spearman(
            embeddings[[row_of[text] for text in some.first]],
            embeddings[[row_of[text] for text in some.second]],
            some.gold,
        )
        for task, some in pairs.items()
    }
    return scores | {"avg": round(float(np.mean(list(scores.values()))), 4)}


def sts_dev(model: SentenceModel, folder: str | Path) -> dict[str, float]:
    """`{"sts_dev": …}`: Spearman × 100 on the dev part of STS-B, to select by while training, never to report.

    `folder` is that of `evaluate_sts`.
    """
    pairs = read_benchmark(Path(folder) / "STSBenchmark" / "sts-dev.csv")
    sentences = list(dict.fromkeys((*pairs.first, *pairs.second)))
    row_of = {text: row for row, text in enumerate(sentences)}
    embeddings = model.encode_text(sentences, space="sentence")
    first, second = ([row_of[text] for text in side] for side in (pairs.first, pairs.second))
    return {"sts_dev": spearman(embeddings[first], embeddings[second], pairs.gold)}


def spearman(first_PD: npt.NDArray[Any], second_PD: npt.NDArray[Any], gold_P: Sequence[float]) -> float:
    """Spearman × 100 between the cosines of P pairs and their scores; 0 where all cosines are equal."""
    from scipy.stats import spearmanr

    first, second = (np.asarray(side, dtype=np.float64) for side in (first_PD, second_PD))
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise DalrError("the model's sentence embeddings are not finite; its weights are broken")
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines = (first * second).sum(axis=1) / np.where(norms > 0, norms, 1.0)
    # Rounding in float32 must not make an order out of equal embeddings.
    cosines = cosines.round(7)
    if np.ptp(cosines) == 0 or np.ptp(gold_P) == 0:
        return 0.0
    return round(100 * float(spearmanr(cosines, gold_P).statistic), 4)


def read_task(folder: str | Path, task: str) -> Pairs:
    """The test pairs of one of `TASKS`; DataError when its files are not there or not in the SentEval layout."""
    folder = Path(folder)
    if task == "STSB":
        return read_benchmark(folder / "STSBenchmark" / "sts-test.csv")
    if task == "SICKR":
        return read_sick(folder / "SICK" / "SICK_test_annotated.txt")
    if task not in YEARS:
        raise ValueError(f"task {task!r}; expected one of {', '.join(TASKS)}")
    return read_year(folder / f"{task}-en-test")


def read_year(folder: Path) -> Pairs:
    """All subsets of one year, `STS.input.NAME.txt` beside `STS.gs.NAME.txt`; a blank score leaves its pair out."""
    inputs = sorted(folder.glob("STS.input.*.txt"))
    if not inputs:
        raise DataError(f"{folder}: has no STS.input.*.txt; expected the SentEval layout of the STS sets")
    result = Pairs([], [], [])
    for path in inputs:
        gold_path = path.with_name(path.name.replace("STS.input.", "STS.gs."))
        sentences, scores = _lines(path), _lines(gold_path)
        if len(sentences) != len(scores):
            raise DataError(f"{gold_path}: has {len(scores)} lines, {path.name} has {len(sentences)}; expected as many")
        for number, (line, score) in enumerate(zip(sentences, scores, strict=True), start=1):
            if score.strip():
                _add(result, f"{path}:{number}", line.split("\t"), (0, 1), score, gold_path)
    return result


def read_benchmark(path: Path) -> Pairs:
    """STS benchmark: tab-separated without quoting, the score in column 5, the sentences in 6 and 7."""
    result = Pairs([], [], [])
    for number, line in enumerate(_lines(path), start=1):
        cells = line.split("\t")
        _add(result, f"{path}:{number}", cells, (5, 6), cells[4] if len(cells) > 4 else "", path)
    return result


def read_sick(path: Path) -> Pairs:
    """SICK relatedness: a heading, then id, sentence A, sentence B, score, label, tab-separated."""
    result = Pairs([], [], [])
    for number, line in enumerate(_lines(path)[1:], start=2):
        cells = line.split("\t")
        _add(result, f"{path}:{number}", cells, (1, 2), cells[3] if len(cells) > 3 else "", path)
    return result


def _add(pairs: Pairs, place: str, cells: list[str], columns: tuple[int, int], score: str, source: Path) -> None:
    if len(cells) <= max(columns):
        raise DataError(f"{place}: expected tab-separated columns with two sentences, as SentEval ships them")
    try:
        pairs.gold.append(float(score))
    except ValueError:
        raise DataError(f"{place}: the score {score!r} (from {source.name}) is not a number") from None
    pairs.first.append(cells[columns[0]].strip())
    pairs.second.append(cells[columns[1]].strip())


def _lines(path: Path) -> list[str]:
    """Lines by newline alone: a sentence may hold a character that `splitlines` takes for the end of one."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected the SentEval layout") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text; expected the SentEval layout") from None
    return text.removesuffix("\n").split("\n")
