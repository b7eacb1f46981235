"""Retrieval of documents by queries, both texts: by a model's cosines, by BM25, or by both together.

Legend: Q queries · q queries of a tile · N documents · P labelled pairs · D width
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from dalr.data.text_retrieval_sets import LabelledPairs, TextRetrievalSet
from dalr.errors import ConfigError
from dalr.evaluation.pair_classification import RankedPairs, interval
from dalr.evaluation.retrieval import DEPTH, TIE, bootstrap, rank_tile
from dalr.evaluation.sentences import SentenceModel, embed_sentences, unit_rows
from dalr.lexical import BM25Index, reciprocal_rank_fusion, weighted_sum
from dalr.progress import ProgressSink

Hybrid = Literal["none", "sum", "rrf"]
Array = npt.NDArray[Any]

RECALLS = (1, 5, 10, 100)
# Fused ranks lie closer together than cosines: 1 / (60 + 1,000) and the next differ by a millionth.
TIE_OF_RANKS = 1e-9
# Elements of one tile of scores: 128 MiB in float32, a quarter where two rankings are joined.
TILE_ELEMENTS = {"none": 2**25, "sum": 2**23, "rrf": 2**22}


@dataclass(frozen=True)
class Prompted:
    """A sentence model that puts one prompt (a name among its own, or the text itself) before every text."""

    model: Any
    prompt: str

    def encode_text(self, texts: list[str], *, space: str = "sentence") -> Array:
        """(N, D) unit vectors."""
        found: Array = self.model.encode_text(texts, space=space, prompt=self.prompt)
        return found


def evaluate_text_retrieval(
    model: SentenceModel | None,
    data: TextRetrievalSet,
    *,
    passage_model: SentenceModel | None = None,
    hybrid: Hybrid = "none",
    lexical_weight: float = 0.2,
    make_index: Callable[[list[str]], BM25Index] = BM25Index,
    resamples: int = 1000,
    seed: int = 0,
    progress: ProgressSink | None = None,
) -> dict[str, Any]:
    """Every query of `data` ranked against every document; what `dalr eval retrieval-text --json` prints.

    Args:
        model: embeds the queries (`Prompted` gives it a prompt); None ranks by BM25 alone.
        passage_model: embeds the documents; None takes `model`.
        hybrid: `sum` or `rrf` joins cosines and BM25 (see `dalr.lexical`).
        lexical_weight: of BM25 in `sum`.
        make_index: how BM25 is set up.
        resamples, seed: of the bootstrap, over queries (for auprc over pairs).

    Returns:
        ndcg@10, map@10, recall@1, 5, 10, 100 (as far as there are more documents than that), mrr, mrr@10, and for
        labelled pairs auprc, pairs, positive_pairs; all metrics in percent. queries, queries_without_answer (which are
        not asked), documents, ci95 (for each metric its 95 % interval), scored_by, bad (rows left out), and
        `definition`, which says how they were computed.

    Raises DalrError where an embedding is not finite, MissingExtraError where BM25 is asked for without bm25s.
    """
    if model is None and hybrid != "none":
        raise ConfigError(f"hybrid '{hybrid}' joins a model with BM25; name a model, or rank by bm25 alone")
    index = make_index(data.documents) if model is None or hybrid != "none" else None
    query_QD = document_ND = None
    pair_scores = None
    if model is not None:
        pairs = data.pairs or LabelledPairs([], [], np.zeros(0, bool))
        asked, answering = [*data.queries, *pairs.first], [*data.documents, *pairs.second]
        first, second = _embed(model, passage_model, asked, answering, progress)
        query_QD, document_ND = first[: len(data.queries)], second[: len(data.documents)]
        pair_scores = (first[len(data.queries) :] * second[len(data.documents) :]).sum(axis=1)
    elif data.pairs is not None and data.pair_documents is not None and index is not None:
        pair_scores = index.pair_scores(data.pairs.first, data.pair_documents)

    cutoffs = [k for k in RECALLS if k < len(data.documents)] or [1]
    tie = TIE_OF_RANKS if hybrid == "rrf" else TIE
    parts = []
    for start, scores in _score_tiles(data, query_QD, document_ND, index, hybrid, lexical_weight):
        parts.append(
            rank_tile(torch.from_numpy(scores), data.grades[start : start + len(scores)], tie=tie, cutoffs=cutoffs)
        )
    rank, ndcg, precision, recall = (np.concatenate(column) for column in zip(*parts, strict=True))
    figures = {
        f"ndcg@{DEPTH}": 100.0 * ndcg,
        f"map@{DEPTH}": 100.0 * precision,
        **{f"recall@{k}": 100.0 * share for k, share in zip(cutoffs, recall.T, strict=True)},
        "mrr": 100.0 / rank,
        f"mrr@{DEPTH}": np.where(rank <= DEPTH, 100.0 / rank, 0.0),
    }
    result: dict[str, Any] = {name: round(float(values.mean()), 4) for name, values in figures.items()}
    intervals = {name: [round(end, 4) for end in ends] for name, ends in bootstrap(figures, resamples, seed)}
    if data.pairs is not None and pair_scores is not None:
        ranked = RankedPairs(pair_scores, data.pairs.relevant)
        result["auprc"] = round(100.0 * ranked.curve().average_precision, 4)
        intervals["auprc"] = interval([curve.average_precision for curve in ranked.resampled(resamples, seed)])
        result |= {"pairs": len(data.pairs.relevant), "positive_pairs": int(data.pairs.relevant.sum())}
    scored_by = _scored_by(model, hybrid, lexical_weight)
    return result | {
        "queries": len(data.queries),
        "queries_without_answer": data.without_answer,
        "documents": len(data.documents),
        "ci95": intervals,
        "scored_by": scored_by,
        "bad": len(data.bad),
        "definition": _definition(data, scored_by, hybrid, resamples, seed),
    }


def _embed(
    model: SentenceModel, passage_model: SentenceModel | None, asked: list[str], answering: list[str],
    progress: ProgressSink | None,
) -> tuple[Array, Array]:  # fmt: skip
    """Unit rows of both sides; with one model for both, a text that stands on both is embedded once."""
    if passage_model is None:
        embedded = embed_sentences(model, [*asked, *answering], progress)
        sides = embedded(asked), embedded(answering)
    else:
        sides = (
            embed_sentences(model, asked, progress)(asked),
            embed_sentences(passage_model, answering, progress)(answering),
        )
    first, second = (unit_rows(np.asarray(side, np.float32)) for side in sides)
    return first, second


def _score_tiles(
    data: TextRetrievalSet,
    query_QD: Array | None,
    document_ND: Array | None,
    index: BM25Index | None,
    hybrid: Hybrid,
    weight: float,
) -> Iterator[tuple[int, Array]]:
    """(number of the first query, scores (q, N)), −inf where a document is left out for a query."""
    tile = max(1, TILE_ELEMENTS[hybrid] // len(data.documents))
    for start in range(0, len(data.queries), tile):
        left_out = data.left_out[start : start + tile].nonzero()
        rankings = []
        if query_QD is not None and document_ND is not None:
            rankings.append(query_QD[start : start + tile] @ document_ND.T)
        if index is not None:
            rankings.append(index.scores(data.queries[start : start + tile]))
        for scores in rankings:
            scores[left_out] = -np.inf
        if len(rankings) == 2:
            dense, lexical = rankings
            both = weighted_sum(dense, lexical, weight) if hybrid == "sum" else reciprocal_rank_fusion(rankings)
            yield start, both
        elif index is not None:
            # In units of the query's best, which a tie is measured against; the order stays.
            highest = rankings[0].max(axis=1, keepdims=True)
            yield start, rankings[0] / np.where(highest > 0, highest, 1.0)
        else:
            yield start, rankings[0]


def _scored_by(model: SentenceModel | None, hybrid: Hybrid, weight: float) -> str:
    if model is None:
        return "BM25"
    if hybrid == "sum":
        return f"{1 - weight:g} cosine + {weight:g} BM25, each min-max scaled to 0 … 1 over a query's documents"
    if hybrid == "rrf":
        return "reciprocal rank fusion (k = 60) of cosine and BM25, where equal scores share their last rank"
    return "cosine in the sentence space"


def _definition(data: TextRetrievalSet, scored_by: str, hybrid: Hybrid, resamples: int, seed: int) -> str:
    by = scored_by if hybrid == "none" else "cosine"
    auprc = f" auprc: average precision over all labelled pairs by {by}, equal scores taken together."
    tie = f"{TIE_OF_RANKS:g} of a right one's fused score" if hybrid == "rrf" else f"{TIE:g} of a right one's score"
    tie += " (in units of the query's best)" if scored_by == "BM25" else ""
    return (
        f"Scored by {scored_by}. {data.description} Every document is a candidate for every query. A wrong document "
        f"within {tie} ranks before it, and of two right ones that near the lower grade. ndcg@{DEPTH}: gains are the "
        f"grades, discount 1 / log2(rank + 1). map@{DEPTH}: average precision over the first {DEPTH}, divided by "
        f"min({DEPTH}, right documents). recall@k: share of a query's right documents among its first k. mrr: mean of "
        f"1 / rank of the first right document; mrr@{DEPTH}: 0 beyond rank {DEPTH}.{auprc if data.pairs else ''} In "
        f"percent but counts. ci95: percentile bootstrap over queries{' (auprc: over pairs)' if data.pairs else ''}, "
        f"{resamples} resamples, seed {seed}."
    )
