"""A model of a few thousand random weights and a catalogue of a few drawn products, for tests of what reads both."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dalr.encoders import ImageConfig, NewTextConfig, TextConfig
from dalr.model import DualEncoder, ModelConfig

COLOURS = ("red", "green", "blue", "white", "black", "yellow")
KINDS = ("dress", "shoe", "bag", "lamp")
TEXT = TextConfig(name="new", train="full", new=NewTextConfig(layers=1, width=32, heads=2, vocab_size=200))
IMAGE = ImageConfig(name="timm:test_resnet", pretrained=False, image_size=32)


def tiny_model(seed: int = 0, image: bool = True) -> DualEncoder:
    """Both towers from scratch; another seed gives other weights."""
    torch.manual_seed(seed)
    corpus = [f"a {colour} {kind}" for colour in COLOURS for kind in KINDS]
    return DualEncoder.build(ModelConfig(text=TEXT, image=IMAGE if image else None, dim=16), corpus)


def draw_photo(path: Path, seed: int) -> None:
    """Noise in big squares: no two seeds look alike to any network."""
    squares = np.random.default_rng(seed).integers(0, 256, size=(4, 4, 3), dtype=np.uint8)
    Image.fromarray(squares).resize((40, 40), Image.Resampling.NEAREST).save(path)


def write_manifest(folder: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = ("image", "text")) -> Path:
    """products.csv in `folder`."""
    path = folder / "products.csv"
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def tiny_catalogue(folder: Path, products: int = 12) -> Path:
    """A manifest of `products` photos with a caption each, two captions on the first, and the second photo twice."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(products):
        draw_photo(folder / "images" / f"{number}.png", number)
        rows.append((f"images/{number}.png", f"a {COLOURS[number % 6]} {KINDS[number % 4]} number {number}"))
    (folder / "images" / "copy.png").write_bytes((folder / "images" / "1.png").read_bytes())
    rows += [("images/0.png", "the first one again"), ("images/copy.png", "a copy of the second")]
    return write_manifest(folder, rows)
