"""The training scripts that people start from.

Invariants: each runs alone at tiny size and leaves a model that loads and encodes; each trains in two CPU processes
under torchrun; their docstrings name the command that runs them; only the public Python API is imported.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_processes import environment

from dalr.encoders import ImageConfig, NewTextConfig, TextConfig, build_image_encoder, build_text_encoder
from dalr.model import DualEncoder

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Folders of a text and an image encoder with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoders")
    shape = NewTextConfig(layers=1, width=16, heads=2, vocab_size=100, max_length=32)
    (folder / "text").mkdir()
    (folder / "image").mkdir()
    build_text_encoder(TextConfig(name="new", new=shape), ["a red square", "a blue circle of size 3"]).save(
        folder / "text"
    )
    build_image_encoder(ImageConfig(name="timm:test_resnet", pretrained=False)).save(folder / "image")
    return str(folder / "text"), str(folder / "image")


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    lines = [f"the {shape} number {number} is red" for shape in ("square", "circle") for number in range(20)]
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(lines))
    return str(path)


def run(script: str, *options: str, processes: int = 1) -> str:
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
        start += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]
    done = subprocess.run(
        [*start, str(SCRIPTS / script), *options],
        env=environment(ACCELERATE_USE_CPU="true"),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_catalogue_setting(squares: Path, encoders: tuple[str, str], tmp_path: Path) -> None:
    text, image = encoders
    out = tmp_path / "run"
    data = ["--train", str(squares / "train.csv"), "--val", str(squares / "val.csv")]
    sizes = ["--epochs", "2", "--batch-size", "16", "--text", text, "--image", image, "--out", str(out)]
    assert "best mrr" in run("train_dalr.py", "catalogue", *data, *sizes)
    assert DualEncoder.from_pretrained(out).encode_text(["a red square"]).shape == (1, 256)


def test_paper_setting_in_two_processes(squares: Path, encoders: tuple[str, str], corpus: str, tmp_path: Path) -> None:
    text, image = encoders
    out = tmp_path / "run"
    data = ["--train", str(squares / "train.csv"), "--corpus", corpus]
    sizes = [
        "--epochs",
        "1",
        "--batch-size",
        "8",
        "--text",
        text,
        "--teacher",
        text,
        "--image",
        image,
        "--out",
        str(out),
    ]
    assert "model in" in run("train_dalr.py", "paper", *data, *sizes, processes=2)
    assert DualEncoder.from_pretrained(out).encode_text(["a red square"], space="sentence").shape == (1, 16)


def test_simcse(encoders: tuple[str, str], corpus: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["--corpus", corpus, "--text", encoders[0], "--epochs", "2", "--batch-size", "8", "--out", str(out)]
    assert "10 steps" in run("train_simcse.py", *options)
    assert DualEncoder.from_pretrained(out).encode_text(["red", ""]).shape == (2, 16)


@pytest.mark.parametrize("script", ["train_dalr.py", "train_simcse.py"])
def test_the_docstring_says_how_and_imports_are_public(script: str) -> None:
    tree = ast.parse((SCRIPTS / script).read_text())
    said = ast.get_docstring(tree) or ""
    assert f"scripts/{script}" in said
    assert "accelerate launch" in said
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("_")]
