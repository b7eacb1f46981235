"""Strict configuration.

Invariants: an unknown key is refused and the nearest right key is named, at any depth; a value of the wrong type
or range is refused with its dotted key; overrides win over the file; `1e-4` is a number; nothing is ignored.
"""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from dalr.config import Config, apply_overrides, load_config, parse_config
from dalr.errors import ConfigError


class Optimizer(Config):
    lr: Annotated[float, Field(gt=0)] = 1e-3
    warmup: float = 0.0


class Tower(Config):
    name: str
    train: Literal["frozen", "full"] = "frozen"


class Whole(Config):
    train: Optimizer = Optimizer()
    text: Tower | None = None
    teachers: list[Tower] = Field(default_factory=list)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_file_and_overrides(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "train: {lr: 1e-4}\ntext: {name: x}\n")
    config = load_config(Whole, path, ["train.warmup=0.5", "text.train=full"])
    assert config.train.lr == 1e-4
    assert config.train.warmup == 0.5
    assert config.text == Tower(name="x", train="full")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.lrr=1", "unknown key 'train.lrr'; did you mean 'lr'?"),
        ("trian.lr=1", "unknown key 'trian'; did you mean 'train'?"),
        ("text.frozen=1", "unknown key 'text.frozen'"),
        ("warmup=0.5", "unknown key 'warmup'; did you mean 'train.warmup'?"),
        ("train.lr=fast", "train.lr:"),
        ("train.lr=-1", "train.lr: Input should be greater than 0"),
        ("train.lr=.nan", "train.lr:"),
        ("text.train=half", "text.train:"),
        ("train", "expected KEY=VALUE"),
        ("train.lr.x=1", "train.lr: Input should be a valid number"),
        ("text.name.x=1", "'name' holds a value, not a section"),
        ("teachers=[{name: a, trian: full}]", "unknown key 'teachers.0.trian'; did you mean 'train'?"),
    ],
)
def test_refusals_name_the_key(tmp_path: Path, override: str, says: str) -> None:
    path = write(tmp_path / "a.yaml", "text: {name: x}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(Whole, path, [override])
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("train: [", "is not valid YAML"),
        ("- a", "expected a mapping"),
        ("train: {lr: 1}\ntrain: {lr: 2}", "key 'train' is given twice"),
        ("text: {name: !!python/object/apply:os.system [true]}", "is not valid YAML"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config(Whole, write(tmp_path / "a.yaml", text))


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(Whole, tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(Whole, tmp_path / "b.yaml")


def test_environment_is_expanded_and_a_missing_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "/there")
    config = parse_config(Whole, {"text": {"name": "${PLACE}/x"}})
    assert config.text is not None
    assert config.text.name == "/there/x"
    monkeypatch.delenv("PLACE")
    with pytest.raises(ConfigError, match=r"text\.name: the environment variable PLACE is not set"):
        parse_config(Whole, {"text": {"name": "${PLACE}/x"}})


def test_overrides_leave_their_input_alone() -> None:
    values = {"train": {"lr": 1.0}}
    assert apply_overrides(values, ["train.lr=2", "text.name=a"]) == {"train": {"lr": 2}, "text": {"name": "a"}}
    assert values == {"train": {"lr": 1.0}}
