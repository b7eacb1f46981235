"""Captions that fit their pictures worst, by what the model itself says.

Legend: N rows with a text and an image · T distinct texts · M distinct images · D shared width
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dalr.data.manifest import Manifest
from dalr.evaluation.embeddings import SideFeatures
from dalr.model import DualEncoder

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
BLOCK_ELEMENTS = 2**24


@dataclass(frozen=True)
class Fits:
    """How well each row's caption fits its picture.

    Attributes:
        rows: (N,) numbers of the manifest's rows that have both.
        fit: (N,) own cosine less the best cosine with a stranger, mean of both directions; below 0 something else
            fits better.
        rank: (N,) place of the own picture among all pictures for this caption, from 1.
        pictures: how many pictures there are.
    """

    rows: Ints
    fit: Floats
    rank: Ints
    pictures: int

    def worst(self, count: int) -> Ints:
        """Positions in `rows` of the `count` worst, the worst first."""
        return np.argsort(self.fit, kind="stable")[:count].astype(np.int64)


def caption_fits(model: DualEncoder, manifest: Manifest, texts: SideFeatures, images: SideFeatures) -> Fits:
    """Compare every caption with every picture of a manifest, in blocks.

    A stranger is a picture (or a caption) that no row and no group links to the row's caption (or picture).

    Raises DataError (from the features) where a side is missing.
    """
    rows = np.array(
        [row for row, keys in enumerate(zip(texts.keys, images.keys, strict=True)) if None not in keys], dtype=np.int64
    )
    t_ND, v_ND = texts.embeddings(model, rows), images.embeddings(model, rows)
    ids_N2 = manifest.select(rows).ids([images.keys[row] for row in rows])
    own_N = np.einsum("nd,nd->n", t_ND, v_ND)
    _, first_picture = np.unique([images.keys[row] or "" for row in rows], return_index=True)
    _, first_text = np.unique([texts.keys[row] or "" for row in rows], return_index=True)
    best_picture, rank = _strangers(t_ND, v_ND[first_picture], ids_N2, ids_N2[first_picture], own_N)
    best_text, _ = _strangers(v_ND, t_ND[first_text], ids_N2, ids_N2[first_text], own_N)
    fit = own_N - (best_picture + best_text) / 2
    return Fits(rows, fit.astype(np.float32), rank, len(first_picture))


def _strangers(query_ND: Floats, other_MD: Floats, ids_N2: Ints, ids_M2: Ints, own_N: Floats) -> tuple[Floats, Ints]:
    """(best cosine with a stranger, rank of the own cosine among strangers; a tie counts against it)."""
    best = np.empty(len(query_ND), dtype=np.float32)
    rank = np.empty(len(query_ND), dtype=np.int64)
    step = max(1, BLOCK_ELEMENTS // max(1, len(other_MD)))
    for start in range(0, len(query_ND), step):
        block = slice(start, start + step)
        scores = query_ND[block] @ other_MD.T
        known = ((ids_N2[block, None, :] == ids_M2[None, :, :]) & (ids_M2 >= 0)).any(axis=-1)
        scores[known] = -1.0
        best[block] = scores.max(axis=1)
        rank[block] = 1 + (scores >= own_N[block, None]).sum(axis=1)
    return best, rank
