"""`list_mle`, position-weighted `list_mle`, `list_net`.

1. A list of three has the value worked out by hand; all equal slow twins with groups, weights and short lists.
2. The denominators run over the teacher's top K only: rows outside the list have no influence and no gradient.
3. The mean per item: the value of a long random list is near log-length size, not near the length times that.
4. log-sum-exp is exact at temperatures where exp leaves float32 and float64: the value equals the one computed in
   60-digit decimals, and its gradient is finite.
5. The student's order is what counts: the teacher's own order is the best of all orders of three.
6. Position weights sum to 1 and fall by halves; rows with a list of one, or of none, add 0.

Not vacuous: the twins use the printed formulas on plain numbers; test 4's naive form (log of a float32 cumulative
sum) is shown to fail where ours holds.
"""

import itertools
import math
from decimal import Decimal, getcontext

import pytest
import torch
import torch.nn.functional as F
from loss_table import make
from torch import Tensor

from dalr import losses
from dalr.losses import DenseSimilarity
from dalr.losses.list_mle import log_sum_exp_of_rest


def teacher_order(t: Tensor, ids: Tensor | None, i: int, top_k: int | None) -> list[int]:
    kept = [j for j in range(len(t)) if j != i]
    if ids is not None:
        kept = [j for j in kept if not any(x == y >= 0 for x, y in zip(ids[i], ids[j], strict=True))]
    kept.sort(key=lambda j: -float(t[i, j]))
    return kept[:top_k]


def slow_row(kind: str, s: list[float], t: list[float]) -> float:
    n = len(s)
    if n == 0:
        return 0.0
    if kind == "net":
        q, p = [math.exp(x) for x in t], [math.exp(x) for x in s]
        return -sum(x / sum(q) * math.log(y / sum(p)) for x, y in zip(q, p, strict=True))
    items = [math.log(sum(math.exp(x) for x in s[k:])) - s[k] for k in range(n)]
    if kind == "mle":
        return sum(items) / n
    alpha = [2.0 ** (n - k) - 1.0 for k in range(1, n + 1)]
    return sum(w * x for w, x in zip(alpha, items, strict=True)) / sum(alpha) if n > 1 else 0.0


@pytest.mark.parametrize("kind", ["mle", "position", "net"])
@pytest.mark.parametrize("top_k", [1, 4, 9, 13, None])
def test_equals_slow_twin(kind: str, top_k: int | None) -> None:
    d = make()
    assert d.weight is not None
    cos = (F.normalize(d.a, dim=1) @ F.normalize(d.b, dim=1).T).detach()
    teacher = d.teacher().block(slice(0, 13))
    total = 0.0
    for i in range(13):
        order = teacher_order(teacher, d.ids, i, top_k)
        row = slow_row(kind, [float(cos[i, j]) / 0.3 for j in order], [float(teacher[i, j]) / 0.2 for j in order])
        total += float(d.weight[i]) * row
    common = {"temperature": 0.3, "top_k": top_k, "group": d.ids, "weight": d.weight}
    if kind == "net":
        found = losses.list_net(d.a, d.b, d.teacher(), teacher_temperature=0.2, **common)  # type: ignore[arg-type]
    else:
        found = losses.list_mle(d.a, d.b, d.teacher(), position_weighted=kind == "position", **common)  # type: ignore[arg-type]
    assert found.item() == pytest.approx(total / float(d.weight.sum()), rel=1e-9)


def test_closed_form() -> None:
    """Row 0 sees cosines 0 and −1, the teacher prefers the second: (log(1 + e) + 0)/2 at τ = 1."""
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    teacher = DenseSimilarity(torch.tensor([[1.0, 0.1, 0.9], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    first = torch.tensor([1.0, 0.0, 0.0])
    found = losses.list_mle(a, a, teacher, temperature=1.0, weight=first)
    assert found.item() == pytest.approx(math.log(1 + math.e) / 2, abs=1e-6)


@pytest.mark.parametrize("loss", [losses.list_mle, losses.list_net])
def test_only_the_list_counts(loss: object) -> None:
    d = make(rows=20)
    teacher = d.teacher()
    order = teacher_order(teacher.block(slice(0, 20)), None, 0, 3)
    first = torch.eye(20, dtype=torch.float64)[0]
    value = loss(d.a, d.b, teacher, temperature=0.3, top_k=3, weight=first)  # type: ignore[operator]
    touched = torch.autograd.grad(value, d.b)[0].abs().sum(1) > 0
    assert set(touched.nonzero().flatten().tolist()) == set(order)


def test_mean_per_item() -> None:
    """Random lists of 199 and of 19: the mean per item grows with the logarithm of the length, not with it."""
    long, short = make(rows=200, dim=64), make(rows=20, dim=64)
    values = [losses.list_mle(d.a, d.b, d.teacher(), temperature=1.0).item() for d in (long, short)]
    assert values[0] == pytest.approx(math.lgamma(200) / 199, abs=0.2)  # mean of log 1 … log 199
    assert values[1] == pytest.approx(math.lgamma(20) / 19, abs=0.2)


@pytest.mark.parametrize("temperature", [0.5, 0.03, 0.01, 0.004, 0.001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_sum_exp_is_exact(temperature: float, dtype: torch.dtype) -> None:
    getcontext().prec = 60
    # Worst first, as the lists run; the whole range that cosines can span.
    logits = (torch.linspace(-1, 1, 9).repeat(2, 1) / temperature).to(dtype)
    logits[1] = logits[1].flip(0)
    logits[:, 0] = -1e30  # and one place that is not real
    real = torch.ones_like(logits, dtype=torch.bool)
    real[:, 0] = False
    logits.requires_grad_()
    found = log_sum_exp_of_rest(logits, real, spread=2.0 / temperature)
    for row in range(2):
        for k in range(1, 9):
            exact = sum(Decimal(x).exp() for x in logits[row, 1 : k + 1].tolist()).ln()
            assert found[row, k].item() == pytest.approx(float(exact), rel=3e-6, abs=3e-6)
    gradient = torch.autograd.grad(found[:, 1:].sum(), logits)[0]
    assert gradient.isfinite().all()
    # Σ_k ∂lse_k/∂s sums to the number of places; nothing flows into the place that is not real.
    torch.testing.assert_close(gradient.sum(1), torch.full((2,), 8.0, dtype=dtype), rtol=1e-5, atol=1e-5)
    assert (gradient[:, 0] == 0).all()


def test_naive_form_would_fail() -> None:
    logits = torch.tensor([[-100.0, 100.0]])
    assert (logits - logits.amax()).exp().cumsum(1).log()[0, 0] == -math.inf
    found = log_sum_exp_of_rest(logits, torch.ones(1, 2, dtype=torch.bool), spread=200.0)
    assert found[0].tolist() == [-100.0, 100.0]


def test_the_teachers_order_is_the_best() -> None:
    cosines = [0.9, 0.5, 0.1]
    eye = torch.eye(4, dtype=torch.float64)
    teacher = DenseSimilarity(torch.tensor([[1.0, 0.8, 0.4, 0.2]] * 4, dtype=torch.float64))
    found = {}
    for order in itertools.permutations(cosines):
        b = torch.stack([eye[1], *(x * eye[0] + math.sqrt(1 - x * x) * eye[2] for x in order)])
        found[order] = losses.list_mle(eye[:1].repeat(4, 1), b, teacher, temperature=0.1, weight=eye[0]).item()
    assert min(found, key=lambda order: found[order]) == tuple(cosines)
    assert max(found, key=lambda order: found[order]) == tuple(reversed(cosines))


def test_rows_without_candidates() -> None:
    d = make(rows=4)
    ids = torch.tensor([[0], [0], [0], [1]])  # rows 0–2 have one candidate, row 3 has three
    for top_k in (1, 2, None):
        found = losses.list_mle(d.a, d.b, d.teacher(), temperature=0.3, top_k=top_k, group=ids)
        alone = losses.list_mle(
            d.a, d.b, d.teacher(), temperature=0.3, top_k=top_k, group=ids, weight=torch.tensor([0, 0, 0, 1.0])
        )
        torch.testing.assert_close(found, alone / 4)  # a list of one has nothing to order: it adds 0
