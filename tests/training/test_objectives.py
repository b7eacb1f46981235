"""Objectives.

Invariants: every profile names only terms that exist and is saved in full; every method trains on a real model and
lowers its own loss; a weight of 0 leaves its term out; on texts alone the cross-modal terms are absent and every
parameter in training still has a gradient; what a method needs and lacks is told by its config key; teachers count by
their weights, and attributes of a catalogue are one.
"""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_catalogue import tiny_catalogue, tiny_model, write_manifest

from dalr import losses
from dalr.config import parse_config
from dalr.data.manifest import DataConfig, Manifest
from dalr.errors import ConfigError, DataError
from dalr.model import DualEncoder, ModelConfig
from dalr.noise import NoiseConfig
from dalr.objectives import Batch, Features, Kind, ObjectiveConfig, Rows, Step, Tokens, build_objective
from dalr.objectives.config import PROFILES
from dalr.teachers import TeacherConfig
from dalr.training_data import add_teachers, pair_rows, pair_weights, teacher_fingerprints

TEXTS = [f"a {colour} {thing}" for colour in ("red", "green", "blue", "black") for thing in ("cup", "chair", "lamp")]
IDEAS = {
    "soft_mix": 0.3,
    "soft_temperature_end": 0.02,
    "rank_cross": 0.1,
    "hard_negative_weight": 1.0,
    "false_negative": 0.9,
}
METHODS: list[dict[str, Any]] = [
    {"name": "clip"},
    {"name": "siglip"},
    {"name": "simcse"},
    {"name": "mcse"},
    {"name": "kdmcse"},
    {"name": "rankcse"},
    {"name": "dalr", "profile": "paper", "matching": True},
    {"name": "dalr", "profile": "catalogue", "pair_weights": False},
    {"name": "dalr", "profile": "paper", **IDEAS},
]


def config(**values: Any) -> ObjectiveConfig:
    return parse_config(ObjectiveConfig, values)


def model_of(train: str = "full", dropout: float = 0.1) -> DualEncoder:
    torch.manual_seed(0)
    shape = {
        "text": {
            "name": "new",
            "train": train,
            "new": {"layers": 1, "width": 16, "heads": 2, "vocab_size": 100, "max_length": 12, "dropout": dropout},
        },
        "image": {"name": "timm:test_resnet", "pretrained": False},
        "dim": 8,
    }
    return DualEncoder.build(ModelConfig.model_validate(shape), corpus=TEXTS)


def rows_of(model: DualEncoder) -> Rows:
    generator = np.random.default_rng(0)
    assert model.text is not None
    assert model.image is not None
    size = len(TEXTS)
    numbers = np.arange(size)
    teacher = Features(generator.normal(size=(size, 5)).astype(np.float32))
    images = Features(generator.normal(size=(size, model.image.width)).astype(np.float32))
    return Rows(
        ids_NK=np.stack([numbers // 2, numbers + 100], axis=1),
        weight_N=np.ones(size, dtype=np.float32),
        text=Tokens(model.text.tokenize(TEXTS), model.text.collate),
        image=images,
        text_teachers=(teacher,),
        image_teachers=(images,),
    )


def batch_of(rows: Rows, kind: Any = "pairs") -> Batch:
    numbers = np.arange(len(rows))
    return rows.batch(kind, numbers, numbers)


def test_a_config_names_every_value_of_its_profile() -> None:
    for key, profile in PROFILES.items():
        name, _, part = key.partition("/")
        full = config(name=name, profile=part or None)
        assert {field: getattr(full, field) for field in profile} == profile
        assert parse_config(ObjectiveConfig, full.model_dump(mode="json")) == full


def test_given_values_win_over_the_profile_and_profiles_belong_to_dalr() -> None:
    assert config(name="mcse", cross=0.5).cross == 0.5
    assert config(name="dalr").profile == "catalogue"
    with pytest.raises(ConfigError, match="belongs to the method dalr"):
        config(name="clip", profile="paper")
    with pytest.raises(ConfigError, match="every term"):
        config(name="clip", cross=0)


@pytest.mark.parametrize("values", METHODS, ids=lambda values: "-".join(map(str, values.values())))
def test_every_method_lowers_its_own_loss(values: dict[str, Any]) -> None:
    model = model_of()
    rows = rows_of(model)
    step = Step(model, build_objective(config(**values), model, teacher_widths=[5])).train()
    batch = batch_of(rows, "pairs" if config(**values).uses_images else "text")
    optimizer = torch.optim.Adam([p for p in step.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for number in range(40):
        torch.manual_seed(number % 4)
        parts, norms = step(batch, gradient_norms=number == 0)
        if number == 0:
            assert set(norms) == set(parts.parts)
            assert all(value > 0 for value in norms.values()), norms
        optimizer.zero_grad()
        parts.total.backward()
        assert all(p.grad is not None for p in step.parameters() if p.requires_grad)
        optimizer.step()
        losses.append(float(parts.total.detach()))
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])


def test_texts_alone_leave_the_image_side_out_and_no_gradient_missing() -> None:
    model = model_of()
    rows = rows_of(model)
    step = Step(model, build_objective(config(name="dalr", profile="paper", matching=True), model)).train()
    parts, _ = step(batch_of(rows, "text"))
    assert set(parts.parts) == {"info", "soft_intra", "rank"}
    parts.total.backward()
    assert all(p.grad is not None for p in step.parameters() if p.requires_grad)
    assert all(not p.grad.any() for p in model.image_head.parameters() if p.grad is not None)  # type: ignore[union-attr]
    quiet = Step(model, build_objective(config(name="dalr", profile="paper", distil_text=False), model)).train()
    assert set(quiet(batch_of(rows, "text"))[0].parts) == {"info"}
    shared = config(name="dalr", profile="paper", intra_space="shared", distil_text=False)
    quiet = Step(model, build_objective(shared, model)).train()
    quiet.zero_grad()
    quiet(batch_of(rows, "text"))[0].total.backward()
    assert all(p.grad is not None for p in quiet.parameters() if p.requires_grad)


def test_a_teachers_texts_are_met_on_pairs_alone() -> None:
    model = model_of(dropout=0.0)
    rows = rows_of(model)
    objective = build_objective(config(name="kdmcse"), model, teacher_widths=[5])
    step = Step(model, objective).train()
    batch = batch_of(rows)
    parts, _ = step(batch)
    assert set(parts.parts) == {"info", "cross", "cross_text"}
    # By hand: each text against what the layer makes of the teacher's rows, pushed where the teacher finds them unlike.
    assert model.text is not None
    p = model.project_text(model.text(batch.text))
    (teacher,) = batch.text_teachers
    (ground,) = objective.text_grounding
    wanted = losses.info_nce(
        p,
        torch.tanh(teacher @ ground[0].weight.T + ground[0].bias),
        temperature=0.05,
        group=batch.ids_BK,
        margin=0.15,
        margin_sim=losses.TeacherRows([teacher]),
    )
    torch.testing.assert_close(parts.parts["cross_text"], wanted)
    # The margin of text and image is the images'.
    images = losses.TeacherRows(batch.image_teachers)
    v = model.project_image(batch.image)
    pushed = losses.cross_modal(
        [p, p], v, temperature=0.05, group=batch.ids_BK, weight=batch.weight_B, margin=0.15, margin_sim=images
    )
    torch.testing.assert_close(parts.parts["cross"], pushed)
    alone, _ = step(batch_of(rows, "text"))
    assert set(alone.parts) == {"info"}
    alone.total.backward()
    assert all(p.grad is not None for p in step.parameters() if p.requires_grad)
    z = torch.tanh(objective.sentence_head(model.text(batch.text)))
    torch.testing.assert_close(
        alone.parts["info"], losses.info_nce(z, z, temperature=0.05, group=batch.ids_BK, margin=0.15)
    )
    with pytest.raises(ConfigError, match=r"objective.cross_text: needs a text teacher"):
        Step(model, objective)(batch_of(replace(rows, text_teachers=())))
    with pytest.raises(ConfigError, match=r"objective.cross_text: goes with the contrast of texts and images"):
        config(name="dalr", cross=0, cross_text=1)


def test_a_weight_of_zero_leaves_its_term_out() -> None:
    model = model_of()
    rows = rows_of(model)
    names = {"info", "cross", "consistency", "soft_cross", "soft_intra", "rank"}
    for name in names:
        objective = build_objective(config(name="dalr", profile="paper", **{name: 0}), model)
        assert set(Step(model, objective)(batch_of(rows))[0].parts) == names - {name}


def test_the_total_is_the_weighted_sum() -> None:
    model = model_of(dropout=0.0)
    objective = build_objective(config(name="dalr", profile="paper"), model)
    parts, _ = Step(model, objective)(batch_of(rows_of(model)))
    expected = sum(parts.weights[name] * float(value.detach()) for name, value in parts.parts.items())
    assert float(parts.total.detach()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("values", [{}, IDEAS], ids=["plain", "ideas"])
def test_the_cached_step_equals_the_plain_one(values: dict[str, Any]) -> None:
    gradients = []
    method = config(name="dalr", profile="paper", learn_temperature=True, **values)
    for chunk in (None, 5):
        model = model_of(dropout=0.0)
        step = Step(model, build_objective(method, model)).train()
        batch = batch_of(rows_of(model))
        if chunk is None:
            step(batch)[0].total.backward()
        else:
            step.cached_backward(batch, chunk)
        gradients.append({name: p.grad for name, p in step.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "train", "says"),
    [
        ({"name": "simcse"}, "frozen", "objective.info"),
        ({"name": "rankcse", "info": 0}, "frozen", "objective.intra_space"),
    ],
)
def test_what_is_lacking_is_told_by_its_key(values: dict[str, Any], train: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build_objective(config(**values), model_of(train))


def test_a_term_without_its_teacher_is_told_by_its_key() -> None:
    model = model_of()
    rows = replace(rows_of(model), text_teachers=(), image_teachers=())
    for name in ("soft_cross", "rank"):
        weights = {"soft_cross": 0, "soft_intra": 0, "rank": 0, name: 1}
        objective = build_objective(config(name="dalr", pair_weights=False, **weights), model)
        with pytest.raises(ConfigError, match=name):
            Step(model, objective)(batch_of(rows))


@pytest.mark.parametrize(
    ("side", "weights"), [("text", {"soft_cross": 1, "embedding": 1}), ("image", {"soft_cross": 1})]
)
def test_teachers_count_by_their_weights(side: str, weights: dict[str, Any]) -> None:
    model, generator = model_of(dropout=0.0), np.random.default_rng(1)
    rows = rows_of(model)
    teachers = [Features(generator.normal(size=(len(rows), 4)).astype(np.float32)) for _ in range(2)]
    values = {"soft_intra": 0, "rank": 0, "sentence_head": "none", **weights}

    def total(shares: dict[str, list[float]], *of: Features) -> float:
        told = rows_with(rows, side, of)
        objective = build_objective(
            config(name="dalr", pair_weights=False, **values), model, teacher_widths=[4] * 2, teacher_weights=shares
        )
        for projection in objective.projections:
            torch.nn.init.ones_(projection.weight)
            torch.nn.init.zeros_(projection.bias)
        return Step(model, objective).eval()(batch_of(told))[0].total.item()

    first, second = teachers
    alone = total({}, first, first)
    assert total({side: [1.0, 0.0]}, first, second) == pytest.approx(alone, rel=1e-5)
    assert total({side: [3.0, 3.0]}, first, second) == pytest.approx(total({}, first, second), rel=1e-5)
    assert total({side: [3.0, 1.0]}, first, second) == pytest.approx(total({side: [1.0, 3.0]}, second, first), rel=1e-5)
    assert abs(total({side: [3.0, 1.0]}, first, second) - total({}, first, second)) > 1e-4


def rows_with(rows: Rows, side: str, teachers: tuple[Features, ...]) -> Rows:
    return replace(rows, text_teachers=teachers) if side == "text" else replace(rows, image_teachers=teachers)


def test_attributes_teach_products_and_not_texts_alone(tmp_path: Path) -> None:
    catalogue = tiny_catalogue(tmp_path)
    with open(catalogue, newline="", encoding="utf-8") as stream:
        header, *cells = csv.reader(stream)
    kinds = ["dress", "dress", "shoe", "shoe", *["bag"] * 10]
    write_manifest(tmp_path, [[*row, kind] for row, kind in zip(cells, kinds, strict=True)], [*header, "kind"])
    manifest, rows = pair_rows(Manifest.load(str(catalogue), DataConfig()), tiny_model(), cache=tmp_path / "cache")
    named = TeacherConfig(name="attributes: kind", side="image", weight=2)

    def taught(teachers: list[TeacherConfig], photos: Manifest | None = manifest, kind: Kind = "pairs") -> Rows:
        texts = [text or "" for text in manifest.texts]
        return add_teachers(teachers, {kind: rows}, {kind: texts}, photos, None)[kind]

    found = taught([named]).batch("pairs", np.arange(5), np.arange(5)).image_teachers[0]
    assert torch.equal(found @ found.T, torch.tensor([[float(a == b) for b in kinds[:5]] for a in kinds[:5]]))
    # Whether a caption fits its photo, attributes do not know: weights by neighbours are those of the frozen tower.
    words, noise = TeacherConfig(name="lexical:words"), NoiseConfig(neighbours=2)
    without, beside = (pair_weights(noise, taught([words, *more])) for more in ([], [named]))
    assert without is not None
    assert beside is not None
    assert without.has_prior
    assert torch.equal(beside.prior_N, without.prior_N)
    assert len(taught([named]).image_teachers) == 1
    assert teacher_fingerprints([named], {"pairs": taught([named])}).keys() == {"teachers.attributes: kind"}
    assert taught([named], None, "text").image_teachers == taught([], None, "text").image_teachers
    with pytest.raises(DataError, match="some batches are texts alone; set its side to image"):
        taught([named.model_copy(update={"side": "text"})], manifest, "text")
    with pytest.raises(DataError, match=r"products.csv has no column of attributes 'kin'; did you mean 'kind'\?"):
        taught([TeacherConfig(name="attributes:kin")])


def test_a_teacher_is_fitted_to_all_texts_at_once(tmp_path: Path) -> None:
    """Fitted to pairs and texts apart, one sentence would have two embeddings, and a student two goals."""
    manifest, rows = pair_rows(Manifest.load(str(tiny_catalogue(tmp_path)), DataConfig()), tiny_model())
    captions = [text or "" for text in manifest.texts]
    sets: dict[Kind, Rows] = {"text": rows, "pairs": rows}
    texts: dict[Kind, list[str]] = {"text": captions[::-1], "pairs": captions}
    found = add_teachers([TeacherConfig(name="lexical:words")], sets, texts, manifest, None)
    every = np.arange(len(rows))
    one, other = (found[kind].text_teachers[0].take(every, every) for kind in ("text", "pairs"))
    assert torch.equal(one, other.flip(0))
    alone = add_teachers([TeacherConfig(name="lexical:words")], {"text": rows}, {"text": captions[:9]}, None, None)
    assert not torch.equal(alone["text"].text_teachers[0].take(every[:9], every[:9]), other[:9])


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [None, 5])
def test_compiled_equals_not_compiled(chunk: int | None) -> None:
    found = []
    for compiled in (False, True):
        model = model_of()
        rows = rows_of(model)
        step = Step(model, build_objective(config(name="dalr", profile="paper"), model), compiled).train()
        assert model.text is not None
        model.text.pad_to_multiple_of = 8
        batch = batch_of(rows)
        torch.manual_seed(0)
        if chunk:
            parts = step.cached_backward(batch, chunk)
        else:
            parts = step(batch)[0]
            parts.total.backward()
        found.append([parts.total.detach(), *(p.grad for p in step.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 10
    for plain, fast in zip(*found, strict=True):
        torch.testing.assert_close(plain, fast, atol=1e-5, rtol=1e-4)
