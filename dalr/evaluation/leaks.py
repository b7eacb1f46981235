"""Leaks: training texts that stand in what a model is tested on or selected by.

A sentence is recognised by its letters and digits alone, so that another tokenisation, case or punctuation of the same
sentence is found (the minBERT files hold 961 pairs of the STS benchmark's test part, of which a comparison that
minds punctuation sees 98).
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field

from dalr.config import Config
from dalr.data.scored_pairs import ScoredPairs, ScoresConfig, joined, read_scored_pairs
from dalr.data.transfer_sets import TRANSFER_TASKS, read_transfer_set
from dalr.evaluation.sts import DEV_TASKS, TASKS, read_task
from dalr.files import hash_json

Mask = npt.NDArray[np.bool_]
Pair = tuple[str, str]


class LeakConfig(Config):
    """What training must not hold, and what is done about it.

    `sts` and `transfer` are folders in the SentEval layout, whose test and dev parts count (where a transfer set is
    cross-validated, the whole of it); `pairs` are further files of scored pairs, each under the name that the counts
    have. A text, a triplet with such a text and a scored pair that stands
    there as a pair are left out, or with `drop: false` only counted; with `strict` a scored pair is left out already
    if one of its sentences stands there.
    """

    sts: str | None = None
    transfer: str | None = None
    pairs: dict[str, ScoresConfig] = Field(default_factory=dict)
    drop: bool = True
    strict: bool = False


@dataclass
class LeakReport:
    """Training rows that leak.

    Attributes:
        rows: how many were looked at.
        leaking: rows that the rule of the config finds.
        dropped: rows left out: `leaking`, or 0 where they are only counted.
        sentences: by test set, rows with a sentence that stands there.
        pairs: by test set, scored pairs that stand there as a pair.
    """

    rows: int = 0
    leaking: int = 0
    dropped: int = 0
    sentences: Counter[str] = field(default_factory=Counter)
    pairs: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, object]:
        """All fields, the counts as plain mappings."""
        return {**vars(self), "sentences": dict(self.sentences), "pairs": dict(self.pairs)}


class LeakCheck:
    """Finds training rows that stand in held-out sets, and keeps count.

    Args:
        held: by name, the pairs of each held-out set.
        texts: by name, the sentences of sets without pairs.
        drop, strict: as in `LeakConfig`.
    """

    def __init__(
        self,
        held: Mapping[str, ScoredPairs],
        texts: Mapping[str, Sequence[str]] | None = None,
        *,
        drop: bool = True,
        strict: bool = False,
    ) -> None:
        self.pairs: dict[str, set[Pair]] = {}
        self.sentences: dict[str, set[str]] = {}
        for name, some in held.items():
            keys = [(leak_key(first), leak_key(second)) for first, second in zip(some.first, some.second, strict=True)]
            self.pairs[name] = {_ordered(*pair) for pair in keys}
            self.sentences[name] = {key for pair in keys for key in pair if key}
        for name, some_texts in (texts or {}).items():
            self.sentences[name] = {key for key in map(leak_key, some_texts) if key}
        self.drop, self.strict = drop, strict
        self.report = LeakReport()

    @classmethod
    def load(cls, config: LeakConfig) -> "LeakCheck | None":
        """The check of `config`, or None where it names nothing. Raises DataError for files that cannot be read."""
        if config.sts is None and config.transfer is None and not config.pairs:
            return None
        held = held_out_sts(config.sts) if config.sts is not None else {}
        held |= {name: read_scored_pairs(file.path, low=None, high=None)[0] for name, file in config.pairs.items()}
        texts = held_out_transfer(config.transfer) if config.transfer is not None else {}
        return cls(held, texts, drop=config.drop, strict=config.strict)

    def fingerprint(self) -> str:
        """Hash of what is held out, and of the rule."""
        sentences = {name: sorted(some) for name, some in self.sentences.items()}
        pairs = {name: sorted(some) for name, some in self.pairs.items()}
        return hash_json([sentences, pairs, self.drop, self.strict])

    def kept_texts(self, *columns: Sequence[str]) -> Mask:
        """(N,) true for the rows to train on, of texts in one or several columns of N."""
        keys = [{leak_key(text) for text in row} for row in zip(*columns, strict=True)]
        return self._count(self._sentence_hits(keys))

    def kept_pairs(self, first: Sequence[str], second: Sequence[str]) -> Mask:
        """(N,) true for the scored pairs to train on."""
        keys = [(leak_key(a), leak_key(b)) for a, b in zip(first, second, strict=True)]
        by_sentence = self._sentence_hits([set(pair) for pair in keys])
        hits = np.zeros(len(keys), dtype=bool)
        for name, known in self.pairs.items():
            found = np.array([_ordered(*pair) in known for pair in keys], dtype=bool)
            self.report.pairs[name] += int(found.sum())
            hits |= found
        return self._count(by_sentence if self.strict else hits)

    def _sentence_hits(self, keys: Sequence[set[str]]) -> Mask:
        hits = np.zeros(len(keys), dtype=bool)
        for name, known in self.sentences.items():
            found = np.array([not known.isdisjoint(row) for row in keys], dtype=bool)
            self.report.sentences[name] += int(found.sum())
            hits |= found
        return hits

    def _count(self, hits: Mask) -> Mask:
        leaking = int(hits.sum())
        self.report.rows += len(hits)
        self.report.leaking += leaking
        self.report.dropped += leaking if self.drop else 0
        return ~hits if self.drop else np.ones_like(hits)


def held_out_sts(folder: str | Path) -> dict[str, ScoredPairs]:
    """The test and dev parts of the STS sets in the SentEval layout, by name; DataError where one is missing."""
    held = {}
    for task in (*TASKS, *DEV_TASKS):
        subsets, _ = read_task(folder, task)
        held[f"{task}-test" if f"{task}-dev" in DEV_TASKS else task] = joined(subsets.values())
    return held


def held_out_transfer(folder: str | Path) -> dict[str, list[str]]:
    """The sentences of the transfer sets but for their train parts, by task; DataError where a file is missing."""
    found = {}
    for task in TRANSFER_TASKS:
        parts = read_transfer_set(folder, task).parts
        held = [part for name, part in parts.items() if name != "train"]
        found[task] = [text for part in held for text in (*part.first, *part.second)]
    return found


def leak_key(text: str) -> str:
    """Letters and digits of a text, without case and accents' form."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKD", text).casefold()))


def chosen(values: Iterable[str], kept: Mask) -> list[str]:
    """The values whose row is kept."""
    return [value for value, keep in zip(values, kept, strict=True) if keep]


def _ordered(first: str, second: str) -> Pair:
    return (first, second) if first <= second else (second, first)
