"""Sentence–image loss without a softmax: every pair of the batch is judged on its own."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dalr.losses.groups import positives
from dalr.losses.rows import row_weights, scalar, sum_over_rows, unit_rows
from dalr.losses.shared import cosines


def sigmoid_cross_modal(
    p_views: Sequence[Tensor],
    v_BD: Tensor,
    *,
    scale: float | Tensor,
    bias: float | Tensor,
    group: Tensor | None = None,
    weight: Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    """Each of the B² pairs is a yes-or-no question: do this sentence and this image belong together?

    `L = −(1/views) Σ_views Σ_ij ½(w_i + w_j) · log σ(z_ij (scale·s_ij + bias))`, w the row weights over their sum,
    z = +1 where i = j or both share a group, else −1 (SigLIP, Zhai et al. 2023; with equal weights this is the
    paper's −1/B Σ_ij). A pair counts half with its sentence and half with its image, so both sides are alike.

    | input | shape | |
    |---|---|---|
    | p_views | views × `(B, D)` | sentences in the shared space |
    | v_BD | `(B, D)` | their images |
    | scale, bias | float or 0-d tensor | learnable; the paper starts at 10 and −10 |
    | group | `(B, K)` int64 | every pair within a group is a positive |
    | weight, tile | | as in `info_nce` |

    Related: `cross_modal` (softmax form).
    """
    *views, v_BD = unit_rows(*p_views, v_BD)
    share_B = row_weights(weight, v_BD)

    def term(block: slice, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> Iterator[Tensor]:
        v_BD, scale, bias = columns
        yes_RB = positives(group, block, len(v_BD), v_BD.device, diagonal=True)
        for p_RD in rows:
            logits_RB = cosines(p_RD, v_BD) * scale + bias
            loss_RB = -F.logsigmoid(torch.where(yes_RB, logits_RB, -logits_RB))
            yield (share_B[block] @ loss_RB.sum(1) + (loss_RB @ share_B).sum()) / (2 * len(views))

    return sum_over_rows(term, views, (v_BD, scalar(scale, v_BD), scalar(bias, v_BD)), tile=tile)
