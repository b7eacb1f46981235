"""ListMLE: the student shall put the other rows into the teacher's order."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dalr.losses.ranking import check_top_k, student_list, teacher_list
from dalr.losses.rows import row_weights, scalar, sum_over_rows, unit_rows
from dalr.losses.similarity import Similarity
from dalr.losses.softmax import MASKED


def list_mle(
    a_BD: Tensor,
    b_BD: Tensor,
    teacher: Similarity,
    *,
    temperature: float | Tensor,
    top_k: int | None = None,
    group: Tensor | None = None,
    weight: Tensor | None = None,
    position_weighted: bool = False,
    tile: int | None = None,
) -> Tensor:
    """Reading the teacher's list from its best row down, the student shall find each row the best of what is left.

    With π the teacher's order of row i's candidates, cut to the first n = min(top_k, candidates), and s the
    student's cosine, row i's loss is the mean per item

    `L_i = 1/n · Σ_k [log Σ_{l=k..n} exp(s_iπ(l)/τ) − s_iπ(k)/τ]`

    (ListMLE, Xia et al. 2008, as in RankCSE, Liu et al. 2023, and in the ranking distillation of DALR, He et al.
    2025; both papers sum where this takes the mean). `position_weighted` replaces 1/n by weights that sum to 1 and
    halve from place to place, `α_k ∝ 2^(n−k) − 1` (p-ListMLE, Lan et al. 2014), so that the top counts most.

    | input | shape | |
    |---|---|---|
    | a_BD, b_BD | `(B, D)` | the student's rows and columns (two dropout views); normalised inside |
    | teacher | Similarity | gives the order, without gradient |
    | temperature | float or 0-d tensor > 0 | τ |
    | top_k | int ≥ 1 | length of the list; None takes all candidates |
    | group, weight, tile | | as in `info_nce`; a row without candidates adds 0 |

    Related: `list_net` (the teacher's scores instead of its order), `soft_alignment` (all rows, no cut).
    """
    check_top_k(top_k)
    a_BD, b_BD = unit_rows(a_BD, b_BD)
    share_B = row_weights(weight, a_BD)

    def term(block: slice, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> Iterator[Tensor]:
        b_BD, temperature = columns
        index_RK, _, real_RK = teacher_list(teacher, block, b_BD, top_k=top_k, group=group)
        logits_RK = (student_list(rows[0], b_BD, index_RK) / temperature).masked_fill(~real_RK, MASKED)
        left_RK = log_sum_exp_of_rest(logits_RK, real_RK, spread=2.0 / float(temperature.detach()))
        weight_RK = _item_weights(real_RK, position_weighted, logits_RK)
        yield share_B[block] @ ((left_RK - logits_RK) * weight_RK).sum(1)

    return sum_over_rows(term, (a_BD,), (b_BD, scalar(temperature, a_BD)), tile=tile)


def log_sum_exp_of_rest(logits_RK: Tensor, real_RK: Tensor, *, spread: float) -> Tensor:
    """`log Σ_{l ≤ k} exp(logits_l)` for every place k of each row: the list runs from its worst row to its best.

    Sums run over positive numbers, so nothing cancels, and none is lost while the logits of a row, less its
    largest, are within the range of exp: about 80 in float32, 600 in float64 (`spread` bounds them). That is 15
    times faster than `torch.logcumsumexp`, which takes wider spreads.
    """
    if spread > 600.0:
        return logits_RK.double().logcumsumexp(dim=1).to(logits_RK.dtype)
    top_R1 = logits_RK.detach().amax(dim=1, keepdim=True)
    shifted_RK = logits_RK - top_R1
    rest_RK = (shifted_RK.double() if spread > 80.0 else shifted_RK).exp().cumsum(dim=1)
    return torch.where(real_RK, rest_RK, 1.0).log().to(logits_RK.dtype) + top_R1


def _item_weights(real_RK: Tensor, position_weighted: bool, like: Tensor) -> Tensor:
    """Weights `(R, K)` of the places of each list that sum to 1 (0 where not real, and for a weighted list of one)."""
    count_R1 = real_RK.sum(dim=1, keepdim=True).to(like.dtype)
    if not position_weighted:
        return real_RK / count_R1.clamp_min(1.0)
    place_K = torch.arange(real_RK.shape[1], 0, -1, device=like.device, dtype=like.dtype)
    alpha_RK = torch.where(real_RK, torch.exp2(-place_K) - torch.exp2(-count_R1), 0.0)
    total_R1 = alpha_RK.sum(dim=1, keepdim=True)
    return alpha_RK / torch.where(total_R1 > 0, total_R1, 1.0)
