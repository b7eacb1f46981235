"""Retrieval between texts and images: several positives a query, ties counted against the model, in tiles.

Legend: T distinct texts · M distinct images · Q queries that have a positive · C candidates · D width
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dalr.errors import DalrError
from dalr.evaluation.relevance import Relevance

# A wrong candidate whose cosine comes this near to that of a right one counts as ranked before it. Above what
# rounding in float32 does to equal embeddings, so that a model that maps everything to one point scores nothing.
TIE = 1e-6
DEPTH = 10
RECALLS = (1, 5, 10)
DIRECTIONS = ("text_to_image", "image_to_text")
METRICS = (*(f"recall@{k}" for k in RECALLS), "mrr", f"ndcg@{DEPTH}", f"map@{DEPTH}", "median_rank")
FIGURES = ("mrr", *(f"{direction}.{metric}" for direction in DIRECTIONS for metric in METRICS))
# Elements of one tile of the similarity matrix: 128 MiB in float32, whatever C is.
TILE_ELEMENTS = 2**25

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class QueryScores:
    """What each of Q queries scored: rank of its first positive (from 1), NDCG@10 and average precision@10."""

    rank: Array
    ndcg: Array
    average_precision: Array
    candidates: int

    def figures(self) -> dict[str, Array]:
        """Each metric that is a mean over queries, in percent, as (Q,)."""
        recalls = {f"recall@{k}": 100.0 * (self.rank <= k) for k in RECALLS}
        return recalls | {
            "mrr": 100.0 / self.rank,
            f"ndcg@{DEPTH}": 100.0 * self.ndcg,
            f"map@{DEPTH}": 100.0 * self.average_precision,
        }


def retrieval(
    text_TD: Array, image_MD: Array, relevance: Relevance, *, resamples: int = 1000, seed: int = 0, note: str = ""
) -> dict[str, Any]:
    """The full evaluation, as `dalr eval retrieval --json` prints it.

    Args:
        text_TD: embeddings of the distinct texts, in the order of `relevance.text_rows`; need not be unit length.
        image_MD: embeddings of the distinct images, in the order of `relevance.image_rows`.
        relevance: who belongs to whom.
        resamples: of the bootstrap over queries.
        note: what else the reader of the numbers must know, put behind the definition.

    Returns:
        For each direction recall@1, 5, 10, mrr, ndcg@10, map@10 (percent), median_rank, queries, candidates and
        `ci95` (for each metric its 95 % interval); and `definition`, which says how they were computed.

    Raises:
        DalrError: an embedding is not finite.
    """
    both = score_both(unit_rows(text_TD, "text"), unit_rows(image_MD, "image"), relevance)
    return summarised(both, resamples=resamples, seed=seed, note=note)


def summarised(
    both: Mapping[str, QueryScores], *, resamples: int = 1000, seed: int = 0, note: str = ""
) -> dict[str, Any]:
    """What `retrieval` returns, of scores that are there (`score_both`)."""
    result: dict[str, Any] = {}
    for name, scores in both.items():
        values = {metric: float(figure.mean()) for metric, figure in scores.figures().items()}
        values["median_rank"] = float(np.median(scores.rank))
        drawn = bootstrap(scores.figures(), resamples, seed, scores.rank)
        intervals = {metric: [round(end, 4) for end in ends] for metric, ends in drawn}
        result[name] = {metric: round(value, 4) for metric, value in values.items()} | {
            "queries": len(scores.rank),
            "candidates": scores.candidates,
            "ci95": intervals,
        }
    return result | {"definition": definition(resamples, seed) + (f" {note}" if note else "")}


def retrieval_metrics(text_TD: Array, image_MD: Array, relevance: Relevance) -> dict[str, float]:
    """The same figures without intervals, flat, for use during training.

    Returns:
        `FIGURES`: `mrr` (the mean of both directions), `text_to_image.recall@1` and so on; percent but `median_rank`.
    """
    flat: dict[str, float] = {}
    for name, scores in score_both(unit_rows(text_TD, "text"), unit_rows(image_MD, "image"), relevance).items():
        flat |= {f"{name}.{metric}": float(figure.mean()) for metric, figure in scores.figures().items()}
        flat[f"{name}.median_rank"] = float(np.median(scores.rank))
    return {"mrr": (flat["text_to_image.mrr"] + flat["image_to_text.mrr"]) / 2, **flat}


def definition(resamples: int, seed: int) -> str:
    """How the numbers are computed, in words."""
    return (
        "Cosine similarity. Texts: the distinct captions (NFKC, case folded, white space collapsed); images: the "
        "distinct image files by content. A text and an image are positives if a row links them or, where a group "
        "column is given, if they share a group; not transitive. A query without a positive is left out; every text "
        f"or image is a candidate. A wrong candidate within {TIE:g} of a positive's cosine ranks before it. "
        "recall@k: queries with a positive among the first k. mrr: mean of 1 / rank of the first positive. "
        f"ndcg@{DEPTH}: gains 0 or 1, ideal of min({DEPTH}, positives). map@{DEPTH}: average precision over the first "
        f"{DEPTH}, divided by min({DEPTH}, positives). median_rank: of the first positive. All in percent but ranks "
        f"and counts. ci95: percentile bootstrap over queries, {resamples} resamples, seed {seed}."
    )


def score_both(text: torch.Tensor, image: torch.Tensor, relevance: Relevance) -> dict[str, QueryScores]:
    """The scores of `text_to_image` and `image_to_text`, of unit rows in the order of `relevance`."""
    if (len(text), len(image)) != (len(relevance.text_rows), len(relevance.image_rows)):
        raise ValueError(
            f"{len(text)} text and {len(image)} image embeddings; relevance has {len(relevance.text_rows)} distinct "
            f"texts and {len(relevance.image_rows)} distinct images"
        )
    return {
        "text_to_image": score_queries(text, image, relevance.text_facts, relevance.image_facts),
        "image_to_text": score_queries(image, text, relevance.image_facts, relevance.text_facts),
    }


def score_queries(
    query_QD: torch.Tensor, candidate_CD: torch.Tensor, query_facts: Any, candidate_facts: Any, tile: int | None = None
) -> QueryScores:
    """Rank all candidates for every query that has a positive, `tile` queries at a time.

    Args:
        query_QD: unit rows. candidate_CD: unit rows.
        query_facts: sparse (Q, F). candidate_facts: sparse (C, F); a common fact makes a positive.
        tile: queries at a time; None keeps the similarity tile at 128 MiB, so that memory grows with C alone.
    """
    tile = tile or max(1, TILE_ELEMENTS // max(1, len(candidate_CD)))
    parts = [
        _score_tile(query_QD[start : start + tile], candidate_CD, query_facts[start : start + tile], facts_FC)
        for facts_FC in [candidate_facts.T.tocsr()]
        for start in range(0, len(query_QD), tile)
    ]
    rank, ndcg, precision = (np.concatenate(column) for column in zip(*parts, strict=True))
    return QueryScores(rank, ndcg, precision, len(candidate_CD))


def _score_tile(query: torch.Tensor, candidate: torch.Tensor, facts: Any, facts_FC: Any) -> tuple[Array, ...]:
    positives = (facts @ facts_FC).tocsr()
    if not positives.nnz:
        return np.empty(0, np.int64), np.empty(0), np.empty(0)
    positives.data[:] = 1  # however many facts two rows have in common
    return rank_tile(query @ candidate.T, positives)[:3]


def rank_tile(
    scores_QC: torch.Tensor, positives: Any, *, tie: float = TIE, cutoffs: Sequence[int] = ()
) -> tuple[Array, Array, Array, Array]:
    """How the positives of each query rank among all candidates; queries without a positive are passed over.

    Args:
        scores_QC: any scores, the higher the nearer; −inf leaves a wrong candidate out. Overwritten.
        positives: sparse csr (Q, C), its values the grades (gains), all above 0.
        tie: a wrong candidate that comes this near to a positive counts as ranked before it; of two positives that
            near the lower grade does.
        cutoffs: the k of recall, the share of a query's positives among its first k.

    Returns:
        For the queries that have a positive: the rank of the first, from 1; NDCG@10, gains as graded; average
        precision@10 over min(10, positives); and recall (queries, cutoffs).
    """
    depth = max(DEPTH, *cutoffs) if cutoffs else DEPTH
    counts = np.diff(positives.indptr)
    asked = np.flatnonzero(counts)
    row = np.repeat(np.arange(len(counts)), counts)
    at = torch.from_numpy(row), torch.from_numpy(positives.indices.astype(np.int64))
    positive, grade = scores_QC[at].numpy(), positives.data.astype(np.float64)
    scores_QC[at] = -torch.inf  # what remains are the wrong candidates

    start = np.repeat(positives.indptr[:-1], counts)
    place = np.arange(len(row)) - start  # 0 for a query's best positive, once they are sorted
    best_grade = grade[np.lexsort((-grade, row))]
    span = np.ptp(grade) if len(grade) else 0.0
    order = -positive if not span else tie * (grade - grade.min()) / span - positive
    best_first = np.lexsort((grade, order, row))
    positive, grade = positive[best_first], grade[best_first]

    bar = torch.full((len(counts),), torch.inf, dtype=scores_QC.dtype)
    bar[torch.from_numpy(asked)] = torch.from_numpy(positive[place == 0] - tie)
    rank = 1 + torch.count_nonzero(scores_QC >= bar[:, None], dim=1).numpy()[asked]

    # Ranks beyond `depth` earn nothing: only queries whose first positive is within it, and that have more of them,
    # need the ranks of the others, and the best `depth` wrong candidates say all about those.
    first = np.full(len(counts), depth + 1)
    first[asked] = rank
    near = place < depth
    ideal = np.bincount(row, weights=(place < DEPTH) * best_grade / np.log2(place + 2), minlength=len(counts))[asked]
    row, positive, grade, place = row[near], positive[near], grade[near], place[near]
    ranks = np.where(place == 0, first[row], depth + 1)
    several = np.flatnonzero((counts > 1) & (first <= depth))
    if len(several):
        wrong = scores_QC[torch.from_numpy(several)].topk(min(depth, scores_QC.shape[1]), dim=1).values.numpy()
        more = np.isin(row, several)
        above = wrong[np.searchsorted(several, row[more])] >= (positive[more] - tie)[:, None]
        ranks[more] = 1 + place[more] + above.sum(axis=1)
    inside = ranks <= DEPTH
    gain = np.bincount(row, weights=inside * grade / np.log2(ranks + 1), minlength=len(counts))[asked]
    precision = np.bincount(row, weights=inside * (place + 1) / ranks, minlength=len(counts))[asked]
    found = [np.bincount(row, weights=ranks <= k, minlength=len(counts))[asked] / counts[asked] for k in cutoffs]
    recall = np.stack(found, axis=1) if found else np.empty((len(asked), 0))
    return rank, gain / ideal, precision / np.minimum(counts[asked], DEPTH), recall


def bootstrap(
    figures: dict[str, Array], resamples: int, seed: int, rank: Array | None = None
) -> Iterator[tuple[str, list[float]]]:
    """(metric, its 95 % interval) over resamples of the queries.

    `figures` are means over queries, each (Q,); with `rank` (Q,) its median follows as `median_rank`.
    """
    table = np.stack(list(figures.values()), axis=1)
    queries = len(table)
    order = np.argsort(rank) if rank is not None else np.empty(0, np.int64)
    generator = np.random.default_rng(seed)
    means = np.empty((resamples, len(figures)))
    medians = np.empty(resamples)
    for at in range(resamples):
        drawn = np.bincount(generator.integers(queries, size=queries), minlength=queries)
        means[at] = drawn @ table / queries
        if rank is not None:
            below = np.cumsum(drawn[order])
            middle = np.searchsorted(below, [(queries + 1) // 2, queries // 2 + 1])
            medians[at] = rank[order][middle].mean()
    columns = [*zip(figures, means.T, strict=True), *([("median_rank", medians)] if rank is not None else [])]
    for name, values in columns:
        yield name, np.percentile(values, [2.5, 97.5]).tolist()


def unit_rows(rows: Array, side: str) -> torch.Tensor:
    """Unit rows in float32; a row of zeros stays zero. DalrError names the `side` of one that is not finite."""
    values = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))
    finite = torch.isfinite(values).all(dim=1)
    if not bool(finite.all()):
        bad = int((~finite).nonzero()[0])
        raise DalrError(f"the model's {side} embeddings are not finite (first: number {bad}); its weights are broken")
    return torch.nn.functional.normalize(values, dim=1)
