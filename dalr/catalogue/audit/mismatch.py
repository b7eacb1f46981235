"""How probable it is that a caption does not fit its picture: several kinds of evidence, one calibrated probability.

Each kind scores every pair and as many pairs put together at random, the null. How much likelier a score is among the
catalogue's pairs than among random ones is its log-odds. Those of several kinds add up with weights, fitted together
and kept near each other (ridge), since kinds that see the same things must not count twice. The probability follows
from the densities alone: of the pairs with a score, the share π · null / own is there by chance, where π, the share of
wrong pairs in all, is the largest that leaves no score with more wrong pairs than pairs. No label is needed.

A caption of a similar product is less wrong than a random one, so this does not count it. A second probability does,
where such captions stand apart, that is where two or three normal densities describe the scores better than one skewed
and heavy-tailed density (Johnson's S_U, by BIC). It is that of the lowest of them, and no more than what is left when
right pairs are spread below their median as far as above it. The larger of the two probabilities holds.

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
# Pairs that the mirrored half is taken to have at the lowest score: a few that stand out alone are no finding.
BENEFIT = 5
# How strongly the weights of the kinds are held down: half of it times their squares joins the mean logistic loss.
RIDGE = 0.03
# Scores that are looked at to tell one kind of pair from two, and how many of them must differ.
SAMPLE, LEAST_VALUES = 5_000, 50


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

    `odds` are those of each kind of evidence times its weight in their sum, `null` its mean and deviation over random
    pairs; `share` of all pairs is expected to be mismatched.
    """

    odds: dict[str, LogOdds]
    null: dict[str, tuple[float, float]]
    score: Floats
    probability: Floats
    share: float

    @classmethod
    def fit(cls, evidence: Mapping[str, Scores]) -> "Calibration":
        """From the pairs themselves and the null; see the head of this file."""
        odds = _weighed({name: LogOdds.fit(scores) for name, scores in evidence.items()}, evidence)
        nulls = {name: _known(scores.null_M) for name, scores in evidence.items()}
        own = _added(odds, {name: scores.own_N for name, scores in evidence.items()})
        null = _added(odds, {name: scores.null_M for name, scores in evidence.items()})
        curves = [_by_chance(own, null), _standing_apart(own)]
        grid = np.unique(np.concatenate([score for score, _ in curves]))
        wrong = np.max([np.interp(grid, *curve) for curve in curves], axis=0)
        spread = {name: (float(np.mean(known)), float(np.std(known))) for name, known in nulls.items()}
        return cls(odds, spread, grid, wrong, float(np.mean(np.interp(own, grid, wrong))))

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


def _weighed(odds: Mapping[str, LogOdds], evidence: Mapping[str, Scores]) -> dict[str, LogOdds]:
    """The log-odds of each kind times its weight in their sum: logistic regression over all kinds, with a ridge."""
    from sklearn.linear_model import LogisticRegression

    own = np.stack([odds[name](scores.own_N) for name, scores in evidence.items()], axis=1)
    null = np.stack([odds[name](scores.null_M) for name, scores in evidence.items()], axis=1)
    x, target = np.r_[own, null], np.r_[np.ones(len(own)), np.zeros(len(null))]
    scale = np.maximum(x.std(axis=0), 1e-9)
    fitted = LogisticRegression(class_weight="balanced", C=1 / (RIDGE * len(x))).fit(x / scale, target)
    weights = dict(zip(evidence, np.maximum(fitted.coef_[0] / scale, 0.0).tolist(), strict=True))
    return {name: LogOdds(weights[name] * line.slope, weights[name] * line.intercept) for name, line in odds.items()}


def _by_chance(own: Floats, null: Floats) -> tuple[Floats, Floats]:
    """The probability that a pair is as good as random, as a falling curve through (score, probability)."""
    share = min(1.0, min(float(np.mean(own <= np.quantile(null, at))) / at for at in QUANTILES))
    score, ratio = _density_ratio(null, own, len(own) / len(null))
    return score, np.minimum(share * ratio, 1.0)


def _standing_apart(own: Floats) -> tuple[Floats, Floats]:
    """The probability that a pair is of a second, lower kind, as a falling curve; 0 where one kind is all there is."""
    from scipy import stats
    from sklearn.mixture import GaussianMixture

    middle, count = float(np.median(own)), min(len(own), SAMPLE)
    sample = np.quantile(own, (np.arange(count) + 0.5) / count)
    lower, upper = sample[sample < middle], sample[sample > middle]
    if len(np.unique(sample)) < LEAST_VALUES or not len(lower) or not len(upper):
        return np.array([middle]), np.zeros(1)
    single = stats.johnsonsu.fit(sample)
    single_bic = len(single) * np.log(count) - 2 * stats.johnsonsu.logpdf(sample, *single).sum()
    # Right pairs alone may need two.
    mixtures = [GaussianMixture(kinds, n_init=3, random_state=0).fit(sample[:, None]) for kinds in (2, 3)]
    mixture = min(mixtures, key=lambda one: one.bic(sample[:, None]))
    if not mixture.bic(sample[:, None]) < single_bic:
        return np.array([middle]), np.zeros(1)
    mirrored = np.r_[2 * middle - upper, np.full(BENEFIT, lower.min())]
    of_lower = mixture.predict_proba(lower[:, None])[:, np.argmin(mixture.means_[:, 0])]
    beyond = 1.0 - 1.0 / np.maximum(np.interp(lower, *_density_ratio(lower, mirrored, 1.0)), 1.0)
    return np.r_[lower, middle], np.r_[np.minimum(np.minimum.accumulate(of_lower), beyond), 0.0]


def _density_ratio(of: Floats, to: Floats, scale: float) -> tuple[Floats, Floats]:
    """`scale` · how many more of `of` than of `to` a score has, never rising: (score, ratio)."""
    from sklearn.isotonic import IsotonicRegression

    x, target = np.r_[of, to], np.r_[np.ones(len(of)), np.zeros(len(to))]
    weight = np.r_[np.full(len(of), scale), np.ones(len(to))]
    curve = IsotonicRegression(increasing=False, y_min=0.0, y_max=1.0).fit(x, target, sample_weight=weight)
    share = np.asarray(curve.y_thresholds_, np.float64)
    return np.asarray(curve.X_thresholds_, np.float64), share / np.maximum(1 - share, 1e-9)


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
