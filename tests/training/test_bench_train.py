"""`dalr bench train` runs whole and reports ratios of runs that took turns.

Invariants: every figure has median, min and max in order; both of our loops and the bare one really trained (times
above zero); a tower in training is refused, since the bare loop reads features.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training_processes import environment

Settings = dict[str, dict[str, Any]]


def run(config: Path) -> subprocess.CompletedProcess[str]:
    options = ["--steps", "10", "--rounds", "1", "--json"]
    command = [sys.executable, "-m", "dalr", "bench", "train", str(config), *options]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)


def test_it_runs_whole(settings: Settings, write_config: Callable[[Settings], Path]) -> None:
    settings["model"]["text"]["train"] = "frozen"
    settings["train"] |= {"guard": {"metric": "mrr", "drop": 1.0}, "patience": 2}  # a bench measures nothing as it goes
    done = run(write_config(settings))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["steps"] == 10
    for figure in (
        found["bare_seconds"],
        *(found[name][part] for name in ("clip", "own") for part in ("seconds", "ratio")),
    ):
        assert 0 < figure["min"] <= figure["median"] <= figure["max"]


def test_a_tower_in_training_is_refused(settings: Settings, write_config: Callable[[Settings], Path]) -> None:
    done = run(write_config(settings))
    assert done.returncode == 2
    assert "both towers must be frozen" in done.stderr
    del settings["model"]["image"]
    settings["objective"] = {"name": "simcse"}
    done = run(write_config(settings))
    assert done.returncode == 2
    assert "trains on no pairs" in done.stderr


def test_language_modelling_beside_transformers(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("".join(f"the river number {n} crosses the old bridge\n" for n in range(200)))
    config = tmp_path / "language.yaml"
    config.write_text(
        f"data: {{paths: ['{tmp_path / 'text.txt'}'], length: 16, packing: sentence}}\n"
        "model: {tokenizer: {vocab_size: 200}, new: {layers: 1, width: 16, heads: 2}}\n"
        "schedule: CLM→MLM\ntrain: {batch_size: 4, epochs: 3}\n"
    )
    # A decoder, trained causally; an encoder is what README's command trains.
    options = ["model.new.preset=babyllama", "--steps", "3", "--rounds", "1", "--json"]
    command = [sys.executable, "-m", "dalr", "bench", "language", str(config), *options]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["tokens"] > 3 * 4 * 8
    for figure in (found["transformers_seconds"], found["ours"]["seconds"], found["ours"]["ratio"]):
        assert 0 < figure["min"] <= figure["median"] <= figure["max"]
    assert set(found["tokens_per_second"]) == {"transformers", "ours"}
