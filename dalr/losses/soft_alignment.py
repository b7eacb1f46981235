"""Soft alignment: the student's neighbours shall be spread as the teacher's are."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dalr.losses.groups import positives
from dalr.losses.rows import MASKED, row_weights, scalar, sum_over_rows, unit_rows
from dalr.losses.shared import cosines
from dalr.losses.similarity import Similarity


def soft_alignment(
    a_BD: Tensor,
    b_BD: Tensor,
    teacher: Similarity,
    *,
    student_temperature: float | Tensor,
    teacher_temperature: float,
    group: Tensor | None = None,
    weight: Tensor | None = None,
    confidence: Tensor | None = None,
    exclude_positives: bool = True,
    tile: int | None = None,
) -> Tensor:
    """How row i's attention is spread over the other rows shall follow the teacher's spread.

    `L = Σ_i w_i KL(Q_i ‖ P_i) / Σ_i w_i` with `Q_i = softmax_j(T_ij/τ_t)`, `P_i = softmax_j(s_ij/τ_s)` and j over
    the candidates: all rows but i itself and its group, unless `exclude_positives` is false (the cross-modal and
    the intra-modal alignment of DALR, He et al. 2025; for sentences alone the distillation of RankCSE, Liu et al.
    2023). A row without candidates adds 0.

    The same function serves both: cross-modal is the mean of `soft_alignment(p, v, T^tt)` and
    `soft_alignment(v, p, T^vv)`, intra-modal is `soft_alignment(p1, p2, T^tt)`.

    | input | shape | |
    |---|---|---|
    | a_BD, b_BD | `(B, D)` | the student's rows and columns; normalised inside |
    | teacher | Similarity | T, without gradient |
    | student_temperature | float or 0-d tensor > 0 | τ_s |
    | teacher_temperature | float > 0 | τ_t |
    | confidence | `(B,)` in [0, 1] | softens row i's target, whose logits are c_i·T_ij/τ_t (0: uniform); no gradient |
    | group, weight, tile | | as in `info_nce` |

    Related: `list_mle`, `list_net` (the order instead of the spread); `matching` gives a confidence.
    """
    a_BD, b_BD = unit_rows(a_BD, b_BD)
    share_B = row_weights(weight, a_BD)
    sharpness_B = a_BD.new_full((len(a_BD),), 1.0 / teacher_temperature)
    if confidence is not None:
        sharpness_B = sharpness_B * confidence.detach().to(a_BD.dtype)

    def term(block: slice, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> Tensor:
        b_BD, temperature = columns
        student_RB = cosines(rows[0], b_BD) / temperature
        with torch.no_grad():
            target_RB = teacher.block(block).to(student_RB.dtype) * sharpness_B[block, None]
            if exclude_positives:
                hidden_RB = positives(group, block, b_BD, diagonal=True)
                target_RB.masked_fill_(hidden_RB, MASKED)
            target_RB = target_RB.log_softmax(dim=1)
        if exclude_positives:
            student_RB = student_RB.masked_fill(hidden_RB, MASKED)
        loss_RB = F.kl_div(student_RB.log_softmax(dim=1), target_RB, reduction="none", log_target=True)
        return share_B[block] @ loss_RB.sum(1)

    return sum_over_rows(term, (a_BD,), (b_BD, scalar(student_temperature, a_BD)), tile=tile)
