"""Checkpoints.

Invariants: what is loaded equals what was saved, bit for bit; a missing, cut or flipped file is refused by name and
the one before is used; an unfinished temporary folder is never taken for one; only the newest are kept; the
optimizer goes on as if it had never been taken apart.
"""

import json
import resource
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dalr.checkpoint import (
    BestWeights,
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    load_optimizer_tensors,
    load_trained_state,
    newest_checkpoint,
    optimizer_tensors,
    save_checkpoint,
    trained_state,
)
from dalr.errors import CheckpointError


def make(step: int) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    tensors = {"a": torch.randn(3, 4, generator=generator), "n": torch.tensor(step)}
    optimizer = {"a/exp_avg": torch.randn(3, 4, generator=generator)}
    return Checkpoint(step, tensors, optimizer, {}, {"best": 1.5}, {"train": {"seed": 0}})


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    saved = make(7)
    loaded = load_checkpoint(save_checkpoint(tmp_path, saved))
    assert loaded.step == 7
    assert (loaded.state, loaded.run, loaded.best) == ({"best": 1.5}, {"train": {"seed": 0}}, None)
    assert loaded.model.keys() == saved.model.keys()
    assert all(torch.equal(loaded.model[name], saved.model[name]) for name in saved.model)
    assert torch.equal(loaded.optimizer["a/exp_avg"], saved.optimizer["a/exp_avg"])


def test_only_the_newest_are_kept_and_leftovers_are_swept(tmp_path: Path) -> None:
    (tmp_path / ".step-00000001.killed").mkdir()
    (tmp_path / ".best.safetensors.killed").write_bytes(b"half")
    for step in (1, 2, 10, 3):
        save_checkpoint(tmp_path, make(step), keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000003", "step-00000010"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_full_disk_is_told_and_leaves_the_one_before(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, make(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(CheckpointError, match=r"step-00000002: cannot be written \(.*make room and start again"):
            save_checkpoint(tmp_path, make(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    left = newest_checkpoint(tmp_path)
    assert left is not None
    assert left.step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "state.json", "COMPLETE.json", "best.safetensors"]
)
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_harm_is_refused_by_name_and_the_one_before_is_used(
    tmp_path: Path, name: str, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    best = BestWeights(tmp_path / "best.safetensors")
    best.keep({"a": torch.ones(2)})
    save_checkpoint(tmp_path, make(1))
    path = save_checkpoint(tmp_path, replace(make(2), best=best.path)) / name
    content = path.read_bytes()
    if harm == "remove":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(content[:-1] if name != "COMPLETE.json" else content[:-5])
    else:
        path.write_bytes(content[:-4] + bytes([content[-4] ^ 1]) + content[-3:])
    if name == "COMPLETE.json" and harm == "flip":
        path.write_text(json.dumps({**json.loads(content), "format": 99}))
    with pytest.raises(CheckpointError, match="step-00000002"):
        load_checkpoint(path.parent)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1
    assert "step-00000002" in caplog.text


def test_no_whole_checkpoint_gives_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "absent") is None
    (tmp_path / "step-00000005").mkdir()
    assert newest_checkpoint(tmp_path) is None


def test_the_optimizer_goes_on_as_if_never_taken_apart(tmp_path: Path) -> None:
    def start() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
        module[0].bias.requires_grad_(False)
        wanted = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return module, torch.optim.AdamW(wanted, lr=0.1)

    def steps(module: nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> None:
        for number in numbers:
            x = torch.randn(8, 4, generator=torch.Generator().manual_seed(number))
            optimizer.zero_grad()
            module(x).square().mean().backward()
            optimizer.step()

    def names(module: nn.Module) -> dict[nn.Parameter, str]:
        return {parameter: name for name, parameter in module.named_parameters() if parameter.requires_grad}

    whole, optimizer = start()
    steps(whole, optimizer, range(6))

    first, optimizer = start()
    steps(first, optimizer, range(3))
    saved = Checkpoint(3, trained_state(first), optimizer_tensors(optimizer, names(first)), {}, {})
    loaded = load_checkpoint(save_checkpoint(tmp_path, saved))
    second, optimizer = start()
    steps(second, optimizer, range(100, 102))  # anything else, to be overwritten
    load_trained_state(second, loaded.model)
    load_optimizer_tensors(optimizer, names(second), loaded.optimizer)
    steps(second, optimizer, range(3, 6))
    state = second.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.state_dict().items())
    assert not torch.equal(first[0].weight, second[0].weight), "three more steps must move the weights"


def test_another_model_is_refused(tmp_path: Path) -> None:
    module = nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match="other parameters"):
        load_trained_state(module, {"weight": torch.zeros(2, 2)})
    with pytest.raises(CheckpointError, match="shape"):
        load_trained_state(module, {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)})
