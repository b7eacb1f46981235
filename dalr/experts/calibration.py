"""Bringing experts' scores, each on a scale of its own, to 0 … 1.

Legend: P pairs.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from dalr.config import Config
from dalr.errors import DataError

Floats = npt.NDArray[np.float64]
Method = Literal["none", "minmax", "zscore", "rank", "platt", "isotonic"]
LEAST_LABELS = 20  # of each class: fewer do not fix a curve


class CalibrationConfig(Config):
    """How scores come to 0 … 1.

    - `none`: they are there already, and are cut to it
    - `minmax`: the smallest is 0, the largest 1
    - `zscore`: the sigmoid of the distance from the mean in standard deviations
    - `rank`: the share of pairs below (ties: half of them)
    - `platt`, `isotonic`: the probability of a match, fitted to the hard labels by a sigmoid (Platt 1999) or by a step
      function that never falls (Zadrozny and Elkan 2002). Each pair is judged by a curve that was fitted to the other
      `folds` − 1 parts of the labelled pairs; an unlabelled one by a curve of all.
    """

    method: Method = "zscore"
    folds: int = Field(default=5, ge=2)
    seed: int = 0


def calibrate(
    scores_P: Floats,
    labels_P: Floats | None,
    config: CalibrationConfig,
    pair_P: npt.NDArray[np.int64] | None = None,
) -> Floats:
    """Scores in 0 … 1, (P,). `labels_P` are hard labels in 0 … 1, NaN where there is none; entries with one number in
    `pair_P` are one pair that stands in the data more than once, and never apart in the folds. Without it all differ.

    Raises DataError where there are fewer labels than the method needs.
    """
    if config.method == "none":
        return scores_P.clip(0, 1)
    if config.method == "minmax":
        low, high = scores_P.min(), scores_P.max()
        return np.asarray((scores_P - low) / (high - low))
    if config.method == "zscore":
        return np.asarray(1 / (1 + np.exp(-(scores_P - scores_P.mean()) / scores_P.std())))
    if config.method == "rank":
        from scipy.stats import rankdata

        return np.asarray((rankdata(scores_P) - 0.5) / len(scores_P))
    return _fitted(scores_P, labels_P, config, np.arange(len(scores_P)) if pair_P is None else pair_P)


def _fitted(
    scores_P: Floats, labels_P: Floats | None, config: CalibrationConfig, pair_P: npt.NDArray[np.int64]
) -> Floats:
    """Cross-fitted, so that a pair's own label is no part of what its score becomes."""
    from sklearn.model_selection import StratifiedKFold

    known = np.flatnonzero(~np.isnan(labels_P)) if labels_P is not None else np.array([], dtype=np.int64)
    match = labels_P[known] >= 0.5 if labels_P is not None else np.array([], dtype=bool)
    _, first, place = np.unique(pair_P[known], return_index=True, return_inverse=True)
    matches, others = int(match[first].sum()), int((~match[first]).sum())
    needed = max(LEAST_LABELS, config.folds)
    if min(matches, others) < needed:
        raise DataError(
            f"calibration {config.method} needs at least {needed} different pairs labelled a match and as many "
            f"labelled none, and has {matches} and {others}; use zscore, rank or minmax"
        )
    found = np.zeros(len(scores_P))
    unknown = np.setdiff1d(np.arange(len(scores_P)), known)
    if len(unknown):
        found[unknown] = _curve(scores_P[known], match, config.method)(scores_P[unknown])
    parts = StratifiedKFold(config.folds, shuffle=True, random_state=config.seed)
    for _, part in parts.split(first, match[first]):
        held = np.isin(place, part)
        curve = _curve(scores_P[known[~held]], match[~held], config.method)
        found[known[held]] = curve(scores_P[known[held]])
    return found


def _curve(scores_P: Floats, match_P: npt.NDArray[np.bool_], method: str) -> Any:
    if method == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        return IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores_P, match_P.astype(float)).predict
    from sklearn.linear_model import LogisticRegression

    # On scores in standard deviations, that the penalty weighs every expert alike.
    mean, deviation = scores_P.mean(), scores_P.std() or 1.0
    fitted = LogisticRegression().fit(((scores_P - mean) / deviation)[:, None], match_P)
    return lambda some: fitted.predict_proba(((some - mean) / deviation)[:, None])[:, 1]
