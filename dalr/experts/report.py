"""What the scores say of the experts: how they agree, where they are off, on which pairs they differ most.

Legend: A experts · P pairs.
"""

from typing import Any

import numpy as np

from dalr.experts.calibration import Floats
from dalr.experts.labels import Labels
from dalr.experts.pairs import JudgedPairs

SHOWN = 5


def describe_labels(pairs: JudgedPairs, labels: Labels) -> dict[str, Any]:
    """As JSON values.

    `correlation` (Spearman of the raw scores, between experts by name; None for two with fewer than two different
    scores in common); `experts`, of each the mean of its calibrated scores, its `bias`, and with hard labels `auc` and
    `error` (the mean square distance to them), over the pairs that it has scored itself; `label` (mean and sd);
    `disputed`, the pairs with the largest spread.

    `bias` is how far an expert's calibrated scores lie above the truth on average: above the hard labels of the pairs
    that have one, or where the data has none above the mean of the other experts that have scored a pair. None where
    there is nothing to compare with.
    """
    return {
        "correlation": correlations(labels),
        "experts": {name: _expert(pairs, labels, number) for number, name in enumerate(labels.names)},
        "label": {"mean": _rounded(labels.label_P.mean()), "sd": _rounded(labels.label_P.std())},
        "disputed": disputed(pairs, labels),
    }


def correlations(labels: Labels) -> dict[str, dict[str, float | None]]:
    """Spearman's correlation between the raw scores of every two experts, over the pairs that both have scored."""
    from scipy.stats import spearmanr

    def between(one_P: Floats, other_P: Floats) -> float | None:
        both = ~np.isnan(one_P) & ~np.isnan(other_P)
        if min(len(set(one_P[both])), len(set(other_P[both]))) < 2:
            return None
        return _rounded(spearmanr(one_P[both], other_P[both]).statistic)

    raw = dict(zip(labels.names, labels.raw_AP, strict=True))
    return {one: {other: between(scores, others) for other, others in raw.items()} for one, scores in raw.items()}


def disputed(pairs: JudgedPairs, labels: Labels) -> list[dict[str, Any]]:
    """The pairs on which the experts differ most, widest first: where, both sides, each expert's calibrated score."""
    if len(labels.names) < 2:
        return []
    images = pairs.images.images if pairs.images is not None else []
    others = pairs.second if pairs.second is not None else images
    widest = np.argsort(-labels.calibrated_AP.std(axis=0), kind="stable")[:SHOWN]
    return [
        {
            "where": pairs.where[row],
            "first": pairs.first[row],
            "second": others[row],
            "scores": {name: _rounded(labels.calibrated_AP[at, row]) for at, name in enumerate(labels.names)},
        }
        for row in widest
    ]


def _expert(pairs: JudgedPairs, labels: Labels, number: int) -> dict[str, float | None]:
    from sklearn.metrics import roc_auc_score

    scores_P, said = labels.calibrated_AP[number], ~np.isnan(labels.raw_AP[number])
    found: dict[str, float | None] = {
        "mean": _rounded(scores_P[said].mean()),
        "bias": _bias(pairs, labels, number),
    }
    if pairs.label is not None:
        known = said & ~np.isnan(pairs.label)
        match = pairs.label[known] >= 0.5
        found["auc"] = _rounded(roc_auc_score(match, scores_P[known])) if 0 < match.sum() < len(match) else None
        found["error"] = _rounded(((scores_P[known] - pairs.label[known]) ** 2).mean()) if known.any() else None
    return found


def _bias(pairs: JudgedPairs, labels: Labels, number: int) -> float | None:
    said_AP = np.ma.masked_array(labels.calibrated_AP, np.isnan(labels.raw_AP))
    others_AP = said_AP[np.arange(len(said_AP)) != number]
    truth_P = others_AP.mean(axis=0) if pairs.label is None else np.ma.masked_invalid(pairs.label)
    above_P = (said_AP[number] - truth_P).compressed()
    return _rounded(above_P.mean()) if len(above_P) else None


def _rounded(value: Any) -> float:
    return round(float(value), 4)
