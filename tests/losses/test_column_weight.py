"""Column weights of soft alignment.

Invariants: ones change nothing; a column of weight 0 counts (almost) nothing, as if that row had not been a column;
tiled equals dense; the gradient agrees with finite differences, also for the temperature.
"""

import torch

from dalr.losses import DenseSimilarity, soft_alignment


def inputs(size: int = 7) -> tuple[torch.Tensor, torch.Tensor, DenseSimilarity, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, 5, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
    teacher = torch.rand(size, size, generator=generator, dtype=torch.float64)
    return a, b, DenseSimilarity(teacher), torch.rand(size, generator=generator, dtype=torch.float64)


def test_ones_change_nothing_and_others_do() -> None:
    a, b, teacher, weight = inputs()
    plain = soft_alignment(a, b, teacher, student_temperature=0.1, teacher_temperature=0.2)
    ones = soft_alignment(a, b, teacher, student_temperature=0.1, teacher_temperature=0.2, column_weight=torch.ones(7))
    other = soft_alignment(a, b, teacher, student_temperature=0.1, teacher_temperature=0.2, column_weight=weight)
    torch.testing.assert_close(ones, plain)
    assert abs(float((other - plain).detach())) > 1e-4


def test_closed_form_and_tiles() -> None:
    a, b, teacher, weight = inputs()
    options = {"student_temperature": 0.3, "teacher_temperature": 0.2, "column_weight": weight}
    found = soft_alignment(a, b, teacher, **options)
    unit = torch.nn.functional.normalize
    off = ~torch.eye(7, dtype=torch.bool)
    trust = weight.clamp(min=1e-3)
    expected = 0.0
    for row in range(7):
        q = (teacher.block(slice(row, row + 1))[0] / 0.2).exp()[off[row]] * trust[off[row]]
        p = ((unit(a)[row] @ unit(b).T) / 0.3).exp()[off[row]] * trust[off[row]]
        q, p = q / q.sum(), p / p.sum()
        expected = expected + (q * (q / p).log()).sum() / 7
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(soft_alignment(a, b, teacher, **options, tile=3), found)


def test_gradients() -> None:
    a, b, teacher, weight = inputs(4)
    temperature = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)

    def loss(a: torch.Tensor, b: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
        return soft_alignment(
            a, b, teacher, student_temperature=temperature, teacher_temperature=0.2, column_weight=weight[:4]
        )

    assert torch.autograd.gradcheck(
        loss, (a[:4].detach().requires_grad_(), b[:4].detach().requires_grad_(), temperature)
    )
