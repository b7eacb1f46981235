"""Contrastive loss with soft labels: how far each row shall pick its own partner."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dalr.losses.groups import positives
from dalr.losses.rows import row_weights, scalar, sum_over_rows, unit_rows
from dalr.losses.shared import cosines
from dalr.losses.softmax import MASKED


def soft_info_nce(
    a_BD: Tensor,
    b_BD: Tensor,
    y_B: Tensor,
    *,
    temperature: float | Tensor,
    group: Tensor | None = None,
    weight: Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    """Row i picks its partner among the batch with probability y_i: `info_nce` at 1, pushed away from it at 0.

    With `p_i = softmax_j(s_ij/τ)_i`, s the cosine, `L = −Σ_i w_i [y_i log p_i + (1 − y_i) log(1 − p_i)] / Σ_i w_i`,
    the mean of both directions. Since `logit p_i = s_ii/τ − log Σ_{j≠i} exp(s_ij/τ)`, this is a binary cross-entropy of
    that logit. Our form for labels in between; at y = 1 it is the symmetric InfoNCE (CLIP, Radford et al. 2021).

    | input | shape | |
    |---|---|---|
    | a_BD, b_BD | `(B, D)` | the two sides of each pair; normalised inside |
    | y_B | `(B,)` in [0, 1] | soft labels; no gradient |
    | temperature | float or 0-d tensor > 0 | τ |
    | group, weight, tile | | as in `info_nce`; a row without a negative counts nothing |

    Related: `cosine_regression` (the label is the cosine), `cosent` (only the order of labels).
    """
    a_BD, b_BD = unit_rows(a_BD, b_BD)
    share_B = row_weights(weight, a_BD)
    label_B = y_B.detach().to(a_BD.device, a_BD.dtype)

    def term(block: slice, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> Iterator[Tensor]:
        *others, temperature = columns
        for row_RD, other_BD in zip(rows, others, strict=True):
            logits_RB = cosines(row_RD, other_BD) / temperature
            own_R = logits_RB.diagonal(block.start)
            hidden_RB = positives(group, block, len(other_BD), other_BD.device, diagonal=True)
            rest_R = logits_RB.masked_fill(hidden_RB, MASKED).logsumexp(dim=1)
            loss_R = F.binary_cross_entropy_with_logits(own_R - rest_R, label_B[block], reduction="none")
            counted_R = torch.where(hidden_RB.all(dim=1), 0.0, share_B[block])
            yield 0.5 * (counted_R @ torch.where(counted_R > 0, loss_R, 0.0))

    return sum_over_rows(term, (a_BD, b_BD), (b_BD, a_BD, scalar(temperature, a_BD)), tile=tile)
