"""Softmax losses of a block of cosines, with their gradient written out.

Contrast and soft alignment are both a distance between a target Q and `P = softmax(cosine/τ)`, and for both
`∂/∂logits = P − Q`. Writing that down instead of leaving it to autograd takes half the passes over the block and
keeps one matrix from forward to backward. Where an entry is hidden P and Q are 0, and so is the gradient.

R rows of one block · B columns
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

MASKED = -1e30
"""Logit of what must not be seen. Finite: a row of nothing but masked entries then gives 0, and no NaN."""


def cross_entropy_rows(cosine_RB: Tensor, temperature: Tensor, own_R: Tensor, hidden_RB: Tensor | None) -> Tensor:
    """`−log softmax(cosine/τ)` at column `own` of each row, `(R,)`; hidden columns are left out of the sum."""
    loss_R: Tensor = _SoftmaxLoss.apply(cosine_RB, temperature, hidden_RB, own_R)
    return loss_R


def divergence_rows(cosine_RB: Tensor, temperature: Tensor, log_q_RB: Tensor, hidden_RB: Tensor | None) -> Tensor:
    """`KL(Q ‖ softmax(cosine/τ))` of each row, `(R,)`. Overwrites `log_q_RB`, which has the same columns hidden."""
    loss_R: Tensor = _SoftmaxLoss.apply(cosine_RB, temperature, hidden_RB, log_q_RB)
    return loss_R


class _SoftmaxLoss(torch.autograd.Function):
    """The target is an index of each row `(R,)`, or log Q `(R, B)`."""

    @staticmethod
    def forward(ctx: Any, cosine_RB: Tensor, temperature: Tensor, hidden_RB: Tensor | None, target: Tensor) -> Tensor:
        logits_RB = cosine_RB / temperature
        if hidden_RB is not None:
            logits_RB.masked_fill_(hidden_RB, MASKED)
        log_p_RB = logits_RB.log_softmax(dim=1)
        if target.ndim == 1:
            own_R1 = target[:, None]
            loss_R = -log_p_RB.gather(1, own_R1).squeeze(1)
            slope_RB = log_p_RB.exp_()
            slope_RB.scatter_add_(1, own_R1, slope_RB.new_full(own_R1.shape, -1.0))
        else:
            q_RB = target.exp()
            loss_R = target.sub_(log_p_RB).mul_(q_RB).sum(dim=1)
            slope_RB = log_p_RB.exp_().sub_(q_RB)
        along_R = (slope_RB * logits_RB).sum(dim=1) if ctx.needs_input_grad[1] else None
        ctx.save_for_backward(slope_RB, temperature, along_R)
        return loss_R

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_R: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        slope_RB, temperature, along_R = ctx.saved_tensors
        scaled_R = grad_R / temperature
        cosine = slope_RB * scaled_R[:, None] if ctx.needs_input_grad[0] else None
        return cosine, None if along_R is None else -(scaled_R * along_R).sum(), None, None
