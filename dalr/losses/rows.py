"""Row blocks: the one way in which every row-wise loss is computed, dense or tiled.

A row-wise loss is a sum over rows, and each row compares itself with all columns. Such a loss hands over a *term*:
a function of one block of rows that yields that block's share of the loss. One block is the dense form, several
are the tiled form; nothing else differs, so both have the same value and the same gradient.

In the tiled form a block's gradient is taken as soon as its value is there and added to one buffer per input; then
the block is forgotten. So memory is O(B·tile), and nothing is computed twice, as it would be if blocks were
checkpointed and recomputed in the backward pass. The price: no second derivative through a tiled loss.

B rows · D width · R rows of one block
"""

import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dalr.losses.shared import once

Term = Callable[[slice, Sequence[Tensor], Sequence[Tensor]], Iterator[Tensor]]
"""`(block, rows, columns)`: the rows come cut to the block, the columns whole. Yields one or more scalars whose sum is
the block's share of the loss; in the tiled form each is differentiated and freed before the next is asked for."""


def sum_over_rows(term: Term, rows: Sequence[Tensor], columns: Sequence[Tensor], *, tile: int | None = None) -> Tensor:
    """The sum of `term(block, rows of the block, columns)` over blocks of `tile` rows (None: one block).

    Every tensor that shall get a gradient is passed in `rows` (first dimension B, cut to the block) or `columns`
    (passed whole; any shape, a learnable temperature too); constants may live in the term's closure. Terms run
    outside autocast: cosines and log-sum-exp need float32. ValueError for a tile below 1.
    """
    if tile is not None and tile < 1:
        raise ValueError(f"tile: expected at least 1 row a block, got {tile}")
    size = len(rows[0])
    if size == 0:
        return rows[0].sum()  # 0, and still part of the graph
    tile = min(tile or size, size)
    with torch.autocast(rows[0].device.type, enabled=False):
        if tile == size:
            return _sum(term(slice(0, size), rows, columns))
        blocks = [slice(start, min(start + tile, size)) for start in range(0, size, tile)]
        tensors = (*rows, *columns)
        if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in tensors):
            return _sum(part for block in blocks for part in term(block, [row[block] for row in rows], columns))
        # A tensor that is both a row and a column (each side of a pair is) gets one gradient buffer, not two.
        distinct = list({id(tensor): tensor for tensor in tensors}.values())
        place = {id(tensor): number for number, tensor in enumerate(distinct)}
        which = [place[id(tensor)] for tensor in tensors]
        total: Tensor = _RowBlocks.apply(term, blocks, which[: len(rows)], which[len(rows) :], *distinct)
        return total


def _sum(parts: Iterable[Tensor]) -> Tensor:
    first, *others = parts
    return sum(others, start=first)


class _RowBlocks(torch.autograd.Function):
    """Value and gradient block by block; the backward pass only scales what the forward pass found."""

    @staticmethod
    def forward(
        ctx: Any, term: Term, blocks: Sequence[slice], rows: Sequence[int], columns: Sequence[int], *tensors: Tensor
    ) -> Tensor:
        wanted = ctx.needs_input_grad[4:]
        leaves = [tensor.detach().requires_grad_(want) for tensor, want in zip(tensors, wanted, strict=True)]
        for leaf, want in zip(leaves, wanted, strict=True):
            leaf.grad = _lasting_zeros(leaf) if want else None
        total = tensors[0].new_zeros(())
        for block in blocks:
            cut = {number: leaves[number].detach()[block].requires_grad_(wanted[number]) for number in rows}
            with torch.enable_grad():
                for part in term(block, [cut[number] for number in rows], [leaves[number] for number in columns]):
                    if part.requires_grad:
                        part.backward()  # type: ignore[no-untyped-call]
                    total += part.detach()
            for number, leaf in cut.items():
                buffer = leaves[number].grad
                if leaf.grad is not None and buffer is not None:
                    buffer[block] += leaf.grad
        ctx.save_for_backward(*(leaf.grad for leaf in leaves))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        found = (None if grad is None else grad * outer for grad in ctx.saved_tensors)
        return None, None, None, None, *found


def _lasting_zeros(like: Tensor) -> Tensor:
    """Zeros that stay from the forward to the backward pass.

    On the CPU they get pages of their own: among the short-lived blocks of the heap they would keep its holes from
    closing, and resident memory would be twice what is in use.
    """
    if like.device.type != "cpu" or like.numel() == 0:
        return torch.zeros_like(like)
    pages = mmap.mmap(-1, like.numel() * like.element_size())
    return torch.frombuffer(pages, dtype=like.dtype, count=like.numel()).view(like.shape)


def unit_rows(*tensors: Tensor) -> list[Tensor]:
    """Each `x_BD` with rows of length 1, all in one dtype: float32 at least, float64 where any is float64.

    A row of zeros stays zero and its gradient stays finite. ValueError when the shapes differ.
    """
    dtype = _common_dtype(tensors)
    with torch.autocast(tensors[0].device.type, enabled=False):
        found: dict[int, Tensor] = {}
        for tensor in tensors:
            if id(tensor) not in found:
                found[id(tensor)] = once(partial(_unit, tensor, dtype), "unit", tensor, dtype=dtype)
        return [found[id(tensor)] for tensor in tensors]


def row_cosines(*pairs: tuple[Tensor, Tensor]) -> list[Tensor]:
    """The cosine of each row of x with the same row of y, `(B,)`, for every pair (x, y); dtypes as in `unit_rows`.

    The lengths are divided out of the products, so that nothing as large as x is kept for the backward pass.
    """
    dtype = _common_dtype([tensor for pair in pairs for tensor in pair])
    with torch.autocast(pairs[0][0].device.type, enabled=False):
        return [_row_cosine(x_BD.to(dtype), y_BD.to(dtype)) for x_BD, y_BD in pairs]


def _row_cosine(x_BD: Tensor, y_BD: Tensor) -> Tensor:
    lengths_B = torch.linalg.vector_norm(x_BD, dim=1) * torch.linalg.vector_norm(y_BD, dim=1)
    return (x_BD * y_BD).sum(dim=1) / torch.where(lengths_B > 1e-24, lengths_B, 1.0)


def _common_dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    shape = tensors[0].shape
    if len(shape) != 2 or any(tensor.shape != shape for tensor in tensors):
        raise ValueError(f"expected matrices (B, D) of one shape, got {[tuple(tensor.shape) for tensor in tensors]}")
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def _unit(x_BD: Tensor, dtype: torch.dtype) -> Tensor:
    unit_BD: Tensor = _UnitRows.apply(x_BD.to(dtype))
    return unit_BD


class _UnitRows(torch.autograd.Function):
    """`u = x/|x|`, `∂L/∂x = (g − u (u·g)) / |x|`; keeps x, which lives anyway, and not u."""

    @staticmethod
    def forward(ctx: Any, x_BD: Tensor) -> Tensor:
        norm_B1 = torch.linalg.vector_norm(x_BD, dim=1, keepdim=True)
        inverse_B1 = torch.where(norm_B1 > 1e-12, norm_B1.reciprocal(), 1.0)
        ctx.save_for_backward(x_BD, inverse_B1)
        return x_BD * inverse_B1

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BD: Tensor) -> Tensor:
        x_BD, inverse_B1 = ctx.saved_tensors
        along_B1 = (x_BD * grad_BD).sum(1, keepdim=True).mul_(inverse_B1.square()).neg_()
        return torch.addcmul(grad_BD, x_BD, along_B1).mul_(inverse_B1)


def row_weights(weight: Tensor | None, like: Tensor) -> Tensor:
    """The share of each row in the mean, `(B,)`: weight over the sum of weights, or 1/B.

    Weights carry no gradient; when all are zero, so are the shares. ValueError for a wrong shape.
    """
    size = len(like)
    if weight is None:
        return like.new_full((size,), 1.0 / max(size, 1))
    if weight.shape != (size,):
        raise ValueError(f"weight: expected one value a row ({size},), got {tuple(weight.shape)}")
    weight = weight.detach().to(like.device, like.dtype)
    total = weight.sum()
    return weight / torch.where(total > 0, total, torch.ones_like(total))


def scalar(value: float | Tensor, like: Tensor) -> Tensor:
    """A number or a learnable 0-d tensor as a 0-d tensor of `like`'s dtype (a number stays on the CPU)."""
    if isinstance(value, Tensor):
        return value.to(like.device, like.dtype).reshape(())
    return torch.tensor(value, dtype=like.dtype)
