"""Scores that somebody gave to pairs of texts, such as experts: a teacher that knows some pairs only."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from dalr.data.groups import normalise_caption
from dalr.data.scored_pairs import read_scored_pairs
from dalr.errors import DataError
from dalr.losses import PairScores


def read_pair_scores(path: str, column: str, texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], PairScores]:
    """The number of each of N texts, int64 (N,), and the scores in 0 … 1 of the pairs that have both texts among them.

    Args:
        path: a table of scored pairs (see `read_scored_pairs`), such as `dalr label` writes.
        column: the one with the scores.
        texts: those trained on. Texts are one where they are equal after `normalise_caption`.

    Raises DataError for a file or column that is not there, a row that cannot be used, by its number, and where no
    pair has both its texts among `texts`.
    """
    pairs, bad = read_scored_pairs(path, low=0, high=1, score=column)
    if bad:
        raise DataError(f"{bad[0].where}: {bad[0].reason}; mend it or drop the row ({len(bad):,} such rows)")
    known: dict[str, int] = {}
    number_N: npt.NDArray[np.int64] = np.array(
        [known.setdefault(normalise_caption(text), len(known)) for text in texts], dtype=np.int64
    )
    sides = [[known.get(normalise_caption(text), -1) for text in side] for side in (pairs.first, pairs.second)]
    both_P2 = torch.tensor(sides, dtype=torch.int64).T
    found_P = (both_P2 >= 0).all(dim=1) & (both_P2[:, 0] != both_P2[:, 1])
    if not found_P.any():
        raise DataError(
            f"{path}: of no pair among {len(pairs):,} are both texts trained on, so its scores teach nothing; score "
            "pairs of the training texts"
        )
    return number_N, PairScores(both_P2[found_P], torch.tensor(pairs.score)[found_P], len(known))
