"""How embeddings lie in their space: alignment, uniformity, isotropy, hubness, and the gap between texts and images.

Legend: N rows, all of length one · D width · P pairs of rows
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dalr.data.groups import distinct_texts
from dalr.data.manifest import Manifest
from dalr.data.scored_pairs import ScoredPairs
from dalr.errors import DataError, ModelError
from dalr.evaluation.embeddings import image_features, text_features
from dalr.evaluation.relevance import Relevance, relevance
from dalr.evaluation.retrieval import TILE_ELEMENTS, unit_rows
from dalr.evaluation.sentences import SentenceModel, embed_sentences
from dalr.model import DualEncoder
from dalr.progress import ProgressSink

Array = npt.NDArray[Any]
NEIGHBOURS = 10
# Rows that quadratic figures are taken over; of more, a sample.
MAX_ROWS = 20_000
DEFINITION = (
    "Unit vectors. alignment: mean squared distance of positive pairs. uniformity: log mean exp(-2 d^2) over pairs of "
    "different rows (Wang & Isola 2020). Isotropy: mean_cosine over all pairs; partition_ratio: min over max of the "
    "sum of exp(c w) along the eigenvectors c, both ways (Mu & Viswanath 2018); isoscore: evenness of the principal "
    "components' variances, 0 to 1 (Rudman et al. 2022); top_component: share of variance on the first. Hubness: how "
    f"often a row is among the {NEIGHBOURS} nearest of others, as the skewness of these counts (hub_skewness), and the "
    "share of rows that are nobody's neighbour (anti_hubs; Radovanovic et al. 2010); under cross, of images among the "
    "nearest of texts. modality_gap: distance between the centroids of texts and images (Liang et al. 2022)."
)


def sentence_geometry(
    model: SentenceModel,
    pairs: ScoredPairs,
    threshold: float,
    *,
    max_rows: int = MAX_ROWS,
    seed: int = 0,
    progress: ProgressSink | None = None,
) -> dict[str, Any]:
    """Figures of the `sentence` space over scored pairs.

    Args:
        pairs: all their sentences (distinct after `normalise_caption`) are the rows; those with a score from
            `threshold` on whose two sentences differ are the positive pairs.
        max_rows: of more rows a sample by `seed` is taken.

    Returns:
        alignment, positive_pairs and what `spread` returns.

    Raises DataError where no pair reaches the threshold, or there are fewer than two distinct sentences; DalrError
    where an embedding is not finite.
    """
    embedded = embed_sentences(model, [*pairs.first, *pairs.second], progress)
    ids, texts = distinct_texts([*pairs.first, *pairs.second])
    first, second = ids[: len(pairs)], ids[len(pairs) :]
    positive = (np.array(pairs.score) >= threshold) & (first != second)
    if not positive.any():
        raise DataError(
            f"no pair of two different sentences has a score from {threshold:g} on (scores {min(pairs.score):g} to "
            f"{max(pairs.score):g}); set a lower --threshold"
        )
    rows = unit_rows(embedded(texts), "sentence").numpy()
    return {
        "alignment": _rounded(alignment(rows[first[positive]], rows[second[positive]])),
        "positive_pairs": int(positive.sum()),
        **spread(rows, max_rows=max_rows, seed=seed),
    }


def shared_geometry(
    model: DualEncoder,
    manifest: Manifest,
    *,
    cache: Any = None,
    max_rows: int = MAX_ROWS,
    seed: int = 0,
    progress: ProgressSink | None = None,
) -> dict[str, Any]:
    """Figures of the `shared` space over a manifest.

    Returns:
        text, image: what `spread` returns over the distinct captions and images; cross: `modality_gap` and
        `alignment` over the distinct linked pairs (`pairs`), and how images hub among the neighbours of texts
        (`hub_skewness`, `anti_hubs`); bad: rows whose image cannot be read.

    Raises ModelError for a model without both towers, DataError where nothing links a text and an image.
    """
    if model.text is None or model.image is None:
        raise ModelError("the geometry of texts and images needs a model with both towers; this one has one")
    images = image_features(model, manifest, cache, progress)
    texts = text_features(model, manifest, cache, progress)
    related = relevance(manifest.texts, images.keys, manifest.group)
    text_TD = unit_rows(texts.embeddings(model, related.text_rows), "text").numpy()
    image_MD = unit_rows(images.embeddings(model, related.image_rows), "image").numpy()
    first, second = _linked(manifest, images.keys, related)
    skewness, anti_hubs = hubness(occurrences(sampled(text_TD, max_rows, seed), sampled(image_MD, max_rows, seed)))
    return {
        "text": spread(text_TD, max_rows=max_rows, seed=seed),
        "image": spread(image_MD, max_rows=max_rows, seed=seed),
        "cross": {
            "modality_gap": _rounded(modality_gap(text_TD, image_MD)),
            "alignment": _rounded(alignment(text_TD[first], image_MD[second])),
            "pairs": len(first),
            "hub_skewness": _rounded(skewness),
            "anti_hubs": _rounded(anti_hubs),
        },
        "bad": len(images.bad),
    }


def spread(rows_ND: Array, *, max_rows: int = MAX_ROWS, seed: int = 0) -> dict[str, Any]:
    """How N different unit rows fill their space, over a sample of `max_rows` of them.

    Returns:
        uniformity, mean_cosine, partition_ratio, isoscore, top_component, hub_skewness, anti_hubs (see the functions
        of these names; `DEFINITION` says it in words), rows, and rows_used.

    Raises DataError for fewer than two rows.
    """
    if len(rows_ND) < 2:
        raise DataError(f"the geometry of {len(rows_ND)} embedding cannot be measured; expected two or more")
    rows = sampled(rows_ND, max_rows, seed)
    variances = component_variances(rows)
    skewness, anti_hubs = hubness(occurrences(rows))
    return {
        "uniformity": _rounded(uniformity(rows)),
        "mean_cosine": _rounded(mean_cosine(rows)),
        "partition_ratio": _rounded(partition_ratio(rows)),
        "isoscore": _rounded(isoscore(variances)),
        "top_component": _rounded(top_component(variances)),
        "hub_skewness": _rounded(skewness),
        "anti_hubs": _rounded(anti_hubs),
        "rows": len(rows_ND),
        "rows_used": len(rows),
    }


def sampled(rows_ND: Array, max_rows: int, seed: int) -> Array:
    """All rows, or `max_rows` of them drawn by `seed`, in their order."""
    if len(rows_ND) <= max_rows:
        return rows_ND
    chosen: Array = rows_ND[np.sort(np.random.default_rng(seed).permutation(len(rows_ND))[:max_rows])]
    return chosen


def alignment(first_PD: Array, second_PD: Array) -> float:
    """Mean squared distance of positive pairs, 0 (together) to 4: Wang & Isola 2020, equation 1 with α = 2."""
    return float(((first_PD.astype(np.float64) - second_PD) ** 2).sum(axis=1).mean())


def uniformity(rows_ND: Array) -> float:
    """log mean exp(−2 d²) over pairs of different rows, d their distance, 0 (one point) down to about −4.

    Wang & Isola 2020, equation 2 with t = 2; −4 is what directions drawn evenly come to in many dimensions.
    """
    rows = torch.from_numpy(rows_ND)
    count = len(rows)
    total = 0.0
    for start, cosine in _tiles(rows, rows):
        kernel = torch.exp(4.0 * cosine - 4.0)  # d² = 2 − 2 cos
        at = torch.arange(len(kernel))
        kernel[at, start + at] = 0.0
        total += float(kernel.sum(dtype=torch.float64))
    return float(np.log(total / (count * (count - 1))))


def mean_cosine(rows_ND: Array) -> float:
    """Mean cosine over all pairs of different rows (Ethayarajh 2019), 0 where directions cancel, 1 for one point."""
    rows = rows_ND.astype(np.float64)
    count = len(rows)
    return float(((rows.sum(axis=0) ** 2).sum() - (rows**2).sum()) / (count * (count - 1)))


def partition_ratio(rows_ND: Array) -> float:
    """min Z(c) / max Z(c) with Z(c) = Σ exp(c · w) over the rows w, 1 where no direction is preferred.

    Mu & Viswanath 2018, equation 3: c runs over the eigenvectors of WᵀW, here in both directions, since an
    eigenvector has no sign.
    """
    rows = rows_ND.astype(np.float64)
    along = rows @ np.linalg.eigh(rows.T @ rows).eigenvectors
    sums = np.concatenate([np.exp(along).sum(axis=0), np.exp(-along).sum(axis=0)])
    return float(sums.min() / sums.max())


def component_variances(rows_ND: Array) -> Array:
    """Variances along the D principal components, highest first."""
    rows = rows_ND.astype(np.float64)
    values: Array = np.linalg.eigvalsh(np.cov(rows, rowvar=False).reshape(rows.shape[1], -1))[::-1]
    return np.clip(values, 0.0, None)


def isoscore(variances_D: Array) -> float:
    """How evenly the variance lies on the D components, 0 (all on one) to 1 (equal): IsoScore, Rudman et al. 2022."""
    width = len(variances_D)
    length = float(np.linalg.norm(variances_D))
    if width < 2 or length == 0.0:
        return 0.0
    scaled = np.sqrt(width) * variances_D / length
    defect = np.linalg.norm(scaled - 1.0) / np.sqrt(2 * (width - np.sqrt(width)))
    used = (width - defect**2 * (width - np.sqrt(width))) ** 2 / width**2
    return float((width * used - 1) / (width - 1))


def top_component(variances_D: Array) -> float:
    """Share of the variance on the first principal component; 0 where nothing varies."""
    total = float(variances_D.sum())
    return float(variances_D[0]) / total if total else 0.0


def occurrences(rows_ND: Array, others_MD: Array | None = None, k: int = NEIGHBOURS) -> Array:
    """N_k, int64: how often each row is among the k nearest of the other rows, a row not being its own neighbour.

    With `others_MD`, how often each of these is among the k nearest of the rows.
    """
    rows = torch.from_numpy(rows_ND)
    others = rows if others_MD is None else torch.from_numpy(others_MD)
    k = min(k, len(others) - (others_MD is None))
    counts = np.zeros(len(others), np.int64)
    for start, cosine in _tiles(rows, others):
        if others_MD is None:
            at = torch.arange(len(cosine))
            cosine[at, start + at] = -torch.inf
        counts += np.bincount(cosine.topk(k, dim=1).indices.numpy().ravel(), minlength=len(others))
    return counts


def hubness(counts_N: Array) -> tuple[float, float]:
    """(skewness of N_k, share of rows that are nobody's neighbour): Radovanović et al. 2010. No hubs: 0 and 0."""
    spread_out = counts_N - counts_N.mean()
    variance = float((spread_out**2).mean())
    skewness = float((spread_out**3).mean()) / variance**1.5 if variance else 0.0
    return skewness, float((counts_N == 0).mean())


def modality_gap(text_TD: Array, image_MD: Array) -> float:
    """Distance between the centroids of texts and images, 0 to 2: Liang et al. 2022."""
    centroids = (side.astype(np.float64).mean(axis=0) for side in (text_TD, image_MD))
    return float(np.linalg.norm(next(centroids) - next(centroids)))


def _linked(manifest: Manifest, image_keys: list[str | None], related: Relevance) -> tuple[Array, Array]:
    """Numbers of the distinct texts and images that a row links, each pair once."""
    captions, _ = distinct_texts([text or "" for text in manifest.texts])
    text_of = {caption: number for number, caption in enumerate(captions[related.text_rows].tolist())}
    image_of = {image_keys[row]: number for number, row in enumerate(related.image_rows)}
    pairs = dict.fromkeys(
        (text_of[caption], image_of[key])
        for caption, key in zip(captions.tolist(), image_keys, strict=True)
        if caption in text_of and key is not None
    )
    if not pairs:
        raise DataError(f"{manifest.source}: no row has both a text and an image that can be read")
    first, second = np.array(list(pairs), np.int64).T
    return first, second


def _tiles(rows: torch.Tensor, others: torch.Tensor) -> Any:
    """(first row, cosines of a block of rows with all others), 128 MiB at most."""
    size = max(1, TILE_ELEMENTS // max(1, len(others)))
    for start in range(0, len(rows), size):
        yield start, rows[start : start + size] @ others.T


def _rounded(value: float) -> float:
    return round(value, 6)
