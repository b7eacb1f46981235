"""Sentence pairs that people have scored: own tables, the minBERT files, and the SentEval layout of the STS sets.

A pair that cannot be used (a blank score, one that is no number or outside its range, an empty sentence) costs only
itself and comes back as a bad row. The file's encoding is found out: UTF-8, else Windows-1252 (latin-1).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import model_validator

from dalr.config import Config
from dalr.data.annotated import (
    find_column,
    number_in,
    read_plain_lines,
    read_table,
    refuse_nothing_usable,
    text_in,
)
from dalr.data.columns import plain_name
from dalr.data.records import BadRow
from dalr.data.sources import JSONL
from dalr.errors import DataError

SENTENCE_NAMES = (
    ("sentence1", "sentence2"),
    ("text1", "text2"),
    ("first", "second"),
    ("sentence_a", "sentence_b"),
    ("question1", "question2"),
)
WEIGHT_NAMES = ("weight",)
SCORE_NAMES = ("score", "similarity", "relatedness_score", "is_duplicate", "label")
# The columns of the STS benchmark as SentEval ships it, which has no heading.
BENCHMARK_SCORE, BENCHMARK_SENTENCES = 4, (5, 6)


class ScoresConfig(Config):
    """A file of scored pairs and the range of its scores, which training maps to 0 … 1."""

    path: str
    low: float = 0.0
    high: float = 5.0

    @model_validator(mode="after")
    def _range(self) -> "ScoresConfig":
        check_range(self.low, self.high)
        return self


@dataclass(frozen=True)
class ScoredPairs:
    """Sentence pairs, the similarity that people gave each, and how much each counts (empty: all as much)."""

    first: list[str] = field(default_factory=list)
    second: list[str] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.score)

    def weights(self) -> list[float]:
        """The weight of each pair, 1 where none are given."""
        return self.weight or [1.0] * len(self)

    def chosen(self, kept: Iterable[bool]) -> "ScoredPairs":
        """The pairs for which `kept` is true."""
        flags = list(kept)

        def some(side: list[Any]) -> list[Any]:
            return [cell for cell, keep in zip(side, flags, strict=True) if keep] if side else []

        return ScoredPairs(some(self.first), some(self.second), some(self.score), some(self.weight))

    def sentences(self) -> list[str]:
        """The distinct sentences, in order of first use."""
        return list(dict.fromkeys((*self.first, *self.second)))


def read_scored_pairs(
    path: str | Path, *, low: float | None = 0.0, high: float | None = 5.0, score: str | None = None
) -> tuple[ScoredPairs, list[BadRow]]:
    """The scored pairs of one file, and the rows that cannot be used.

    Args:
        path: CSV, TSV, JSON Lines or Parquet with columns for two sentences (sentence1/sentence2, text1/text2,
            first/second, sentence_A/sentence_B, question1/question2) and a score (score, similarity,
            relatedness_score, is_duplicate, label), and `weight`, if pairs count differently; the minBERT and SICK
            files are such tables. Or the STS benchmark as SentEval ships it: no heading, no quoting, the score in
            column 5, the sentences in 6 and 7.
        low, high: the range of the scores, ends included; None is open. Duplicate labels have 0 to 1.
        score: the column of the scores, where it is to be another than those.

    Raises DataError for a file that is missing, has not these columns, or holds no usable pair.
    """
    path = Path(path)
    if score is None and path.suffix.lower() not in JSONL and _is_benchmark(path):
        return read_benchmark(path, low=low, high=high)
    part = read_table(path)
    found = (tuple(find_column(part, [name], None, path) for name in names) for names in SENTENCE_NAMES)
    sentences = next(((first, second) for first, second in found if first and second), None)
    score = find_column(part, SCORE_NAMES, score, path)
    if sentences is None or score is None:
        lacking = " and ".join(
            name for name, found in (("two sentences", sentences), ("a score", score)) if found is None
        )
        raise DataError(
            f"{path}: found no columns of {lacking} among {', '.join(map(repr, part.columns)) or 'none'}; expected "
            f"{' or '.join('/'.join(names) for names in SENTENCE_NAMES)}, and one of {', '.join(SCORE_NAMES)}"
        )
    weight = find_column(part, WEIGHT_NAMES, None, path)
    taken = _Taken(low, high, bad=part.bad, weighted=weight is not None)
    weights = [None] * len(part.rows) if weight is None else part.columns[weight]
    cells = zip(part.rows, *(part.columns[name] for name in (*sentences, score)), weights, strict=True)
    for line, first, second, value, counts in cells:
        taken.add(part.file, line, first, second, value, counts)
    return taken.finish(path)


def read_benchmark(
    path: Path, *, low: float | None = 0.0, high: float | None = 5.0
) -> tuple[ScoredPairs, list[BadRow]]:
    """The STS benchmark as SentEval ships it; what it raises and returns is as for `read_scored_pairs`."""
    taken = _Taken(low, high)
    for number, line in enumerate(read_plain_lines(path), start=1):
        cells = line.split("\t")
        if len(cells) <= max(BENCHMARK_SENTENCES):
            taken.refuse(path.name, number, "expected tab-separated columns: the score fifth, then two sentences")
        else:
            first, second = (cells[place] for place in BENCHMARK_SENTENCES)
            taken.add(path.name, number, first, second, cells[BENCHMARK_SCORE])
    return taken.finish(path)


def read_year(
    folder: Path, *, low: float | None = 0.0, high: float | None = 5.0
) -> tuple[dict[str, ScoredPairs], list[BadRow]]:
    """One year of STS, `STS.input.NAME.txt` beside `STS.gs.NAME.txt`: subset → its pairs, in order of the names.

    Raises DataError where a file is missing, the two have not as many lines, or no pair can be used.
    """
    inputs = sorted(folder.glob("STS.input.*.txt"))
    if not inputs:
        raise DataError(f"{folder}: has no STS.input.*.txt; expected the SentEval layout of the STS sets")
    subsets: dict[str, ScoredPairs] = {}
    bad: list[BadRow] = []
    for path in inputs:
        gold_path = path.with_name(path.name.replace("STS.input.", "STS.gs."))
        lines, scores = read_plain_lines(path), read_plain_lines(gold_path)
        if len(lines) != len(scores):
            raise DataError(f"{gold_path}: has {len(scores)} lines, {path.name} has {len(lines)}; expected as many")
        taken = _Taken(low, high, bad=bad)
        for number, (line, score) in enumerate(zip(lines, scores, strict=True), start=1):
            cells = line.split("\t")
            if len(cells) < 2:
                taken.refuse(f"{folder.name}/{path.name}", number, "expected two tab-separated sentences")
            else:
                taken.add(f"{folder.name}/{gold_path.name}", number, cells[0], cells[1], score)
        if taken.pairs.score:
            subsets[path.name.removeprefix("STS.input.").removesuffix(".txt")] = taken.pairs
    if not subsets:
        raise refuse_nothing_usable(folder, "scored pair", bad)
    return subsets, bad


def joined(parts: Iterable[ScoredPairs]) -> ScoredPairs:
    """All pairs, one part after the other."""
    parts = list(parts)
    weighted = any(part.weight for part in parts)
    whole = ScoredPairs()
    for part in parts:
        whole.first.extend(part.first)
        whole.second.extend(part.second)
        whole.score.extend(part.score)
        whole.weight.extend(part.weights() if weighted else [])
    return whole


class _Taken:
    """The pairs taken so far, and the rows refused."""

    def __init__(
        self, low: float | None, high: float | None, bad: list[BadRow] | None = None, weighted: bool = False
    ) -> None:
        self.low, self.high, self.weighted = low, high, weighted
        self.pairs = ScoredPairs()
        self.bad = [] if bad is None else bad

    def refuse(self, file: str, line: int, reason: str) -> None:
        self.bad.append(BadRow(file, line, str(line), reason))

    def add(self, file: str, line: int, first: Any, second: Any, score: Any, weight: Any = None) -> None:
        try:
            sentences = [text_in(first, "first sentence"), text_in(second, "second sentence")]
            value = number_in(score, "score")
            if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
                raise ValueError(f"the score {value:g} is outside {_range(self.low, self.high)}")
            counts = weight_in(weight) if self.weighted else 1.0
        except ValueError as error:
            self.refuse(file, line, str(error))
            return
        self.pairs.first.append(sentences[0])
        self.pairs.second.append(sentences[1])
        self.pairs.score.append(value)
        if self.weighted:
            self.pairs.weight.append(counts)

    def finish(self, path: Path) -> tuple[ScoredPairs, list[BadRow]]:
        if not self.pairs.score:
            raise refuse_nothing_usable(path, "scored pair", self.bad)
        return self.pairs, sorted(self.bad, key=lambda row: row.row)


def weight_in(cell: Any) -> float:
    """The weight in a cell, at least 0; ValueError says what is wrong with it."""
    counts = number_in(cell, "weight")
    if counts < 0:
        raise ValueError(f"the weight {counts:g} is below 0")
    return counts


def check_range(low: float, high: float) -> None:
    """ValueError for a range of scores that is none."""
    if not low < high:
        raise ValueError(f"low: {low:g} is to be less than high, {high:g}")


def _range(low: float | None, high: float | None) -> str:
    return f"the range {'-∞' if low is None else f'{low:g}'} to {'∞' if high is None else f'{high:g}'}"


def _is_benchmark(path: Path) -> bool:
    """No heading among the first lines, and a number where the STS benchmark has its score."""
    known = {name for names in SENTENCE_NAMES for name in names}
    for line in read_plain_lines(path)[:20]:
        cells = line.split("\t")
        if known & {plain_name(cell) for cell in cells}:
            return False
        if len(cells) > max(BENCHMARK_SENTENCES) and cells[BENCHMARK_SCORE].strip():
            try:
                number_in(cells[BENCHMARK_SCORE], "score")
            except ValueError:
                continue
            return True
    return False
