"""What teachers add beyond the profiles: mixed targets, targets that sharpen, order across modalities, negatives.

Invariants: each is its formula, worked out here in plain float64, and tiled equals dense; a term that an option does
not name keeps its bits; the temperature hangs on the step alone, so that a run that goes on from a checkpoint has the
same one; a teacher that is lacking is told by the key that asks for it; triplets keep their negatives.

Not vacuous: rows share a group, both sides have several teachers of unequal weight, and each option is shown to move
its term.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_trainer import trainer_of
from torch import Tensor

from dalr.checkpoint import list_checkpoints
from dalr.config import parse_config
from dalr.errors import ConfigError
from dalr.objectives import Batch, LossParts, ObjectiveConfig, build_objective
from dalr.training_data import frozen_teachers
from dalr.training_log import read_log
from tests.tiny_catalogue import tiny_model

SHARES = {"text": [2.0, 1.0], "image": [1.0, 3.0]}
SIZE = 8


def config(**values: Any) -> ObjectiveConfig:
    return parse_config(ObjectiveConfig, {"name": "dalr", "profile": "paper", **values})


def rows(width: int, seed: int) -> Tensor:
    return torch.randn(SIZE, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


EMBEDDINGS = {name: rows(16, seed) for seed, name in enumerate(("z1", "z2", "p1", "p2", "v"))}
PAIRS = Batch(
    kind="pairs",
    index_B=torch.arange(SIZE),
    ids_BK=torch.tensor([[0], [0], [2], [3], [4], [5], [6], [7]]),
    weight_B=torch.linspace(0.5, 1.5, SIZE, dtype=torch.float64),
    text_teachers=(rows(3, 10), rows(4, 11)),
    image_teachers=(rows(3, 12), rows(5, 13)),
)
TEXTS = replace(PAIRS, kind="text", image_teachers=())
OTHERS = PAIRS.ids_BK != PAIRS.ids_BK.T
SHARE = PAIRS.weight_B / PAIRS.weight_B.sum()


def terms(batch: Batch = PAIRS, at: tuple[int, int] | None = None, **values: Any) -> LossParts:
    model = tiny_model()
    torch.manual_seed(0)
    objective = build_objective(config(**values), model, teacher_widths=[3, 4], teacher_weights=SHARES)
    if at is not None:
        objective.set_step(*at)
    return objective.double().loss(EMBEDDINGS, batch)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return F.normalize(a, dim=1) @ F.normalize(b, dim=1).T


def taught(side: str) -> Tensor:
    """The side's similarities: two of the first text teacher to one of the second, one to three of the images'."""
    first, second = (cosine(x, x) for x in (PAIRS.text_teachers if side == "text" else PAIRS.image_teachers))
    return (2 * first + second) / 3 if side == "text" else (first + 3 * second) / 4


def divergence(student: Tensor, teacher: Tensor, tau: float, tau_t: float) -> Tensor:
    """KL of the teacher's and the student's spread over the rows of other groups."""
    total = torch.zeros((), dtype=torch.float64)
    for row, others in enumerate(OTHERS):
        q = (teacher[row, others] / tau_t).softmax(0)
        p = (student[row, others] / tau).softmax(0)
        total = total + SHARE[row] * (q * (q / p).log()).sum()
    return total


def order(student: Tensor, teacher: Tensor, tau: float, length: int) -> Tensor:
    """ListMLE over the teacher's first rows of other groups."""
    total = torch.zeros((), dtype=torch.float64)
    for row, others in enumerate(OTHERS):
        known = others.nonzero().flatten()
        listed = known[teacher[row, known].argsort(descending=True)][:length]
        logits = student[row, listed] / tau
        found = torch.stack([logits[place:].logsumexp(0) - logits[place] for place in range(len(listed))])
        total = total + SHARE[row] * found.mean()
    return total


@pytest.mark.parametrize("mix", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("tile", [None, 3])
def test_cross_modal_targets_mix_both_sides(mix: float, tile: int | None) -> None:
    found = terms(soft_mix=mix, image_teacher_temperature=0.2, rank_cross=0.5, top_k=3, tile=tile)
    text, image = taught("text"), taught("image")
    for_texts, for_images = (1 - mix) * text + mix * image, (1 - mix) * image + mix * text
    there, back = cosine(EMBEDDINGS["p1"], EMBEDDINGS["v"]), cosine(EMBEDDINGS["v"], EMBEDDINGS["p1"])
    soft = (divergence(there, for_texts, 0.05, 0.05) + divergence(back, for_images, 0.05, 0.2)) / 2
    ranked = (order(there, for_texts, 0.05, 3) + order(back, for_images, 0.05, 3)) / 2
    torch.testing.assert_close(found.parts["soft_cross"], soft)
    torch.testing.assert_close(found.parts["rank_cross"], ranked)
    assert found.weights["rank_cross"] == 0.5
    # Within the texts their own teachers alone are the target, on pairs as on texts.
    inside = divergence(cosine(EMBEDDINGS["z1"], EMBEDDINGS["z2"]), text, 0.05, 0.05)
    torch.testing.assert_close(found.parts["soft_intra"], inside)


def test_the_order_across_is_told_by_the_teachers_that_there_are() -> None:
    v, p = EMBEDDINGS["v"], EMBEDDINGS["p1"]
    one = terms(replace(PAIRS, text_teachers=()), rank_cross=1, soft_intra=0, rank=0)
    torch.testing.assert_close(one.parts["rank_cross"], order(cosine(v, p), taught("image"), 0.05, 10))
    alone = terms(
        rank_cross=1, info=0, cross=0, consistency=0, soft_cross=0, soft_intra=0, rank=0, rank_form="list_net"
    )
    assert set(alone.parts) == {"rank_cross"}
    assert set(terms(TEXTS, rank_cross=1).parts) == {"info", "soft_intra", "rank"}
    assert config(info=0, soft_intra=0, rank=0, rank_cross=1).kinds == ("pairs",)
    assert config(soft_cross=0, soft_intra=0, rank=0, rank_cross=1).taught_sides == {"text", "image"}


def test_targets_sharpen_over_the_run() -> None:
    sharper = {"soft_temperature": 0.4, "soft_temperature_end": 0.1, "image_teacher_temperature": 0.8}
    there, back = cosine(EMBEDDINGS["p1"], EMBEDDINGS["v"]), cosine(EMBEDDINGS["v"], EMBEDDINGS["p1"])
    inside = cosine(EMBEDDINGS["z1"], EMBEDDINGS["z2"])
    for step, factor in ((0, 1.0), (4, 0.5), (8, 0.25)):  # the first, the middle and the last of nine
        found = terms(at=(step, 9), **sharper).parts
        text, image = 0.4 * factor, 0.8 * factor
        soft = divergence(there, taught("text"), 0.05, text) + divergence(back, taught("image"), 0.05, image)
        torch.testing.assert_close(found["soft_cross"], soft / 2)
        torch.testing.assert_close(found["soft_intra"], divergence(inside, taught("text"), 0.05, text))
        assert torch.equal(found["rank"], terms().parts["rank"])
    torch.testing.assert_close(terms(**sharper).total, terms(at=(0, 1), **sharper).total)
    assert torch.equal(terms(at=(7, 9)).total, terms().total)


@pytest.mark.parametrize("form", ["dense", "tiled"])
def test_text_teachers_judge_the_negatives_of_every_contrast(form: str) -> None:
    values = {
        "hard_negative_weight": 2.0,
        "false_negative": 0.3,
        "cross_text": 1,
        "tile": 3 if form == "tiled" else None,
    }
    found, plain = terms(**values).parts, terms(cross_text=1).parts
    assert ((taught("text") > 0.3) & OTHERS).any()

    def contrast(student: Tensor, weight: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for row in range(SIZE):
            negative = OTHERS[row] & (taught("text")[row] <= 0.3)
            importance = (2.0 * taught("text")[row, negative]).exp()
            others = (importance / importance.mean() * (student[row, negative] / 0.05).exp()).sum()
            own = (student[row, row] / 0.05).exp()
            total = total - weight[row] * (own / (own + others)).log()
        return total

    p1, p2, v = (EMBEDDINGS[name] for name in ("p1", "p2", "v"))
    even = torch.full_like(SHARE, 1 / SIZE)
    torch.testing.assert_close(found["info"], contrast(cosine(EMBEDDINGS["z1"], EMBEDDINGS["z2"]), even))
    both = [contrast(cosine(*sides), SHARE) for p in (p1, p2) for sides in ((p, v), (v, p))]
    torch.testing.assert_close(found["cross"], torch.stack(both).mean())
    for name in ("info", "cross", "cross_text"):
        assert abs(found[name] - plain[name]) > 1e-3
    assert torch.equal(found["consistency"], plain["consistency"])
    torch.testing.assert_close(terms(TEXTS, **values).parts["info"], found["info"])


def test_triplets_keep_their_negatives() -> None:
    objectives = [
        build_objective(config(cross=0, consistency=0, soft_cross=0, **more), tiny_model())
        for more in ({}, {"hard_negative_weight": 2.0, "false_negative": 0.3})
    ]
    triplets = {**EMBEDDINGS, "positive": EMBEDDINGS["z2"], "negative": EMBEDDINGS["v"]}
    one, other = (each.loss(triplets, TEXTS).parts["info"] for each in objectives)
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("values", "batch", "says"),
    [
        ({"soft_mix": 0.5}, replace(PAIRS, image_teachers=()), "objective.soft_mix: needs a teacher of texts and one"),
        ({"soft_mix": 0.5}, replace(PAIRS, text_teachers=()), "objective.soft_mix: needs a teacher of texts and one"),
        ({"rank_cross": 1, "soft_cross": 0}, None, "objective.rank_cross: needs a teacher"),
        ({"hard_negative_weight": 1}, None, "objective.hard_negative_weight, objective.false_negative: need a text"),
        ({"false_negative": 0.9}, None, "objective.hard_negative_weight, objective.false_negative: need a text"),
    ],
)
def test_a_teacher_that_lacks_is_told_by_its_key(values: dict[str, Any], batch: Batch | None, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        terms(batch or replace(PAIRS, text_teachers=(), image_teachers=()), **{"soft_intra": 0, "rank": 0, **values})


def test_what_does_not_fit_is_told_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"set objective\.cross_form=softmax"):
        config(cross_form="sigmoid", false_negative=0.9)
    config(cross_form="sigmoid", cross=0, false_negative=0.9)
    for values in ({"soft_mix": 1.5}, {"soft_temperature_end": 0}, {"hard_negative_weight": -1}, {"false_negative": 2}):
        with pytest.raises(ConfigError, match=next(iter(values))):
            config(**values)
    contrast = {"name": "clip", "profile": None}
    assert config(**contrast).taught_sides == set()
    assert config(**contrast, false_negative=0.9).taught_sides == {"text"}


def test_a_resumed_run_has_the_same_temperature(squares: Path, frozen: Any, tmp_path: Path) -> None:
    def run(out: Path, **objective: Any) -> list[float]:
        values = {"name": "dalr", "soft_temperature": 0.4, "pair_weights": False, **objective}
        told = (frozen[0], frozen_teachers(frozen[1]))
        trainer = trainer_of(squares, told, out, objective=values, steps=6, checkpoint_every=2, keep=9)
        trainer.fit()
        return [event["loss"] for event in read_log(out / "log.jsonl") if event["event"] == "step"]

    whole = run(tmp_path / "run", soft_temperature_end=0.05)
    for later in list_checkpoints(tmp_path / "run/checkpoints")[1:]:
        shutil.rmtree(later)
    assert run(tmp_path / "run", soft_temperature_end=0.05) == whole
    assert [event["step"] for event in read_log(tmp_path / "run/log.jsonl") if event["event"] == "resume"] == [2]
    still = run(tmp_path / "still")
    assert still[0] == whole[0]
    assert all(abs(one - other) > 1e-3 for one, other in zip(still[1:], whole[1:], strict=True))
