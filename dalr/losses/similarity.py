"""Teacher similarities, one block of rows at a time, so that no B×B matrix need exist.

B rows · A teachers · R rows of one block
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Similarity(Protocol):
    """What a loss asks of a teacher: its similarities, without gradient."""

    def block(self, rows: slice) -> Tensor:
        """Similarities of these rows with all B, `(R, B)`, float32 at least."""

    def transposed(self) -> "Similarity":
        """The same similarities seen from the columns."""


class TeacherRows:
    """The weighted mean, over A teachers, of each one's own cosine: `T = Σ_a w_a cos_a / Σ_a w_a`.

    | input | shape | |
    |---|---|---|
    | rows | A tensors `(B, d_a)` | teacher a's embeddings of the batch; any length, each teacher its own width |
    | weights | A floats ≥ 0 | share of each teacher (default: equal) |
    | columns | A tensors `(B, d_a)` | the other side, for a cross-modal teacher (default: `rows`) |

    Nothing of it carries a gradient. Rows are kept as given and only their lengths are stored beside them; the
    block that covers all rows (the dense form) is kept, as several losses of one batch ask for it.
    ValueError when there is no teacher, sizes differ or the weights have no positive sum.
    """

    def __init__(
        self, rows: Sequence[Tensor], weights: Sequence[float] | None = None, columns: Sequence[Tensor] | None = None
    ) -> None:
        weights = [1.0] * len(rows) if weights is None else [float(weight) for weight in weights]
        columns = rows if columns is None else columns
        if not rows or not len(rows) == len(weights) == len(columns):
            raise ValueError(f"expected one weight a teacher, got {len(rows)} teachers and {len(weights)} weights")
        if min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(f"weights: expected values >= 0 with a positive sum, got {weights}")
        if len({len(x) for x in (*rows, *columns)}) > 1:
            raise ValueError(f"expected B rows of every teacher, got {[len(x) for x in (*rows, *columns)]}")
        self._rows = [_plain(x) for x in rows]
        self._columns = self._rows if columns is rows else [_plain(x) for x in columns]
        self._weights = [weight / sum(weights) for weight in weights]
        self._row_scales = [_inverse_length(x) for x in self._rows]
        self._column_scales = (
            self._row_scales if self._columns is self._rows else [_inverse_length(x) for x in self._columns]
        )
        self._whole: Tensor | None = None

    def __len__(self) -> int:
        return len(self._rows[0])

    @torch.no_grad()
    def block(self, rows: slice) -> Tensor:
        """Weighted mean cosine of these rows with all B, `(R, B)`."""
        whole = rows.indices(len(self)) == (0, len(self), 1)
        if whole and self._whole is not None:
            return self._whole
        with torch.autocast(self._rows[0].device.type, enabled=False):
            total: Tensor | None = None
            sides = zip(self._rows, self._row_scales, self._columns, self._column_scales, self._weights, strict=True)
            for row, row_scale, column, column_scale, weight in sides:
                part = (row[rows] * (row_scale[rows] * weight)[:, None]) @ column.T
                part *= column_scale
                total = part if total is None else total.add_(part)
        assert total is not None
        if whole:
            self._whole = total
        return total

    def transposed(self) -> "TeacherRows":
        """The same teachers with rows and columns exchanged."""
        return self if self._columns is self._rows else TeacherRows(self._columns, self._weights, self._rows)


class MixedSimilarity:
    """`(1 − share) · T + share · T_other`, two of the same B rows. ValueError for a share not in [0, 1]."""

    def __init__(self, teacher: Similarity, other: Similarity, share: float) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share: expected a value in [0, 1], got {share}")
        self._teacher, self._other, self._share = teacher, other, share

    def block(self, rows: slice) -> Tensor:
        """The mean of both for these rows, `(R, B)`."""
        return torch.lerp(self._teacher.block(rows), self._other.block(rows), self._share)

    def transposed(self) -> "MixedSimilarity":
        """The same seen from the columns."""
        return MixedSimilarity(self._teacher.transposed(), self._other.transposed(), self._share)


class DenseSimilarity:
    """A similarity matrix `(B, B)` that is already there; used without gradient."""

    def __init__(self, matrix_BB: Tensor) -> None:
        if matrix_BB.ndim != 2 or matrix_BB.shape[0] != matrix_BB.shape[1]:
            raise ValueError(f"expected a square similarity matrix, got {tuple(matrix_BB.shape)}")
        self._matrix_BB = _plain(matrix_BB)

    def __len__(self) -> int:
        return len(self._matrix_BB)

    def block(self, rows: slice) -> Tensor:
        """These rows of the matrix."""
        return self._matrix_BB[rows]

    def transposed(self) -> "DenseSimilarity":
        """The transposed matrix (no copy)."""
        return DenseSimilarity(self._matrix_BB.T)


def _plain(x: Tensor) -> Tensor:
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


def _inverse_length(x_BD: Tensor) -> Tensor:
    length_B = torch.linalg.vector_norm(x_BD, dim=-1)
    return torch.where(length_B > 1e-12, 1.0 / length_B, torch.zeros_like(length_B))
