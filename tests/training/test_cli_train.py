"""`dalr train` as a person or a script calls it.

Invariants: --json puts exactly one object on stdout; the run folder is a model that loads; the same command again
ends at once with the same result; an unknown key, a changed value and bad data exit 2 with one line that names them;
rows that cannot be used cost themselves alone and are listed; --dry-run writes nothing.
"""

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dalr.cli import app
from dalr.cli import train as _registered  # noqa: F401
from dalr.config import parse_config
from dalr.errors import UsageError
from dalr.model import DualEncoder
from dalr.run import RunConfig
from dalr.run_folder import check_same_run
from tests.tiny_catalogue import tiny_model

Settings = dict[str, dict[str, Any]]


def call(*arguments: str) -> tuple[int, str, str]:
    # Another command beside it, so that typer keeps `train` as a subcommand.
    from dalr.cli import search  # noqa: F401

    result = CliRunner().invoke(app, ["train", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_a_whole_run(settings: Settings, write_config: Callable[[Settings], Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    config = write_config(settings)
    code, stdout, stderr = call(str(config), "--out", str(out), "--json")
    assert code == 0, stderr
    found = json.loads(stdout)
    wanted = {
        "out",
        "status",
        "steps",
        "best_step",
        "metric",
        "best",
        "seconds",
        "train_rows",
        "bad_rows",
        "leaks",
        "figures",
        "alpha",
        "gpu_memory_gib",
        "val",
    }
    assert set(found) == wanted
    assert (found["status"], found["steps"], found["metric"], found["train_rows"]) == ("finished", 12, "mrr", 48)
    assert found["val"]["text_to_image"]["queries"] == 16
    assert DualEncoder.from_pretrained(out).encode_text(["a red square"]).shape == (1, 16)
    card = (out / "README.md").read_text()
    inputs = json.loads((out / "run.json").read_text())["inputs"]
    assert f"`data.train`: fingerprint `{inputs['data.train']}`" in card
    assert "A cosine is not a probability" in card
    # What is shown is all that makes the same run again.
    kept = (out / "config.yaml").read_text()
    assert f"```yaml\n{kept}```" in card
    code, _, stderr = call(str(out / "config.yaml"), "--out", str(tmp_path / "again"))
    assert code == 0, stderr
    assert (
        json.loads((tmp_path / "again/run.json").read_text())["config"]
        == json.loads((out / "run.json").read_text())["config"]
    )
    assert json.loads(call(str(config), "--out", str(out), "--json")[1]) == found
    code, _, stderr = call(str(config), "train.lr=0.5", "--out", str(out))
    assert code == 2
    assert "train.lr: 0.001 → 0.5" in stderr
    code, stdout, _ = call(str(config), "--out", str(out))
    assert code == 0
    assert "recall@1" in stdout


def test_training_goes_on_from_a_saved_model(
    settings: Settings, write_config: Callable[[Settings], Path], tmp_path: Path
) -> None:
    settings["model"]["text_head"] |= {"standardise": True}
    config, first, second = write_config(settings), tmp_path / "first", tmp_path / "second"
    assert call(str(config), "train.steps=2", "--out", str(first))[0] == 0
    start = [f"model.text.name={first}", f"model.image.name={first}", f"model.heads={first}"]
    still = ["train.steps=1", "train.lr=1e-12", "train.text_lr=1e-12"]
    code, _, stderr = call(str(config), *start, *still, "--out", str(second))
    assert code == 0, stderr
    texts = ["a red square", "a blue bar of size 6"]
    before, after = (DualEncoder.from_pretrained(folder).encode_text(texts) for folder in (first, second))
    np.testing.assert_allclose(before, after, atol=1e-5)
    code, _, stderr = call(str(config), *start, "model.dim=8", "--out", str(tmp_path / "third"))
    assert code == 2
    assert "model.dim" in stderr
    code, _, stderr = call(str(config), f"model.heads={tmp_path}", "--out", str(tmp_path / "third"))
    assert code == 2
    assert "model.heads" in stderr


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.epoch=3", "did you mean 'epochs'?"),
        ("data.train=absent.csv", "absent.csv"),
        ("data.text=caption", "caption"),
        ("data.separator=;;", "data.separator: expected one character, no quote"),
        ("model.text.name=nowhere/at-all", "nowhere/at-all"),
        ("model.image.name=timm:resnet_0", "resnet_0"),
        ("objective.name=clipp", "objective.name"),
        ("train.metric=bleu", "train.metric: 'bleu' is not measured here"),
        ("train.guard={metric: sts_dev}", "train.guard.metric: 'sts_dev' is not measured here"),
        ("evaluation.sts=nowhere", "nowhere"),
        ("objective={name: simcse, info: 0}", "weight 0"),
        ("data.corpus=README.md", "data.corpus: objective clip has no term that learns from texts alone"),
        ("data.mix={pairs: 1, text: 1}", "data.mix: there is nothing to make steps of text of"),
        ("train.batch_size=7", ""),
    ],
)
def test_mistakes(
    override: str, says: str, settings: Settings, write_config: Callable[[Settings], Path], tmp_path: Path
) -> None:
    code, stdout, stderr = call(
        str(write_config(settings)), override, "train.steps=1", "--out", str(tmp_path / "run"), "--json"
    )
    if not says:
        assert code == 0, stderr
        return
    assert code == 2, stderr
    assert stdout == ""
    assert says in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_mistake_found_late_needs_no_new_folder(
    settings: Settings, write_config: Callable[[Settings], Path], tmp_path: Path
) -> None:
    config, out = str(write_config(settings)), tmp_path / "run"
    assert call(config, "--out", str(out))[0] == 0
    # As it is left by what ended before the first checkpoint.
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({"status": "running", "config": record["config"], "inputs": {}}))
    shutil.rmtree(out / "checkpoints")
    code, stdout, stderr = call(config, "train.evaluate_every=1", "--out", str(out), "--json")
    assert code == 0, stderr
    assert json.loads(stdout)["metric"] == "mrr"


def test_another_teacher_is_another_run(
    settings: Settings, write_config: Callable[[Settings], Path], tmp_path: Path
) -> None:
    settings["teachers"] = [{"name": str(tmp_path / "teacher"), "side": "text"}]  # type: ignore[assignment]
    settings["objective"] = {"name": "dalr"}
    tiny_model(image=False).save_pretrained(tmp_path / "teacher")
    config, out = str(write_config(settings)), tmp_path / "run"
    assert call(config, "--out", str(out))[0] == 0
    # As a kill before the end leaves it: with checkpoints, and no result.
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**record, "status": "running"}))
    shutil.rmtree(tmp_path / "teacher")
    tiny_model(seed=1, image=False).save_pretrained(tmp_path / "teacher")
    code, _, stderr = call(config, "--out", str(out))
    assert code == 2
    assert f"inputs changed since it began: teachers.{tmp_path / 'teacher'}: " in " ".join(stderr.split())


def test_what_it_is_measured_on_is_an_input(
    squares: Path, settings: Settings, write_config: Callable[[Settings], Path], tmp_path: Path
) -> None:
    val = tmp_path / "val.csv"
    val.write_text((squares / "val.csv").read_text())
    settings["data"] |= {"val": str(val), "root": str(squares)}
    config, out = str(write_config(settings)), tmp_path / "run"
    assert call(config, "--out", str(out))[0] == 0
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**record, "status": "running"}))
    val.write_text("".join(val.read_text().splitlines(keepends=True)[:-1]))
    code, _, stderr = call(config, "--out", str(out))
    assert code == 2
    assert "inputs changed since it began: data.val: " in " ".join(stderr.split())
    # The checkpoint knows it as well.
    for name in ("data.val", "evaluation"):
        del record["inputs"][name]
    (out / "run.json").write_text(json.dumps({**record, "status": "running"}))
    code, _, stderr = call(config, "--out", str(out))
    assert code == 2
    assert "holds checkpoints of another run; changed: inputs.data.val: " in " ".join(stderr.split())


def test_a_photo_is_an_input(
    squares: Path, settings: Settings, write_config: Callable[[Settings], Path], tmp_path: Path
) -> None:
    shutil.copytree(squares, tmp_path / "squares")
    settings["data"] |= {"train": str(tmp_path / "squares" / "train.csv")}
    config, out = str(write_config(settings)), tmp_path / "run"
    assert call(config, "--out", str(out))[0] == 0
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**record, "status": "running"}))
    shutil.copy(tmp_path / "squares/images/001.png", tmp_path / "squares/images/002.png")
    code, _, stderr = call(config, "--out", str(out))
    assert code == 2
    assert "inputs changed since it began: photos: " in " ".join(stderr.split())


def test_train_and_val_of_one_table(squares: Path, settings: Settings, write_config: Any, tmp_path: Path) -> None:
    """By its split column, spelt as it may be; without one they would be the same rows."""
    from dalr import DALRTrainer, TrainConfig

    both = str(squares / "train.csv")
    settings["data"] |= {"train": both, "val": both}
    code, _, stderr = call(str(write_config(settings)), "--out", str(tmp_path / "run"))
    assert code == 2
    assert "has no split column (data.split), so there is no split 'train'" in stderr
    settings["data"]["val"] = str(squares / "." / ".." / squares.name / "train.csv")
    assert call(str(write_config(settings)), "--out", str(tmp_path / "run"))[0] == 2
    lines = (squares / "train.csv").read_text().splitlines()
    parts = ["split", *(["Train"] * 30), *(["Val"] * 8), *(["Test"] * 10)]
    table = squares / "parts.csv"
    table.write_text("".join(f"{line},{part}\n" for line, part in zip(lines, parts, strict=True)))
    settings["data"] |= {"train": str(table), "val": None}
    code, stdout, stderr = call(str(write_config(settings)), "--out", str(tmp_path / "run"), "--dry-run", "--json")
    assert code == 0, stderr
    assert json.loads(stdout)["train_rows"] == 30
    trainer = DALRTrainer(tiny_model(), table, table, config=TrainConfig(steps=1, batch_size=4))
    assert len(trainer.data.rows["pairs"]) == 30  # type: ignore[attr-defined]


def test_what_the_guard_did_is_told(
    settings: Settings, write_config: Callable[[Settings], Path], tmp_path: Path
) -> None:
    settings["train"] |= {"guard": {"metric": "mrr", "drop": 0.0}, "evaluate_every": 1, "text_lr": 1.0, "lr": 1.0}
    code, stdout, stderr = call(str(write_config(settings)), "--out", str(tmp_path / "run"))
    assert code == 0, stderr
    said = " ".join(f"{stdout} {stderr}".split())
    assert "is too far from the" in said
    assert "training ends here" in said


def test_bad_rows_cost_themselves(
    squares: Path, settings: Settings, write_config: Callable[[Settings], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(squares, folder)
    (folder / "images" / "001.png").write_bytes(b"not a picture")
    (folder / "images" / "002.png").unlink()
    settings["data"] = {"train": str(folder / "train.csv"), "val": str(folder / "val.csv")}
    settings["train"]["steps"] = 2
    out = tmp_path / "run"
    code, stdout, stderr = call(str(write_config(settings)), "--out", str(out), "--json")
    assert code == 0, stderr
    assert (json.loads(stdout)["train_rows"], json.loads(stdout)["bad_rows"]) == (46, 2)
    bad = [json.loads(line) for line in (out / "bad_rows.jsonl").read_text().splitlines()]
    assert {row["row"] for row in bad} == {2, 3}
    assert all(row["reason"] for row in bad)


def test_a_validation_part_without_pairs_is_refused_before_training(
    settings: Settings, write_config: Callable[[Settings], Path], tmp_path: Path
) -> None:
    (tmp_path / "val.csv").write_text("image,text\n,a red square\n,a blue bar\n")
    settings["data"]["val"] = str(tmp_path / "val.csv")
    code, _, stderr = call(str(write_config(settings)), "--out", str(tmp_path / "run"))
    assert code == 2
    assert "data.val" in stderr
    assert "no row has both an image and a text" in " ".join(stderr.split())
    assert not (tmp_path / "run/log.jsonl").exists()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.patience=2", "train.patience: nothing is measured; name data.val"),
        ("train.interpolate=[0.5]", "train.interpolate: nothing is measured; name data.val"),
        pytest.param(
            "train.trackers=[wandb]",
            "train.trackers: wandb needs the package 'wandb'",
            marks=pytest.mark.skipif(find_spec("wandb") is not None, reason="naming it is no mistake"),
        ),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_read(
    settings: Settings, write_config: Callable[[Settings], Path], tmp_path: Path, override: str, told: str
) -> None:
    settings["data"]["val"] = None
    code, _, stderr = call(str(write_config(settings)), override, "--out", str(tmp_path / "run"), "--dry-run")
    assert code == 2
    assert told in " ".join(stderr.split())


def test_a_method_that_has_got_a_term_is_another(tmp_path: Path) -> None:
    """A key that a run's record lacks stands at its own default, not at what the method's profile has by now."""
    now = parse_config(
        RunConfig, {"data": {"train": "x.csv"}, "model": {"text": {"name": "new"}}, "objective": {"name": "rankcse"}}
    )
    record = {"config": now.model_dump(mode="json")}
    del record["config"]["train"]["trackers"], record["config"]["objective"]["tile"]
    check_same_run(record, now, {}, tmp_path)
    del record["config"]["objective"]["agreement"]
    with pytest.raises(UsageError, match=r"changed: objective.agreement: 0.0 → 0.1"):
        check_same_run(record, now, {}, tmp_path)


def test_a_batch_of_more_than_all_rows_is_told(
    settings: Settings, write_config: Callable[[Settings], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = str(write_config(settings))
    for size, told in ((48, False), (49, True)):
        caplog.clear()
        assert call(config, f"train.batch_size={size}", "--out", str(tmp_path / "run"), "--dry-run")[0] == 0
        assert ("a batch of 49 is more than the 48 rows of pairs" in caplog.text) == told


def test_a_dry_run_writes_nothing(settings: Settings, write_config: Callable[[Settings], Path], tmp_path: Path) -> None:
    code, stdout, stderr = call(str(write_config(settings)), "--out", str(tmp_path / "run"), "--dry-run", "--json")
    assert code == 0, stderr
    assert json.loads(stdout)["status"] == "checked"
    assert json.loads(stdout)["steps"] == 12
    for accumulate, steps in ((1, 15), (4, 15)):
        changes = ("train.steps=null", "train.epochs=5", f"train.accumulate={accumulate}", "train.batch_size=16")
        code, stdout, stderr = call(
            str(write_config(settings)), *changes, "--out", str(tmp_path / "run"), "--dry-run", "--json"
        )
        assert (code, json.loads(stdout)["steps"]) == (0, steps), stderr
    assert not (tmp_path / "run").exists()
