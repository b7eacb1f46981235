"""Contrastive loss: each row must pick its own partner out of all of them."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dalr.losses.groups import positives
from dalr.losses.rows import row_weights, scalar, sum_over_rows, unit_rows
from dalr.losses.shared import cosines
from dalr.losses.similarity import Similarity
from dalr.losses.softmax import cross_entropy_rows
from dalr.losses.taught_negatives import TaughtNegatives

COSINE_LIMIT = 1.0 - 1e-6


def info_nce(
    a_BD: Tensor,
    b_BD: Tensor,
    *,
    temperature: float | Tensor,
    group: Tensor | None = None,
    margin: float = 0.0,
    margin_sim: Similarity | None = None,
    negatives: TaughtNegatives | None = None,
    weight: Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    """Row i of `a` shall be nearer to row i of `b` than to any other row of `b`; the batch gives the negatives.

    `L = Σ_i w_i · [−s_ii/τ + log Σ_{j ∉ G_i} exp(s_ij/τ)] / Σ_i w_i`, s the cosine (SimCSE, Gao et al. 2021,
    eq. 4; InfoNCE, van den Oord et al. 2018). Rows of the same group are no negatives and leave the sum.

    With `margin` m > 0 negatives are made harder by an angle that adapts to the teacher's similarity (AdapACSE of
    KDMCSE, Nguyen et al. 2024): `δ = m·(1 − clip(margin_sim, 0, 1))`, and off the diagonal, where θ_ij > δ_ij,
    s_ij becomes `cos(θ_ij − δ_ij)`. Positives keep their cosine. Without `margin_sim` δ is m for all.

    | input | shape | |
    |---|---|---|
    | a_BD, b_BD | `(B, D)` | two views, or the two sides of pairs; normalised inside |
    | temperature | float or 0-d tensor > 0 | τ; a tensor gets its gradient |
    | group | `(B, K)` int64 | ids as `same_group` takes them |
    | margin, margin_sim | float in [0, π], Similarity | m, and the teacher it adapts to |
    | negatives | TaughtNegatives | a teacher's weights of the negatives, and which are none |
    | weight | `(B,)` ≥ 0 | weight of each row; all zero gives 0 |
    | tile | int | rows a block: memory O(B·tile); None is one block |

    Related: `cross_modal` (both directions, several views), `triplet_info_nce` (a negative of one's own),
    `sigmoid_cross_modal` (no softmax). ValueError for a margin out of range.
    """
    check_margin(margin)
    a_BD, b_BD = unit_rows(a_BD, b_BD)
    share_B = row_weights(weight, a_BD)

    def term(block: slice, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> Iterator[Tensor]:
        cosine_RB = with_margin(cosines(rows[0], columns[0]), block, margin, margin_sim)
        yield share_B[block] @ pick_own(cosine_RB, columns[1], block, group, negatives)

    return sum_over_rows(term, (a_BD,), (b_BD, scalar(temperature, a_BD)), tile=tile)


def pick_own(
    cosine_RB: Tensor,
    temperature: Tensor,
    block: slice,
    group: Tensor | None,
    negatives: TaughtNegatives | None,
) -> Tensor:
    """Cross-entropy `(R,)` of a block of cosines against the diagonal; the group is left out."""
    own_R = torch.arange(block.start, block.stop, device=cosine_RB.device)
    hidden_RB = None if group is None else positives(group, block, cosine_RB.shape[1], cosine_RB.device, diagonal=False)
    if negatives is not None:
        cosine_RB, hidden_RB = negatives.apply(cosine_RB, temperature, block, hidden_RB)
    return cross_entropy_rows(cosine_RB, temperature, own_R, hidden_RB)


def with_margin(cosine_RB: Tensor, block: slice, margin: float, margin_sim: Similarity | None) -> Tensor:
    """The cosines of a block with the margin of `info_nce`, where one is asked for."""
    if margin == 0:
        return cosine_RB
    teacher_RB = cosine_RB.new_zeros(()) if margin_sim is None else margin_sim.block(block)
    return angular_margin(cosine_RB, teacher_RB, margin, block)


def angular_margin(cosine_RB: Tensor, teacher_RB: Tensor, margin: float, block: slice) -> Tensor:
    """`cos(θ − δ)` off the diagonal where θ > δ, else the cosine.

    Written as `cos θ cos δ + sin θ sin δ`: δ has no gradient, so its sine and cosine are constants and no arc
    cosine is taken. θ is that of the cosine clamped to ±(1 − 1e-6), which keeps the slope of sin θ finite.
    """
    delta_RB = margin * (1.0 - teacher_RB.to(cosine_RB.dtype).clamp(0.0, 1.0))
    cos_delta_RB, clamped_RB = delta_RB.cos(), cosine_RB.clamp(-COSINE_LIMIT, COSINE_LIMIT)
    wider_RB = clamped_RB.detach() < cos_delta_RB
    wider_RB.diagonal(block.start).fill_(False)
    nearer_RB = clamped_RB * cos_delta_RB + (1.0 - clamped_RB.square()).sqrt() * delta_RB.sin()
    return torch.where(wider_RB, nearer_RB, cosine_RB)


def check_margin(margin: float) -> None:
    """ValueError when a margin is out of range."""
    if not 0.0 <= margin <= math.pi:
        raise ValueError(f"margin: expected an angle in [0, π], got {margin}")
