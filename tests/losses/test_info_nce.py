"""`info_nce`, `cross_modal`, `sigmoid_cross_modal`, `triplet_info_nce`.

1. On a 2 × 2 batch the value is the formula worked out by hand.
2. Each equals a slow twin that loops over pairs in plain Python, with groups, weights and margins.
3. Rows of a group are no negatives: the loss does not feel where they lie. With the sigmoid they are positives.
4. The margin widens negatives alone, by m(1 − clip(sim, 0, 1)), and makes the loss larger; at sim = 1 it is none.
5. The temperature may be learnt; several views are averaged; one's own hard negative counts α times.
6. A teacher moves weight between negatives and adds none: one that finds all alike changes nothing. What it finds more
   alike than the guard allows is not felt, the positive always is.

Not vacuous: the twins take arc cosines and exponentials literally, as the formulas are printed, and share no code
with the package; tests 3, 4 and 6 also show the opposite case, where the value does move.
"""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from loss_table import make
from torch import Tensor

from dalr import losses


def cosine(x: Tensor, y: Tensor) -> float:
    return (x @ y / (x.norm() * y.norm())).item()


def friends(ids: Tensor, i: int, j: int) -> bool:
    return shared(ids[i], ids[j])


def shared(a: Tensor, b: Tensor) -> bool:
    return any(x == y and x >= 0 for x, y in zip(a.tolist(), b.tolist(), strict=True))


def slow_info_nce(
    a: Tensor, b: Tensor, t: float, ids: Tensor, weight: Tensor, m: float = 0.0, sim: Tensor | None = None
) -> float:
    total = 0.0
    for i in range(len(a)):
        own = math.exp(cosine(a[i], b[i]) / t)
        others = 0.0
        for j in range(len(b)):
            if j == i or friends(ids, i, j):
                continue
            value = cosine(a[i], b[j])
            if sim is not None:
                theta = math.acos(min(max(value, -1 + 1e-6), 1 - 1e-6))
                delta = m * (1 - min(max(float(sim[i, j]), 0.0), 1.0))
                value = math.cos(theta - delta) if theta > delta else value
            others += math.exp(value / t)
        total -= float(weight[i]) * math.log(own / (own + others))
    return total / float(weight.sum())


def test_closed_form() -> None:
    """cos = [[1, 0], [0.6, 0.8]] at τ = 0.5: the rows cost log(1 + e^-2) and log(1 + e^-0.4)."""
    a = torch.tensor([[2.0, 0.0], [0.6, 0.8]])
    b = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    wanted = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-0.4))) / 2
    assert losses.info_nce(a, b, temperature=0.5).item() == pytest.approx(wanted, abs=1e-6)
    back = (math.log(1 + math.exp(-0.8)) + math.log(1 + math.exp(-1.6))) / 2
    both = losses.cross_modal([a], b, temperature=0.5).item()
    assert both == pytest.approx((wanted + back) / 2, abs=1e-6)


def test_equals_slow_twin() -> None:
    d = make()
    assert d.weight is not None
    found = losses.info_nce(d.a, d.b, temperature=0.3, group=d.ids, weight=d.weight)
    assert found.item() == pytest.approx(slow_info_nce(d.a, d.b, 0.3, d.ids, d.weight), rel=1e-10)


@pytest.mark.parametrize("margin", [0.1, 0.5, 3.0])
def test_margin_equals_slow_twin(margin: float) -> None:
    d = make()
    assert d.weight is not None
    sim = torch.rand(13, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 1.6 - 0.3
    dense = losses.DenseSimilarity(sim)
    found = losses.info_nce(d.a, d.b, temperature=0.3, group=d.ids, weight=d.weight, margin=margin, margin_sim=dense)
    there = slow_info_nce(d.a, d.b, 0.3, d.ids, d.weight, margin, sim)
    assert found.item() == pytest.approx(there, rel=1e-10)
    assert there > slow_info_nce(d.a, d.b, 0.3, d.ids, d.weight)
    both = losses.cross_modal(
        [d.a], d.b, temperature=0.3, group=d.ids, weight=d.weight, margin=margin, margin_sim=dense
    )
    back = slow_info_nce(d.b, d.a, 0.3, d.ids, d.weight, margin, sim.T)
    assert both.item() == pytest.approx((there + back) / 2, rel=1e-10)


def test_margin_adapts_to_the_teacher() -> None:
    d = make()
    plain = losses.info_nce(d.a, d.b, temperature=0.3)

    def with_sim(value: float) -> Tensor:
        sim = losses.DenseSimilarity(torch.full((13, 13), value, dtype=torch.float64))
        return losses.info_nce(d.a, d.b, temperature=0.3, margin=0.4, margin_sim=sim)

    torch.testing.assert_close(with_sim(1.0), plain)  # the teacher sees the same thing: no margin
    torch.testing.assert_close(with_sim(-0.5), with_sim(0.0))  # clipped
    assert with_sim(0.0) > with_sim(0.5) > plain
    # Without a teacher it is the same for all, as where a teacher finds nothing alike.
    torch.testing.assert_close(losses.info_nce(d.a, d.b, temperature=0.3, margin=0.4), with_sim(0.0))


def test_margin_leaves_positives_alone() -> None:
    """Where all others are of the group only the positive is left, and no margin can move the loss."""
    d = make()
    together = torch.zeros(13, 1, dtype=torch.int64)
    sim = losses.DenseSimilarity(torch.zeros(13, 13))
    assert losses.info_nce(d.a, d.b, temperature=0.3, group=together, margin=0.4, margin_sim=sim) == 0
    # and where it must move negatives, its slope at the positive is the plain one
    value = losses.info_nce(
        d.a[:2], d.b[:2], temperature=0.3, margin=0.4, margin_sim=losses.DenseSimilarity(torch.eye(2))
    )
    assert value > losses.info_nce(d.a[:2], d.b[:2], temperature=0.3)


def slow_taught(
    a: Tensor, b: Tensor, t: float, ids: Tensor, weight: Tensor, sim: Tensor, beta: float, guard: float
) -> float:
    total = 0.0
    for i in range(len(a)):
        negatives = [j for j in range(len(b)) if j != i and not friends(ids, i, j) and float(sim[i, j]) <= guard]
        importance = [math.exp(beta * float(sim[i, j])) for j in negatives]
        others = 0.0
        for j, value in zip(negatives, importance, strict=True):
            others += value / (sum(importance) / len(importance)) * math.exp(cosine(a[i], b[j]) / t)
        own = math.exp(cosine(a[i], b[i]) / t)
        total -= float(weight[i]) * math.log(own / (own + others))
    return total / float(weight.sum())


@pytest.mark.parametrize(("beta", "guard"), [(2.0, None), (0.0, 0.6), (5.0, 0.6), (5.0, -1.0)])
def test_taught_negatives_equal_slow_twin(beta: float, guard: float | None) -> None:
    d = make()
    assert d.weight is not None
    sim = torch.rand(13, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 1.6 - 0.3
    taught = losses.TaughtNegatives(losses.DenseSimilarity(sim), beta, guard)
    slow = (d.ids, d.weight, sim, beta, math.inf if guard is None else guard)
    found = losses.info_nce(d.a, d.b, temperature=0.3, group=d.ids, weight=d.weight, negatives=taught)
    there = slow_taught(d.a, d.b, 0.3, *slow)
    assert found.item() == pytest.approx(there, rel=1e-10, abs=1e-12)
    assert abs(there - slow_info_nce(d.a, d.b, 0.3, d.ids, d.weight)) > 1e-3
    both = losses.cross_modal([d.a], d.b, temperature=0.3, group=d.ids, weight=d.weight, negatives=taught)
    back = slow_taught(d.b, d.a, 0.3, d.ids, d.weight, sim.T, beta, slow[-1])
    assert both.item() == pytest.approx((there + back) / 2, rel=1e-10, abs=1e-12)


def test_a_teacher_that_tells_nothing_apart_changes_nothing() -> None:
    d = make()
    even = losses.DenseSimilarity(torch.full((13, 13), 0.7, dtype=torch.float64))
    plain = losses.info_nce(d.a, d.b, temperature=0.3, group=d.ids)
    for negatives in (losses.TaughtNegatives(even, 5.0), losses.TaughtNegatives(even, 0.0, false_negative=0.7)):
        torch.testing.assert_close(losses.info_nce(d.a, d.b, temperature=0.3, group=d.ids, negatives=negatives), plain)
    with pytest.raises(ValueError, match="hardness: expected a value >= 0"):
        losses.TaughtNegatives(even, -1.0)


def test_a_false_negative_is_not_felt() -> None:
    d = make()
    sim = torch.eye(13, dtype=torch.float64)
    sim[0, 4] = 0.9
    moved = d.b.detach().clone()
    moved[4] = d.a[0].detach()
    first = torch.eye(13, dtype=torch.float64)[0]

    def row0(b: Tensor, guard: float) -> Tensor:
        taught = losses.TaughtNegatives(losses.DenseSimilarity(sim), 3.0, guard)
        return losses.info_nce(d.a, b, temperature=0.3, negatives=taught, weight=first)

    torch.testing.assert_close(row0(moved, 0.8), row0(d.b, 0.8))
    assert row0(moved, 0.95) > row0(d.b, 0.95) + 0.1
    nearer = d.b.detach().clone()
    nearer[0] = d.a[0].detach()  # which the teacher finds as alike as can be
    assert row0(nearer, 0.8) < row0(d.b, 0.8) - 0.1


def test_group_is_no_negative() -> None:
    d = make()
    ids = torch.arange(13)[:, None].repeat(1, 2)
    ids[4, 1] = ids[0, 1]  # rows 0 and 4 share a caption
    moved = d.b.detach().clone()
    moved[4] = d.a[0].detach()  # as hard a negative for row 0 as there can be
    first = torch.eye(13, dtype=torch.float64)[0]  # the loss of row 0 alone

    def row0(b: Tensor, group: Tensor | None) -> Tensor:
        return losses.info_nce(d.a, b, temperature=0.3, group=group, weight=first)

    torch.testing.assert_close(row0(moved, ids), row0(d.b, ids))
    assert row0(moved, None) > row0(d.b, None) + 0.1


def test_ids_of_minus_one_match_nothing() -> None:
    d = make()
    none = torch.full((13, 2), -1)
    torch.testing.assert_close(
        losses.info_nce(d.a, d.b, temperature=0.3, group=none), losses.info_nce(d.a, d.b, temperature=0.3)
    )


def test_views_are_averaged() -> None:
    d = make()
    both = losses.cross_modal([d.a, d.b], d.c, temperature=0.3, group=d.ids)
    single = [losses.cross_modal([view], d.c, temperature=0.3, group=d.ids) for view in (d.a, d.b)]
    torch.testing.assert_close(both, torch.stack(single).mean())


def test_sigmoid_equals_slow_twin() -> None:
    d = make()
    assert d.weight is not None
    total = 0.0
    for i in range(13):
        for j in range(13):
            sign = 1.0 if i == j or friends(d.ids, i, j) else -1.0
            logit = 4.0 * cosine(d.a[i], d.c[j]) - 2.0
            pair = 0.5 * (float(d.weight[i]) + float(d.weight[j])) / float(d.weight.sum())
            total += pair * math.log(1 + math.exp(-sign * logit))
    found = losses.sigmoid_cross_modal([d.a], d.c, scale=4.0, bias=-2.0, group=d.ids, weight=d.weight)
    assert found.item() == pytest.approx(total, rel=1e-10)
    mirrored = losses.sigmoid_cross_modal([d.c], d.a, scale=4.0, bias=-2.0, group=d.ids, weight=d.weight)
    assert mirrored.item() == pytest.approx(total, rel=1e-10)  # neither side is the favoured one


def test_sigmoid_draws_its_group_near() -> None:
    d = make(rows=2)
    apart = losses.sigmoid_cross_modal([d.a], d.c, scale=4.0, bias=0.0, group=torch.tensor([[0], [1]]))
    shared = losses.sigmoid_cross_modal([d.a], d.c, scale=4.0, bias=0.0, group=torch.tensor([[5], [5]]))
    cos = F.normalize(d.a, dim=1)[0] @ F.normalize(d.c, dim=1)[1]
    there = torch.autograd.grad(shared, d.c)[0][1] @ torch.autograd.grad(cos, d.c, retain_graph=True)[0][1]
    away = torch.autograd.grad(apart, d.c)[0][1] @ torch.autograd.grad(cos, d.c)[0][1]
    assert there < away


def test_triplet_equals_slow_twin() -> None:
    d = make()
    assert d.weight is not None
    theirs = torch.randint(-1, 5, d.ids.shape, generator=torch.Generator().manual_seed(1))
    met = [(i, j) for i in range(13) for j in range(13) if i != j and shared(d.ids[i], theirs[j])]
    assert len(met) > 10
    for alpha in (0.0, 1.0, 3.0):
        total = 0.0
        for i in range(13):
            sums = 0.0
            for j in range(13):
                if j == i or not friends(d.ids, i, j):
                    sums += math.exp(cosine(d.a[i], d.b[j]) / 0.3)
                if (i, j) not in met:
                    sums += (alpha if j == i else 1.0) * math.exp(cosine(d.a[i], d.c[j]) / 0.3)
            total -= float(d.weight[i]) * math.log(math.exp(cosine(d.a[i], d.b[i]) / 0.3) / sums)
        common = {"temperature": 0.3, "negative_weight": alpha, "group": d.ids, "weight": d.weight}
        found = losses.triplet_info_nce(d.a, d.b, d.c, negative_group=theirs, **common)
        assert found.item() == pytest.approx(total / float(d.weight.sum()), rel=1e-10)


def test_ids_of_hard_negatives_need_those_of_the_rows() -> None:
    d = make()
    for group, said in ((None, "group as well"), (d.ids, r"the shape of group, \(13, 2\), got ids \(13, 1\)")):
        with pytest.raises(ValueError, match=said):
            losses.triplet_info_nce(d.a, d.b, d.c, temperature=0.3, group=group, negative_group=d.ids[:, :1])


def test_temperature_is_learnt() -> None:
    """A batch whose pairs are perfect wants a lower temperature: the slope of the loss along it is positive."""
    d = make()
    losses.info_nce(d.a, d.a, temperature=d.temperature).backward()
    assert d.temperature.grad is not None
    assert d.temperature.grad > 0
    same = losses.info_nce(d.a, d.b, temperature=0.3)
    torch.testing.assert_close(losses.info_nce(d.a, d.b, temperature=replace(d).temperature.detach()), same)
