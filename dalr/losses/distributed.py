"""The rows of all processes, as if one process had them all.

Every process computes the loss of the whole batch from gathered rows. Its own rows influence W equal losses, one
in each process, so the backward pass sums gradients over the processes; the mean over processes that DDP takes
then is exactly the gradient of the single-process loss. Parameters used inside the loss get the same gradient
everywhere, which that mean leaves as it is.

B rows of one process · W processes
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """Number of processes; 1 when torch.distributed is not in use."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(x_BD: Tensor) -> Tensor:
    """The rows of all processes in order of rank, `(W·B, …)`, with gradient; the input itself with one process.

    Every process must call it, and with the same number of rows.
    """
    if world_size() == 1:
        return x_BD
    rows: Tensor = _Gather.apply(x_BD)
    return rows


def gather_constant(x_BD: Tensor) -> Tensor:
    """As `gather_rows` without gradient: ids, weights, teacher rows."""
    return x_BD.detach() if world_size() == 1 else _all_rows(x_BD.detach())


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes: what DDP does, for a step outside of DDP's forward.

    `cached_backward` takes several backward passes and one outside the model, so it runs under `no_sync` and is
    followed by this. Every process must have gradients for the same parameters.
    """
    if world_size() == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= world_size()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BD: Tensor) -> Tensor:
        ctx.rows = len(x_BD)
        return _all_rows(x_BD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        start = dist.get_rank() * ctx.rows
        return total[start : start + ctx.rows]


def _all_rows(x_BD: Tensor) -> Tensor:
    parts = [torch.empty_like(x_BD, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, x_BD.contiguous())
    return torch.cat(parts)
