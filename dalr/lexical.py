"""Scores by the words that two texts share (BM25), and ways to join them with the cosines of a dense model.

Our choices, so that a number can be repeated: texts are normalised as captions are (NFKC, case folded), a word is a
run of letters, digits and underscores (`\\w+`; one-letter words stay, "size M" and "vitamin C" need them), no stemmer,
no stop words, `k1` 1.5, `b` 0.75, and the idf of Lucene, log(1 + (N − n + ½) / (n + ½)), which is never negative.
A word that a query repeats counts as often.

Legend: N documents · Q queries · P pairs · W distinct words of the documents
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dalr.data.groups import normalise_caption
from dalr.errors import DataError, MissingExtraError

Method = Literal["lucene", "robertson", "atire", "bm25l", "bm25+"]
Stopwords = Literal["none", "en"]
Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

WORD = r"\w+"
# Elements of one block of scores (64 MiB), where only a few of them are kept.
BLOCK_ELEMENTS = 2**24
# A query whose scores lie this close together has no order: rounding must not be stretched into one.
NO_SPREAD = 1e-6


def weighted_sum(dense_QN: npt.NDArray[Any], lexical_QN: npt.NDArray[Any], weight: float) -> Floats:
    """(1 − weight) · dense + weight · lexical, float32 (Q, N), each brought to 0 … 1 query by query first.

    That is min–max over the query's own candidates: (s − min) / (max − min), or 0 where a query scores all of them
    alike. −inf marks a candidate left out: it takes no part in min and max, and stays −inf.

    Raises ValueError for a weight outside 0 … 1 or shapes that differ.
    """
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"weight is {weight}; expected 0 (dense alone) to 1 (lexical alone)")
    _same_shape([dense_QN, lexical_QN])
    dense, lexical = _spread_out(dense_QN), _spread_out(lexical_QN)
    joined: Floats = np.float32(1.0 - weight) * dense + np.float32(weight) * lexical
    joined[np.isneginf(dense_QN) | np.isneginf(lexical_QN)] = -np.inf
    return joined


def reciprocal_rank_fusion(scores: Sequence[npt.NDArray[Any]], k: float = 60.0) -> npt.NDArray[np.float64]:
    """Sum over rankings of 1 / (k + rank), float64 (Q, N); `scores` are one (Q, N) array a ranking.

    A candidate's rank is how many candidates score at least as high: equal scores all take the last rank that they
    share, so that what a ranking does not find at all (the many documents with BM25 0) earns next to nothing from it,
    and no order is made up. −inf marks a candidate left out: it stays −inf.

    Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning methods",
    SIGIR 2009; k = 60 is theirs.
    """
    if not scores:
        raise ValueError("nothing to fuse: expected one array of scores or more")
    _same_shape(scores)
    fused = np.zeros(scores[0].shape)
    for ranking in map(np.asarray, scores):
        for row, values in zip(fused, ranking, strict=True):
            row += 1.0 / (k + len(values) - np.searchsorted(np.sort(values), values))
        fused[np.isneginf(ranking)] = -np.inf
    return fused


def fit_tfidf(texts: Iterable[str], *, characters: bool = False) -> Any:
    """scikit-learn's TF-IDF over words, or over runs of 3 to 5 characters within words, fitted to these texts.

    `transform(texts)` gives sparse rows at length one, so that their products are cosines. Words are those
    of BM25 here. Raises DataError when no text has a word.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    how: dict[str, Any] = {"analyzer": "char_wb", "ngram_range": (3, 5)} if characters else {"token_pattern": WORD}
    vectorizer = TfidfVectorizer(preprocessor=normalise_caption, **how)
    try:
        return vectorizer.fit(dict.fromkeys(texts))
    except ValueError:
        raise DataError("TF-IDF: no text has a word") from None


class BM25Index:
    """BM25 over a list of texts, computed by bm25s (Lù 2024, arXiv 2407.03618).

    Args:
        texts: the N documents; what `top` and `pair_scores` call a document is its position here.
        k1: how soon repeating a word stops to help, from 0.
        b: how much long documents are held back, 0 to 1.
        method: which BM25; all five are those of bm25s.
        stopwords: "en" leaves out the 33 commonest English words.

    Raises MissingExtraError without bm25s, DataError when no text has a word.
    """

    def __init__(
        self,
        texts: Sequence[str],
        *,
        k1: float = 1.5,
        b: float = 0.75,
        method: Method = "lucene",
        stopwords: Stopwords = "none",
    ) -> None:
        from scipy.sparse import csc_array

        try:
            import bm25s
        except ImportError:
            raise MissingExtraError("bm25s", "lexical", "scoring by words (BM25)") from None
        if isinstance(texts, str):
            raise TypeError("BM25Index takes a list of texts; put a single one into a list")
        self._left_out = frozenset(bm25s.stopwords.STOPWORDS_EN if stopwords == "en" else ())
        self._vocabulary: dict[str, int] = {}
        # Numbered by first appearance: sums are taken in this order, the same in every process.
        ids = [
            [self._vocabulary.setdefault(word, len(self._vocabulary)) for word in self._words(text)] for text in texts
        ]
        if not self._vocabulary:
            raise DataError(f"not one of {len(texts)} texts holds a word: there is nothing to score by")
        ranker = bm25s.BM25(k1=k1, b=b, method=method)
        ranker.index((ids, dict(self._vocabulary)), create_empty_token=False, show_progress=False)
        stored = ranker.scores
        size = (len(texts), len(self._vocabulary))
        # What each word adds to each document that holds it, less what it adds to all others (0 but for bm25l, bm25+).
        self._added_WN = csc_array((stored["data"], stored["indices"], stored["indptr"]), shape=size).T.tocsr()
        self._elsewhere_W = ranker.nonoccurrence_array

    def __len__(self) -> int:
        return int(self._added_WN.shape[1])

    def scores(self, queries: Sequence[str]) -> Floats:
        """Every query with every document: float32 (Q, N)."""
        counts_QW = self._counts(queries)
        found: Floats = (counts_QW @ self._added_WN).toarray()
        return found + self._elsewhere(counts_QW)[:, None]

    def top(self, queries: Sequence[str], k: int) -> tuple[Places, Floats]:
        """The k best documents of each query, best first: their positions and scores, both (Q, min(k, N)).

        Equal scores stand in the order of the documents.
        """
        k = min(k, len(self))
        places, values = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        for start, block in self.blocks(queries):
            for at, row in enumerate(block, start=start):
                places[at] = _best(row, k)
                values[at] = row[places[at]]
        return places, values

    def pair_scores(self, queries: Sequence[str], documents: Sequence[int] | npt.NDArray[Any]) -> Floats:
        """The score of query i with document number `documents[i]`: float32 (P,)."""
        if len(queries) != len(documents):
            raise ValueError(f"{len(queries)} queries for {len(documents)} documents; expected one each")
        counts_PW = self._counts(queries)
        added_PW = self._added_WN.T.tocsr()[np.asarray(documents, np.int64)]
        found = np.asarray(counts_PW.multiply(added_PW).sum(axis=1)).ravel() + self._elsewhere(counts_PW)
        return found.astype(np.float32)

    def blocks(self, queries: Sequence[str]) -> Iterator[tuple[int, Floats]]:
        """`scores` in blocks of queries of at most 64 MiB: (number of the first query, (q, N))."""
        size = max(1, BLOCK_ELEMENTS // len(self))
        for start in range(0, len(queries), size):
            yield start, self.scores(queries[start : start + size])

    def _words(self, text: str) -> list[str]:
        return [word for word in re.findall(WORD, normalise_caption(text)) if word not in self._left_out]

    def _counts(self, queries: Sequence[str]) -> Any:
        """How often each query holds each word of the documents: sparse float32 (Q, W)."""
        from scipy.sparse import csr_array

        if isinstance(queries, str):
            raise TypeError("queries are a list of texts; put a single one into a list")
        known = [[self._vocabulary[word] for word in self._words(text) if word in self._vocabulary] for text in queries]
        row = np.repeat(np.arange(len(known)), [len(words) for words in known])
        column = np.array([word for words in known for word in words], np.int64)
        ones = np.ones(len(column), np.float32)
        counts = csr_array((ones, (row, column)), shape=(len(known), len(self._vocabulary)))
        counts.sort_indices()
        return counts

    def _elsewhere(self, counts_QW: Any) -> Floats:
        if self._elsewhere_W is None:
            return np.zeros(counts_QW.shape[0], np.float32)
        return np.asarray(counts_QW @ self._elsewhere_W, np.float32)


def _best(scores_N: Floats, k: int) -> Places:
    """Positions of the k highest, best first, equal ones in their order."""
    if k == 0:
        return np.empty(0, np.int64)
    bar = np.partition(scores_N, len(scores_N) - k)[len(scores_N) - k]
    above = np.flatnonzero(scores_N > bar)
    chosen = np.concatenate([above, np.flatnonzero(scores_N == bar)[: k - len(above)]])
    return chosen[np.lexsort((chosen, -scores_N[chosen]))]


def _spread_out(scores_QN: npt.NDArray[Any]) -> Floats:
    """Min–max by row to 0 … 1; −inf does not count and gives 0."""
    scores = np.asarray(scores_QN, np.float32)
    low = np.where(np.isneginf(scores), np.inf, scores).min(axis=1, keepdims=True, initial=np.inf)
    high = scores.max(axis=1, keepdims=True, initial=-np.inf)
    # A row of which every candidate is left out has high < low.
    spread = high - low > NO_SPREAD
    lowest = np.where(spread, low, 0.0).astype(np.float32)
    width = np.where(spread, high - low, np.inf).astype(np.float32)
    return (np.where(np.isneginf(scores), 0.0, scores - lowest) / width).astype(np.float32)


def _same_shape(scores: Sequence[npt.NDArray[Any]]) -> None:
    shapes = {np.shape(each) for each in scores}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise ValueError(f"expected arrays of one shape (queries, candidates), got {sorted(shapes)}")
