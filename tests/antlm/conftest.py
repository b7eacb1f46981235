"""A small text to learn a language from, and configs for it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

WORDS = [
    "river",
    "mountain",
    "valley",
    "garden",
    "window",
    "letter",
    "morning",
    "winter",
    "summer",
    "harbour",
    "bridge",
    "market",
]
VERBS = ["crosses", "follows", "watches", "remembers", "paints", "leaves"]


def story(number: int) -> str:
    """Three sentences that differ from story to story."""
    first, second, third = (WORDS[(number * step + step) % len(WORDS)] for step in (1, 5, 7))
    verb = VERBS[number % len(VERBS)]
    return f"The {first} {verb} the {second}. Nobody {verb} a {third} in chapter {number}. It ends near the {first}."


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    """JSON Lines with 120 documents in the column `text`."""
    path = tmp_path / "stories.jsonl"
    path.write_text("".join(json.dumps({"id": n, "text": story(n)}) + "\n" for n in range(120)), encoding="utf-8")
    return path


@pytest.fixture
def settings(stories: Path) -> dict[str, Any]:
    """A config that trains in a second."""
    return {
        "data": {"paths": [str(stories)], "length": 32, "dev": 0.1},
        "model": {
            "tokenizer": {"vocab_size": 300},
            "new": {"layers": 1, "width": 16, "heads": 2},
            "max_length": 32,
        },
        "schedule": "2_CLM+3_MLM",
        "unit": "step",
        "train": {"batch_size": 8, "lr": 0.01, "log_every": 1, "precision": "fp32"},
    }


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    def write(values: dict[str, Any]) -> Path:
        path = tmp_path / "language.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path

    return write
