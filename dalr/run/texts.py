"""The texts that a run trains on beside its manifest: read, checked for leaks, and turned into rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dalr.data.groups import ids_of_texts, pair_ids
from dalr.data.manifest import BadRow, Manifest
from dalr.data.scored_pairs import ScoredPairs, ScoresConfig, joined, read_scored_pairs
from dalr.data.texts import Triplets, read_corpus, read_triplets
from dalr.errors import DataError
from dalr.evaluation.leaks import LeakCheck, chosen
from dalr.files import hash_json
from dalr.model import DualEncoder
from dalr.objectives import Rows
from dalr.objectives.batch import Column
from dalr.progress import ProgressSink
from dalr.run.config import DataSection
from dalr.training_data import text_column, text_rows


@dataclass(frozen=True)
class TrainingTexts:
    """The text-only training set: one of triplets, scored pairs and a corpus; and the rows that cannot be used.

    The scores of `pairs` are brought to 0 … 1.
    """

    corpus: list[str] = field(default_factory=list)
    triplets: Triplets | None = None
    pairs: ScoredPairs | None = None
    bad: list[BadRow] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.corpus or self.triplets or self.pairs)

    def anchors(self) -> list[str]:
        """The first text of every row."""
        if self.triplets is not None:
            return self.triplets.anchors
        return self.pairs.first if self.pairs is not None else self.corpus

    def everything(self) -> list[str]:
        """All texts, for a tokenizer that is built from them."""
        sides = self.triplets.sides if self.triplets else (self.pairs.first, self.pairs.second) if self.pairs else ()
        return [*self.corpus, *(text for side in sides for text in side)]

    def fingerprint(self) -> str:
        """32 hex digits over what is trained on."""
        pairs = self.pairs
        scored = [[pairs.first, pairs.second, pairs.score, *([pairs.weight] if pairs.weight else [])]] if pairs else []
        found = self.triplets
        triplets = [*found.sides, *([found.group] if any(found.group) else [])] if found else None
        return hash_json([self.corpus, triplets, *scored])


def read_texts(data: DataSection, leaks: LeakCheck | None) -> TrainingTexts:
    """The corpus, triplets or scored pairs that `data` names, less what leaks.

    Raises DataError for files that cannot be read, or where nothing is left.
    """
    found = _read(data)
    if leaks is None:
        return found
    if found.triplets is not None:
        kept = leaks.kept_texts(*found.triplets.sides)
        found = replace(found, triplets=found.triplets.chosen(kept))
    elif found.pairs is not None:
        kept = leaks.kept_pairs(found.pairs.first, found.pairs.second)
        found = replace(found, pairs=found.pairs.chosen(kept))
    elif found.corpus:
        kept = leaks.kept_texts(found.corpus)
        found = replace(found, corpus=chosen(found.corpus, kept))
    else:
        return found
    if not kept.any():
        raise DataError(
            f"leaks: all {len(kept):,} training rows stand in the test or dev sets; train on other data, or set "
            "leaks.drop=false"
        )
    return found


def _read(data: DataSection) -> TrainingTexts:
    if data.triplets:
        triplets, bad = read_triplets(data.triplets)
        return TrainingTexts(triplets=triplets, bad=bad)
    if data.scores:
        read = [read_scaled(source) for source in data.scores]
        bad = [row for _, refused in read for row in refused]
        return TrainingTexts(pairs=joined(pairs for pairs, _ in read), bad=bad)
    if data.corpus:
        corpus, bad = read_corpus(data.corpus)
        return TrainingTexts(corpus, bad=bad)
    return TrainingTexts()


def read_scaled(source: ScoresConfig) -> tuple[ScoredPairs, list[BadRow]]:
    """The scored pairs of one file with their scores brought to 0 … 1.

    Raises DataError where all scores are at most 1 and nobody has said that the range ends at 5: as they stand they
    would call every pair unlike.
    """
    pairs, bad = read_scored_pairs(source.path, low=source.low, high=source.high)
    if "high" not in source.model_fields_set and max(pairs.score) <= 1:
        raise DataError(
            f"{source.path}: no score is above 1, and scores are taken to run from {source.low:g} to {source.high:g}; "
            f"say `high: 1` in its entry of data.scores (or `high: {source.high:g}`)"
        )
    width = source.high - source.low
    return replace(pairs, score=[(score - source.low) / width for score in pairs.score]), bad


def sentence_rows(
    texts: TrainingTexts,
    data: DataSection,
    captions: Manifest | None,
    model: DualEncoder,
    cache: Path | None,
    progress: ProgressSink | None,
) -> Rows:
    """The rows of the text-only training set: triplets, scored pairs, the corpus, or else the captions.

    Captions keep their groups and weights; their photos are not read, so those of one path are one group.
    """
    if not texts and captions is not None:
        captions = captions.select(np.flatnonzero([bool(text) for text in captions.texts]))
        said = [text or "" for text in captions.texts]
        rows = text_rows(said, model, cache=cache, progress=progress, prompt=data.anchor_prompt)
        return replace(rows, ids_NK=captions.ids(), weight_N=captions.weight)
    rows = text_rows(texts.anchors(), model, cache=cache, progress=progress, prompt=data.anchor_prompt)

    def partners(side: Sequence[str]) -> Column:
        return text_column(side, model, cache, progress, data.partner_prompt)

    if texts.triplets is not None:
        anchors, positives, negatives = texts.triplets.sides
        ids = pair_ids(anchors, positives, texts.triplets.group)
        rows = replace(rows, ids_NK=ids, negative_ids_NK=ids_of_texts(negatives, anchors, positives, ids))
        return replace(rows, positive=partners(positives), negative=partners(negatives))
    if texts.pairs is not None:
        ids = pair_ids(texts.pairs.first, texts.pairs.second)
        target: npt.NDArray[np.float32] = np.array(texts.pairs.score, dtype=np.float32)
        weight: npt.NDArray[np.float32] = np.array(texts.pairs.weights(), dtype=np.float32)
        return replace(rows, ids_NK=ids, positive=partners(texts.pairs.second), target_N=target, weight_N=weight)
    return rows
