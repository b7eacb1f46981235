"""Soft alignment: the student's neighbours shall be spread as the teacher's are."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from dalr.losses.groups import positives
from dalr.losses.rows import row_weights, scalar, sum_over_rows, unit_rows
from dalr.losses.shared import cosines
from dalr.losses.similarity import Similarity
from dalr.losses.softmax import MASKED, divergence_rows

# A neighbour without any weight still keeps a finite logit.
LEAST_TRUST = 1e-3


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
    column_weight: Tensor | None = None,
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
    | column_weight | `(B,)` in [0, 1] | how much a row counts as a neighbour of others: `log w_j` joins both logits |
    | group, weight, tile | | as in `info_nce` |

    Related: `list_mle`, `list_net` (the order instead of the spread); `matching` gives a confidence.
    """
    a_BD, b_BD = unit_rows(a_BD, b_BD)
    share_B = row_weights(weight, a_BD)
    sharpness_B = a_BD.new_full((len(a_BD),), 1.0 / teacher_temperature)
    if confidence is not None:
        sharpness_B = sharpness_B * confidence.detach().to(a_BD.dtype)

    trust_B = None if column_weight is None else column_weight.detach().to(a_BD.dtype).clamp_min(LEAST_TRUST).log()

    def term(block: slice, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> Iterator[Tensor]:
        b_BD, temperature = columns
        hidden_RB = positives(group, block, len(b_BD), b_BD.device, diagonal=True) if exclude_positives else None
        target_RB = teacher.block(block).to(b_BD.dtype) * sharpness_B[block, None]
        if trust_B is not None:
            target_RB += trust_B
        if hidden_RB is not None:
            target_RB.masked_fill_(hidden_RB, MASKED)
        target_RB = target_RB.log_softmax(dim=1)
        cosine_RB = cosines(rows[0], b_BD)
        if trust_B is not None:
            cosine_RB = cosine_RB + temperature * trust_B
        yield share_B[block] @ divergence_rows(cosine_RB, temperature, target_RB, hidden_RB)

    return sum_over_rows(term, (a_BD,), (b_BD, scalar(student_temperature, a_BD)), tile=tile)
