"""ListNet: the student shall spread its attention over the teacher's top rows as the teacher does."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dalr.losses.ranking import check_top_k, student_list, teacher_list
from dalr.losses.rows import row_weights, scalar, sum_over_rows, unit_rows
from dalr.losses.similarity import Similarity
from dalr.losses.softmax import MASKED


def list_net(
    a_BD: Tensor,
    b_BD: Tensor,
    teacher: Similarity,
    *,
    temperature: float | Tensor,
    teacher_temperature: float | None = None,
    top_k: int | None = None,
    group: Tensor | None = None,
    weight: Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    """Cross-entropy between the teacher's and the student's top-one probabilities over the teacher's list.

    With π the teacher's first n = min(top_k, candidates) rows for row i,
    `L_i = −Σ_k softmax_k(T_iπ(k)/τ_t) · log softmax_k(s_iπ(k)/τ)`; both denominators run over those n rows only
    (ListNet, Cao et al. 2007, as in RankCSE, Liu et al. 2023). A row without candidates adds 0.

    | input | shape | |
    |---|---|---|
    | a_BD, b_BD | `(B, D)` | the student's rows and columns (two dropout views); normalised inside |
    | teacher | Similarity | gives the list and its scores, without gradient |
    | temperature | float or 0-d tensor > 0 | τ of the student |
    | teacher_temperature | float > 0 | τ_t; None takes the student's |
    | top_k | int ≥ 1 | length of the list; None takes all candidates |
    | group, weight, tile | | as in `info_nce` |

    Related: `list_mle` (the order alone), `soft_alignment` (all rows; the same without the teacher's entropy).
    """
    check_top_k(top_k)
    a_BD, b_BD = unit_rows(a_BD, b_BD)
    share_B = row_weights(weight, a_BD)

    def term(block: slice, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> Iterator[Tensor]:
        b_BD, temperature = columns
        index_RK, score_RK, real_RK = teacher_list(teacher, block, b_BD, top_k=top_k, group=group)
        divisor = temperature.detach() if teacher_temperature is None else teacher_temperature
        target_RK = (score_RK / divisor).masked_fill(~real_RK, MASKED).softmax(dim=1)
        target_RK = torch.where(real_RK, target_RK, 0.0)
        logits_RK = (student_list(rows[0], b_BD, index_RK) / temperature).masked_fill(~real_RK, MASKED)
        yield share_B[block] @ -(target_RK * logits_RK.log_softmax(dim=1)).sum(1)

    return sum_over_rows(term, (a_BD,), (b_BD, scalar(temperature, a_BD)), tile=tile)
