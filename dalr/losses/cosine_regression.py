"""Regression on scored pairs: the cosine shall be the score."""

from torch import Tensor

from dalr.losses.rows import row_weights, unit_rows


def cosine_regression(a_BD: Tensor, b_BD: Tensor, y_B: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """`L = Σ_i w_i (cos(a_i, b_i) − y_i)² / Σ_i w_i` (Sentence-BERT, Reimers and Gurevych 2019).

    | input | shape | |
    |---|---|---|
    | a_BD, b_BD | `(B, D)` | the two sides of each pair; normalised inside |
    | y_B | `(B,)` in [−1, 1] | scores on the cosine's own scale |
    | weight | `(B,)` ≥ 0 | weight of each pair |

    Related: `cosent`, which asks for the scores' order alone. Memory is O(B·D): there is nothing to tile.
    """
    a_BD, b_BD = unit_rows(a_BD, b_BD)
    error_B = (a_BD * b_BD).sum(1) - y_B.detach().to(a_BD.dtype)
    return (row_weights(weight, a_BD) * error_B.square()).sum()
