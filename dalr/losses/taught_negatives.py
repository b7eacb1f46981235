"""Negatives by a teacher: the hard ones count more, those that are none leave the sum.

R rows of one block · B columns
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dalr.losses.similarity import Similarity
from dalr.losses.softmax import MASKED


@dataclass(frozen=True)
class TaughtNegatives:
    """What a teacher makes of a contrast's negatives, for `info_nce` and `cross_modal`.

    With T the teacher's similarity and N_i the negatives of row i, the loss of a row becomes

    `L_i = −log [exp(s_ii/τ) / (exp(s_ii/τ) + Σ_{j ∈ N_i} ω_ij exp(s_ij/τ))]` with
    `ω_ij = |N_i| · softmax_{j ∈ N_i}(β T_ij)`.

    The weights' mean is 1, so that they tell negatives apart and do not make them more (the importance weights of
    Robinson et al. 2021, "Contrastive learning with hard negative samples", by a teacher's similarity in place of the
    student's own, and without their correction for false negatives). Those are kept out: where T_ij is above
    `false_negative`, j is not in N_i (as by the second model of Zhou et al. 2022, "Debiased contrastive learning of
    unsupervised sentence representations").

    | input | | |
    |---|---|---|
    | teacher | Similarity | T, without gradient |
    | hardness | float ≥ 0 | β; at 0 all negatives count alike |
    | false_negative | float | greatest T of a negative; None lets all be negatives |

    ValueError for a β below 0.
    """

    teacher: Similarity
    hardness: float = 0.0
    false_negative: float | None = None

    def __post_init__(self) -> None:
        if self.hardness < 0:
            raise ValueError(f"hardness: expected a value >= 0, got {self.hardness}")

    def transposed(self) -> "TaughtNegatives":
        """The same for the contrast in the other direction."""
        return TaughtNegatives(self.teacher.transposed(), self.hardness, self.false_negative)

    def apply(
        self, cosine_RB: Tensor, temperature: Tensor, block: slice, hidden_RB: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """A block's cosines with `τ log ω` added to the negatives', and what is to be left out of the sum."""
        teacher_RB = self.teacher.block(block).to(cosine_RB.dtype)
        own_RB = torch.zeros_like(teacher_RB, dtype=torch.bool)
        own_RB.diagonal(block.start).fill_(True)
        no_negative_RB = own_RB if hidden_RB is None else hidden_RB | own_RB
        if self.false_negative is not None:
            no_negative_RB = no_negative_RB | (teacher_RB > self.false_negative)
        if self.hardness:
            count_R1 = (~no_negative_RB).sum(dim=1, keepdim=True, dtype=cosine_RB.dtype).clamp_min(1)
            share_RB = (self.hardness * teacher_RB).masked_fill_(no_negative_RB, MASKED).log_softmax(dim=1)
            weight_RB = (share_RB + count_R1.log()).masked_fill_(no_negative_RB, 0.0)
            cosine_RB = cosine_RB + temperature * weight_RB
        return cosine_RB, no_negative_RB & ~own_RB
