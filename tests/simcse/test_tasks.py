"""The tasks of the minBERT setting: classes, duplicates and scores on one tower.

Invariants: a batch of a task reaches its own head and no other, which `idle_parameters` says; steps are shared evenly
or by size; the average is minBERT's; a task that can be learned is learned, jointly; heads are kept beside the model
and predict after loading what they predicted before; a carved dev part shares no text with train; wrong data and
wrong questions are told in one line; the real files have the sizes that the data's own page gives.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dalr.config import load_config, parse_config
from dalr.data.groups import normalise_caption
from dalr.errors import ConfigError, DataError, ModelError
from dalr.objectives import Step
from dalr.run import stages
from dalr.simcse.multitask import TaskModel, TaskObjective, TasksConfig, evaluate_tasks, task_rows
from dalr.simcse.stages import PipelineConfig
from dalr.simcse.tasks import TaskConfig, TaskPart, read_task
from tests.tiny_catalogue import tiny_model

Settings = dict[str, Any]


@pytest.fixture
def tasks(world: Path) -> dict[str, Any]:
    return {
        "colour": {"kind": "classes", "train": str(world / "classes.tsv"), "dev_share": 0.25, "classes": 4},
        "same": {"kind": "duplicates", "train": str(world / "duplicates.tsv"), "dev_share": 0.2},
        "sts": {"kind": "scores", "train": str(world / "scores.tsv"), "dev": str(world / "dev.tsv")},
    }


def config(tasks: dict[str, Any], **values: Any) -> TasksConfig:
    return parse_config(TasksConfig, {"tasks": tasks, **values})


def part(kind: str) -> TaskPart:
    second = None if kind == "classes" else ["a red lamp", "a blue bag", "a black shoe"]
    return TaskPart(["a red dress", "a blue bag", "a shoe"], second, np.array([1, 0, 1], np.float32))


def test_a_batch_reaches_its_own_head_alone(tasks: dict[str, Any]) -> None:
    model = tiny_model(image=False)
    objective = TaskObjective(config(tasks), 32)
    step = Step(model, objective).train()
    for name, task in tasks.items():
        batch = task_rows(part(task["kind"]), model).batch(name, np.arange(3), np.arange(3))
        step.zero_grad()
        parts, _ = step(batch)
        parts.total.backward()
        reached = {
            other for other, head in objective.heads.items() if head.weight.grad is not None and head.weight.grad.any()
        }
        assert reached == ({name} if name in objective.heads else set())
        idle = {id(parameter) for parameter in objective.idle_parameters(model, name)}
        others = {id(p) for other, head in objective.heads.items() if other != name for p in head.parameters()}
        assert idle == others
        assert all(p.grad is not None for p in objective.parameters())  # as DDP needs


def test_the_losses_by_hand(tasks: dict[str, Any]) -> None:
    model, objective = tiny_model(image=False), TaskObjective(config(tasks), 32, dropout=0.0)
    assert model.text is not None
    u = torch.from_numpy(model.text.encode(["a red dress", "a blue bag", "a shoe"]))
    v = torch.from_numpy(model.text.encode(["a red lamp", "a blue bag", "a black shoe"]))
    y = torch.tensor([1.0, 0.0, 1.0])
    logit = objective.heads["same"](torch.cat([u, v, (u - v).abs()], dim=1)).squeeze(1)
    wanted = {
        "colour": -objective.heads["colour"](u).log_softmax(1)[torch.arange(3), y.long()].mean(),
        "same": -(y * torch.sigmoid(logit).log() + (1 - y) * torch.sigmoid(-logit).log()).mean(),
        "sts": (torch.cosine_similarity(u, v) - y).square().mean(),
    }
    model.eval()
    for name, value in wanted.items():
        batch = task_rows(part(tasks[name]["kind"]), model).batch(name, np.arange(3), np.arange(3))
        assert objective(model, batch).total.item() == pytest.approx(value.item(), abs=1e-5)


def test_steps_by_task(tasks: dict[str, Any]) -> None:
    sizes = {"colour": 36, "same": 288, "sts": 80}
    assert config(tasks).mix(sizes) == {"colour": 1, "same": 1, "sts": 1}
    assert config(tasks, sampling="size").mix(sizes) == {"colour": 1, "same": 8, "sts": 2}


def test_the_average_is_minberts(tasks: dict[str, Any]) -> None:
    model, objective = tiny_model(image=False), TaskObjective(config(tasks), 32)
    found = evaluate_tasks(model, objective, {name: part(task["kind"]) for name, task in tasks.items()})
    assert list(found) == config(tasks).figures
    both = found["colour.accuracy"] + found["same.accuracy"]
    assert found["average"] == pytest.approx((both + (100 + found["sts.pearson"]) / 2) / 3, abs=1e-3)


def test_learned_jointly_and_kept(pipeline: Settings, tasks: dict[str, Any], tmp_path: Path) -> None:
    train = {
        "steps": 150,
        "batch_size": 32,
        "lr": 3e-3,
        "text_lr": 3e-3,
        "evaluate_every": 150,
        "checkpoint_every": 150,
    }
    pipeline["stages"] = {"unsup": pipeline["stages"]["unsup"], "tasks": {"tasks": tasks, "train": train}}
    pipeline["leaks"] = {}
    parsed = parse_config(PipelineConfig, pipeline)
    seen: list[dict[str, Any]] = []
    result = stages.run_stages(parsed, tmp_path / "run", progress=seen.append)
    figures = [event for event in seen if event["event"] == "evaluation"][-1]
    assert figures["colour.accuracy"] > 75  # of four classes
    assert figures["sts.pearson"] > 50
    kept = TaskModel.from_pretrained(result.stages[1].out)
    _, dev, _ = read_task(parsed.stages["tasks"].tasks["colour"], 0)
    right = (kept.predict("colour", dev.first) == dev.target).mean()
    assert 100 * right == pytest.approx(figures["colour.accuracy"], abs=1e-3)
    # Its own config makes it again.
    again = load_config(PipelineConfig, Path(result.stages[1].out) / "config.yaml")
    assert stages.run_stages(again, tmp_path / "again").stages[0].figures == result.stages[1].figures
    assert "with the tasks `colour`, `same`, `sts` together" in Path(result.stages[1].out, "README.md").read_text()
    assert set(kept.predict("same", ["a red bag"] * 2, ["a red bag", "a blue lamp"]).tolist()) <= {0, 1}
    with pytest.raises(ConfigError, match="sts"):
        kept.predict("sts", ["a"], ["b"])
    with pytest.raises(ConfigError, match="two lists"):
        kept.predict("same", ["a"])
    with pytest.raises(ModelError, match="task heads"):
        TaskModel.from_pretrained(result.stages[0].out)


def test_a_carved_dev_part_shares_no_text(tasks: dict[str, Any], tmp_path: Path) -> None:
    chains = tmp_path / "chains.tsv"
    rows = [f"t{n}\tT{n + 1}\t{n % 2}" for chain in range(10) for n in range(100 * chain, 100 * chain + 4)]
    chains.write_text("\n".join(["sentence1\tsentence2\tlabel", *rows]))
    train, dev, _ = read_task(TaskConfig(kind="duplicates", train=str(chains), dev_share=0.3), 0)
    assert len(train) + len(dev) == 40
    assert len(dev) == 12
    sides = [{normalise_caption(text) for text in (*some.first, *some.second)} for some in (train, dev)]
    assert not sides[0] & sides[1]


def test_wrong_data_is_told(tasks: dict[str, Any], world: Path) -> None:
    with pytest.raises(DataError, match=r"classes.tsv: holds the class 3; expected 0 to 1"):
        read_task(parse_config(TaskConfig, tasks["colour"] | {"classes": 2}), 0)
    with pytest.raises(ConfigError, match="dev_share"):
        parse_config(TaskConfig, {"kind": "classes", "train": str(world / "classes.tsv")})


@pytest.mark.data
def test_the_real_files(data_dir: Path) -> None:
    folder = data_dir / "minbert"
    sizes = {"ids-sst": ("classes", 8544, 1101), "ids-cfimdb": ("classes", 1707, 245), "sts": ("scores", 6040, 863)}
    for name, (kind, train_rows, dev_rows) in sizes.items():
        files = {part: f"{folder}/{name}-{part}.tsv" for part in ("train", "dev")}
        train, dev, bad = read_task(parse_config(TaskConfig, {"kind": kind, "classes": 5, **files}), 0)
        assert (len(train), len(dev), bad) == (train_rows, dev_rows, [])
        assert train.target.min() == 0
    quora = TaskConfig(kind="duplicates", train=f"{folder}/quora-dev.tsv", dev_share=0.2)
    train, dev, bad = read_task(quora, 0)
    assert len(train) + len(dev) == 20_212
    assert len(bad) == 2
    assert abs(len(dev) - 4042) < 5
