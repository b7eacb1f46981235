"""The teacher's list for each row, its top K other rows, best first, and the student's scores of that list.

R rows of one block · K list length
"""

import torch
from torch import Tensor

from dalr.losses.groups import positives
from dalr.losses.rows import MASKED
from dalr.losses.similarity import Similarity


@torch.no_grad()
def teacher_list(
    teacher: Similarity, block: slice, like_BD: Tensor, *, top_k: int | None, group: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """`(index, score, real)`, each `(R, K)`: the teacher's best K candidates of each row, in falling order.

    Candidates are all rows but the row itself and its group. Where a row has fewer than K of them, the list's end
    is filled up and `real` is false there.
    """
    score_RB = teacher.block(block).to(like_BD.dtype)
    score_RB = score_RB.masked_fill(positives(group, block, like_BD, diagonal=True), MASKED)
    size = score_RB.shape[1]
    score_RK, index_RK = score_RB.topk(size if top_k is None else min(top_k, size), dim=1)
    return index_RK, score_RK, score_RK > MASKED / 2


def student_list(a_RD: Tensor, b_BD: Tensor, index_RK: Tensor) -> Tensor:
    """Products `(R, K)` of each row of `a` with its own list of rows of `b`.

    A short list is cheaper by picking the rows, a long one by multiplying all and picking the products.
    """
    if index_RK.shape[1] * 8 > len(b_BD):
        return (a_RD @ b_BD.T).gather(1, index_RK)
    picked_RKD = b_BD.index_select(0, index_RK.flatten()).view(*index_RK.shape, -1)
    return torch.bmm(picked_RKD, a_RD[:, :, None]).squeeze(2)


def check_top_k(top_k: int | None) -> None:
    """ValueError for a list without items."""
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k: expected at least 1, got {top_k}")
