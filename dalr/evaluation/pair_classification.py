"""Pair classification: how well cosines tell pairs that belong together from pairs that do not.

Legend: P labelled pairs · E distinct scores (where a threshold can stand)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dalr.data.text_retrieval_sets import LabelledPairs
from dalr.evaluation.sentences import SentenceModel, cosines, embed_sentences
from dalr.progress import ProgressSink

Array = npt.NDArray[Any]
# Cosines equal to so many decimals are one: rounding in float32 must not make an order out of equal embeddings.
DECIMALS = 6


def evaluate_pairs(
    model: SentenceModel,
    pairs: LabelledPairs,
    *,
    resamples: int = 1000,
    seed: int = 0,
    progress: ProgressSink | None = None,
) -> dict[str, Any]:
    """What `dalr eval pairs --json` prints: `pair_figures` of the pairs' cosines, in the `sentence` space.

    Raises DalrError where an embedding is not finite.
    """
    embedded = embed_sentences(model, [*pairs.first, *pairs.second], progress)
    return pair_figures(cosines(embedded(pairs.first), embedded(pairs.second)), pairs.relevant, resamples, seed)


def pair_figures(scores_P: Array, relevant_P: Array, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Average precision, best F1 and best accuracy, with the thresholds that give them.

    Args:
        scores_P: the higher, the more likely a pair belongs together.
        relevant_P: whether it does; some of both.

    Returns:
        ap, f1 (with f1_threshold, and precision and recall there), accuracy (with accuracy_threshold), in percent but
        for the thresholds; pairs, positive_pairs; ci95 of the three; and `definition`.
    """
    ranked = RankedPairs(scores_P, relevant_P)
    curve = ranked.curve()
    best, right = int(curve.f1.argmax()), int(curve.accuracy.argmax())
    drawn = [(each.average_precision, each.f1.max(), each.accuracy.max()) for each in ranked.resampled(resamples, seed)]
    samples = dict(zip(("ap", "f1", "accuracy"), zip(*drawn, strict=True), strict=True))
    return {
        "ap": _percent(curve.average_precision),
        "f1": _percent(curve.f1[best]),
        "f1_threshold": round(float(ranked.thresholds_E[best]), DECIMALS),
        "precision": _percent(curve.precision[best]),
        "recall": _percent(curve.recall[best]),
        "accuracy": _percent(curve.accuracy[right]),
        "accuracy_threshold": round(float(ranked.thresholds_E[right]), DECIMALS),
        "pairs": len(relevant_P),
        "positive_pairs": int(np.sum(relevant_P)),
        "ci95": {name: interval(values) for name, values in samples.items()},
        "definition": (
            "Cosine in the sentence space; a pair at or above a threshold is called positive; cosines equal to "
            f"{DECIMALS} decimals are one. ap: average precision, the sum over thresholds of precision x gain in "
            "recall. f1 and accuracy: the best over all thresholds, picked on these very pairs (precision and recall "
            "are those at f1_threshold). In percent but thresholds and counts. ci95: percentile bootstrap over pairs, "
            f"thresholds picked anew, {resamples} resamples, seed {seed}."
        ),
    }


def interval(values: Sequence[float]) -> list[float]:
    """The middle 95 % of shares from 0 to 1, in percent."""
    return [_percent(end) for end in np.percentile(values, [2.5, 97.5])]


@dataclass(frozen=True)
class Curve:
    """Pairs called positive at each threshold, from the highest down: how many rightly (`hits`), how many wrongly."""

    hits_E: Array
    misses_E: Array

    @property
    def precision(self) -> Array:
        """(E,) share of the pairs called positive that are; 1 where none is called so."""
        called = self.hits_E + self.misses_E
        return np.where(called > 0, self.hits_E / np.maximum(called, 1), 1.0)

    @property
    def recall(self) -> Array:
        """(E,) share of the positive pairs that are called so."""
        found: Array = self.hits_E / max(self.hits_E[-1], 1)
        return found

    @property
    def f1(self) -> Array:
        """(E,) harmonic mean of precision and recall."""
        found: Array = 2 * self.hits_E / np.maximum(self.hits_E + self.misses_E + self.hits_E[-1], 1)
        return found

    @property
    def accuracy(self) -> Array:
        """(E,) share of pairs called what they are."""
        found: Array = (self.hits_E + self.misses_E[-1] - self.misses_E) / (self.hits_E[-1] + self.misses_E[-1])
        return found

    @property
    def average_precision(self) -> float:
        """Sum over thresholds of precision × gain in recall: the area under the curve without interpolation."""
        return float((np.diff(self.recall, prepend=0.0) * self.precision).sum())


class RankedPairs:
    """Labelled pairs by falling score; scores equal to six decimals share a threshold."""

    def __init__(self, scores_P: Array, relevant_P: Array) -> None:
        scores = np.round(np.asarray(scores_P, np.float64), DECIMALS)
        self._order = np.argsort(-scores, kind="stable")
        self._relevant = np.asarray(relevant_P, bool)[self._order]
        self._ends = np.append(np.flatnonzero(np.diff(scores[self._order])), len(scores) - 1)
        self.thresholds_E = scores[self._order][self._ends]

    def curve(self, times_P: Array | None = None) -> Curve:
        """The curve where pair i counts `times_P[i]` times; None is once."""
        times = np.ones(len(self._order), np.int64) if times_P is None else times_P[self._order]
        hits = np.cumsum(times * self._relevant)
        return Curve(hits[self._ends], (np.cumsum(times) - hits)[self._ends])

    def resampled(self, resamples: int, seed: int) -> Iterator[Curve]:
        """Curves of as many pairs drawn with replacement, one after the other."""
        generator = np.random.default_rng(seed)
        count = len(self._order)
        for _ in range(resamples):
            yield self.curve(np.bincount(generator.integers(count, size=count), minlength=count))


def _percent(share: float) -> float:
    return round(100.0 * float(share), 4)
