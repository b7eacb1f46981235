"""View agreement: two views of a row shall find the others alike in the same way."""

import math
from collections.abc import Iterator, Sequence

from torch import Tensor, logaddexp

from dalr.losses.groups import positives
from dalr.losses.rows import row_weights, scalar, sum_over_rows, unit_rows
from dalr.losses.shared import cosines
from dalr.losses.softmax import MASKED


def view_agreement(
    a_BD: Tensor,
    b_BD: Tensor,
    *,
    temperature: float | Tensor,
    group: Tensor | None = None,
    weight: Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    """How view a of row i is spread over the others' b shall be how view b of it is spread over their a.

    `L = Σ_i w_i JS(P_i, Q_i) / Σ_i w_i`, JS the Jensen–Shannon divergence (0 … log 2), with
    `P_i = softmax_j(cos(a_i, b_j)/τ)` and `Q_i = softmax_j(cos(b_i, a_j)/τ)` over all rows j but i and its group (the
    ranking consistency of RankCSE, Liu et al. 2023). A row without others adds 0.

    | input | shape | |
    |---|---|---|
    | a_BD, b_BD | `(B, D)` | two views; normalised inside |
    | temperature | float or 0-d tensor > 0 | τ; a tensor gets its gradient |
    | group, weight, tile | | as in `info_nce` |

    Related: `soft_alignment` (a teacher's spread in place of the other view's).
    """
    a_BD, b_BD = unit_rows(a_BD, b_BD)
    share_B = row_weights(weight, a_BD)

    def term(block: slice, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> Iterator[Tensor]:
        b_BD, a_BD, temperature = columns
        hidden_RB = positives(group, block, len(b_BD), b_BD.device, diagonal=True)
        log_p_RB, log_q_RB = (
            (cosines(own_RD, others_BD) / temperature).masked_fill(hidden_RB, MASKED).log_softmax(dim=1)
            for own_RD, others_BD in zip(rows, (b_BD, a_BD), strict=True)
        )
        log_middle_RB = logaddexp(log_p_RB, log_q_RB) - math.log(2)
        halves = ((log_RB.exp() * (log_RB - log_middle_RB)).sum(dim=1) for log_RB in (log_p_RB, log_q_RB))
        yield share_B[block] @ sum(halves) / 2

    return sum_over_rows(term, (a_BD, b_BD), (b_BD, a_BD, scalar(temperature, a_BD)), tile=tile)
