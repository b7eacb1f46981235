"""BM25 and the joining of rankings.

Invariants
- Scores equal BM25 written out by hand (Lucene's idf) and, for every method, what bm25s gives for the same words.
- `scores`, `pair_scores` and `top` agree; equal scores stand in the order of the documents; the numbers do not depend
  on the order in which Python hashes words.
- Words are taken as documented: NFKC, case, one-letter words; no stemmer; stop words only on request.
- weighted_sum and reciprocal_rank_fusion equal values by hand; what is left out stays out and moves nothing else.
- Without bm25s, without a word, or with one text for a list, there is a clear error.
"""

import math
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from dalr.errors import DataError, MissingExtraError
from dalr.lexical import BM25Index, reciprocal_rank_fusion, weighted_sum

WORDS = ["red", "blue", "dress", "shoe", "bag", "silk", "a", "with", "m", "the"]


def texts(count: int, seed: int, most: int = 9) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(0, most))) for _ in range(count)]


def by_hand(query: str, documents: list[str], k1: float = 1.5, b: float = 0.75) -> list[float]:
    split = [document.split() for document in documents]
    mean = sum(map(len, split)) / len(split)
    result = []
    for words in split:
        counts, score = Counter(words), 0.0
        for word in query.split():
            holding = sum(word in other for other in split)
            if counts[word]:
                idf = math.log(1 + (len(split) - holding + 0.5) / (holding + 0.5))
                score += idf * counts[word] / (counts[word] + k1 * (1 - b + b * len(words) / mean))
        result.append(score)
    return result


def test_scores_equal_the_formula() -> None:
    documents, queries = texts(40, 0), [*texts(12, 1), "unknown words", "silk silk red", ""]
    found = BM25Index(documents).scores(queries)
    assert (found.dtype, found.shape) == (np.float32, (15, 40))
    assert np.allclose(found, [by_hand(query, documents) for query in queries], atol=1e-5)
    assert np.allclose(BM25Index(documents, k1=0.9, b=0.3).scores(queries[:3]),
                       [by_hand(query, documents, 0.9, 0.3) for query in queries[:3]], atol=1e-5)  # fmt: skip
    # Not vacuous: there is something to rank, a repeated word counts twice, and nothing matches an unknown one.
    assert len(np.unique(found[0])) > 5
    assert np.allclose(found[13], 2 * by_hand_row(documents, "silk") + by_hand_row(documents, "red"), atol=1e-5)
    assert not found[[12, 14]].any()


def by_hand_row(documents: list[str], word: str) -> np.ndarray:
    return np.array(by_hand(word, documents))


@pytest.mark.parametrize("method", ["lucene", "robertson", "atire", "bm25l", "bm25+"])
def test_every_method_is_that_of_bm25s(method: str) -> None:
    import bm25s

    documents, queries = [*texts(30, 2), ""], [text for text in texts(20, 3) if text]
    ranker = bm25s.BM25(method=method, k1=1.5, b=0.75)
    ranker.index([document.split() for document in documents], show_progress=False)
    expected = np.stack([ranker.get_scores(query.split()) for query in queries])
    index = BM25Index(documents, method=method)  # type: ignore[arg-type]
    assert np.allclose(index.scores(queries), expected, atol=1e-5)
    places = np.arange(len(queries))
    assert np.allclose(index.pair_scores(queries, places), expected[places, places], atol=1e-5)


def test_pairs_and_the_best_agree_with_all_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    documents, queries = texts(50, 4, 4), texts(9, 5)
    index = BM25Index(documents)
    every = index.scores(queries)
    rng = np.random.default_rng(0)
    places = rng.integers(50, size=9)
    assert np.allclose(index.pair_scores(queries, places), every[np.arange(9), places], atol=1e-6)
    monkeypatch.setattr("dalr.lexical.BLOCK_ELEMENTS", 100)  # blocks of two queries
    for k in (1, 7, 50, 60):
        found, values = index.top(queries, k)
        expected = np.argsort(-every, axis=1, kind="stable")[:, :k]
        assert np.array_equal(found, expected)
        assert np.array_equal(values, np.take_along_axis(every, expected, axis=1))
    # Not vacuous: short texts repeat, so that there are ties at the cut.
    assert len(np.unique(every[0])) < 50
    with pytest.raises(ValueError, match="9 queries for 2 documents"):
        index.pair_scores(queries, [0, 1])


def test_numbers_do_not_depend_on_hashing() -> None:
    rng = np.random.default_rng(0)
    documents = [" ".join(f"word{number}" for number in rng.integers(60, size=12)) for _ in range(30)]
    code = f"""
from dalr.lexical import BM25Index
print(BM25Index({documents}).scores({documents[:9]}).tobytes().hex())
"""
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                       env=os.environ | {"PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert runs[0] == runs[1] != ""


def test_words_are_taken_as_documented() -> None:
    documents = ["Größe M, the RED dress", "vitamin Ｃ", "dresses"]
    index = BM25Index(documents)
    hits = {query: np.flatnonzero(index.scores([query])[0]).tolist() for query in
            ("m", "GRÖSSE", "red", "c", "dress", "the", "dresses!")}  # fmt: skip
    assert hits == {"m": [0], "GRÖSSE": [0], "red": [0], "c": [1], "dress": [0], "the": [0], "dresses!": [2]}
    assert not BM25Index(documents, stopwords="en").scores(["the"]).any()
    assert len(index) == 3


def test_weighted_sum_by_hand() -> None:
    dense = np.array([[0.2, 0.6, 0.4], [0.5, 0.5, 0.5]], np.float32)
    lexical = np.array([[8.0, 0.0, 2.0], [0.0, 0.0, 3.0]], np.float32)
    found = weighted_sum(dense, lexical, 0.25)
    assert np.allclose(found, [[0.25, 0.75, 0.75 * 0.5 + 0.25 * 0.25], [0, 0, 0.25]])
    assert np.allclose(weighted_sum(dense, lexical, 0.0)[0], [0, 1, 0.5])
    assert np.allclose(weighted_sum(dense, lexical, 1.0), [[1, 0, 0.25], [0, 0, 1]])
    # Rounding is not stretched into an order.
    assert not weighted_sum(0.5 + 1e-8 * dense, np.zeros((2, 3)), 0.5).any()
    with pytest.raises(ValueError, match=r"weight is 1.5"):
        weighted_sum(dense, lexical, 1.5)
    with pytest.raises(ValueError, match="one shape"):
        weighted_sum(dense, lexical[:, :2], 0.5)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_what_is_left_out_moves_nothing_else(weight: float) -> None:
    rng = np.random.default_rng(1)
    dense, lexical = rng.normal(size=(4, 6)), rng.random(size=(4, 6))
    without = weighted_sum(dense[:, 1:], lexical[:, 1:], weight), reciprocal_rank_fusion([dense[:, 1:], lexical[:, 1:]])
    dense[:, 0] = lexical[:, 0] = -np.inf
    both = weighted_sum(dense, lexical, weight), reciprocal_rank_fusion([dense, lexical])
    for found, expected in zip(both, without, strict=True):
        assert np.isneginf(found[:, 0]).all()
        assert np.array_equal(found[:, 1:], expected)
    assert np.isneginf(weighted_sum(np.full((1, 2), -np.inf), np.full((1, 2), -np.inf), weight)).all()


def test_reciprocal_rank_fusion_by_hand() -> None:
    first, second = np.array([[0.9, 0.5, 0.1, 0.7]]), np.array([[0.0, 3.0, 0.0, 0.0]])
    found = reciprocal_rank_fusion([first, second])
    assert np.allclose(found, [[1 / 61 + 1 / 64, 1 / 63 + 1 / 61, 1 / 64 + 1 / 64, 1 / 62 + 1 / 64]])
    assert np.allclose(reciprocal_rank_fusion([first], k=0), [[1, 1 / 3, 1 / 4, 1 / 2]])
    with pytest.raises(ValueError, match="nothing to fuse"):
        reciprocal_rank_fusion([])


def test_errors_are_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="not one of 2 texts holds a word"):
        BM25Index(["!!!", ""])
    with pytest.raises(DataError, match="not one of 0 texts"):
        BM25Index([])
    with pytest.raises(TypeError, match="list of texts"):
        BM25Index("red dress")
    with pytest.raises(TypeError, match="list of texts"):
        BM25Index(["red"]).scores("red")
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dalr\[lexical\]'"):
        BM25Index(["red dress"])


@pytest.mark.data
def test_a_question_finds_its_duplicates(data_dir: object) -> None:
    from dalr.data.scored_pairs import read_scored_pairs

    pairs, _ = read_scored_pairs(f"{data_dir}/minbert/quora-dev.tsv", low=0, high=1)
    same = np.flatnonzero(np.array(pairs.score[:3000]) == 1)
    index = BM25Index(pairs.second[:3000])
    own = index.pair_scores([pairs.first[at] for at in same], same)
    shuffled = index.pair_scores([pairs.first[at] for at in same], np.roll(same, 1))
    assert (own > shuffled).mean() > 0.97
