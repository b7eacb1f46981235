"""`soft_alignment`.

1. On three rows the value is the KL worked out by hand; it equals a slow twin with groups, weights, confidence.
2. It is 0, with zero gradient, where student and teacher agree (same temperature), and positive elsewhere.
3. The diagonal and the group are in neither distribution, unless `exclude_positives` is false.
4. ∂L/∂S = w (P − Q)/τ: the gradient of the formula, not of an approximation.
5. Confidence 1 changes nothing, 0 makes the target uniform.

Not vacuous: the twin loops over candidates in plain Python; 2 checks that a disagreeing teacher is not 0.
"""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from loss_table import make
from torch import Tensor

from dalr import losses
from dalr.losses import DenseSimilarity, MixedSimilarity, TeacherRows


def slow_kl(s: Tensor, t: Tensor, tau_s: float, tau_t: float, ids: Tensor, weight: Tensor, confidence: Tensor) -> float:
    total = 0.0
    for i in range(len(s)):
        kept = [
            j for j in range(len(s)) if j != i and not any(x == y >= 0 for x, y in zip(ids[i], ids[j], strict=True))
        ]
        if not kept:
            continue
        p = [math.exp(float(s[i, j]) / tau_s) for j in kept]
        q = [math.exp(float(t[i, j]) * float(confidence[i]) / tau_t) for j in kept]
        kl = sum(x / sum(q) * math.log((x / sum(q)) / (y / sum(p))) for x, y in zip(q, p, strict=True))
        total += float(weight[i]) * kl
    return total / float(weight.sum())


def test_closed_form() -> None:
    """Row 0 sees cosines (0, −1) and a teacher (0.5, 0.5) at τ = 1: KL(½, ½ ‖ 1/(1+e⁻¹), e⁻¹/(1+e⁻¹))."""
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    teacher = DenseSimilarity(torch.full((3, 3), 0.5))
    z = 1 + math.exp(-1)
    wanted = 0.5 * math.log(0.5 * z) + 0.5 * math.log(0.5 * z * math.e)
    first = torch.tensor([1.0, 0.0, 0.0])
    found = losses.soft_alignment(a, a, teacher, student_temperature=1.0, teacher_temperature=1.0, weight=first)
    assert found.item() == pytest.approx(wanted, abs=1e-6)


def test_equals_slow_twin() -> None:
    d = make()
    assert d.weight is not None
    cos = F.normalize(d.a, dim=1) @ F.normalize(d.b, dim=1).T
    teacher = (2 * (F.normalize(d.text, dim=1) @ F.normalize(d.text, dim=1).T)) / 3
    teacher += F.normalize(d.image, dim=1) @ F.normalize(d.image, dim=1).T / 3
    found = losses.soft_alignment(
        d.a,
        d.b,
        d.teacher(),
        student_temperature=0.3,
        teacher_temperature=0.2,
        group=d.ids,
        weight=d.weight,
        confidence=d.score,
    )
    wanted = slow_kl(cos.detach(), teacher, 0.3, 0.2, d.ids, d.weight, d.score)
    assert found.item() == pytest.approx(wanted, rel=1e-9)


def test_agreement_costs_nothing() -> None:
    d = make()
    agreed = losses.soft_alignment(
        d.a, d.a, TeacherRows([d.a]), student_temperature=0.1, teacher_temperature=0.1, group=d.ids
    )
    gradient = torch.autograd.grad(agreed, d.a)[0]
    assert abs(agreed) < 1e-12
    assert gradient.abs().max() < 1e-12
    other = losses.soft_alignment(d.a, d.a, TeacherRows([d.b]), student_temperature=0.1, teacher_temperature=0.1)
    assert other > 0.1


def test_gradient_is_p_minus_q() -> None:
    d = make(rows=6, dim=6)
    unit = torch.eye(6, dtype=torch.float64).requires_grad_()  # S = cos(unit, b): its slope is the slope along b
    teacher = d.teacher()
    value = losses.soft_alignment(unit, d.b, teacher, student_temperature=0.3, teacher_temperature=0.2)
    found = torch.autograd.grad(value, unit)[0]
    cos = (unit @ F.normalize(d.b, dim=1).T).detach().requires_grad_()
    off = torch.eye(6, dtype=torch.bool)
    p = (cos / 0.3).masked_fill(off, -1e30).softmax(1)
    q = (teacher.block(slice(0, 6)) / 0.2).masked_fill(off, -1e30).softmax(1)
    slope = (p - q) / 0.3 / 6 @ F.normalize(d.b, dim=1)
    along = (slope * unit).sum(1, keepdim=True) * unit  # normalising takes out the part along the row itself
    torch.testing.assert_close(found, slope - along)


def test_positives_are_left_out_by_default() -> None:
    d = make()
    options = {"student_temperature": 0.3, "teacher_temperature": 0.2}
    sim = torch.rand(13, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    shifted = sim.clone().fill_diagonal_(50.0)
    ids = torch.arange(13)[:, None].clone()
    ids[4] = ids[0]
    shifted[0, 4] = shifted[4, 0] = -50.0

    def value(matrix: Tensor, **more: object) -> Tensor:
        return losses.soft_alignment(d.a, d.b, DenseSimilarity(matrix), group=ids, **options, **more)  # type: ignore[arg-type]

    torch.testing.assert_close(value(sim), value(shifted))
    assert abs(value(sim, exclude_positives=False) - value(shifted, exclude_positives=False)) > 0.1


def test_confidence() -> None:
    d = make()
    options = {"student_temperature": 0.3, "teacher_temperature": 0.2}
    plain = losses.soft_alignment(d.a, d.b, d.teacher(), **options)  # type: ignore[arg-type]
    sure = losses.soft_alignment(d.a, d.b, d.teacher(), confidence=torch.ones(13), **options)  # type: ignore[arg-type]
    torch.testing.assert_close(sure, plain)
    unsure = losses.soft_alignment(d.a, d.b, d.teacher(), confidence=torch.zeros(13), **options)  # type: ignore[arg-type]
    flat = losses.soft_alignment(d.a, d.b, DenseSimilarity(torch.zeros(13, 13)), **options)  # type: ignore[arg-type]
    torch.testing.assert_close(unsure, flat)
    assert abs(unsure - plain) > 1e-3


def test_several_teachers_are_a_weighted_mean_of_cosines() -> None:
    d = replace(make())
    mixed = TeacherRows([d.text, d.image], [3.0, 1.0]).block(slice(2, 5))
    text, image = TeacherRows([d.text]).block(slice(2, 5)), TeacherRows([d.image]).block(slice(2, 5))
    torch.testing.assert_close(mixed, 0.75 * text + 0.25 * image)
    torch.testing.assert_close(text, F.cosine_similarity(d.text[2:5, None], d.text[None], dim=2))


def test_teachers_of_two_sides_are_mixed() -> None:
    d = make()
    own, other = TeacherRows([d.text, d.image], [3.0, 1.0]), TeacherRows([d.score[:, None], d.image], [1.0, 4.0])
    across = TeacherRows([d.text], columns=[d.text.flip(1)])
    part = slice(2, 5)
    torch.testing.assert_close(
        MixedSimilarity(own, other, 0.3).block(part), 0.7 * own.block(part) + 0.3 * other.block(part)
    )
    there = MixedSimilarity(own, across, 0.3)
    torch.testing.assert_close(there.block(part), 0.7 * own.block(part) + 0.3 * across.block(part))
    torch.testing.assert_close(there.transposed().block(slice(0, 13)), there.block(slice(0, 13)).T)
    torch.testing.assert_close(MixedSimilarity(own, other, 0.0).block(part), own.block(part))
    with pytest.raises(ValueError, match="share"):
        MixedSimilarity(own, other, 1.5)
