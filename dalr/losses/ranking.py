"""The teacher's list for each row, its top K other rows, and the student's scores of that list.

R rows of one block · K list length
"""

import torch
from torch import Tensor

from dalr.losses.groups import positives
from dalr.losses.shared import cosines
from dalr.losses.similarity import Similarity
from dalr.losses.softmax import MASKED


@torch.no_grad()
def teacher_list(
    teacher: Similarity, block: slice, like_BD: Tensor, *, top_k: int | None, group: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """`(index, score, real)`, each `(R, K)`: the teacher's best K candidates of each row, the best one last.

    Candidates are all rows but the row itself and its group. Where a row has fewer than K of them, the list's
    start is filled up and `real` is false there.
    """
    score_RB = teacher.block(block).to(like_BD.dtype)
    score_RB = score_RB.masked_fill(positives(group, block, len(like_BD), like_BD.device, diagonal=True), MASKED)
    size = score_RB.shape[1]
    if top_k is None or top_k * 4 > size:
        score_RK, index_RK = score_RB.sort(dim=1)
        first = 0 if top_k is None else max(0, size - top_k)
        score_RK, index_RK = score_RK[:, first:], index_RK[:, first:]
    else:
        score_RK, index_RK = (part.flip(1) for part in score_RB.topk(top_k, dim=1))
    return index_RK, score_RK, score_RK > MASKED / 2


def student_list(a_RD: Tensor, b_BD: Tensor, index_RK: Tensor) -> Tensor:
    """Cosines `(R, K)` of each row of `a` with its own list of rows of `b`.

    A short list is cheaper by picking the rows, a long one by multiplying all and picking the products.
    """
    if index_RK.shape[1] * 64 > len(b_BD):
        return cosines(a_RD, b_BD).gather(1, index_RK)
    picked_RKD = b_BD.index_select(0, index_RK.flatten()).view(*index_RK.shape, b_BD.shape[1])
    return torch.bmm(picked_RKD, a_RD[:, :, None]).squeeze(2)


def check_top_k(top_k: int | None) -> None:
    """ValueError for a list without items."""
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k: expected at least 1, got {top_k}")
