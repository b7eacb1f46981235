"""The learning rate over a run, as a factor of its peak: a pure function of the step."""

import math


def learning_rate_factor(step: int, total: int, warmup: float, schedule: str) -> float:
    """The factor in (0, 1] for optimizer step `step` (from 0) of `total`.

    Rises linearly over the first `warmup` share of the steps, then falls to 0 along a half cosine or a line, or
    stays at 1.
    """
    rise = round(warmup * total)
    if step < rise:
        return (step + 1) / rise
    done = (step - rise) / max(1, total - rise)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1 - done if schedule == "linear" else 1.0
