"""Distillation of embeddings: the student's unit vector shall be the teacher's."""

from torch import Tensor

from dalr.losses.rows import row_weights, unit_rows


def embedding_mse(student_BD: Tensor, teacher_BD: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """`L = Σ_i w_i ‖ŝ_i − t̂_i‖² / Σ_i w_i` over unit vectors, which is 2 − 2 cos (Reimers and Gurevych 2020).

    | input | shape | |
    |---|---|---|
    | student_BD | `(B, D)` | normalised inside |
    | teacher_BD | `(B, D)` | normalised inside; no gradient |
    | weight | `(B,)` ≥ 0 | weight of each row |

    Related: `soft_alignment`, which asks for the teacher's neighbours instead of its vectors. Memory is O(B·D).
    """
    s_BD, t_BD = unit_rows(student_BD, teacher_BD.detach())
    error_B = (s_BD - t_BD).square().sum(dim=1)
    return (row_weights(weight, error_B) * error_B).sum()
