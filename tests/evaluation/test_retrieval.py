"""Retrieval metrics.

Invariants
- They equal a naive twin (one query at a time, plain Python) on random catalogues with repeated captions and images,
  groups, missing sides, ties and equal embeddings; whatever the tile.
- Positives: a row that links the two, or a group of both; equal normalised captions are one text; not transitive.
- A tie counts against the model: a collapsed model, or one that rounds, never scores above chance; NaN is refused.
- A perfect model scores 100, and hand-computed values come out.
- 100,000 x 100,000 stays within 2 GB (slow).
- The bootstrap interval holds the value, narrows with more queries and does not depend on what was drawn before.
"""

import math
import random
import statistics
import subprocess
import sys

import numpy as np
import pytest
import torch

from dalr.data.groups import normalise_caption
from dalr.errors import DalrError, DataError
from dalr.evaluation.relevance import relevance
from dalr.evaluation.retrieval import FIGURES, TIE, retrieval, retrieval_metrics, score_queries

METRICS = ["recall@1", "recall@5", "recall@10", "mrr", "ndcg@10", "map@10"]
Row = tuple[str | None, str | None, str | None]  # text, image, group


def naive(rows: list[Row], text_of: dict[str, list[float]], image_of: dict[str, list[float]]) -> dict[str, float]:
    """One query at a time. `text_of` is by normalised caption."""
    rows = [(normalise_caption(text) if text else None, image, group) for text, image, group in rows]
    links = {(text, image) for text, image, group in rows if not group}
    text_groups = {text: {g for t, _, g in rows if t == text and g} for text, _, _ in rows if text}
    image_groups = {image: {g for _, i, g in rows if i == image and g} for _, image, _ in rows if image}

    def positive(text: str, image: str) -> bool:
        return (text, image) in links or bool(text_groups[text] & image_groups[image])

    def cosine(a: list[float], b: list[float]) -> float:
        norm = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
        return sum(x * y for x, y in zip(a, b, strict=True)) / norm if norm else 0.0

    result: dict[str, float] = {}
    for name in ("text_to_image", "image_to_text"):
        to_image = name == "text_to_image"
        queries, candidates = (text_groups, image_groups) if to_image else (image_groups, text_groups)
        per_query: dict[str, list[float]] = {metric: [] for metric in [*METRICS, "rank"]}
        for query in queries:
            right, wrong = [], []
            for candidate in candidates:
                text, image = (query, candidate) if to_image else (candidate, query)
                value = cosine(text_of[text], image_of[image])
                (right if positive(text, image) else wrong).append(value)
            if not right:
                continue
            # Wrong candidates go first wherever they tie.
            order = sorted([(-value, 1) for value in right] + [(-value - TIE, 0) for value in wrong])
            hits = [rank for rank, (_, kind) in enumerate(order, start=1) if kind]
            for k in (1, 5, 10):
                per_query[f"recall@{k}"].append(float(hits[0] <= k))
            per_query["mrr"].append(1 / hits[0])
            ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(10, len(right)) + 1))
            per_query["ndcg@10"].append(sum(1 / math.log2(rank + 1) for rank in hits if rank <= 10) / ideal)
            precisions = [(n + 1) / rank for n, rank in enumerate(hits) if rank <= 10]
            per_query["map@10"].append(sum(precisions) / min(10, len(right)))
            per_query["rank"].append(hits[0])
        result |= {f"{name}.{metric}": 100 * statistics.fmean(per_query[metric]) for metric in METRICS}
        result[f"{name}.median_rank"] = statistics.median(per_query["rank"])
        result[f"{name}.queries"] = len(per_query["rank"])
        result[f"{name}.candidates"] = len(candidates)
    return result


def random_catalogue(seed: int, size: int, grouped: bool) -> list[Row]:
    rng = random.Random(seed)
    words = ["Red", "red", "blue ", "BLUE", "dress", "shoe", "bag"]
    rows: list[Row] = []
    for _ in range(size):
        text = " ".join(rng.choices(words, k=2)) + f" {rng.randrange(size // 2)}" if rng.random() > 0.05 else None
        image = f"photo-{rng.randrange(2 * size // 3)}" if rng.random() > 0.05 else None
        group = f"product-{rng.randrange(size // 4)}" if grouped and rng.random() > 0.3 else None
        rows.append((text, image, group))
    return [*rows, ("", "photo-0", None), ("  ", "photo-1", None)]


def embeddings(rows: list[Row], seed: int, width: int = 4) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Small whole numbers: many cosines are equal, and several texts and images share one embedding."""
    rng = np.random.default_rng(seed)

    def draw() -> list[float]:
        return [float(value) for value in rng.integers(-1, 2, size=width)]

    texts = {normalise_caption(text): draw() for text, _, _ in rows if text and text.strip()}
    return texts, {image: draw() for _, image, _ in rows if image}


def run(rows: list[Row], texts: dict[str, list[float]], images: dict[str, list[float]]) -> dict[str, float]:
    text, image, group = zip(*rows, strict=True)
    related = relevance(text, image, group)
    text_TD = np.array([texts[normalise_caption(text[row])] for row in related.text_rows])
    image_MD = np.array([images[image[row]] for row in related.image_rows])
    flat = retrieval_metrics(text_TD, image_MD, related)
    assert tuple(flat) == FIGURES
    full = retrieval(text_TD, image_MD, related, resamples=10)
    for name in ("text_to_image", "image_to_text"):
        flat[f"{name}.queries"], flat[f"{name}.candidates"] = full[name]["queries"], full[name]["candidates"]
        for metric in METRICS:
            assert full[name][metric] == pytest.approx(flat[f"{name}.{metric}"], abs=1e-4)
    return flat


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("width", [3, 6])
def test_equals_the_naive_twin(seed: int, grouped: bool, width: int) -> None:
    rows = random_catalogue(seed, 90, grouped)
    texts, images = embeddings(rows, seed, width)
    expected = naive(rows, texts, images)
    found = run(rows, texts, images)
    mean = (found["text_to_image.mrr"] + found["image_to_text.mrr"]) / 2
    assert found.pop("mrr") == pytest.approx(mean)
    assert found == pytest.approx(expected, abs=1e-4)
    # Not vacuous: some queries have several positives, and ties happen.
    assert expected["text_to_image.map@10"] < expected["text_to_image.mrr"]


def test_the_tile_does_not_matter() -> None:
    rows = random_catalogue(7, 200, grouped=True)
    texts, images = embeddings(rows, 7, 8)
    text, image, group = zip(*rows, strict=True)
    related = relevance(text, image, group)
    unit = torch.nn.functional.normalize
    query = unit(torch.tensor([texts[normalise_caption(text[row])] for row in related.text_rows]), dim=1)
    candidate = unit(torch.tensor([images[image[row]] for row in related.image_rows]), dim=1)
    whole = score_queries(query, candidate, related.text_facts, related.image_facts)
    for tile in (1, 7, 64):
        parts = score_queries(query, candidate, related.text_facts, related.image_facts, tile=tile)
        assert np.array_equal(parts.rank, whole.rank)
        assert np.allclose(parts.ndcg, whole.ndcg)
        assert np.allclose(parts.average_precision, whole.average_precision)


def test_values_by_hand() -> None:
    # One text with two photos: they rank second and fourth.
    rows: list[Row] = [("dress", "a", None), ("dress", "b", None), ("shoe", "c", None), ("bag", "d", None)]
    angles = {"c": 10, "a": 20, "d": 30, "b": 40}
    images = {name: [math.cos(math.radians(angle)), math.sin(math.radians(angle))] for name, angle in angles.items()}
    texts = {"dress": [1.0, 0.0], "shoe": images["c"], "bag": images["d"]}
    found = run(rows, texts, images)
    ideal = 1 + 1 / math.log2(3)
    assert found["text_to_image.mrr"] == pytest.approx(100 * (1 / 2 + 1 + 1) / 3)
    assert found["text_to_image.recall@1"] == pytest.approx(200 / 3)
    assert found["text_to_image.map@10"] == pytest.approx(100 * ((1 / 2 + 2 / 4) / 2 + 1 + 1) / 3)
    gain = (1 / math.log2(3) + 1 / math.log2(5)) / ideal
    assert found["text_to_image.ndcg@10"] == pytest.approx(100 * (gain + 1 + 1) / 3)
    assert found["text_to_image.median_rank"] == 1


def test_positives_are_by_row_or_group_and_not_transitive() -> None:
    # a-1, b-1, b-2: text a and image 2 are joined only through image 1 and text b.
    related = relevance(["a", "b", "b"], ["1", "1", "2"])
    assert (related.text_facts @ related.image_facts.T).toarray().tolist() == [[1, 0], [1, 1]]
    # With a group the texts and images of its rows are all positives; the fourth row's group is another one.
    texts, images, groups = ["a", " B", "b", "c"], ["1", "2", "2", "1"], ["p", "p", "", "q"]
    related = relevance(texts, images, groups)
    positives = (related.text_facts @ related.image_facts.T).toarray() > 0
    assert positives.tolist() == [[True, True], [True, True], [True, False]]
    assert related.text_rows.tolist() == [0, 1, 3]
    with pytest.raises(DataError, match="nothing to retrieve"):
        relevance(["a", None], [None, "1"])


@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_a_collapsed_model_does_not_score_above_chance(noise: float) -> None:
    rng = np.random.default_rng(0)
    size, width = 500, 64
    related = relevance([f"text {row}" for row in range(size)], [str(row) for row in range(size)])
    point = rng.normal(size=width)
    text, image = (point + noise * rng.normal(size=(size, width)) for _ in range(2))
    found = retrieval_metrics(text, image, related)
    chance = 100 * sum(1 / rank for rank in range(1, size + 1)) / size
    assert found["text_to_image.recall@10"] <= 100 * 10 / size
    assert found["mrr"] <= chance
    if not noise:
        assert found["text_to_image.median_rank"] == found["image_to_text.median_rank"] == size


def test_embeddings_that_are_not_finite_are_refused() -> None:
    related = relevance(["a", "b"], ["1", "2"])
    good, bad = np.eye(2), np.array([[1.0, 0.0], [np.nan, 0.0]])
    with pytest.raises(DalrError, match=r"text embeddings are not finite \(first: number 1\)"):
        retrieval_metrics(bad, good, related)
    with pytest.raises(DalrError, match="image embeddings"):
        retrieval(good, bad, related)
    with pytest.raises(ValueError, match="2 text and 3 image embeddings"):
        retrieval_metrics(good, np.eye(3)[:, :2], related)


def test_a_perfect_model_and_the_shape_of_the_object() -> None:
    size = 40
    related = relevance([f"text {row}" for row in range(size)], [str(row) for row in range(size)])
    found = retrieval(np.eye(size), np.eye(size), related, resamples=50, note="2 rows were left out.")
    assert list(found) == ["text_to_image", "image_to_text", "definition"]
    assert found["definition"].endswith("2 rows were left out.")
    for name in ("text_to_image", "image_to_text"):
        expected = dict.fromkeys(METRICS, 100.0) | {"median_rank": 1.0, "queries": size, "candidates": size}
        expected |= {"ci95": {metric: [100.0, 100.0] for metric in METRICS} | {"median_rank": [1.0, 1.0]}}
        assert found[name] == expected


def test_intervals_hold_the_value_and_narrow_with_more_queries() -> None:
    def interval(size: int) -> tuple[float, list[float], list[float]]:
        rng = np.random.default_rng(3)
        related = relevance([f"text {row}" for row in range(size)], [str(row) for row in range(size)])
        image = rng.normal(size=(size, 16))
        found = retrieval(image + 0.8 * rng.normal(size=image.shape), image, related, resamples=300)["text_to_image"]
        return found["mrr"], found["ci95"]["mrr"], found["ci95"]["median_rank"]

    value, (low, high), (low_rank, high_rank) = interval(100)
    assert low < value < high
    assert 1 <= low_rank <= high_rank
    again = interval(100)
    assert again == (value, [low, high], [low_rank, high_rank])
    value, (low_many, high_many), _ = interval(1600)
    # Twice the standard error of the mean of reciprocal ranks, four times narrower by the law of large numbers.
    assert 2 < (high - low) / (high_many - low_many) < 8


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_squared_fits_into_two_gigabytes() -> None:
    code = """
import resource, numpy as np
from dalr.evaluation.relevance import relevance
from dalr.evaluation.retrieval import retrieval
size = 100_000
rng = np.random.default_rng(0)
image = rng.normal(size=(size, 256)).astype(np.float32)
text = image + 2 * rng.normal(size=image.shape).astype(np.float32)
names, groups = [f"item {row}" for row in range(size)], [str(row // 5) for row in range(size)]
found = retrieval(text, image, relevance(names, names, groups))
assert found["text_to_image"]["queries"] == size, found
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2
