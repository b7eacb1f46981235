"""Cross-modal consistency: a matched pair lies close, a mismatched one apart; and who mismatches whom."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dalr.losses.groups import same_group
from dalr.losses.rows import row_cosines, row_weights


def consistency(
    t_BD: Tensor, v_BD: Tensor, mismatch_B: Tensor, *, margin: float = 0.2, weight: Tensor | None = None
) -> Tensor:
    """The auxiliary task of DALR (He et al. 2025): sentence and image of a pair agree, of a mixed-up pair do not.

    `L = Σ_i w_i [(1 − cos(t_i, v_i)) + max(0, cos(t_i, v_m(i)) − margin)] / Σ_i w_i`, m the mismatch (the cosine
    embedding loss over a matched and a mismatched half).

    | input | shape | |
    |---|---|---|
    | t_BD, v_BD | `(B, D)` | sentences and their images; normalised inside |
    | mismatch_B | `(B,)` int64 | a row of another group for each row, −1 for none (see `derangement`) |
    | margin | float in [−1, 1] | a mismatched pair this far apart costs nothing |
    | weight | `(B,)` ≥ 0 | weight of each row |

    Related: `matching`, the same question put to a binary head. Memory is O(B·D): there is nothing to tile.
    """
    matched_B, mixed_B = row_cosines((t_BD, v_BD), (t_BD, v_BD[mismatch_B.clamp_min(0)]))
    apart_B = torch.where(mismatch_B >= 0, (mixed_B - margin).clamp_min(0.0), 0.0)
    return (row_weights(weight, matched_B) * (1.0 - matched_B + apart_B)).sum()


def matching(
    positive_logit_B: Tensor,
    negative_logit_B: Tensor,
    mismatch_B: Tensor | None = None,
    *,
    weight: Tensor | None = None,
) -> Tensor:
    """Binary matching head: yes for the matched pair, no for the mismatched one.

    `L = Σ_i w_i ½[−log σ(x_i) − log σ(−y_i)] / Σ_i w_i`; where `mismatch_B` is −1 there is no y and its half is 0.
    `σ(x)`, detached, is the confidence that `soft_alignment` takes.

    | input | shape | |
    |---|---|---|
    | positive_logit_B, negative_logit_B | `(B,)` | the head's logits x and y of the matched and mismatched pairs |
    | mismatch_B | `(B,)` int64 | as in `consistency`; None: every row has a mismatch |
    | weight | `(B,)` ≥ 0 | weight of each row |
    """
    dtype = torch.promote_types(torch.promote_types(positive_logit_B.dtype, negative_logit_B.dtype), torch.float32)
    yes_B, no_B = -F.logsigmoid(positive_logit_B.to(dtype)), -F.logsigmoid(-negative_logit_B.to(dtype))
    if mismatch_B is not None:
        no_B = torch.where(mismatch_B >= 0, no_B, 0.0)
    return (row_weights(weight, yes_B) * 0.5 * (yes_B + no_B)).sum()


def derangement(group: Tensor, generator: torch.Generator | None = None, *, tile: int = 1024) -> Tensor:
    """For each row a random row of another group, `(B,)` int64; −1 where every other row is of its own group.

    Rows are put in a random ring and each takes its neighbour, so that a partner is used once and nobody is his
    own; only who then meets his own group draws again from all rows that are not. `group` is `(B, K)` ids;
    `generator` lives on the CPU, so the draw is the same on every device. Memory O(B·tile).
    """
    size = len(group)
    order_B = torch.randperm(size, generator=generator).to(group.device)
    mismatch_B = torch.empty_like(order_B)
    mismatch_B[order_B] = order_B.roll(-1)
    own_B = ((group == group[mismatch_B]) & (group >= 0)).any(1) | (
        mismatch_B == torch.arange(size, device=group.device)
    )
    drawn_again = own_B.nonzero().flatten()
    for rows in torch.split(drawn_again, tile) if len(drawn_again) else ():
        allowed_RB = ~same_group(group[rows], group)
        allowed_RB[torch.arange(len(rows), device=rows.device), rows] = False
        draw_RB = torch.rand(allowed_RB.shape, generator=generator).to(group.device)
        best_R = torch.where(allowed_RB, draw_RB, -1.0).argmax(1)
        mismatch_B[rows] = torch.where(allowed_RB.any(1), best_R, -1)
    return mismatch_B
