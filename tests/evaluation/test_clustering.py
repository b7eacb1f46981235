"""Clustering by k-means against known classes.

Invariants
- Classes that lie apart give a v-measure of 100, random vectors next to nothing; mean and sd are those of the seeds.
- Seeds decide the result, and nothing else does; the names of classes do not matter.
- A table's classes may be names or numbers; rows without a text or class are left out and named.
- One class, more classes than texts, or a missing column is a clear error.
"""

from pathlib import Path

import numpy as np
import pytest

from dalr.data.labelled_texts import read_named_classes
from dalr.errors import DataError
from dalr.evaluation.clustering import evaluate_clustering, v_measures


class Places:
    """A sentence model that puts every text near the place of its first letter."""

    def __init__(self, noise: float) -> None:
        self.noise = noise

    def encode_text(self, texts: list[str], *, space: str = "") -> np.ndarray:
        assert space == "sentence"
        rng = np.random.default_rng(0)
        places = {letter: rng.normal(size=8) for letter in "abcd"}
        return np.stack([places[text[0]] + self.noise * rng.normal(size=8) for text in texts])


def test_classes_that_lie_apart_are_found_and_noise_is_not() -> None:
    texts = [f"{'abcd'[number % 4]} {number}" for number in range(200)]
    labels = [text[0] for text in texts]
    found = evaluate_clustering(Places(0.05), texts, labels, seeds=range(4))
    assert found["v_measure"] == pytest.approx(100)
    assert (found["sd"], found["texts"], found["classes"], found["largest_class"]) == (0, 200, 4, 25)
    noise = evaluate_clustering(Places(50.0), texts, labels, seeds=range(4))
    assert noise["v_measure"] < 10
    assert len(noise["v_measures"]) == 4
    assert noise["v_measure"] == pytest.approx(np.mean(noise["v_measures"]), abs=1e-3)
    assert noise["sd"] == pytest.approx(np.std(noise["v_measures"], ddof=1), abs=1e-3)
    assert evaluate_clustering(Places(50.0), texts, labels, seeds=[2])["v_measures"] == noise["v_measures"][2:3]


def test_only_the_seed_decides() -> None:
    rng = np.random.default_rng(1)
    rows, labels = rng.normal(size=(120, 5)), rng.integers(3, size=120)
    found = v_measures(rows, labels.tolist(), range(3))
    assert found == v_measures(rows, labels.tolist(), range(3))
    renamed = v_measures(rows, [f"class {2 - label}" for label in labels], range(3))
    assert renamed["v_measures"] == found["v_measures"]
    assert len(set(found["v_measures"])) > 1


def test_a_table_of_classes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_text("text,label\nred dress,shop\nblue shoe,7\n,shop\nsilk bag,\nlamp,7.0\n")
    texts, labels, bad = read_named_classes(path)
    assert (texts, labels) == (["red dress", "blue shoe", "lamp"], ["shop", "7", "7.0"])
    assert [(row.row, row.reason) for row in bad] == [(4, "has no text"), (5, "has no class")]
    lines = tmp_path / "some.jsonl"
    lines.write_text('{"title": "a", "kind": 1}\n{"title": "b", "kind": 2}\n')
    assert read_named_classes(lines, label="kind")[:2] == (["a", "b"], ["1", "2"])
    with pytest.raises(DataError, match=r"no column of classes among 'title', 'kind'.*name it with --label-column"):
        read_named_classes(lines)
    with pytest.raises(DataError, match=r"there is no column 'kinds'; did you mean 'kind'"):
        read_named_classes(lines, label="kinds")
    path.write_text("text,label\n,a\n")
    with pytest.raises(DataError, match=r"holds no usable labelled text; the first of 1 bad rows, some.csv:2"):
        read_named_classes(path)


def test_what_cannot_be_clustered_is_refused() -> None:
    with pytest.raises(DataError, match="all 2 texts are of one class"):
        evaluate_clustering(Places(0), ["a", "b"], ["x", "x"])
    with pytest.raises(DataError, match="3 classes for 2 distinct texts"):
        evaluate_clustering(Places(0), ["a", "b", "a"], ["x", "y", "z"])


@pytest.mark.data
def test_minilm_finds_the_kinds_of_questions(data_dir: Path, minilm_dir: Path) -> None:
    from dalr.model import DualEncoder

    lines = (data_dir / "transfer" / "TREC" / "TREC_10.label").read_text(encoding="latin-1").splitlines()
    labels, texts = zip(*(line.split(" ", 1) for line in lines), strict=True)
    coarse = [label.split(":")[0] for label in labels]
    found = evaluate_clustering(DualEncoder.from_pretrained(minilm_dir), texts, coarse, seeds=range(3))
    shuffled = [coarse[at] for at in np.random.default_rng(0).permutation(len(coarse))]
    chance = evaluate_clustering(Places(0), ["abcd"[n % 4] + str(n) for n in range(500)], shuffled, seeds=range(3))
    assert found["v_measure"] > 20 > 5 > chance["v_measure"]
