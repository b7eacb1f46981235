"""`view_agreement`.

1. On three rows the value is the divergence worked out by hand; it equals a slow twin with groups and weights.
2. It is 0, with zero gradient, where the views are equal; else positive, at most log 2, the same with them exchanged.
3. The row itself and its group are in neither distribution; a row without others adds 0.

What holds for every loss (tiled = dense, cached, processes, gradcheck, dtypes) is in the table that all share.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from loss_table import make
from torch import Tensor

from dalr import losses


def slow(a: Tensor, b: Tensor, tau: float, ids: Tensor, weight: Tensor) -> float:
    a, b = F.normalize(a.detach(), dim=1), F.normalize(b.detach(), dim=1)
    total = 0.0
    for i in range(len(a)):
        kept = [
            j for j in range(len(a)) if j != i and not any(x == y >= 0 for x, y in zip(ids[i], ids[j], strict=True))
        ]
        p = [math.exp(float(a[i] @ b[j]) / tau) for j in kept]
        q = [math.exp(float(b[i] @ a[j]) / tau) for j in kept]
        for x, y in zip(p, q, strict=True):
            x, y = x / sum(p), y / sum(q)
            middle = (x + y) / 2
            total += float(weight[i]) * 0.5 * (x * math.log(x / middle) + y * math.log(y / middle))
    return total / float(weight.sum())


def test_closed_form() -> None:
    """Row 0 of a sees cosines (0, −1) of b, row 0 of b sees (0, 0) of a: JS(σ(1), 1 − σ(1) ; ½, ½)."""
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    b = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    p, total = 1 / (1 + math.exp(-1)), 0.0
    for x, y in ((p, 0.5), (1 - p, 0.5)):
        total += 0.5 * (x * math.log(2 * x / (x + y)) + y * math.log(2 * y / (x + y)))
    found = losses.view_agreement(a, b, temperature=1.0, weight=torch.tensor([1.0, 0.0, 0.0]))
    assert found.item() == pytest.approx(total, abs=1e-6)


def test_equals_slow_twin() -> None:
    d = make()
    assert d.ids is not None
    assert d.weight is not None
    found = losses.view_agreement(d.a, d.b, temperature=0.3, group=d.ids, weight=d.weight)
    assert found.item() == pytest.approx(slow(d.a, d.b, 0.3, d.ids, d.weight), rel=1e-10)
    assert found.item() > 1e-3
    back = losses.view_agreement(d.b, d.a, temperature=0.3, group=d.ids, weight=d.weight)
    torch.testing.assert_close(back, found)
    assert found.item() < losses.view_agreement(d.a, d.b, temperature=0.003).item() < math.log(2)


def test_views_that_agree() -> None:
    d = make()
    copy = d.a.detach().clone().requires_grad_()
    value = losses.view_agreement(d.a, copy, temperature=0.3, group=d.ids)
    assert value.item() == pytest.approx(0, abs=1e-12)
    for gradient in torch.autograd.grad(value, [d.a, copy]):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_no_others() -> None:
    d = make()
    together = torch.zeros(13, 1, dtype=torch.int64)
    value = losses.view_agreement(d.a, d.b, temperature=0.3, group=together)
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert all(torch.isfinite(gradient).all() for gradient in torch.autograd.grad(value, [d.a, d.b]))
