"""Geometry of embeddings.

Invariants
- Every figure has its closed form: alignment and uniformity on points with known distances, isotropy on bases, lines
  and single points, hubness on a star, the modality gap between opposite points.
- Tiled figures equal twins over all pairs, whatever the tile; more rows than asked for are sampled by the seed.
- On a catalogue the figures are those of what the model encodes; copies of a caption or photo count once.
- Nothing to measure is a clear error.
"""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import skew
from tiny_catalogue import tiny_catalogue, tiny_model

from dalr.data.manifest import Manifest
from dalr.data.scored_pairs import ScoredPairs
from dalr.errors import DataError, ModelError
from dalr.evaluation.geometry import (
    alignment,
    component_variances,
    hubness,
    isoscore,
    mean_cosine,
    modality_gap,
    occurrences,
    partition_ratio,
    sampled,
    sentence_geometry,
    shared_geometry,
    spread,
    top_component,
    uniformity,
)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def random_rows(seed: int, count: int, width: int, shift: float = 0.0) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(count, width)) + shift)


class Table:
    """A sentence model that looks its vectors up."""

    def __init__(self, vectors: dict[str, list[float]]) -> None:
        self.vectors = vectors

    def encode_text(self, texts: list[str], *, space: str = "") -> np.ndarray:
        assert space == "sentence"
        return np.array([self.vectors[text] for text in texts])


def test_alignment_and_uniformity_of_known_points() -> None:
    east, north = np.array([[1.0, 0.0]], np.float32), np.array([[0.0, 1.0]], np.float32)
    assert alignment(east, east) == 0
    assert alignment(np.concatenate([east, east]), np.concatenate([north, -east])) == pytest.approx((2 + 4) / 2)
    assert uniformity(np.eye(5, dtype=np.float32)) == pytest.approx(-4, abs=1e-5)  # every distance is √2
    assert uniformity(np.concatenate([east, -east])) == pytest.approx(-8, abs=1e-5)
    assert uniformity(np.repeat(east, 4, axis=0)) == pytest.approx(0, abs=1e-6)
    three = np.concatenate([east, east, north])
    assert uniformity(three) == pytest.approx(math.log((1 + 2 * math.exp(-4)) / 3), abs=1e-5)


def test_isotropy_of_known_points() -> None:
    basis = np.concatenate([np.eye(6), -np.eye(6)]).astype(np.float32)
    assert partition_ratio(basis) == pytest.approx(1)
    assert mean_cosine(basis) == pytest.approx(-1 / 11)
    even = component_variances(basis)
    assert (isoscore(even), top_component(even)) == (pytest.approx(1), pytest.approx(1 / 6))
    line = np.array([[1.0, 0, 0], [-1.0, 0, 0], [1.0, 0, 0]], np.float32)
    assert isoscore(component_variances(line)) == pytest.approx(0, abs=1e-9)
    assert top_component(component_variances(line)) == pytest.approx(1)
    point = np.repeat(line[:1], 4, axis=0)
    assert mean_cosine(point) == pytest.approx(1)
    assert partition_ratio(point) == pytest.approx(math.exp(-2))
    assert (isoscore(component_variances(point)), top_component(component_variances(point))) == (0, 0)
    # Half of the dimensions equally used: by the formula of the paper.
    half = np.array([1.0, 1.0, 0.0, 0.0])
    defect = math.sqrt(2 * (math.sqrt(2) - 1) ** 2 + 2) / math.sqrt(2 * (4 - 2))
    assert isoscore(half) == pytest.approx(((4 - defect**2 * 2) ** 2 / 4 - 1) / 3)


def test_more_shift_means_less_isotropy() -> None:
    figures = [spread(random_rows(1, 300, 12, shift)) for shift in (0.0, 0.5, 2.0)]
    for name, rising in (("uniformity", True), ("mean_cosine", True), ("partition_ratio", False)):
        values = [each[name] for each in figures]
        assert values == sorted(values, reverse=not rising), name


def test_hubness_of_a_star() -> None:
    # Five points around a centre: with one neighbour each, the centre is everybody's.
    star = unit(np.concatenate([np.eye(6)[:1], np.eye(6)[:1] + 0.6 * np.eye(6)[1:]]))
    counts = occurrences(star, k=1)
    assert counts[0] == 5
    assert counts.sum() == 6
    skewness, anti_hubs = hubness(counts)
    assert skewness == pytest.approx(skew(counts))
    assert anti_hubs == pytest.approx(4 / 6)
    assert hubness(np.full(7, 3)) == (0.0, 0.0)
    # The same rows against others: nobody is left out.
    texts, images = random_rows(1, 30, 4), random_rows(2, 7, 4)
    nearest = np.argsort(-(texts @ images.T), axis=1)[:, :3]
    assert np.array_equal(occurrences(texts, images, k=3), np.bincount(nearest.ravel(), minlength=7))
    assert occurrences(random_rows(3, 5, 3)).tolist() == [4] * 5  # fewer rows than neighbours


def test_tiles_equal_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random_rows(5, 60, 5, 0.3)
    cosine = rows.astype(float) @ rows.T.astype(float)
    pairs = ~np.eye(60, dtype=bool)
    expected = math.log(np.exp(-2 * (2 - 2 * cosine[pairs])).mean())
    np.fill_diagonal(cosine, -np.inf)
    counts = np.bincount(np.argsort(-cosine, axis=1)[:, :10].ravel(), minlength=60)
    for elements in (2**20, 60 * 7, 1):
        monkeypatch.setattr("dalr.evaluation.geometry.TILE_ELEMENTS", elements)
        assert uniformity(rows) == pytest.approx(expected, abs=1e-5)
        assert np.array_equal(occurrences(rows), counts)
    np.fill_diagonal(cosine, 0)
    assert mean_cosine(rows) == pytest.approx(cosine[pairs].mean(), abs=1e-6)


def test_more_rows_than_asked_for_are_sampled_by_the_seed() -> None:
    rows = random_rows(6, 100, 4)
    some = sampled(rows, 30, 0)
    assert len(some) == 30
    assert len(np.unique(some, axis=0)) == 30
    assert np.array_equal(some, sampled(rows, 30, 0))
    assert not np.array_equal(some, sampled(rows, 30, 1))
    found = spread(rows, max_rows=30)
    assert (found["rows"], found["rows_used"]) == (100, 30)
    assert found == {**spread(some), "rows": 100}
    with pytest.raises(DataError, match="geometry of 1 embedding cannot be measured"):
        spread(rows[:1])


def test_sentences_of_scored_pairs() -> None:
    model = Table({"a": [2, 0], "b": [0, 1], "A ": [1, 0], "c": [-1, 0]})
    pairs = ScoredPairs(["a", "a", "a"], ["b", "A ", "c"], [4.0, 5.0, 1.0])
    found = sentence_geometry(model, pairs, 4.0)
    # 'a' and 'A ' are one sentence, and no positive pair.
    assert (found["positive_pairs"], found["rows"]) == (1, 3)
    assert found["alignment"] == pytest.approx(2)
    assert found["uniformity"] == pytest.approx(math.log((2 * math.exp(-4) + math.exp(-8)) / 3), abs=1e-5)
    assert sentence_geometry(model, pairs, 1.0)["alignment"] == pytest.approx(3)
    with pytest.raises(DataError, match=r"no pair of two different sentences has a score from 4.5 on \(scores 1 to 5"):
        sentence_geometry(model, pairs, 4.5)


def test_texts_and_images_of_a_catalogue(tmp_path: Path) -> None:
    text, image = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[-1.0, 0.0], [0.0, -1.0]])
    assert modality_gap(text, image) == pytest.approx(math.sqrt(2))
    assert modality_gap(text, text) == 0

    model, manifest = tiny_model(), Manifest.load(tiny_catalogue(tmp_path))
    found = shared_geometry(model, manifest, cache=tmp_path / "cache")
    # 14 rows: 14 captions, 12 photos (one is a copy), every row links another pair.
    assert (found["text"]["rows"], found["image"]["rows"], found["cross"]["pairs"], found["bad"]) == (14, 12, 14, 0)
    texts = model.encode_text([manifest.texts[row] or "" for row in range(14)])
    images = model.encode_image([manifest.image_path(row) for row in range(14)])
    assert found["cross"]["alignment"] == pytest.approx(alignment(texts, images), abs=1e-4)
    assert found["text"]["uniformity"] == pytest.approx(uniformity(texts), abs=1e-4)
    gap = np.linalg.norm(texts.mean(axis=0) - images[[*range(12)]].mean(axis=0))
    assert found["cross"]["modality_gap"] == pytest.approx(gap, abs=1e-4)
    with pytest.raises(ModelError, match="both towers"):
        shared_geometry(tiny_model(image=False), manifest)


@pytest.mark.data
def test_minilm_is_more_uniform_than_it_is_without_training(data_dir: Path, minilm_dir: Path) -> None:
    from dalr.data.scored_pairs import read_scored_pairs
    from dalr.model import DualEncoder

    scored, _ = read_scored_pairs(data_dir / "sts" / "STSBenchmark" / "sts-dev.csv")
    some = ScoredPairs(scored.first[::12], scored.second[::12], scored.score[::12])
    trained = sentence_geometry(DualEncoder.from_pretrained(minilm_dir), some, 4.0)
    fresh = sentence_geometry(tiny_model(image=False), some, 4.0)
    assert trained["uniformity"] < -2.5 < fresh["uniformity"]
    assert trained["mean_cosine"] < fresh["mean_cosine"]
    assert trained["alignment"] < 0.5
