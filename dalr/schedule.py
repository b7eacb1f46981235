"""What a training step derives from its number alone: learning rate, random seed, epoch."""

import math
from dataclasses import dataclass


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


def step_seed(seed: int, step: int, micro: int, rank: int) -> int:
    """A 63-bit seed for dropout in one step of one process (splitmix64 over the four numbers)."""
    value = 0
    for part in (seed, step, micro, rank):
        value = (value + part + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        value ^= value >> 31
    return value >> 1


def epochs_done(step: int, steps_per_epoch: float) -> int:
    """Whole epochs done after `step` steps."""
    return int(step / steps_per_epoch + 1e-9)


@dataclass(frozen=True)
class Restarts:
    """Where a run begins anew in the middle: at the steps `starts`, the first of them 0.

    With `rate` the learning-rate schedule runs once from each to the next, with `optimizer` the optimizer forgets its
    moments there.
    """

    starts: tuple[int, ...] = (0,)
    rate: bool = False
    optimizer: bool = False

    def span(self, step: int, total: int) -> tuple[int, int]:
        """The first step of the learning-rate schedule that `step` stands in, and its length."""
        if not self.rate:
            return 0, total
        first = max(start for start in self.starts if start <= step)
        return first, min((start for start in self.starts if start > step), default=total) - first
