"""Objectives of sentences alone: regression to scores, distillation, several widths, and the training-only head.

Invariants: each term equals its closed form on the embeddings that will be used; a scored pair's second sentence is
never contrasted as a positive; several teachers of several widths are all met, one of the student's own width without
a projection; `matryoshka` is the mean over its widths and the full one, and lowers what it costs to cut; a stage
trained through the head is saved without it; what does not fit together is told by its key; a step in chunks has the
gradients of the plain one.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dalr import losses
from dalr.config import parse_config
from dalr.errors import ConfigError
from dalr.model import DualEncoder
from dalr.objectives import Batch, Features, ObjectiveConfig, Rows, Step, Tokens, build_objective
from tests.tiny_catalogue import COLOURS, KINDS, tiny_model

FIRST = [f"a {colour} {kind}" for colour in COLOURS for kind in KINDS]
SECOND = [f"one {kind}, {colour}" for colour in COLOURS for kind in KINDS]


def config(**values: Any) -> ObjectiveConfig:
    return parse_config(ObjectiveConfig, values)


def batch_of(model: DualEncoder, *, scored: bool = True, teachers: tuple[int, ...] = ()) -> Batch:
    assert model.text is not None
    draw = np.random.default_rng(0)
    numbers = np.arange(len(FIRST))
    rows = Rows(
        ids_NK=numbers[:, None],
        weight_N=draw.uniform(0.5, 1.5, len(FIRST)).astype(np.float32),
        text=Tokens(model.text.tokenize(FIRST), model.text.collate),
        positive=Tokens(model.text.tokenize(SECOND), model.text.collate),
        target_N=draw.uniform(size=len(FIRST)).astype(np.float32) if scored else None,
        text_teachers=tuple(Features(draw.normal(size=(len(FIRST), w)).astype(np.float32)) for w in teachers),
    )
    return rows.batch("text", numbers, numbers)


def embedded(model: DualEncoder) -> tuple[torch.Tensor, torch.Tensor]:
    assert model.text is not None
    return torch.from_numpy(model.text.encode(FIRST)), torch.from_numpy(model.text.encode(SECOND))


@pytest.mark.parametrize("form", ["regression", "cosent", "soft_info_nce"])
def test_scores_are_met_by_what_will_be_used(form: str) -> None:
    model = tiny_model(image=False)
    batch, (u, v) = batch_of(model), embedded(model)
    objective = build_objective(config(name="sts", score_form=form), model)
    assert not list(objective.parameters())
    found = objective(model, batch).parts["score"]
    cosine, y = F.cosine_similarity(u, v), batch.target_B
    assert y is not None
    if form == "regression":
        wanted = (batch.weight_B * (cosine - y).square()).sum() / batch.weight_B.sum()
    elif form == "soft_info_nce":
        logits = F.normalize(u) @ F.normalize(v).T / objective.config.temperature
        own = [side.log_softmax(dim=1).diagonal().double() for side in (logits, logits.T)]
        each = [-(y * log_p + (1 - y) * torch.log(-torch.expm1(log_p))) for log_p in own]
        wanted = (batch.weight_B * torch.stack(each).mean(dim=0)).sum() / batch.weight_B.sum()
    else:
        wrong = y[:, None] > y[None, :]
        w = batch.weight_B / batch.weight_B.mean()
        wanted = torch.log1p((torch.outer(w, w) * torch.exp(20 * (cosine[None, :] - cosine[:, None])))[wrong].sum())
    assert found.item() == pytest.approx(wanted.item(), rel=1e-4)


def test_a_scored_pair_is_no_positive() -> None:
    model = tiny_model(image=False)
    objective = build_objective(config(name="simcse", score=1.0, sentence_head="none"), model).eval()
    parts = objective(model, batch_of(model)).parts
    u, _ = embedded(model)
    ids = torch.arange(len(FIRST))[:, None]
    assert parts["info"].item() == pytest.approx(losses.info_nce(u, u, temperature=0.05, group=ids).item(), abs=1e-5)


def test_teachers_of_several_widths() -> None:
    model = tiny_model(image=False)
    width = model.text.width  # type: ignore[union-attr]
    objective = build_objective(config(name="distil"), model, teacher_widths=(width, 7))
    assert [type(projection).__name__ for projection in objective.projections] == ["Identity", "Linear"]
    batch, (u, _) = batch_of(model, scored=False, teachers=(width, 7)), embedded(model)
    parts = objective.eval()(model, batch).parts
    sides = [u, objective.projections[1](u)]
    weight = batch.weight_B / batch.weight_B.sum()
    wanted = [
        (weight * (2 - 2 * F.cosine_similarity(side, teacher))).sum()
        for side, teacher in zip(sides, batch.text_teachers, strict=True)
    ]
    assert parts["embedding"].item() == pytest.approx(torch.stack(wanted).mean().item(), rel=1e-4)
    assert set(parts) == {"embedding", "soft_intra"}
    with pytest.raises(ConfigError, match="teachers"):
        objective(model, batch_of(model, scored=False))


def test_a_student_learns_from_its_teachers() -> None:
    teacher, student = tiny_model(seed=1, image=False), tiny_model(seed=2, image=False)
    assert teacher.text is not None
    target = torch.from_numpy(teacher.text.encode(FIRST))
    batch = batch_of(student, scored=False)
    batch = Batch(**{**vars(batch), "positive": None, "text_teachers": (target,)})
    step = Step(student, build_objective(config(name="distil"), student, teacher_widths=(target.shape[1],))).train()
    optimizer = torch.optim.Adam([p for p in step.parameters() if p.requires_grad], lr=3e-3)

    def agreement() -> float:
        u, _ = embedded(student)
        return F.cosine_similarity(u, target).mean().item()

    before = agreement()
    for _ in range(60):
        parts, _ = step(batch)
        optimizer.zero_grad()
        parts.total.backward()
        optimizer.step()
    assert agreement() > max(0.9, before + 0.1)


def test_several_widths_are_averaged_with_the_full_one() -> None:
    model = tiny_model(image=False)
    batch, (u, v) = batch_of(model), embedded(model)
    parts = build_objective(config(name="sts", matryoshka=[8, 16]), model)(model, batch).parts
    wanted = [
        losses.cosine_regression(u[:, :width], v[:, :width], batch.target_B, weight=batch.weight_B)
        for width in (8, 16, 32)
    ]
    assert parts["score"].item() == pytest.approx(torch.stack(wanted).mean().item(), rel=1e-4)


def test_training_at_several_widths_lowers_the_cost_of_cutting() -> None:
    def cut_error(widths: list[int]) -> float:
        torch.manual_seed(0)
        model = tiny_model(image=False)
        batch = batch_of(model)
        step = Step(model, build_objective(config(name="sts", matryoshka=widths), model)).train()
        optimizer = torch.optim.Adam([p for p in step.parameters() if p.requires_grad], lr=3e-3)
        for _ in range(60):
            parts, _ = step(batch)
            optimizer.zero_grad()
            parts.total.backward()
            optimizer.step()
        u, v = embedded(model)
        assert batch.target_B is not None
        return losses.cosine_regression(u[:, :4], v[:, :4], batch.target_B).item()

    assert cut_error([4]) < 0.8 * cut_error([])


def test_the_head_is_for_training_alone() -> None:
    model = tiny_model(image=False)
    objective = build_objective(config(name="simcse"), model)
    assert objective.sentence_head is not None
    assert not any("sentence_head" in name for name in model.state_dict())
    assert build_objective(config(name="simcse", sentence_head="none"), model).sentence_head is None


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"name": "simcse", "matryoshka": [8]}, "objective.sentence_head=none"),
        ({"name": "sts", "matryoshka": [64]}, "objective.matryoshka: 64 is more than the embedding's width, 32"),
    ],
)
def test_what_does_not_fit_is_told(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build_objective(config(**values), tiny_model(image=False))


@pytest.mark.parametrize("values", [{"name": "sts", "matryoshka": [8]}, {"name": "simcse", "score": 0.5}])
def test_in_chunks_as_in_one(values: dict[str, Any]) -> None:
    gradients = []
    for chunk in (None, 7):
        model = tiny_model(image=False)
        torch.manual_seed(1)
        step = Step(model, build_objective(config(**values), model)).eval()
        batch = batch_of(model)
        if chunk is None:
            step(batch)[0].total.backward()
        else:
            step.cached_backward(batch, chunk)
        gradients.append({name: p.grad for name, p in step.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][name], atol=1e-5, rtol=1e-3)
