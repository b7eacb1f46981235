"""Batches packed to a token budget: short texts share a large batch, long ones get a small one."""

from collections.abc import Sequence


def packed_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Row numbers in batches whose padded size, rows × longest, stays within `token_budget`.

    Rows are sorted by length, longest first (so that the largest memory need comes at once and not after an
    hour), ties in input order. A row longer than the budget is a batch of its own. Every row is in exactly one
    batch; no rows give no batches.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    batches: list[list[int]] = []
    longest = 0
    for row in order:
        if batches and longest * (len(batches[-1]) + 1) <= token_budget:
            batches[-1].append(row)
        else:
            batches.append([row])
            longest = max(lengths[row], 1)
    return batches
