"""Every shipped config.

Invariants: each parses against the real types as it lies there; a key misspelt anywhere in it is refused and the
right one named; its first losses are those of the stored golden trace (one thread; stored by
`python tests/test_configs.py NAME`, to be renewed only by a change that is meant to change numbers).
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dalr.config import parse_config
from dalr.errors import ConfigError
from dalr.run import RunConfig, load_run_config
from dalr.training_log import read_log

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
GOLDEN = Path(__file__).parent / "golden"
STEPS = 20


@pytest.fixture(autouse=True)
def somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    if "DALR_DATA" not in os.environ:
        monkeypatch.setenv("DALR_DATA", "data")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_it_parses(path: Path) -> None:
    config = load_run_config(path)
    assert parse_config(RunConfig, config.model_dump(mode="json")) == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_misspelt_key_is_named(path: Path) -> None:
    values = yaml.safe_load(path.read_text())
    for section, content in values.items():
        if not isinstance(content, dict):
            continue
        for key in content:
            wrong = {**values, section: {**{k: v for k, v in content.items() if k != key}, f"{key}x": content[key]}}
            with pytest.raises(ConfigError) as caught:
                parse_config(RunConfig, wrong)
            assert f"'{section}.{key}x'" in str(caught.value)
            assert f"'{key}'" in str(caught.value)


def first_losses(name: str, out: Path, folder: Path) -> list[float]:
    """The losses of the first steps of a shipped config; fashion on its first 400 rows, so that it takes seconds."""
    import torch

    from dalr.run.training import run_training

    torch.set_num_threads(1)
    overrides = [f"train.steps={STEPS}", "train.log_every=1", "evaluation.retrieval=false", "data.val=null"]
    if name == "fashion":
        source = Path(os.environ["DALR_DATA"]) / "fashion"
        small = folder / "train.csv"
        small.write_text("".join((source / "train.csv").read_text().splitlines(keepends=True)[:401]))
        overrides += [f"data.train={small}", f"data.root={source}", "train.batch_size=64"]
    else:
        overrides += ["train.batch_size=32"]
    run_training(load_run_config(ROOT / "configs" / f"{name}.yaml", overrides), out)
    return [event["loss"] for event in read_log(out / "log.jsonl") if event["event"] == "step"]


@pytest.mark.parametrize("name", ["demo", pytest.param("fashion", marks=pytest.mark.data)])
def test_golden_trace(name: str, tmp_path: Path) -> None:
    found = first_losses(name, tmp_path / "run", tmp_path)
    expected: list[float] = json.loads((GOLDEN / f"{name}.json").read_text())
    assert len(found) == STEPS
    # Processors round differently; a change of the recipe moves a loss by far more than this.
    assert found == pytest.approx(expected, rel=2e-3)
    assert found[-1] < found[0]


def store(names: Any) -> None:
    """Write the golden traces of these configs."""
    import tempfile

    GOLDEN.mkdir(exist_ok=True)
    os.chdir(ROOT)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            losses = first_losses(name, Path(folder) / "run", Path(folder))
        (GOLDEN / f"{name}.json").write_text(json.dumps([round(loss, 6) for loss in losses], indent=1) + "\n")


if __name__ == "__main__":
    store(sys.argv[1:])
