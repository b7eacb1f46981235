"""Pipelines of stages, as `dalr train` runs them.

Invariants: stages run in the order of the config or of `order`, each from the model of the one before, and the last
model lies in the run folder; a table of dev figures is shown after each stage; a finished pipeline ends at once with
the same result, one killed between stages or inside one goes on there and ends as if it had never stopped; a changed
value, a model that is gone, an unknown stage, a stage without its data and a wrong key inside a stage exit 2 with one
line that names them, before anything is trained; rows that stand in the dev set are dropped and counted; whitening and
centring are stages too.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dalr.cli import app
from dalr.cli import search as _other  # noqa: F401 - a second command, so that typer keeps `train` as a subcommand
from dalr.cli import train as _registered  # noqa: F401
from dalr.config import parse_config
from dalr.data.texts import read_triplets
from dalr.model import DualEncoder
from dalr.objectives import Tokens
from dalr.run import RunConfig, stages
from dalr.run.assembly import assemble
from dalr.simcse.stages import PipelineConfig, merged

Settings = dict[str, Any]
TEXTS = ["a red dress of size 2", "a black bag"]


def call(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["train", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_a_whole_pipeline(pipeline: Settings, write_config: Callable[[Settings], Path], tmp_path: Path) -> None:
    config, out = str(write_config(pipeline)), tmp_path / "run"
    code, stdout, stderr = call(config, "--out", str(out), "--json")
    assert code == 0, stderr
    found = json.loads(stdout)
    assert [stage["name"] for stage in found["stages"]] == ["sts", "unsup", "sup"]
    assert found["start"] == {}  # a new encoder has no weights to measure
    for stage in found["stages"]:
        assert set(stage["figures"]) == {"dev.spearman", "dev.pearson"}
        assert stage["steps"] == 4
    sts = found["stages"][0]
    rows = len(Path(pipeline["stages"]["sts"]["data"]["scores"][0]["path"]).read_text().splitlines()) - 1
    assert sts["leaks"]["dropped"] == sts["leaks"]["pairs"]["dev"] > 0
    assert sts["train_rows"] + sts["leaks"]["dropped"] == rows
    assert stderr.count("dev.spearman") >= 3
    last, whole = (
        DualEncoder.from_pretrained(folder).encode_text(TEXTS) for folder in (found["stages"][2]["out"], out)
    )
    assert np.array_equal(last, whole)
    # Each stage starts from the one before.
    second = json.loads((out / "stages/2-unsup/run.json").read_text())
    assert second["config"]["model"]["text"]["name"] == str(out / "stages/1-sts")
    assert second["inputs"]["model"]
    assert json.loads(call(config, "--out", str(out), "--json")[1]) == found
    code, stdout, _ = call(config, "--out", str(out))
    assert code == 0
    assert all(name in stdout for name in ("sts", "unsup", "sup", "dropped"))
    code, _, stderr = call(config, "stages.sup.train.text_lr=0.5", "--out", str(out))
    assert code == 2
    assert "stages.sup.train.text_lr" in stderr


def test_order_and_subset(pipeline: Settings, write_config: Callable[[Settings], Path], tmp_path: Path) -> None:
    config = str(write_config(pipeline))
    code, stdout, stderr = call(config, "order=[sup, sts]", "train.steps=1", "--out", str(tmp_path / "run"), "--json")
    assert code == 0, stderr
    assert [Path(stage["out"]).name for stage in json.loads(stdout)["stages"]] == ["1-sup", "2-sts"]


class Stop(BaseException):
    """As a kill would end the process, but in reach of the test."""


@pytest.mark.parametrize("when", ["between", "inside"])
def test_killed_and_started_again(pipeline: Settings, tmp_path: Path, when: str) -> None:
    config = parse_config(PipelineConfig, pipeline)
    straight = stages.run_stages(config, tmp_path / "straight")

    def stop(event: dict[str, Any]) -> None:
        if (event["event"], event.get("step"), seen.count("done")) == ("step", 3, 1):
            raise Stop

    def after(result: Any) -> None:
        seen.append("done")
        if when == "between":
            raise Stop

    seen: list[str] = []
    out = tmp_path / "run"
    with pytest.raises(Stop):
        stages.run_stages(config, out, progress=stop, finished=after)
    assert len(seen) == 1
    trained: list[str] = []

    def note(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            trained.append(f"{event['step']}")

    again = stages.run_stages(config, out, progress=note)
    # Not the first stage again; inside the second, from its checkpoint at step 2.
    assert len(trained) == (8 if when == "between" else 6)
    assert [stage.figures for stage in again.stages] == [stage.figures for stage in straight.stages]
    weights = [DualEncoder.from_pretrained(folder).state_dict() for folder in (tmp_path / "straight", out)]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


def test_a_model_that_is_gone(pipeline: Settings, write_config: Callable[[Settings], Path], tmp_path: Path) -> None:
    config, out = str(write_config(pipeline)), tmp_path / "run"
    assert call(config, "order=[sts, unsup]", "train.steps=1", "--out", str(out))[0] == 0
    for part in ("run.json", "stages/2-unsup"):
        target = out / part
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    for left in ("model.json", "heads.safetensors", "README.md"):
        (out / left).unlink()
    shutil.rmtree(out / "text")
    record = {"status": "running", "config": None, "result": None}
    first = json.loads((out / "stages/1-sts/run.json").read_text())
    assert first["status"] == "finished"
    (out / "stages/1-sts/model.json").unlink()
    values = parse_config(PipelineConfig, pipeline | {"order": ["sts", "unsup"]}).model_dump(mode="json")
    values["train"] = values["train"] | {"steps": 1}
    (out / "run.json").write_text(json.dumps(record | {"config": values}))
    code, _, stderr = call(config, "order=[sts, unsup]", "train.steps=1", "--out", str(out))
    assert code == 2
    assert "stages.sts" in stderr
    assert "gone" in stderr
    assert "1-sts" in stderr


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("order=[sts, unsupp]", "unsup"),
        ("stages.unsup.data.corpus=null", "stages.unsup.data.corpus"),
        ("stages.sup.train.text_rl=1", "text_lr"),
        ("stages.sts.kind=nonsense", "stages.sts.kind"),
        ("stages.other.train.steps=2", "stages.other.kind"),
        ("stages.sup.data.triplets=absent.csv", "absent.csv"),
        ("order=[sts, sts]", "twice"),
        ("stages.sup.model.text.name=new", "stages.sup.model.text.name: it goes on from the model of the stage before"),
        ("stages.sup.kind=tasks", "stages.sup.tasks"),
        ("stages.sts={kind: centre, teachers: [{name: 'lexical:words', side: text}]}", "stages.sts.teachers"),
        ("stages.sup={kind: tasks, tasks: {sst.5: {kind: scores, train: a, dev: b}}}", "cannot be called 'sst.5'"),
        ("stages.sup.train.metric=mrr", "stages.sup: train.metric: 'mrr' is not measured here"),
        ("stages.sts.objective.matryoshka=[64]", "objective.matryoshka"),
        ("stages.unsup.objective.matryoshka=[8]", "objective.sentence_head"),
    ],
)
def test_mistakes(
    pipeline: Settings, write_config: Callable[[Settings], Path], tmp_path: Path, override: str, told: str
) -> None:
    code, _, stderr = call(str(write_config(pipeline)), override, "train.steps=1", "--out", str(tmp_path / "run"))
    assert code == 2
    assert told in stderr.splitlines()[-1]


def test_configs_are_checked_before_anything_is_trained(
    pipeline: Settings, write_config: Callable[[Settings], Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    code, stdout, _ = call(str(write_config(pipeline)), "--dry-run", "--out", str(out))
    assert (code, out.exists()) == (0, False)
    assert "3 stages" in stdout
    code, _, stderr = call(
        str(write_config(pipeline)), "stages.sup.data.triplets=none.csv", "--dry-run", "--out", str(out)
    )
    assert (code, "none.csv" in stderr) == (2, True)
    assert call(str(write_config(pipeline)), "stages.sup.objective.nam=x", "--out", str(out))[0] == 2
    assert not out.exists()


@pytest.mark.parametrize(("kind", "dim"), [("whiten", 12), ("centre", None)])
def test_whitening_is_a_stage(pipeline: Settings, world: Path, tmp_path: Path, kind: str, dim: int | None) -> None:
    corpus = tmp_path / "more.txt"
    corpus.write_text("\n".join(f"{n} {word} {n * n}" for n in range(40) for word in ("lamp", "red bag", "shoe")))
    pipeline["stages"][kind] = {"data": {"corpus": str(corpus)}, "dim": dim}
    pipeline |= {"order": ["unsup", kind], "leaks": {}, "train": pipeline["train"] | {"steps": 1}}
    config = parse_config(PipelineConfig, pipeline)
    result = stages.run_stages(config, tmp_path / "run")
    assert result.stages[1].train_rows == 120
    model = DualEncoder.from_pretrained(tmp_path / "run")
    assert model.text is not None
    features = model.text.encode(corpus.read_text().splitlines())
    assert features.shape[1] == (dim or 32)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-3)
    assert stages.run_stages(config, tmp_path / "run") == result


def test_prompts_of_anchors_and_partners(pipeline: Settings, world: Path) -> None:
    text = pipeline["model"]["text"] | {"prompts": {"query": "query: "}, "train": "full"}
    data = {"triplets": str(world / "triplets.csv"), "anchor_prompt": "query", "partner_prompt": "of passage: "}
    run = parse_config(RunConfig, {"model": {"text": text}, "data": data, "objective": {"name": "simcse"}})
    plan = assemble(run)
    rows = plan.data.rows["text"]
    assert plan.model.text is not None
    texts = read_triplets(data["triplets"])[0].sides
    wanted = [[f"query: {t}" for t in texts[0]], *([f"of passage: {t}" for t in side] for side in texts[1:])]
    for column, side in zip((rows.text, rows.positive, rows.negative), wanted, strict=True):
        assert isinstance(column, Tokens)
        assert list(column.token_ids) == plan.model.text.tokenize(side, "")


def test_merged_sections() -> None:
    below = {"a": {"x": 1, "y": [1, 2]}, "b": 1}
    assert merged(below, {"a": {"y": [3]}, "c": 2}) == {"a": {"x": 1, "y": [3]}, "b": 1, "c": 2}
    assert below == {"a": {"x": 1, "y": [1, 2]}, "b": 1}
