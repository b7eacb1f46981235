"""Whitening and mean-centring of embeddings: the linear maps that are fitted to data once and saved with the tower.

N rows, H width, K width afterwards.
"""

import numpy as np
import numpy.typing as npt

from dalr.errors import ConfigError, DataError

# Variance below this share of the largest is rounding of float32 features; blown up to 1 it would be noise.
LEAST_VARIANCE = 1e-9

Floats = npt.NDArray[np.float64]


def fit_whitening(
    features_NH: npt.NDArray[np.floating], dim: int | None = None, shrinkage: float = 0.0
) -> tuple[Floats, Floats]:
    """Mean μ (H) and matrix W (K, H) such that y = W (x - μ) has mean 0 and covariance I over these rows.

    Su et al. 2021, "Whitening sentence representations for better semantics and faster retrieval"; Huang et al. 2021,
    "WhiteningBERT". W = Λ^-½ Uᵀ of the covariance U Λ Uᵀ (over N, in float64), the directions of largest variance
    first, so that a smaller `dim` keeps the first K of them.

    Args:
        features_NH: finite; at least 2·H rows, for fewer do not fix H² numbers.
        dim: K, from 1 to H; None is H.
        shrinkage: share in [0, 1] of the covariance that is replaced by its mean variance times I (Ledoit and Wolf);
            above 0 small directions are raised less, and the covariance of y is only near I.

    Raises:
        DataError: too few rows, or none that differ.
        ConfigError: dim or shrinkage out of range.
    """
    rows, width = _checked(features_NH)
    if len(rows) < 2 * width:
        raise DataError(f"whitening: {len(rows)} texts are too few for a width of {width}; give at least {2 * width}")
    if dim is not None and not 1 <= dim <= width:
        raise ConfigError(f"whitening: dim {dim} is not between 1 and the width {width}")
    if not 0 <= shrinkage <= 1:
        raise ConfigError(f"whitening: shrinkage {shrinkage} is not between 0 and 1")
    mean_H = rows.mean(axis=0)
    centred = rows - mean_H
    covariance_HH = centred.T @ centred / len(rows)
    average = np.trace(covariance_HH) / width
    if not average > 0:
        raise DataError("whitening: all texts have the same features; give different texts")
    covariance_HH = (1 - shrinkage) * covariance_HH + shrinkage * average * np.eye(width)
    values_H, vectors_HH = np.linalg.eigh(covariance_HH)
    values_K, vectors_HK = values_H[::-1][:dim], vectors_HH[:, ::-1][:, :dim]
    scale_K = 1 / np.sqrt(np.maximum(values_K, LEAST_VARIANCE * values_H[-1]))
    return mean_H, (vectors_HK * scale_K).T


def fit_centring(features_NH: npt.NDArray[np.floating]) -> Floats:
    """The mean (H) of at least two rows, in float64: y = x - μ. DataError for fewer."""
    rows, _ = _checked(features_NH)
    if len(rows) < 2:
        raise DataError(f"centring: {len(rows)} texts have no mean worth taking off; give at least 2")
    mean_H: Floats = rows.mean(axis=0)
    return mean_H


def _checked(features_NH: npt.NDArray[np.floating]) -> tuple[Floats, int]:
    rows = np.asarray(features_NH, dtype=np.float64)
    if rows.ndim != 2:
        raise DataError(f"expected a table of features (texts, width), got shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise DataError("the features to fit on are not all finite; leave those rows out")
    return rows, rows.shape[1]
