"""Regression on scored pairs: the cosine shall be the score."""

from torch import Tensor

from dalr.losses.rows import row_cosines, row_weights


def cosine_regression(a_BD: Tensor, b_BD: Tensor, y_B: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """`L = Σ_i w_i (cos(a_i, b_i) − y_i)² / Σ_i w_i` (Sentence-BERT, Reimers and Gurevych 2019).

    | input | shape | |
    |---|---|---|
    | a_BD, b_BD | `(B, D)` | the two sides of each pair; normalised inside |
    | y_B | `(B,)` in [−1, 1] | scores on the cosine's own scale |
    | weight | `(B,)` ≥ 0 | weight of each pair |

    Related: `cosent`, which asks for the scores' order alone. Memory is O(B·D): there is nothing to tile.
    """
    (cosine_B,) = row_cosines((a_BD, b_BD))
    error_B = cosine_B - y_B.detach().to(cosine_B.dtype)
    return (row_weights(weight, error_B) * error_B.square()).sum()
