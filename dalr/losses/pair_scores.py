"""Scores of single pairs as a teacher, beside teachers that know all pairs.

B rows · P scored pairs · R rows of one block
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dalr.losses.similarity import Similarity, TeacherRows


class PairScores:
    """What is known of P pairs, at least one, of things that have numbers; the order of a pair does not matter.

    | input | shape | |
    |---|---|---|
    | pairs | `(P, 2)` int64 in [0, count) | the two things of each pair; of a pair that comes twice the mean counts |
    | score | `(P,)` | how alike they are |
    | count | int | how many things there are |
    """

    def __init__(self, pairs: Tensor, score: Tensor, count: int) -> None:
        self._count = count
        self._key_K, place_P = self._keys(pairs[:, 0], pairs[:, 1]).unique(  # type: ignore[no-untyped-call]
            return_inverse=True
        )
        total_K = torch.zeros(len(self._key_K)).index_add(0, place_P, score.float())
        self._score_K = total_K / place_P.bincount(minlength=len(self._key_K))

    def __len__(self) -> int:
        return len(self._key_K)

    def tensors(self) -> dict[str, Tensor]:
        """All that it knows."""
        return {"key": self._key_K, "score": self._score_K}

    def look_up(self, row_R: Tensor, column_B: Tensor) -> tuple[Tensor, Tensor]:
        """`(R, B)` scores of these numbers' pairs, and whether they are known; a thing with itself has 1."""
        self._key_K, self._score_K = self._key_K.to(row_R.device), self._score_K.to(row_R.device)
        one_R1, other_1B = row_R[:, None], column_B[None, :]
        key_RB = self._keys(one_R1, other_1B)
        place_RB = torch.searchsorted(self._key_K, key_RB).clamp_max(len(self) - 1)
        same_RB = one_R1 == other_1B
        known_RB = self._key_K[place_RB] == key_RB
        score_RB = torch.where(known_RB, self._score_K[place_RB], 0.0).masked_fill(same_RB, 1.0)
        return score_RB, known_RB | same_RB

    def _keys(self, one: Tensor, other: Tensor) -> Tensor:
        return torch.minimum(one, other) * self._count + torch.maximum(one, other)


def mean_similarity(
    teachers: Sequence[Tensor], weights: Sequence[float] | None, scores: Mapping[int, PairScores]
) -> Similarity:
    """The weighted mean of the teachers of one side, at least one: those at the places of `scores` know pairs alone.

    `teachers` are rows of embeddings `(B, d)`, or where a teacher has scores the rows' numbers in them, `(B,)` int64.
    """
    if not scores:
        return TeacherRows(teachers, weights)
    weights = [1.0] * len(teachers) if weights is None else weights
    places = [place for place in range(len(teachers)) if place not in scores]
    shares = [weights[place] for place in places]
    embedded = TeacherRows([teachers[place] for place in places], shares) if places else None
    scored = [(known, teachers[place], weights[place]) for place, known in scores.items()]
    return ScoredSimilarity(embedded, sum(shares), scored)


class ScoredSimilarity:
    """The weighted mean, entry by entry, of the teachers that know the pair: scores speak where there are any.

    | input | shape | |
    |---|---|---|
    | teacher, weight | Similarity or None, float | who knows all pairs, and its share |
    | scored | (PairScores, `(B,)` int64, float) each | scores, the number of each row in them, and their share |

    A pair of which nobody knows anything has 0. Nothing of it carries a gradient. As with `TeacherRows` the block that
    covers all rows is kept.
    """

    def __init__(
        self, teacher: Similarity | None, weight: float, scored: Sequence[tuple[PairScores, Tensor, float]]
    ) -> None:
        self._teacher, self._weight, self._scored = teacher, weight, scored
        self._whole: Tensor | None = None

    @torch.no_grad()
    def block(self, rows: slice) -> Tensor:
        """Similarities of these rows with all B, `(R, B)`."""
        size = len(self._scored[0][1])
        whole = rows.indices(size) == (0, size, 1)
        if whole and self._whole is not None:
            return self._whole
        place = self._scored[0][1].device
        total_RB, shares_RB = (torch.zeros(len(range(size)[rows]), size, device=place) for _ in range(2))
        if self._teacher is not None:
            total_RB, shares_RB = self._weight * self._teacher.block(rows), shares_RB + self._weight
        for scores, number_B, weight in self._scored:
            score_RB, known_RB = scores.look_up(number_B[rows], number_B)
            total_RB, shares_RB = total_RB + weight * score_RB, shares_RB + weight * known_RB
        found_RB = total_RB / shares_RB.clamp_min(1e-12)
        if whole:
            self._whole = found_RB
        return found_RB

    def transposed(self) -> "ScoredSimilarity":
        """The same seen from the columns: scores have no direction."""
        if self._teacher is None:
            return self
        return ScoredSimilarity(self._teacher.transposed(), self._weight, self._scored)
