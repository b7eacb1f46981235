"""Pair classification.

Invariants
- Average precision equals scikit-learn's; best F1 and accuracy equal a search over every threshold; calling pairs by
  the thresholds that are returned gives the figures that are returned; also with ties.
- A collapsed model has the average precision of chance, also through rounding in float32; a perfect one 100.
- The intervals hold the value and are the same again.
- Each distinct sentence is embedded once.
"""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, precision_score, recall_score

from dalr.data.text_retrieval_sets import LabelledPairs, label_pairs
from dalr.evaluation.pair_classification import RankedPairs, evaluate_pairs, pair_figures
from dalr.evaluation.sentences import cosines


def sample(seed: int, size: int, decimals: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    relevant = rng.random(size) < 0.3
    return (0.4 * relevant + rng.normal(size=size)).round(decimals), relevant


@pytest.mark.parametrize("decimals", [0, 1, 6])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_figures_equal_the_twins(seed: int, decimals: int) -> None:
    scores, relevant = sample(seed, 150, decimals)
    found = pair_figures(scores, relevant, resamples=10)
    assert found["ap"] == pytest.approx(100 * average_precision_score(relevant, scores), abs=1e-3)
    thresholds = np.unique(scores)
    assert found["f1"] == pytest.approx(100 * max(f1_score(relevant, scores >= at) for at in thresholds), abs=1e-3)
    best = max(accuracy_score(relevant, scores >= at) for at in thresholds)
    assert found["accuracy"] == pytest.approx(100 * best, abs=1e-3)
    called = scores >= found["f1_threshold"] - 1e-9
    for name, score in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        assert found[name] == pytest.approx(100 * score(relevant, called), abs=1e-3)
    called = scores >= found["accuracy_threshold"] - 1e-9
    assert found["accuracy"] == pytest.approx(100 * accuracy_score(relevant, called), abs=1e-3)
    assert (found["pairs"], found["positive_pairs"]) == (150, int(relevant.sum()))


def test_a_resampled_curve_is_that_of_the_drawn_pairs() -> None:
    scores, relevant = sample(3, 60, 1)
    drawn = np.random.default_rng(0).integers(60, size=60)
    curve = RankedPairs(scores, relevant).curve(np.bincount(drawn, minlength=60))
    assert curve.average_precision == pytest.approx(average_precision_score(relevant[drawn], scores[drawn]))
    twin = RankedPairs(scores[drawn], relevant[drawn]).curve()
    assert curve.f1.max() == pytest.approx(twin.f1.max())
    assert curve.accuracy.max() == pytest.approx(twin.accuracy.max())


@pytest.mark.parametrize("noise", [0.0, 1e-9])
def test_a_collapsed_model_is_at_chance_and_a_perfect_one_at_the_top(noise: float) -> None:
    rng = np.random.default_rng(4)
    relevant = rng.random(400) < 0.25
    point = rng.normal(size=8)
    first, second = (point + noise * rng.normal(size=(400, 8)) for _ in range(2))
    found = pair_figures(cosines(first, second), relevant, resamples=10)
    assert found["ap"] == pytest.approx(100 * relevant.mean(), abs=1e-3)
    perfect = pair_figures(relevant.astype(float), relevant, resamples=10)
    assert (perfect["ap"], perfect["f1"], perfect["accuracy"]) == (100, 100, 100)
    assert perfect["ci95"]["ap"] == [100, 100]
    assert perfect["f1_threshold"] == 1


def test_cosines_need_no_unit_rows() -> None:
    found = cosines(np.array([[3.0, 0.0], [1.0, 1.0], [0.0, 0.0]]), np.array([[5.0, 0.0], [0.0, 2.0], [1.0, 0.0]]))
    assert np.allclose(found, [1, np.sqrt(0.5), 0])


def test_the_model_sees_each_sentence_once_and_intervals_repeat() -> None:
    rng = np.random.default_rng(5)

    class Random:
        asked: list[str] = []  # noqa: RUF012

        def encode_text(self, texts: list[str], *, space: str = "") -> np.ndarray:
            assert space == "sentence"
            self.asked += texts
            return np.stack([vectors[text] for text in texts])

    texts = [f"text {n}" for n in range(30)]
    vectors = {text: rng.normal(size=4) for text in texts}
    first, second = rng.choice(texts, 90).tolist(), rng.choice(texts, 90).tolist()
    pairs = LabelledPairs(first, second, rng.random(90) < 0.5)
    found = evaluate_pairs(Random(), pairs, resamples=200)
    assert sorted(Random.asked) == sorted({*first, *second})
    for name, (low, high) in found["ci95"].items():
        assert low < found[name] < high
    assert evaluate_pairs(Random(), pairs, resamples=200) == found
    assert evaluate_pairs(Random(), pairs, resamples=200, seed=1)["ci95"] != found["ci95"]


@pytest.mark.data
def test_minilm_tells_paraphrases(data_dir: Path, minilm_dir: Path) -> None:
    from dalr.data.scored_pairs import ScoredPairs, read_scored_pairs
    from dalr.model import DualEncoder

    scored, _ = read_scored_pairs(data_dir / "sts" / "STSBenchmark" / "sts-dev.csv")
    some = ScoredPairs(scored.first[::12], scored.second[::12], scored.score[::12])
    found = evaluate_pairs(DualEncoder.from_pretrained(minilm_dir), label_pairs(some, 4.0, "sts"), resamples=50)
    assert found["ap"] > 2 * 100 * found["positive_pairs"] / found["pairs"]
