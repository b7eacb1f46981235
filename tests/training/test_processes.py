"""Several processes train as one.

Invariants: with dropout 0 and the same global batch, the first 20 losses of two gloo processes equal those of one
to 1e-5, also in the cached two-pass step and where text-only steps are mixed in; the world size is 2 (a launcher
that quietly starts one process would pass everything else); a batch that cannot be shared evenly is refused.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_processes import environment

Settings = dict[str, dict[str, Any]]

# Asserts the world size in every process, then does what the command line does.
LAUNCH = """
import sys
from accelerate import PartialState
from dalr.devices import on_cpu
assert PartialState(cpu=on_cpu()).num_processes == int(sys.argv[1]), PartialState().num_processes
import torch
torch.set_num_threads(1)
from dalr.run import load_run_config
from dalr.run.training import run_training
run_training(load_run_config(sys.argv[2]), sys.argv[3])
"""


@pytest.fixture
def quiet(settings: Settings, tmp_path: Path) -> Settings:
    """20 steps of DALR without any dropout, on pairs and on sentences."""
    sentences = [f"the {shape} is {colour}" for shape in ("square", "circle", "bar") for colour in ("red", "blue")]
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(sentences * 4))
    settings["data"] |= {"corpus": str(corpus), "mix": {"pairs": 2, "text": 1}}
    settings["model"]["text"]["new"] |= {"dropout": 0.0}
    settings["model"]["text_head"] = {"kind": "linear"}
    settings["objective"] = {"name": "dalr", "profile": "paper", "learn_temperature": True, "matching": True}
    settings["teachers"] = [{"name": "TEACHER", "side": "text"}]
    settings["train"] |= {"steps": 20, "lr": 1e-3, "gradient_norms_every": None}
    return settings


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small text encoder with random weights, as a folder."""
    import torch

    from dalr.encoders import NewTextConfig, TextConfig, build_text_encoder

    torch.manual_seed(3)
    shape = NewTextConfig(layers=1, width=16, heads=2, vocab_size=100, max_length=16)
    folder = tmp_path_factory.mktemp("teacher")
    build_text_encoder(TextConfig(name="new", new=shape), ["a red square", "a blue circle of size 3"]).save(folder)
    return str(folder)


def run(processes: int, config: Path, out: Path, script: Path) -> list[float]:
    """Train in so many processes; the losses of its steps."""
    script.write_text(LAUNCH)
    start = [sys.executable] if processes == 1 else [sys.executable, "-m", "torch.distributed.run"]
    if processes > 1:
        start += ["--nproc_per_node", str(processes), "--master_port", "0", "--rdzv_backend", "c10d"]
        start += ["--rdzv_endpoint", "localhost:0"]
    done = subprocess.run(
        [*start, str(script), str(processes), str(config), str(out)],
        env=environment(ACCELERATE_USE_CPU="true"),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    events = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [event["loss"] for event in events if event["event"] == "step"]


@pytest.mark.parametrize("chunk", [None, 3], ids=["plain", "cached"])
def test_two_processes_equal_one(
    quiet: Settings, teacher: str, chunk: int | None, tmp_path: Path, write_config: Callable[[Settings], Path]
) -> None:
    quiet["teachers"][0]["name"] = teacher  # type: ignore[index]
    quiet["train"]["chunk"] = chunk
    config = write_config(quiet)
    alone = run(1, config, tmp_path / "one", tmp_path / "launch.py")
    together = run(2, config, tmp_path / "two", tmp_path / "launch.py")
    assert len(alone) == 20
    assert together == pytest.approx(alone, abs=1e-5)
    assert alone[-1] < alone[0]


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    from dalr.data.streams import process_slice
    from dalr.errors import DataError

    with pytest.raises(DataError, match="does not divide"):
        process_slice(__import__("numpy").arange(5), 0, 2)
