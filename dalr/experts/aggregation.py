"""One label from several calibrated scores, and how far the experts disagree.

Legend: A experts · P pairs.
"""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import Field

from dalr.config import Config
from dalr.errors import DataError

Floats = npt.NDArray[np.float64]
Rule = Literal["mean", "weighted", "median", "max", "min", "trimmed", "label_gated"]


class AggregationConfig(Config):
    """The soft label y' = `hard_share` · y + (1 − `hard_share`) · aggregate; a pair without a hard label has the
    aggregate alone. (Our names and rules: the formulas of Lu et al. 2024 were not at hand.)

    - `mean`, `weighted` (by the experts' weights), `median`, `max`, `min`
    - `trimmed`: the mean without the `trim` share of the experts at each end
    - `label_gated`: what is labelled a match has the highest score, what is labelled none the lowest, and what has no
      label the mean

    `disagreement` lowers the weight of pairs on which experts differ: 1 − disagreement · d, where d is the standard
    deviation of their scores (each by its weight where the rule is `weighted`) over its largest possible value, ½.
    """

    rule: Rule = "mean"
    hard_share: float = Field(default=0.5, ge=0, le=1)
    trim: float = Field(default=0.25, ge=0, lt=0.5)
    disagreement: float = Field(default=0.0, ge=0, le=1)


def aggregate(
    scores_AP: Floats, config: AggregationConfig, weights_A: Floats | None = None, labels_P: Floats | None = None
) -> Floats:
    """The experts' scores as one, (P,).

    Raises DataError for `label_gated` without a hard label, weights of 0, and a `trim` that leaves no expert out.
    """
    rule = config.rule
    if rule not in get_args(Rule):
        raise DataError(f"rule {rule!r}; expected one of {', '.join(get_args(Rule))}")
    if rule == "weighted":
        weights_A = np.ones(len(scores_AP)) if weights_A is None else weights_A
        if weights_A.sum() <= 0:
            raise DataError("aggregation: every expert has weight 0; give one a weight")
        return np.asarray(weights_A @ scores_AP / weights_A.sum(), dtype=np.float64)
    if rule == "trimmed":
        from scipy.stats import trim_mean

        if int(config.trim * len(scores_AP)) < 1:
            raise DataError(
                f"aggregation.trim: {config.trim:g} of {len(scores_AP)} experts leaves none out; raise it, or use mean"
            )
        return np.array(trim_mean(scores_AP, config.trim, axis=0), dtype=np.float64)
    if rule == "label_gated":
        if labels_P is None:
            raise DataError("aggregation label_gated: there are no hard labels; name data.label, or use another rule")
        gated = np.where(labels_P >= 0.5, scores_AP.max(axis=0), scores_AP.min(axis=0))
        chosen: Floats = np.where(np.isnan(labels_P), scores_AP.mean(axis=0), gated)
        return chosen
    if rule == "median":
        return np.asarray(np.median(scores_AP, axis=0))
    if rule in ("max", "min"):
        return np.asarray(scores_AP.max(axis=0) if rule == "max" else scores_AP.min(axis=0))
    return np.asarray(scores_AP.mean(axis=0))


def soft_labels(aggregate_P: Floats, labels_P: Floats | None, hard_share: float) -> Floats:
    """y' = λ · y + (1 − λ) · aggregate, and the aggregate where there is no y; (P,) in 0 … 1."""
    if labels_P is None:
        return aggregate_P
    mixed = hard_share * labels_P + (1 - hard_share) * aggregate_P
    return np.where(np.isnan(labels_P), aggregate_P, mixed)


def agreement_weights(scores_AP: Floats, disagreement: float, weights_A: Floats | None = None) -> Floats:
    """1 − disagreement · 2 · sd of the experts' scores, (P,) in 0 … 1; with `weights_A` the weighted sd."""
    mean_P = np.average(scores_AP, axis=0, weights=weights_A)
    variance_P = np.average((scores_AP - mean_P) ** 2, axis=0, weights=weights_A)
    return np.asarray(1 - disagreement * 2 * np.sqrt(variance_P))
