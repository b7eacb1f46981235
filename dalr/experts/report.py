"""What the scores say of the experts: how they agree, where they are off, on which pairs they differ most.

Legend: A experts · P pairs.
"""

from typing import Any

import numpy as np

from dalr.experts.labels import Labels
from dalr.experts.pairs import JudgedPairs

SHOWN = 5


def describe_labels(pairs: JudgedPairs, labels: Labels) -> dict[str, Any]:
    """As JSON values.

    `correlation` (Spearman of the raw scores, between experts by name); `experts`, of each the mean of its calibrated
    scores, its `bias`, and with hard labels `auc` and `error` (the mean square distance to them); `label` (mean and
    sd); `disputed`, the pairs with the largest spread.

    `bias` is how far an expert's calibrated scores lie above the truth on average, over the pairs that it has scored
    itself: above the hard labels of those that have one, or where the data has none above the mean of the other
    experts that have scored a pair. None where there is nothing to compare with.
    """
    return {
        "correlation": correlations(labels),
        "experts": {name: _expert(pairs, labels, number) for number, name in enumerate(labels.names)},
        "label": {"mean": _rounded(labels.label_P.mean()), "sd": _rounded(labels.label_P.std())},
        "disputed": disputed(pairs, labels),
    }


def correlations(labels: Labels) -> dict[str, dict[str, float]]:
    """Spearman's correlation between the raw scores of every two experts, over the pairs that both have scored."""
    from scipy.stats import spearmanr

    return {
        one: {
            other: _rounded(spearmanr(labels.raw_AP[i], labels.raw_AP[j], nan_policy="omit").statistic)
            for j, other in enumerate(labels.names)
        }
        for i, one in enumerate(labels.names)
    }


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

    scores_P = labels.calibrated_AP[number]
    found: dict[str, float | None] = {
        "mean": _rounded(scores_P.mean()),
        "bias": _bias(pairs, labels, number),
    }
    if pairs.label is not None:
        known = ~np.isnan(pairs.label)
        match = pairs.label[known] >= 0.5
        found["auc"] = _rounded(roc_auc_score(match, scores_P[known])) if 0 < match.sum() < len(match) else None
        found["error"] = _rounded(((scores_P[known] - pairs.label[known]) ** 2).mean())
    return found


def _bias(pairs: JudgedPairs, labels: Labels, number: int) -> float | None:
    said_AP = np.ma.masked_array(labels.calibrated_AP, np.isnan(labels.raw_AP))
    others_AP = said_AP[np.arange(len(said_AP)) != number]
    truth_P = others_AP.mean(axis=0) if pairs.label is None else np.ma.masked_invalid(pairs.label)
    above_P = (said_AP[number] - truth_P).compressed()
    return _rounded(above_P.mean()) if len(above_P) else None


def _rounded(value: Any) -> float:
    return round(float(value), 4)
