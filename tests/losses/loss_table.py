"""Every loss under one call, on one kind of data, so that what must hold for all of them is written once."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from dalr import losses


@dataclass(frozen=True)
class Data:
    """Inputs of any loss: three sides, two teachers, groups, weights, scores, a temperature."""

    a: Tensor
    b: Tensor
    c: Tensor
    text: Tensor
    image: Tensor
    ids: Tensor | None
    weight: Tensor | None
    score: Tensor
    temperature: Tensor

    def learnable(self) -> list[Tensor]:
        return [self.a, self.b, self.c, self.temperature]

    def teacher(self) -> losses.TeacherRows:
        return losses.TeacherRows([self.text, self.image], [2.0, 1.0])

    def permuted(self, order: Tensor) -> "Data":
        """The same rows in another order (fresh leaves)."""
        return self._each(lambda x: x[order] if x.ndim else x)

    def copied(self, dtype: torch.dtype | None = None) -> "Data":
        """Fresh leaves with the same values."""
        return self._each(lambda x: x.to(dtype) if dtype and x.is_floating_point() else x.clone())

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Data":
        new = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                new[field.name] = change(value.detach()).requires_grad_(value.requires_grad)
        return replace(self, **new)


def make(rows: int = 13, dim: int = 5, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Data:
    """Random data in which several rows share an image or a caption, and some ids are missing."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=dtype)

    ids = torch.randint(-1, max(2, rows), (rows, 2), generator=draw)
    return Data(
        a=normal(rows, dim).requires_grad_(),
        b=normal(rows, dim).requires_grad_(),
        c=normal(rows, dim).requires_grad_(),
        text=normal(rows, 7),
        image=normal(rows, 4),
        ids=ids,
        weight=torch.rand(rows, generator=draw, dtype=dtype) + 0.1,
        score=torch.rand(rows, generator=draw, dtype=dtype),
        temperature=torch.tensor(0.3, dtype=dtype).requires_grad_(),
    )


Loss = Callable[..., Tensor]


def _soft(d: Data, **tile: int | None) -> Tensor:
    return losses.soft_alignment(
        d.a,
        d.b,
        d.teacher(),
        student_temperature=d.temperature,
        teacher_temperature=0.2,
        group=d.ids,
        weight=d.weight,
        confidence=d.score,
        **tile,
    )


def _mismatch(d: Data) -> Tensor:
    return losses.derangement(d.ids if d.ids is not None else torch.arange(len(d.a))[:, None], _fixed())


def _fixed() -> torch.Generator:
    return torch.Generator().manual_seed(5)


ROW_WISE: dict[str, Loss] = {
    "soft_info_nce": lambda d, **tile: losses.soft_info_nce(
        d.a, d.b, d.score, temperature=d.temperature, group=d.ids, weight=d.weight, **tile
    ),
    "info_nce": lambda d, **tile: losses.info_nce(
        d.a, d.b, temperature=d.temperature, group=d.ids, weight=d.weight, **tile
    ),
    "info_nce_margin": lambda d, **tile: losses.info_nce(
        d.a,
        d.b,
        temperature=d.temperature,
        group=d.ids,
        margin=0.4,
        margin_sim=d.teacher(),
        weight=d.weight,
        **tile,
    ),
    "info_nce_one_margin": lambda d, **tile: losses.info_nce(
        d.a, d.b, temperature=d.temperature, group=d.ids, margin=0.4, weight=d.weight, **tile
    ),
    "info_nce_taught": lambda d, **tile: losses.info_nce(
        d.a,
        d.b,
        temperature=d.temperature,
        group=d.ids,
        negatives=losses.TaughtNegatives(d.teacher(), 2.0, false_negative=0.6),
        weight=d.weight,
        **tile,
    ),
    "info_nce_same": lambda d, **tile: losses.info_nce(
        d.a, d.a, temperature=d.temperature, group=d.ids, weight=d.weight, **tile
    ),
    "cross_modal": lambda d, **tile: losses.cross_modal(
        [d.a, d.b], d.c, temperature=d.temperature, group=d.ids, weight=d.weight, **tile
    ),
    # A cross-modal teacher is not symmetric, so a direction that took the wrong side would show.
    "cross_modal_margin": lambda d, **tile: losses.cross_modal(
        [d.a],
        d.c,
        temperature=d.temperature,
        group=d.ids,
        margin=0.4,
        margin_sim=losses.TeacherRows([d.text], columns=[d.text.flip(1)]),
        weight=d.weight,
        **tile,
    ),
    "cross_modal_taught": lambda d, **tile: losses.cross_modal(
        [d.a, d.b],
        d.c,
        temperature=d.temperature,
        group=d.ids,
        negatives=losses.TaughtNegatives(
            losses.TeacherRows([d.text], columns=[d.text.flip(1)]), 2.0, false_negative=0.6
        ),
        weight=d.weight,
        **tile,
    ),
    "sigmoid_cross_modal": lambda d, **tile: losses.sigmoid_cross_modal(
        [d.a, d.b], d.c, scale=d.temperature, bias=d.temperature, group=d.ids, weight=d.weight, **tile
    ),
    "soft_alignment": _soft,
    "view_agreement": lambda d, **tile: losses.view_agreement(
        d.a, d.b, temperature=d.temperature, group=d.ids, weight=d.weight, **tile
    ),
    "list_mle": lambda d, **tile: losses.list_mle(
        d.a, d.b, d.teacher(), temperature=d.temperature, top_k=4, group=d.ids, weight=d.weight, **tile
    ),
    "list_mle_all": lambda d, **tile: losses.list_mle(
        d.a, d.a, d.teacher(), temperature=d.temperature, group=d.ids, weight=d.weight, **tile
    ),
    "list_mle_position": lambda d, **tile: losses.list_mle(
        d.a,
        d.b,
        d.teacher(),
        temperature=d.temperature,
        top_k=4,
        group=d.ids,
        weight=d.weight,
        position_weighted=True,
        **tile,
    ),
    "list_net": lambda d, **tile: losses.list_net(
        d.a,
        d.b,
        d.teacher(),
        temperature=d.temperature,
        teacher_temperature=0.2,
        top_k=4,
        group=d.ids,
        weight=d.weight,
        **tile,
    ),
    "triplet_info_nce": lambda d, **tile: losses.triplet_info_nce(
        d.a,
        d.b,
        d.c,
        temperature=d.temperature,
        negative_weight=2.0,
        group=d.ids,
        negative_group=None if d.ids is None else d.ids.flip(1),
        weight=d.weight,
        **tile,
    ),
    "matryoshka": lambda d, **tile: losses.matryoshka(
        lambda cut: losses.info_nce(*cut, temperature=d.temperature, group=d.ids, weight=d.weight, **tile),
        [d.a, d.b],
        [2, d.a.shape[1]],
        [1.0, 3.0],
    ),
}
"""Losses that compare rows with all columns and take `tile`."""

PAIR_WISE: dict[str, Loss] = {
    "consistency": lambda d: losses.consistency(d.a, d.b, _mismatch(d), weight=d.weight),
    "matching": lambda d: losses.matching(
        (d.a * d.b).sum(1), (d.a * d.c).sum(1), torch.arange(len(d.a)) - 1, weight=d.weight
    ),
    "cosine_regression": lambda d: losses.cosine_regression(d.a, d.b, d.score, weight=d.weight),
    "embedding_mse": lambda d: losses.embedding_mse(
        d.a, torch.nn.functional.pad(d.text, (0, d.a.shape[1] - d.text.shape[1])), weight=d.weight
    ),
    "cosent": lambda d: losses.cosent(d.a, d.b, d.score, scale=7.0, weight=d.weight),
}
"""Losses that need O(B) memory as they are."""

ALL: dict[str, Loss] = {**ROW_WISE, **PAIR_WISE}
# Of cosent pairs of pairs are weighed: its own tests (test_pair_losses.py) say how.
WEIGHTED = [name for name in ALL if name != "cosent"]


def value_and_gradients(loss: Loss, data: Data, **options: int | None) -> tuple[Tensor, list[Tensor]]:
    """The loss and its gradient for every learnable input (zeros where there is none)."""
    value = loss(data, **options)
    inputs = data.learnable()
    gradients = torch.autograd.grad(value, inputs, allow_unused=True)
    return value.detach(), [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, gradients, strict=True)]


def finite(*tensors: Tensor) -> bool:
    return all(math.isfinite(x) for tensor in tensors for x in tensor.flatten().tolist())
