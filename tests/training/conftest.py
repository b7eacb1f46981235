"""A catalogue of coloured squares that trains in seconds, and the config that trains on it."""

import csv
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image, ImageDraw
from small_trainer import build

from dalr.data.manifest import DataConfig, Manifest
from dalr.evaluation.parts import Part
from dalr.model import ModelConfig
from dalr.objectives import Rows
from dalr.training_data import pair_rows

COLOURS = {"red": (200, 30, 30), "green": (30, 160, 40), "blue": (40, 60, 210), "black": (20, 20, 20)}
SHAPES = ("square", "circle", "bar", "cross")


def draw(shape: str, colour: tuple[int, int, int], size: int) -> Image.Image:
    image = Image.new("RGB", (32, 32), (240, 240, 235))
    pen = ImageDraw.Draw(image)
    box = (16 - size, 16 - size, 16 + size, 16 + size)
    if shape == "square":
        pen.rectangle(box, fill=colour)
    elif shape == "circle":
        pen.ellipse(box, fill=colour)
    else:
        pen.rectangle((16 - size, 13, 16 + size, 19), fill=colour)
        if shape == "cross":
            pen.rectangle((13, 16 - size, 19, 16 + size), fill=colour)
    return image


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.csv (48 rows), val.csv (16 rows) and their pictures."""
    folder = tmp_path_factory.mktemp("squares")
    (folder / "images").mkdir()
    rows = []
    for number, (shape, colour, size) in enumerate(itertools.product(SHAPES, COLOURS, (6, 8, 10, 12))):
        name = f"images/{number:03d}.png"
        draw(shape, COLOURS[colour], size).save(folder / name)
        rows.append((name, f"a {colour} {shape} of size {size}"))
    for name, part in (("train.csv", [r for n, r in enumerate(rows) if n % 4]), ("val.csv", rows[::4])):
        with open(folder / name, "w", newline="") as stream:
            csv.writer(stream).writerows([("image", "text"), *part])
    return folder


Settings = dict[str, dict[str, object]]


@pytest.fixture
def settings(squares: Path) -> Settings:
    """A run of 12 steps: a new text tower in training with dropout, a frozen random image tower."""
    return {
        "data": {"train": str(squares / "train.csv"), "val": str(squares / "val.csv")},
        "model": {
            "text": {
                "name": "new",
                "train": "full",
                "new": {"layers": 1, "width": 32, "heads": 2, "vocab_size": 200, "max_length": 16},
            },
            "image": {"name": "timm:test_resnet", "pretrained": False},
            "dim": 16,
            "text_head": {"kind": "mlp", "hidden": 32, "dropout": 0.1},
        },
        "objective": {"name": "clip"},
        "train": {"steps": 12, "batch_size": 16, "text_lr": 1e-3, "log_every": 1, "checkpoint_every": 3},
    }


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[Settings], Path]:
    """Write settings as a YAML config; returns its path."""

    def write(values: Settings) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


HEAD = {"kind": "mlp", "hidden": 32, "dropout": 0.1}


@pytest.fixture(scope="module")
def frozen(squares: Path) -> tuple[ModelConfig, Rows, Part]:
    """A model of two frozen random towers, the training rows as features, and the validation part."""
    shape = {
        "text": {"name": "new", "new": {"layers": 1, "width": 32, "heads": 2, "vocab_size": 200, "max_length": 16}},
        "image": {"name": "timm:test_resnet", "pretrained": False},
        "dim": 16,
        "text_head": HEAD,
        "image_head": HEAD,
    }
    config = ModelConfig.model_validate(shape)
    model = build(config, squares)
    train = Manifest.load(squares / "train.csv", DataConfig())
    val = Manifest.load(squares / "val.csv", DataConfig())
    return config, pair_rows(train, model)[1], Part(*pair_rows(val, model))
