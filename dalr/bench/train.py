"""Training of heads on cached features: the whole loop against the shortest one that anybody would write."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def bare_loop(
    text_NH: Tensor, image_NV: Tensor, *, dim: int, hidden: int | None, batch_size: int, steps: int, lr: float
) -> float:
    """Seconds that plain PyTorch takes: two heads, plain symmetric InfoNCE, AdamW; nothing is logged or saved."""
    torch.manual_seed(0)
    heads = [_head(text_NH.shape[1], dim, hidden), _head(image_NV.shape[1], dim, hidden)]
    scale = nn.Parameter(torch.tensor(2.659))
    parameters = [*heads[0].parameters(), *heads[1].parameters(), scale]
    optimizer = torch.optim.AdamW(parameters, lr=lr)
    target = torch.arange(batch_size)
    order = torch.randperm(len(text_NH))
    start = time.perf_counter()
    for step in range(steps):
        first = step * batch_size % max(1, len(order) - batch_size + 1)
        rows = order[first : first + batch_size]
        p_BD = F.normalize(heads[0](text_NH[rows]), dim=-1)
        v_BD = F.normalize(heads[1](image_NV[rows]), dim=-1)
        logits_BB = scale.exp() * p_BD @ v_BD.T
        loss = (F.cross_entropy(logits_BB, target) + F.cross_entropy(logits_BB.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return time.perf_counter() - start


def _head(width: int, dim: int, hidden: int | None) -> nn.Module:
    if hidden is None:
        return nn.Linear(width, dim)
    return nn.Sequential(nn.Dropout(0.2), nn.Linear(width, hidden), nn.GELU(), nn.Dropout(0.3), nn.Linear(hidden, dim))


def compare(bare: Callable[[], float], ours: dict[str, Callable[[], float]], *, rounds: int) -> dict[str, Any]:
    """Run the bare loop and ours in turn, `rounds` times after one warm-up round, and compare within each round.

    Returns `bare_seconds` and, by name, `seconds` and `ratio` to the bare loop: median, lowest and highest.
    """
    bare()
    for run in ours.values():
        run()
    base: list[float] = []
    found: dict[str, list[float]] = {name: [] for name in ours}
    for _ in range(rounds):
        base.append(bare())
        for name, run in ours.items():
            found[name].append(run())
    return {
        "rounds": rounds,
        "bare_seconds": _spread(base),
        **{
            name: {
                "seconds": _spread(times),
                "ratio": _spread([mine / plain for mine, plain in zip(times, base, strict=True)]),
            }
            for name, times in found.items()
        },
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
    }
