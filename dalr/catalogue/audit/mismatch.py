"""How probable it is that a caption does not fit its picture: several kinds of evidence, one calibrated probability.

Each kind scores every pair and as many pairs put together at random, the null. How much likelier a score is among the
catalogue's pairs than among random ones is its log-odds; those of several kinds add up. The probability follows from
the densities alone: of the pairs with a score, the share π · null / own is there by chance, where π, the share of
wrong pairs in all, is the largest that leaves no score with more wrong pairs than pairs. No label is needed.

Legend: N pairs · M random pairs · D shared width · V image width
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dalr.neighbours import TILE, RandomPairs, Scores, outstanding

Floats = npt.NDArray[np.float64]
# Where the two densities are compared to find the share of wrong pairs: quantiles of the null.
QUANTILES = (0.1, 0.2, 0.3, 0.5)
REFERENCES = 5_000


@dataclass(frozen=True)
class LogOdds:
    """log P(score | a pair of the catalogue) − log P(score | a random pair), as a line over the score."""

    slope: float
    intercept: float

    @classmethod
    def fit(cls, scores: Scores) -> "LogOdds":
        """By logistic regression, both sides weighing the same; never falling. NaN is a pair without this evidence."""
        from sklearn.linear_model import LogisticRegression

        own, null = (_known(side) for side in (scores.own_N, scores.null_M))
        if len(own) < 2 or len(null) < 2 or np.ptp(np.r_[own, null]) == 0:
            return cls(0.0, 0.0)
        target = np.r_[np.ones(len(own)), np.zeros(len(null))]
        fitted = LogisticRegression(class_weight="balanced").fit(np.r_[own, null][:, None], target)
        slope = float(fitted.coef_[0, 0])
        return cls(slope, float(fitted.intercept_[0])) if slope > 0 else cls(0.0, 0.0)

    def __call__(self, score: Tensor) -> Floats:
        """Log-odds of each pair; 0, which says nothing, where there is no score."""
        found: Floats = np.nan_to_num(self.slope * score.double().numpy() + self.intercept, nan=0.0)
        return found


@dataclass(frozen=True)
class Calibration:
    """From scores to the probability of a mismatch: a falling curve through (`score`, `probability`).

    `null` is mean and deviation of each kind of evidence over random pairs, `share` that of mismatches in all.
    """

    odds: dict[str, LogOdds]
    null: dict[str, tuple[float, float]]
    score: Floats
    probability: Floats
    share: float

    @classmethod
    def fit(cls, evidence: Mapping[str, Scores], random: int) -> "Calibration":
        """From the pairs themselves and the null; see the head of this file.

        The first `random` pairs of the null are what probabilities are measured by; the others, if there are any, are
        random pairs of things that resemble each other, which teach the weights of the evidence as well.
        """
        from sklearn.isotonic import IsotonicRegression

        odds = {name: LogOdds.fit(scores) for name, scores in evidence.items()}
        nulls = {name: _known(scores.null_M[:random]) for name, scores in evidence.items()}
        own = _added(odds, {name: scores.own_N for name, scores in evidence.items()})
        null = _added(odds, {name: scores.null_M[:random] for name, scores in evidence.items()})
        share = min(1.0, min(float(np.mean(own <= np.quantile(null, at))) / at for at in QUANTILES))
        x = np.r_[own, null]
        weight = np.r_[np.full(len(own), 1 / len(own)), np.full(len(null), 1 / len(null))]
        target = np.r_[np.ones(len(own)), np.zeros(len(null))]
        curve = IsotonicRegression(y_min=0.0, y_max=1.0).fit(x, target, sample_weight=weight)
        place, chance = curve.X_thresholds_, curve.y_thresholds_
        wrong = np.clip(share * (1 - chance) / np.maximum(chance, 1e-9), 0.0, 1.0)
        spread = {name: (float(np.mean(known)), float(np.std(known))) for name, known in nulls.items()}
        return cls(odds, spread, np.asarray(place, np.float64), np.asarray(wrong, np.float64), share)

    def judge(self, evidence: Mapping[str, Tensor]) -> tuple[Floats, Floats]:
        """(log-odds of fitting, probability of a mismatch), each (N,), of pairs with these scores."""
        score = _added(self.odds, evidence)
        return score, np.interp(score, self.score, self.probability)

    def standing(self, name: str, score: Floats) -> Floats:
        """Scores of one kind in the null's deviations above its mean."""
        mean, deviation = self.null[name]
        return (score - mean) / max(deviation, 1e-9)

    def as_json(self) -> dict[str, Any]:
        """Plain values that `from_json` reads."""
        return {
            "odds": {name: [line.slope, line.intercept] for name, line in self.odds.items()},
            "null": {name: list(spread) for name, spread in self.null.items()},
            "score": self.score.tolist(),
            "probability": self.probability.tolist(),
            "share": self.share,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Calibration":
        """What `as_json` wrote."""
        odds = {name: LogOdds(*line) for name, line in values["odds"].items()}
        null = {name: (float(mean), float(deviation)) for name, (mean, deviation) in values["null"].items()}
        return cls(odds, null, np.array(values["score"]), np.array(values["probability"]), float(values["share"]))


def cosine_scores(text_ND: Tensor, image_ND: Tensor, pairs: RandomPairs, rows_R: Tensor | None = None) -> Scores:
    """How far a pair's cosine stands out from those of its picture and of its caption with all others.

    Both in standard deviations, and their mean. Unit vectors of the shared space.
    """
    rows = torch.arange(len(text_ND)) if rows_R is None else rows_R
    picture, caption = torch.cat([rows, pairs.picture_M]), torch.cat([rows, pairs.caption_M])
    of_picture = outstanding(image_ND, text_ND, picture, caption)
    of_caption = outstanding(text_ND, image_ND, caption, picture)
    return Scores(*torch.split((of_picture + of_caption) / 2, [len(rows), len(pairs)]))


def sibling_scores(
    image_NV: Tensor, captions_N: npt.NDArray[np.int64], pairs: RandomPairs, rows_R: Tensor | None = None, seed: int = 0
) -> Scores:
    """How near a picture is to the nearest other picture of its caption, against pictures in general.

    −log of the share of all pictures that are nearer; NaN where the caption (`captions_N`, its number, -1 for none) has
    no other picture. Other pictures of one caption are those of other rows.
    """
    generator = torch.Generator().manual_seed(seed)
    size = len(image_NV)
    image_NV = torch.nn.functional.normalize(image_NV.float() - image_NV.float().mean(0), dim=1)
    pool = image_NV[torch.randperm(size, generator=generator)[:REFERENCES]]
    members: dict[int, list[int]] = {}
    for row, caption in enumerate(captions_N.tolist()):
        if caption >= 0:
            members.setdefault(caption, []).append(row)

    def standing(picture: Tensor, caption: Tensor) -> Tensor:
        found = torch.full((len(picture),), float("nan"))
        asked, near = [], []
        for place, (row, other) in enumerate(zip(picture.tolist(), caption.tolist(), strict=True)):
            rest = [one for one in members.get(int(captions_N[other]), []) if one not in (row, other)]
            if rest:
                asked.append(place)
                near.append(float((image_NV[rest] @ image_NV[row]).max()))
        blocks = (torch.split(torch.tensor(values), TILE) for values in (asked, near))
        for places, best in zip(*blocks, strict=True) if asked else ():
            cosine = image_NV[picture[places]] @ pool.T
            nearer = (cosine > best[:, None]).float().mean(1)
            found[places] = -torch.log(nearer + 1 / len(pool))
        return found

    rows = torch.arange(size) if rows_R is None else rows_R
    return Scores(standing(rows, rows), standing(pairs.picture_M, pairs.caption_M))


def _added(odds: Mapping[str, LogOdds], evidence: Mapping[str, Tensor]) -> Floats:
    """The log-odds of all kinds of evidence together."""
    return np.asarray(sum((odds[name](score) for name, score in evidence.items()), np.zeros(())), np.float64)


def _known(scores: Tensor) -> Floats:
    values = scores.double().numpy()
    return values[np.isfinite(values)]  # type: ignore[no-any-return]
