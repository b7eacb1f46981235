"""Every shipped config of one run (grids of runs are tested in test_study.py).

Invariants: each parses against the real types as it lies there; a key misspelt anywhere in it is refused and the
right one named; its first losses are those of the stored golden trace (one thread; stored by
`python tests/test_configs.py NAME`, to be renewed only by a change that is meant to change numbers).
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dalr.antlm.config import LanguageConfig
from dalr.config import Config, as_yaml, load_config, parse_config
from dalr.errors import ConfigError
from dalr.experts.labels import LabelConfig
from dalr.run import RunConfig, load_run_config
from dalr.run.stages import stage_config
from dalr.simcse.stages import PipelineConfig
from dalr.training_log import read_log

ROOT = Path(__file__).parents[1]
CONFIGS = [path for path in sorted((ROOT / "configs").rglob("*.yaml")) if "\nmethods:" not in path.read_text()]
GOLDEN = Path(__file__).parent / "golden"
STEPS = 20
# Sections whose keys are names of one's own.
FREE = {"stages", "evaluation.pairs", "leaks.pairs", "stages.tasks.tasks", "experts"}


@pytest.fixture(autouse=True)
def somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    if "DALR_DATA" not in os.environ:
        monkeypatch.setenv("DALR_DATA", "data")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_it_parses(path: Path) -> None:
    values = yaml.safe_load(path.read_text())
    config = load_config(kind_of(values), path)
    assert parse_config(type(config), config.model_dump(mode="json")) == config
    assert parse_config(type(config), yaml.safe_load(as_yaml(config))) == config
    check_whole(values)


def kind_of(values: dict[str, Any]) -> type[Config]:
    """What kind of config `dalr train` or `dalr label` takes these values for."""
    known = {"stages": PipelineConfig, "schedule": LanguageConfig, "experts": LabelConfig}
    return next((kind for key, kind in known.items() if key in values), RunConfig)


def check_whole(values: dict[str, Any]) -> None:
    """Parse a config as `dalr train` does, a pipeline with all its stages."""
    if "stages" not in values:
        parse_config(kind_of(values), values)
        return
    config = parse_config(PipelineConfig, values)
    for number, name in enumerate(config.names):
        stage = stage_config(config, name, config.values(name, "before" if number else None), "config")
        assert stage.model.text is not None


def misspelt(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(dotted key, the right name, the whole config with that key misspelt) for every key below a section."""
    for key, content in values.items():
        if path:
            wrong = {**{k: v for k, v in values.items() if k != key}, f"{key}x": content}
            yield ".".join((*path, f"{key}x")), key, wrong
        if isinstance(content, dict):
            for dotted, name, inside in misspelt(content, (*path, key)):
                yield dotted, name, {**values, key: inside}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_misspelt_key_is_named(path: Path) -> None:
    values = yaml.safe_load(path.read_text())
    for dotted, name, wrong in misspelt(values):
        if dotted.rpartition(".")[0] in FREE:
            continue
        with pytest.raises(ConfigError) as caught:
            check_whole(wrong)
        assert f"{dotted.rpartition('.')[2]}'" in str(caught.value), dotted
        assert f"'{name}'" in str(caught.value), dotted


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
