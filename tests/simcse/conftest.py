"""A tiny sentence world: templated sentences, scored pairs, triplets, tasks, and a pipeline that trains on them."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

COLOURS = ("red", "green", "blue", "black")
THINGS = ("dress", "lamp", "shoe", "bag")
SENTENCES = [f"a {colour} {thing} of size {size}" for colour in COLOURS for thing in THINGS for size in (1, 2, 3)]
Settings = dict[str, Any]


def score(first: str, second: str) -> float:
    """5 for the same colour and thing, less with each that differs."""
    a, b = first.split(), second.split()
    return 5.0 * ((a[1] == b[1]) + (a[2] == b[2])) / 2


def write(path: Path, rows: list[tuple[Any, ...]], separator: str = "\t") -> str:
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=separator).writerows(rows)
    return str(path)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with corpus.txt, scores.tsv, dev.tsv, triplets.csv and classes.tsv."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "corpus.txt").write_text("\n".join(SENTENCES))
    pairs = [(a, b, score(a, b)) for n, a in enumerate(SENTENCES) for b in SENTENCES[n % 5 :: 5] if a != b]
    heading = ("sentence1", "sentence2", "score")
    write(folder / "scores.tsv", [heading, *pairs[::4]])
    write(folder / "dev.tsv", [heading, *pairs[1::16]])
    write(folder / "duplicates.tsv", [("sentence1", "sentence2", "label"), *((a, b, int(y == 5)) for a, b, y in pairs)])
    triplets = [
        (text, text.rpartition(" of")[0], SENTENCES[(row + 20) % len(SENTENCES)]) for row, text in enumerate(SENTENCES)
    ]
    write(folder / "triplets.csv", [("anchor", "positive", "negative"), *triplets], ",")
    classes = [(text, COLOURS.index(text.split()[1])) for text in SENTENCES]
    write(folder / "classes.tsv", [("sentence", "sentiment"), *classes])
    return folder


@pytest.fixture
def pipeline(world: Path) -> Settings:
    """Three stages of a few steps from a new encoder."""
    dev = {"dev": {"path": str(world / "dev.tsv")}}
    return {
        "model": {"text": {"name": "new", "new": {"layers": 1, "width": 32, "heads": 2, "vocab_size": 200}}},
        "train": {"steps": 4, "batch_size": 16, "text_lr": 1e-3, "log_every": 1, "checkpoint_every": 2},
        "leaks": {"pairs": dev},
        "evaluation": {"pairs": dev},
        "stages": {
            "sts": {"data": {"scores": [{"path": str(world / "scores.tsv")}]}},
            "unsup": {"data": {"corpus": str(world / "corpus.txt")}},
            "sup": {"data": {"triplets": str(world / "triplets.csv")}},
        },
    }


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[Settings], Path]:
    """Write settings as a YAML config; returns its path."""

    def write_yaml(values: Settings) -> Path:
        path = tmp_path / "pipeline.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    return write_yaml
