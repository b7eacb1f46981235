"""Scores to 0 … 1, and several of them to one label.

Invariants: every method keeps the order (cross-fitted ones within a part), lands in 0 … 1, and is what its formula
says; fitted ones are right on average and never see a pair's own label; every rule is what its name says, by hand; a
label of people is mixed in, or absent; disagreement lowers the weight; too few labels, none at all and weights of 0
are refused.
"""

import numpy as np
import pytest
from scipy.stats import spearmanr

from dalr.errors import DataError
from dalr.experts.aggregation import AggregationConfig, aggregate, agreement_weights, soft_labels
from dalr.experts.calibration import CalibrationConfig, calibrate

DRAW = np.random.default_rng(0)
LABELS = (DRAW.uniform(size=400) < 0.4).astype(float)
SCORES = DRAW.normal(size=400) + 1.5 * LABELS
NAN = float("nan")


def with_method(method: str) -> CalibrationConfig:
    return CalibrationConfig(method=method)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["minmax", "zscore", "rank"])
def test_order_is_kept(method: str) -> None:
    found = calibrate(SCORES, None, with_method(method))
    assert found.min() >= 0
    assert found.max() <= 1
    assert np.array_equal(np.argsort(found), np.argsort(SCORES))
    moved = calibrate(7 * SCORES - 3, None, with_method(method))
    np.testing.assert_allclose(found, moved, atol=1e-12)  # an expert's own scale does not matter


def test_formulas() -> None:
    scores = np.array([1.0, 3.0, 3.0, 5.0])
    assert calibrate(scores, None, with_method("minmax")).tolist() == [0, 0.5, 0.5, 1]
    assert calibrate(scores, None, with_method("rank")).tolist() == [0.125, 0.5, 0.5, 0.875]
    wanted = 1 / (1 + np.exp(-(scores - 3) / scores.std()))
    np.testing.assert_allclose(calibrate(scores, None, with_method("zscore")), wanted)
    assert calibrate(np.array([-0.2, 0.4, 1.3]), None, with_method("none")).tolist() == [0, 0.4, 1]


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_fitted_to_labels(method: str) -> None:
    found = calibrate(SCORES, LABELS, with_method(method))
    assert ((found >= 0) & (found <= 1)).all()
    assert found.mean() == pytest.approx(LABELS.mean(), abs=0.02)
    for low in (0.0, 0.25, 0.5, 0.75):  # where it says p, about p of the pairs match
        some = (found >= low) & (found < low + 0.25)
        if some.sum() > 30:
            assert LABELS[some].mean() == pytest.approx(found[some].mean(), abs=0.15)
    assert spearmanr(found, SCORES).statistic > 0.97
    assert np.array_equal(found, calibrate(SCORES, LABELS, with_method(method)))
    some = LABELS.copy()
    some[300:] = NAN
    partly = calibrate(SCORES, some, with_method(method))
    assert np.isfinite(partly).all()
    assert spearmanr(partly[300:], SCORES[300:]).statistic > 0.97


def test_a_pair_is_judged_without_its_own_label() -> None:
    """With labels at random a curve that had seen them would agree with them; a cross-fitted one does not."""
    random = (np.random.default_rng(5).uniform(size=400) < 0.5).astype(float)
    found = calibrate(SCORES, random, with_method("isotonic"))
    assert abs(np.corrcoef(found, random)[0, 1]) < 0.15
    from sklearn.isotonic import IsotonicRegression

    seen = IsotonicRegression().fit_transform(SCORES, random)
    assert np.corrcoef(seen, random)[0, 1] > abs(np.corrcoef(found, random)[0, 1])


def test_one_pair_twice_is_never_apart() -> None:
    """A random label that stands in the data ten times would be read off its copies in other folds."""
    some = np.random.default_rng(6)
    scores, labels = np.repeat(some.normal(size=100), 10), np.repeat((some.uniform(size=100) < 0.5).astype(float), 10)
    apart = calibrate(scores, labels, with_method("isotonic"))
    found = calibrate(scores, labels, with_method("isotonic"), np.repeat(np.arange(100), 10))
    assert np.corrcoef(apart, labels)[0, 1] > 0.15 > np.corrcoef(found, labels)[0, 1]
    assert all(len(set(found[start : start + 10])) == 1 for start in range(0, 1000, 10))
    alone = calibrate(SCORES, LABELS, with_method("isotonic"))
    assert np.array_equal(alone, calibrate(SCORES, LABELS, with_method("isotonic"), np.arange(400)))


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_too_few_labels(method: str) -> None:
    few = np.full(400, NAN)
    few[:30] = [1.0] * 11 + [0.0] * 19
    with pytest.raises(
        DataError, match=r"at least 20 different pairs labelled a match .* and has 11 and 19; use zscore"
    ):
        calibrate(SCORES, few, with_method(method))
    with pytest.raises(DataError, match="and has 0 and 0"):
        calibrate(SCORES, None, with_method(method))
    # A pair that stands there many times is one.
    many = np.concatenate([np.ones(25), np.zeros(35)])
    with pytest.raises(DataError, match="and has 1 and 35"):
        calibrate(SCORES[:60], many, with_method(method), np.maximum(np.arange(60) - 24, 0))


TABLE = np.array([[0.1, 0.9, 0.5], [0.2, 0.6, 0.5], [0.9, 0.3, 0.5], [0.4, 0.2, 0.5]])


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("mean", [0.4, 0.5, 0.5]),
        ("weighted", [(0.1 + 0.4) / 3 + 0.9 / 3, (0.9 + 1.2) / 3 + 0.3 / 3 - 0.3, 0.5]),
        ("median", [0.3, 0.45, 0.5]),
        ("max", [0.9, 0.9, 0.5]),
        ("min", [0.1, 0.2, 0.5]),
        ("trimmed", [0.3, 0.45, 0.5]),
        ("label_gated", [0.9, 0.2, 0.5]),
    ],
)
def test_rules_by_hand(rule: str, wanted: list[float]) -> None:
    config = AggregationConfig(rule=rule, trim=0.25)  # type: ignore[arg-type]
    weights = np.array([1.0, 2.0, 0.0, 0.0])
    found = aggregate(TABLE, config, weights, np.array([1.0, 0.0, NAN]))
    if rule == "weighted":
        wanted = [(0.1 + 2 * 0.2) / 3, (0.9 + 2 * 0.6) / 3, 0.5]
    np.testing.assert_allclose(found, wanted)


def test_labels_and_weights() -> None:
    joined = np.array([0.4, 0.8, 0.6])
    np.testing.assert_allclose(soft_labels(joined, np.array([1.0, 0.0, NAN]), 0.5), [0.7, 0.4, 0.6])
    assert soft_labels(joined, None, 0.5) is joined
    np.testing.assert_allclose(soft_labels(joined, np.array([1.0, 0.0, 1.0]), 1.0), [1, 0, 1])
    table = np.array([[0.0, 0.5], [1.0, 0.5]])
    assert agreement_weights(table, 1.0).tolist() == [0.0, 1.0]
    assert agreement_weights(table, 0.5).tolist() == [0.5, 1.0]
    assert agreement_weights(table, 0.0).tolist() == [1.0, 1.0]
    np.testing.assert_allclose(agreement_weights(table, 0.5, np.array([3.0, 1.0])), [1 - 0.5 * 2 * 0.1875**0.5, 1])
    assert agreement_weights(table, 1.0, np.array([1.0, 0.0])).tolist() == [1.0, 1.0]


def test_what_cannot_be_joined() -> None:
    with pytest.raises(DataError, match="label_gated: there are no hard labels"):
        aggregate(TABLE, AggregationConfig(rule="label_gated"))
    with pytest.raises(DataError, match="every expert has weight 0"):
        aggregate(TABLE, AggregationConfig(rule="weighted"), np.zeros(4))
    with pytest.raises(DataError, match=r"trim: 0.25 of 3 experts leaves none out; raise it, or use mean"):
        aggregate(TABLE[:3], AggregationConfig(rule="trimmed"))


def test_a_broken_expert_moves_robust_rules_least() -> None:
    good = np.clip(LABELS + DRAW.normal(scale=0.2, size=(4, 400)), 0, 1)
    broken = np.vstack([good, 1 - good[:1]])
    moved = {
        rule: np.abs(
            aggregate(broken, AggregationConfig(rule=rule)) - aggregate(good, AggregationConfig(rule=rule))
        ).mean()
        for rule in ("mean", "median", "trimmed", "max")
    }
    assert moved["median"] < moved["mean"] < moved["max"]
    assert moved["trimmed"] < moved["mean"]
