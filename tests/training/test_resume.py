"""Exact resume: kill -9 at any moment, the same command again, and the final weights are the same bits.

Invariants: whatever the moment (before the first step, at the first and the last step of an epoch, between the
folder and the rename of a save, anywhere else), and however often, the finished model equals that of a run which was
never stopped, bit by bit, and the log holds every step once; a torn newest checkpoint costs its own steps only; a
finished run is not repeated; a changed config is refused and the change named; two runs never share a folder.

Not vacuous: a run with another seed ends with other weights, and the kills are checked to have hit a running process.
"""

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from dalr.checkpoint import list_checkpoints
from dalr.errors import DalrError, UsageError
from dalr.files import hash_file

STEPS = 45  # 15 epochs of 3 steps
Settings = dict[str, dict[str, object]]


def train(values: Settings, out: str) -> None:
    """What the process to be killed does: the same as `dalr train`."""
    import torch

    from dalr.config import parse_config
    from dalr.run import RunConfig
    from dalr.run.training import run_training

    torch.set_num_threads(1)
    run_training(parse_config(RunConfig, values), out)


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes that start in a moment, since their parent has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dalr.run.training", "accelerate", "timm", "transformers", "tokenizers"])
    return context


def start(processes: ForkServerContext, values: Settings, out: Path) -> ForkServerProcess:
    process = processes.Process(target=train, args=(values, str(out)))
    process.start()
    return process


def finish(processes: ForkServerContext, values: Settings, out: Path) -> dict[str, str]:
    """Run to the end; returns the hash of every file of the model."""
    process = start(processes, values, out)
    process.join(120)
    assert process.exitcode == 0
    return model_hashes(out)


def model_hashes(out: Path) -> dict[str, str]:
    files = [path for path in sorted(out.rglob("*.safetensors")) if "checkpoints" not in path.parts]
    return {str(path.relative_to(out)): hash_file(path) for path in files}


def kill_when(process: ForkServerProcess, moment: Callable[[], bool]) -> bool:
    """SIGKILL as soon as `moment()` is true; False when the process ended before."""
    while process.is_alive():
        if moment():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join(30)
            return process.exitcode == -signal.SIGKILL
        time.sleep(0.0005)
    return False


def logged(out: Path) -> list[dict[str, Any]]:
    found = []
    with contextlib.suppress(FileNotFoundError):
        for line in (out / "log.jsonl").read_text().splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
    return found


def reached(out: Path, step: int) -> Callable[[], bool]:
    return lambda: any(event["event"] == "step" and event["step"] >= step for event in logged(out))


def saving(out: Path) -> Callable[[], bool]:
    return lambda: any((out / "checkpoints").glob(".step-*"))


@pytest.fixture
def long(settings: Settings) -> Settings:
    settings["train"] |= {"steps": STEPS, "ema": 0.9, "checkpoint_every": 2, "clip_norm": 0.5}
    return settings


@pytest.fixture(scope="module")
def reference(
    tmp_path_factory: pytest.TempPathFactory, processes: ForkServerContext
) -> Callable[[Settings], tuple[dict[str, str], list[dict[str, Any]]]]:
    """The model and the log of a run that is never stopped, once a config."""
    known: dict[str, tuple[dict[str, str], list[dict[str, Any]]]] = {}

    def get(values: Settings) -> tuple[dict[str, str], list[dict[str, Any]]]:
        key = json.dumps(values, sort_keys=True)
        if key not in known:
            out = tmp_path_factory.mktemp("whole") / "run"
            known[key] = finish(processes, values, out), steps_of(out)
        return known[key]

    return get


def steps_of(out: Path) -> list[dict[str, Any]]:
    """The logged steps without what a clock says."""
    clock = {"examples_per_second", "data_wait", "seconds", "seconds_left"}
    return [
        {name: value for name, value in event.items() if name not in clock}
        for event in logged(out)
        if event["event"] == "step"
    ]


def test_killed_at_chosen_and_random_moments(
    long: Settings, tmp_path: Path, processes: ForkServerContext, reference: Any
) -> None:
    expected, steps = reference(long)
    assert len(expected) >= 2
    out = tmp_path / "run"
    moments: list[Callable[[], bool]] = [
        reached(out, 1),
        reached(out, 3),  # last step of the first epoch
        reached(out, 4),  # first step of the second
        saving(out),
        reached(out, 20),
        saving(out),
        reached(out, STEPS),  # the last step: evaluation, the last save and the model are still to come
    ]
    hits = [kill_when(start(processes, long, out), moment) for moment in moments]
    generator = random.Random(os.getpid())
    for _ in range(2):
        limit = time.monotonic() + generator.uniform(0.2, 3.0)
        kill_when(start(processes, long, out), lambda limit=limit: time.monotonic() > limit)
    assert sum(hits) >= len(moments) - 2, hits
    assert finish(processes, long, out) == expected
    assert steps_of(out) == steps
    assert [event["step"] for event in steps] == list(range(1, STEPS + 1))


def test_a_torn_newest_checkpoint_costs_only_its_own_steps(
    long: Settings, tmp_path: Path, processes: ForkServerContext, reference: Any
) -> None:
    expected, _ = reference(long)
    out = tmp_path / "run"
    assert kill_when(start(processes, long, out), reached(out, 25))
    newest = list_checkpoints(out / "checkpoints")[-1]
    path = newest / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    assert finish(processes, long, out) == expected
    resumed = [event["step"] for event in logged(out) if event["event"] == "resume"]
    assert 0 < resumed[-1] < int(newest.name.removeprefix("step-"))


def test_another_seed_gives_other_weights(long: Settings, tmp_path: Path, processes: Any, reference: Any) -> None:
    expected, _ = reference(long)
    long["train"] |= {"seed": 1}
    other = finish(processes, long, tmp_path / "run")
    assert other.keys() == expected.keys()
    assert all(other[name] != expected[name] for name in expected if "image" not in name)


def test_a_finished_run_is_not_repeated_and_a_changed_config_is_named(
    settings: Settings, tmp_path: Path, processes: ForkServerContext
) -> None:
    from dalr.config import parse_config
    from dalr.run import RunConfig
    from dalr.run.training import run_training

    settings["train"] |= {"steps": 3}
    out = tmp_path / "run"
    before = finish(processes, settings, out)
    stamp = (out / "run.json").stat().st_mtime_ns
    assert run_training(parse_config(RunConfig, settings), out).steps == 3
    assert (out / "run.json").stat().st_mtime_ns == stamp
    assert model_hashes(out) == before
    changed = {**settings, "train": {**settings["train"], "lr": 0.5}}
    with pytest.raises(UsageError, match=r"train\.lr: 0\.001 → 0\.5"):
        run_training(parse_config(RunConfig, changed), out)
    # An earlier version of the package did not know some key: its run stands at that key's default.
    record = json.loads((out / "run.json").read_text())
    assert record["config"]["train"].pop("ema") is None
    (out / "run.json").write_text(json.dumps(record))
    assert run_training(parse_config(RunConfig, settings), out).steps == 3
    averaged = {**settings, "train": {**settings["train"], "ema": 0.9}}
    with pytest.raises(UsageError, match=r"train\.ema: None → 0\.9"):
        run_training(parse_config(RunConfig, averaged), out)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(DalrError, match="not a run folder"):
        run_training(parse_config(RunConfig, settings), tmp_path / "photos")


def test_two_runs_never_share_a_folder(long: Settings, tmp_path: Path, processes: ForkServerContext) -> None:
    from dalr.config import parse_config
    from dalr.run import RunConfig
    from dalr.run.training import run_training

    out = tmp_path / "run"
    process = start(processes, long, out)
    try:
        deadline = time.monotonic() + 60
        while not (out / "run.json").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid or 0, signal.SIGSTOP)  # it holds the folder and does not move
        with pytest.raises(UsageError, match="another process is training"):
            run_training(parse_config(RunConfig, long), out)
    finally:
        process.kill()
        process.join(30)


@pytest.mark.slow
def test_compiled_training_resumes_exactly_too(
    long: Settings, squares: Path, tmp_path: Path, processes: ForkServerContext, reference: Any
) -> None:
    # Texts of different lengths, so that after the kill other shapes come first than in the whole run.
    shutil.copytree(squares, tmp_path / "data")
    lines = (squares / "train.csv").read_text().splitlines()
    longer = [line + " seen from the side" * (number % 7 == 3) for number, line in enumerate(lines)]
    (tmp_path / "data/train.csv").write_text("\n".join(longer))
    long["data"] |= {"train": str(tmp_path / "data/train.csv")}
    long["model"]["text"]["new"]["max_length"] = 24  # type: ignore[index]
    long["train"] |= {"compile": True, "batch_size": 4}
    expected, _ = reference(long)
    out = tmp_path / "run"
    assert kill_when(start(processes, long, out), reached(out, 20))
    assert finish(processes, long, out) == expected
