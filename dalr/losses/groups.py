"""Groups: which rows of a batch are true positives of each other, and so never negatives.

Group ids are `ids_BK` (int64): two different rows belong together when any column is equal (column 0 the image,
column 1 the caption, or a group that overrides both). -1 matches nothing. There is no transitive closure.
"""

import torch
from torch import Tensor

from dalr.losses.shared import once


def same_group(ids_rows: Tensor, ids_cols: Tensor) -> Tensor:
    """The bool block `(R, C)` that is true where row and column share an id in any of the K columns.

    `ids_rows` `(R, K)` and `ids_cols` `(C, K)`. A row compared with itself is true (unless all its ids are -1): the
    caller decides about the diagonal.
    """
    match_RC = torch.zeros(len(ids_rows), len(ids_cols), dtype=torch.bool, device=ids_rows.device)
    # Missing ids get a value that no column has: cheaper than masking the block.
    ids_rows = ids_rows.masked_fill(ids_rows < 0, torch.iinfo(ids_rows.dtype).min)
    for row_R, column_C in zip(ids_rows.unbind(1), ids_cols.unbind(1), strict=True):
        match_RC |= row_R[:, None] == column_C
    return match_RC


def positives(group: Tensor | None, block: slice, size: int, device: torch.device, *, diagonal: bool) -> Tensor:
    """`(R, B)`, the rows of `block` against all B = `size`: true where the two share a group.

    A row against itself is `diagonal`. ValueError for ids of another size.
    """
    if group is None:
        match_RB = torch.zeros(block.stop - block.start, size, dtype=torch.bool, device=device)
        match_RB.diagonal(block.start).fill_(diagonal)
        return match_RB
    if group.ndim != 2 or len(group) != size:
        raise ValueError(f"group: expected ids (B, K) with B = {size}, got {tuple(group.shape)}")
    if block.stop - block.start == len(group):
        return once(lambda: _group_block(group, block, diagonal), "positives", group, diagonal=diagonal)
    return _group_block(group, block, diagonal)


def _group_block(group: Tensor, block: slice, diagonal: bool) -> Tensor:
    match_RB = same_group(group[block], group)
    match_RB.diagonal(block.start).fill_(diagonal)
    return match_RB
