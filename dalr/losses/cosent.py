"""CoSENT: pairs with a higher score shall have the higher cosine."""

import torch
from torch import Tensor

from dalr.losses.rows import row_cosines
from dalr.losses.softmax import MASKED


def cosent(a_BD: Tensor, b_BD: Tensor, y_B: Tensor, *, scale: float = 20.0, weight: Tensor | None = None) -> Tensor:
    """Whenever pair i is scored above pair j, its cosine shall be above too; only the order of scores is used.

    `L = log(1 + Σ_{y_i > y_j} w_i w_j exp(scale · (cos_j − cos_i)))` (CoSENT, Su 2022; the weights are ours). With the
    pairs sorted by score the inner sum over j is a running log-sum-exp, so all B² comparisons cost O(B log B) time and
    O(B) memory: it needs no tiles. Pairs of equal scores are not compared; without any comparison the loss is 0.

    | input | shape | |
    |---|---|---|
    | a_BD, b_BD | `(B, D)` | the two sides of each pair; any length |
    | y_B | `(B,)` | scores, any scale |
    | scale | float > 0 | sharpness, 1/temperature |
    | weight | `(B,)` ≥ 0 | weight of each pair, over the mean of those above 0; a pair of weight 0 is not there |

    Related: `cosine_regression` (the score itself), `list_mle` (order within one query's list).
    """
    y_B, order_B = y_B.detach().sort()
    logit_B = scale * row_cosines((a_BD, b_BD))[0][order_B]
    lower_B = higher_B = logit_B
    if weight is not None:
        log_B = _log_weights(weight, logit_B)[order_B]
        lower_B, higher_B = logit_B + log_B, logit_B - log_B
    below_B = torch.searchsorted(y_B.contiguous(), y_B.contiguous())  # how many pairs are scored strictly lower
    running_B = lower_B.logcumsumexp(dim=0)[(below_B - 1).clamp_min(0)]
    compared_B = torch.where(below_B > 0, running_B - higher_B, MASKED)
    return torch.cat([compared_B, compared_B.new_zeros(1)]).logsumexp(dim=0)


def _log_weights(weight: Tensor, like_B: Tensor) -> Tensor:
    """log(w / mean of the weights above 0), `MASKED` for 0: exactly 0 where all weigh the same."""
    if weight.shape != like_B.shape:
        raise ValueError(f"weight: expected one value a row {tuple(like_B.shape)}, got {tuple(weight.shape)}")
    weight = weight.detach().to(like_B)
    mean = weight.sum() / (weight > 0).sum().clamp_min(1)
    return torch.where(weight > 0, (weight / mean).log(), MASKED)
