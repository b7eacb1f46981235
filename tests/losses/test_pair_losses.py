"""`consistency`, `matching`, `derangement`, `cosine_regression`, `cosent`, `soft_info_nce`, `matryoshka`, `same_group`.

1. Each has the value worked out by hand, and `cosent` equals a slow twin over all pairs of pairs, ties and
   weights included.
2. A derangement never takes a row of the same group or the row itself, uses every group it can, says −1 where there
   is none, is the same for the same generator, and is random.
3. Rows without a mismatch add no mismatch cost, and no gradient reaches the row that −1 would point to.
4. `matryoshka` sees unit rows of every width and weighs them.

Not vacuous: the derangement is tried on group structures where a plain random ring collides nearly always, and that
is asserted.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from loss_table import make
from torch import Tensor

from dalr import losses


def test_consistency_by_hand() -> None:
    """Cosines of the pairs 0.6, 1; of the mismatches 0.8, 0: 0.4 + (0.8 − 0.2), then 0 + 0."""
    t = torch.tensor([[0.6, 0.8], [1.0, 0.0]])
    v = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])[:2]
    swapped = torch.tensor([[0.0, 2.0], [0.0, 1.0]])
    found = losses.consistency(t, v, torch.tensor([1, 0]), margin=0.2)
    assert found.item() == pytest.approx(((0.4 + 0.4) + (0.0 + 0.8)) / 2, abs=1e-6)
    found = losses.consistency(t, swapped, torch.tensor([1, 0]), margin=0.2)
    assert found.item() == pytest.approx(((0.2 + 0.6) + (1.0 + 0.0)) / 2, abs=1e-6)


def test_rows_without_a_mismatch() -> None:
    d = make(rows=3)
    mismatch = torch.tensor([2, -1, 0])
    value = losses.consistency(d.a, d.b, mismatch, margin=-1.0, weight=torch.tensor([0.0, 1.0, 0.0]))
    torch.testing.assert_close(value, 1 - F.cosine_similarity(d.a[1], d.b[1], dim=0))
    gradient = torch.autograd.grad(value, d.b)[0]
    assert (gradient[[0, 2]] == 0).all()
    logits = torch.tensor([1.0, -2.0, 0.5])
    found = losses.matching(logits, logits, mismatch)
    wanted = [
        math.log(1 + math.exp(-x)) + (math.log(1 + math.exp(x)) if m >= 0 else 0)
        for x, m in ((1, 2), (-2, -1), (0.5, 0))
    ]
    assert found.item() == pytest.approx(sum(wanted) / 6, abs=1e-6)
    assert losses.matching(logits, logits).item() > found.item()


def check_derangement(ids: Tensor, mismatch: Tensor) -> None:
    same = losses.same_group(ids, ids) | torch.eye(len(ids), dtype=torch.bool)
    for row, other in enumerate(mismatch.tolist()):
        if other < 0:
            assert same[row].all()
        else:
            assert not same[row, other]


@pytest.mark.parametrize("rows", [1, 2, 3, 50])
def test_derangement_without_groups(rows: int) -> None:
    ids = torch.arange(rows)[:, None]
    for seed in range(20):
        mismatch = losses.derangement(ids, torch.Generator().manual_seed(seed))
        check_derangement(ids, mismatch)
        if rows > 1:
            assert sorted(mismatch.tolist()) == list(range(rows))  # a permutation: every partner is used once


def test_derangement_with_groups() -> None:
    draw = torch.Generator().manual_seed(0)
    crowded = torch.cat([torch.zeros(40, 1, dtype=torch.int64), torch.arange(1, 4)[:, None]])  # 40 rows of one group
    ring = crowded.roll(-1, 0)
    assert (crowded == ring).float().mean() > 0.8  # a ring alone would pair most rows with their own group
    two_columns = torch.stack([torch.arange(12) // 2, torch.arange(1, 13) // 2], dim=1)  # overlapping, not transitive
    for ids in (crowded, two_columns, torch.randint(-1, 6, (60, 2), generator=draw), torch.zeros(5, 2).long()):
        for seed in range(10):
            check_derangement(ids, losses.derangement(ids, torch.Generator().manual_seed(seed), tile=7))
    assert losses.derangement(torch.zeros(5, 1).long()).tolist() == [-1] * 5
    free = torch.full((6, 2), -1)  # -1 belongs to nobody
    assert (losses.derangement(free) >= 0).all()


def test_derangement_is_random_and_repeatable() -> None:
    ids = torch.arange(8)[:, None]
    draws = [tuple(losses.derangement(ids, torch.Generator().manual_seed(seed)).tolist()) for seed in range(10)]
    assert len(set(draws)) > 5
    assert draws[3] == tuple(losses.derangement(ids, torch.Generator().manual_seed(3)).tolist())


def test_same_group() -> None:
    ids = torch.tensor([[0, 7], [0, 8], [-1, 8], [-1, -1], [5, -1]])
    found = losses.same_group(ids, ids[1:])
    wanted = [
        [True, False, False, False],  # shares an image with row 1
        [True, True, False, False],
        [True, True, False, False],  # shares a caption with row 1, but not with row 0: no closure
        [False, False, False, False],  # -1 matches not even itself
        [False, False, False, True],
    ]
    assert found.tolist() == wanted


def test_cosine_regression_by_hand() -> None:
    a = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    b = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    found = losses.cosine_regression(a, b, torch.tensor([0.5, 0.1]), weight=torch.tensor([1.0, 3.0]))
    assert found.item() == pytest.approx((0.25 + 3 * 0.25) / 4, abs=1e-6)


def slow_cosent(cos: list[float], y: list[float], scale: float, w: list[float] | None = None) -> float:
    w = w or [1.0] * len(y)
    mean = sum(w) / max(1, sum(one > 0 for one in w))
    pairs = [(i, j) for i in range(len(y)) for j in range(len(y)) if y[i] > y[j] and w[i] * w[j] > 0]
    return math.log(1 + sum(w[i] * w[j] / mean**2 * math.exp(scale * (cos[j] - cos[i])) for i, j in pairs))


@pytest.mark.parametrize("scores", ["distinct", "ties", "all equal"])
def test_cosent_equals_slow_twin(scores: str) -> None:
    d = make(rows=17)
    y = {"distinct": d.score, "ties": (d.score * 3).round(), "all equal": torch.ones(17)}[scores]
    cos = F.cosine_similarity(d.a, d.b).tolist()
    found = losses.cosent(d.a, d.b, y, scale=7.0)
    assert found.item() == pytest.approx(slow_cosent(cos, y.tolist(), 7.0), rel=1e-10, abs=1e-12)
    gradient = torch.autograd.grad(found, d.a)[0]
    assert gradient.isfinite().all()
    assert (gradient.abs().max() > 0) == (scores != "all equal")


def weights_17(kind: str) -> Tensor:
    weight = torch.rand(17, generator=torch.Generator().manual_seed(4), dtype=torch.float64) + 0.1
    if kind == "lowest absent":
        weight[make(rows=17).score.argsort()[:4]] = 0.0
    elif kind == "some absent":
        weight[[0, 3, 5, 11, 16]] = 0.0
    return weight


@pytest.mark.parametrize("kind", ["all", "some absent", "lowest absent"])
@pytest.mark.parametrize("ties", [False, True])
def test_weighted_cosent_equals_slow_twin(kind: str, ties: bool) -> None:
    d, w = make(rows=17), weights_17(kind)
    y = (d.score * 3).round() if ties else d.score
    found = losses.cosent(d.a, d.b, y, scale=7.0, weight=w)
    wanted = slow_cosent(F.cosine_similarity(d.a, d.b).tolist(), y.tolist(), 7.0, w.tolist())
    assert found.item() == pytest.approx(wanted, rel=1e-10)
    assert abs(found.item() - losses.cosent(d.a, d.b, y, scale=7.0).item()) > 1e-3
    torch.testing.assert_close(losses.cosent(d.a, d.b, y, scale=7.0, weight=100 * w), found)
    gradient, there = torch.autograd.grad(found, d.a)[0], w > 0
    assert gradient.isfinite().all()
    assert (gradient[~there] == 0).all()
    # A pair of weight 0 might as well not be there.
    alone = losses.cosent(d.a[there], d.b[there], y[there], scale=7.0, weight=w[there])
    torch.testing.assert_close(found, alone)
    torch.testing.assert_close(torch.autograd.grad(alone, d.a)[0], gradient)


def test_equal_weights_of_cosent_are_none() -> None:
    d = make(rows=49).copied(torch.float32)
    plain = losses.cosent(d.a, d.b, d.score)
    assert torch.equal(losses.cosent(d.a, d.b, d.score, weight=torch.ones(49)), plain)
    torch.testing.assert_close(losses.cosent(d.a, d.b, d.score, weight=torch.full((49,), 0.3)), plain)
    nothing = losses.cosent(d.a, d.b, d.score, weight=torch.zeros(49))
    assert nothing == 0
    assert (torch.autograd.grad(nothing, d.a)[0] == 0).all()
    with pytest.raises(ValueError, match="weight: expected one value a row"):
        losses.cosent(d.a, d.b, d.score, weight=torch.ones(3))


def test_cosent_knows_the_order_alone() -> None:
    d = make(rows=17)
    torch.testing.assert_close(losses.cosent(d.a, d.b, d.score), losses.cosent(d.a, d.b, d.score.exp() * 100 - 3))
    assert losses.cosent(d.a, d.b, -d.score) != losses.cosent(d.a, d.b, d.score)


def test_matryoshka() -> None:
    d = make()
    seen: list[tuple[int, ...]] = []

    def loss(cut: list[Tensor]) -> Tensor:
        seen.append(tuple(x.shape[1] for x in cut))
        assert all(torch.allclose(x.norm(dim=1), torch.ones(13, dtype=x.dtype)) for x in cut)
        return (cut[0] * cut[1]).sum()

    found = losses.matryoshka(loss, [d.a, d.b], [2, 5], [1.0, 3.0])
    assert seen == [(2, 2), (5, 5)]
    cos = [F.cosine_similarity(d.a[:, :n], d.b[:, :n]).sum() for n in (2, 5)]
    torch.testing.assert_close(found, (cos[0] + 3 * cos[1]) / 4)
    for dims in ([], [0], [6]):
        with pytest.raises(ValueError, match="dims"):
            losses.matryoshka(loss, [d.a, d.b], dims)
    with pytest.raises(ValueError, match="weights"):
        losses.matryoshka(loss, [d.a, d.b], [2, 5], [1.0])


def test_teachers_are_checked() -> None:
    rows = torch.ones(3, 2)
    with pytest.raises(ValueError, match="teachers"):
        losses.TeacherRows([])
    with pytest.raises(ValueError, match="weights"):
        losses.TeacherRows([rows], [0.0])
    with pytest.raises(ValueError, match="B rows"):
        losses.TeacherRows([rows, rows[:2]])
    with pytest.raises(ValueError, match="square"):
        losses.DenseSimilarity(rows)


def test_soft_info_nce_by_hand() -> None:
    """At label 1 it is InfoNCE of both directions; in between it is the binary cross-entropy of the own probability."""
    d = make(rows=6)
    ones, zeros = torch.ones(6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
    both = [losses.info_nce(x, y, temperature=0.3) for x, y in ((d.a, d.b), (d.b, d.a))]
    torch.testing.assert_close(losses.soft_info_nce(d.a, d.b, ones, temperature=0.3), torch.stack(both).mean())
    logits = F.normalize(d.a) @ F.normalize(d.b).T / 0.3
    by_hand = torch.zeros((), dtype=torch.float64)
    for side in (logits, logits.T):
        own = side.softmax(dim=1).diagonal()
        by_hand = by_hand - (d.score * own.log() + (1 - d.score) * (1 - own).log()).mean() / 2
    torch.testing.assert_close(losses.soft_info_nce(d.a, d.b, d.score, temperature=0.3), by_hand)
    gradient = torch.autograd.grad(losses.soft_info_nce(d.a, d.a.detach(), zeros, temperature=0.3), d.a)[0]
    assert gradient.abs().max() > 0
    lone = make(rows=1)
    assert losses.soft_info_nce(lone.a, lone.b, lone.score, temperature=0.3).item() == 0.0
