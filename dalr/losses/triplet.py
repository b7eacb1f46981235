"""Contrastive loss with a hard negative for every row."""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dalr.losses.groups import positives, same_group
from dalr.losses.rows import row_weights, scalar, sum_over_rows, unit_rows
from dalr.losses.shared import cosines
from dalr.losses.softmax import MASKED


def triplet_info_nce(
    anchor_BD: Tensor,
    positive_BD: Tensor,
    negative_BD: Tensor,
    *,
    temperature: float | Tensor,
    negative_weight: float = 1.0,
    group: Tensor | None = None,
    negative_group: Tensor | None = None,
    weight: Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    """Each anchor picks its positive among all positives and all hard negatives; its own negative counts α times.

    `L_i = −log [exp(s(a_i, p_i)/τ) / Σ_j (exp(s(a_i, p_j)/τ) + α^{1[i=j]} exp(s(a_i, n_j)/τ))]` (supervised
    SimCSE, Gao et al. 2021, eq. 5 and its appendix on weighting). What is of the anchor's group is left out: other
    rows' positives, and their hard negatives.

    | input | shape | |
    |---|---|---|
    | anchor_BD, positive_BD, negative_BD | `(B, D)` | triplets; normalised inside |
    | temperature | float or 0-d tensor > 0 | τ |
    | negative_weight | float ≥ 0 | α; 0 leaves one's own negative out |
    | group, weight, tile | | as in `info_nce` |
    | negative_group | `(B, K)` int64 | the ids that each hard negative would have in `group`; -1 where none |

    Related: `info_nce`, which has the batch's negatives only. ValueError for a negative α, or for the ids of
    negatives without, or of another shape than, those of the rows.
    """
    if negative_weight < 0:
        raise ValueError(f"negative_weight: expected a value >= 0, got {negative_weight}")
    if negative_group is not None and (group is None or group.shape != negative_group.shape):
        expected = "group as well" if group is None else f"the shape of group, {tuple(group.shape)}"
        raise ValueError(f"negative_group: expected {expected}, got ids {tuple(negative_group.shape)}")
    extra = math.log(negative_weight) if negative_weight > 0 else MASKED
    a_BD, p_BD, n_BD = unit_rows(anchor_BD, positive_BD, negative_BD)
    share_B = row_weights(weight, a_BD)

    def term(block: slice, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> Iterator[Tensor]:
        p_BD, n_BD, temperature = columns
        logits_RB = cosines(rows[0], p_BD) / temperature
        if group is not None:
            logits_RB = logits_RB.masked_fill(positives(group, block, len(p_BD), p_BD.device, diagonal=False), MASKED)
        own_RB = torch.zeros_like(logits_RB)
        own_RB.diagonal(block.start).fill_(extra)
        hard_RB = cosines(rows[0], n_BD) / temperature + own_RB
        if group is not None and negative_group is not None:
            friend_RB = same_group(group[block], negative_group)
            friend_RB.diagonal(block.start).fill_(False)
            hard_RB = hard_RB.masked_fill(friend_RB, MASKED)
        own_R = torch.arange(block.start, block.stop, device=p_BD.device)
        yield share_B[block] @ F.cross_entropy(torch.cat([logits_RB, hard_RB], dim=1), own_R, reduction="none")

    return sum_over_rows(term, (a_BD,), (p_BD, n_BD, scalar(temperature, a_BD)), tile=tile)
