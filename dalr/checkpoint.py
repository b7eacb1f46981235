"""Checkpoints that a kill, a power cut or a flipped bit cannot make lie.

A checkpoint is a folder `checkpoints/step-00000120` with tensors as safetensors and the rest as JSON. It is
written under a temporary name, flushed to the disk, and renamed; `COMPLETE.json` holds the hash of every file and
is checked before anything is loaded. A torn or altered one is refused by name and the one before it is used.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dalr.errors import CheckpointError, one_line
from dalr.files import hash_file, new_folder, remove, write_atomically, write_json

log = logging.getLogger(__name__)

SEAL, BEST = "COMPLETE.json", "best.safetensors"
FORMAT = 2
_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on as if it had never stopped.

    Attributes:
        step: optimizer steps done.
        model: trained parameters and buffers of model and objective.
        optimizer: the optimizer's tensors as `parameter name/state name`.
        ema: running averages of the parameters, empty without EMA.
        state: plain values (best metric, patience, epoch figures).
        run: what it is a checkpoint of, as plain values: no other run may go on from it.
        best: file of the weights that evaluated best until then, or None.
    """

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    ema: dict[str, Tensor]
    state: dict[str, Any]
    run: dict[str, Any] = field(default_factory=dict)
    best: Path | None = None


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int = 2) -> Path:
    """Write `checkpoint` below `folder` and remove all but the newest `keep`; returns its folder."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    target = folder / f"step-{checkpoint.step:08d}"
    try:
        with new_folder(target) as temporary:
            for name in ("model", "optimizer", "ema"):
                tensors = {key: value.detach().cpu().contiguous() for key, value in getattr(checkpoint, name).items()}
                save_file(tensors, temporary / f"{name}.safetensors")
            write_json(temporary / "state.json", checkpoint.state)
            write_json(temporary / "run.json", checkpoint.run)
            if checkpoint.best is not None:
                link_or_copy(checkpoint.best, temporary / BEST)
            files = {path.name: hash_file(path) for path in sorted(temporary.iterdir())}
            write_json(temporary / SEAL, {"format": FORMAT, "step": checkpoint.step, "files": files})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{target}: cannot be written ({one_line(error)}); make room and start again: the run goes on from the "
            "checkpoint before"
        ) from None
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    # What is hidden here was being written when a process was killed: a checkpoint, or the best weights.
    for leftover in folder.glob(".*"):
        remove(leftover)
    return target


def list_checkpoints(folder: Path) -> list[Path]:
    """Folders named as checkpoints, oldest first, sealed or not."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint after checking every file's hash; CheckpointError names what is wrong."""
    from safetensors.torch import load_file

    seal = verify_checkpoint(path)
    return Checkpoint(
        step=seal["step"],
        model=load_file(path / "model.safetensors"),
        optimizer=load_file(path / "optimizer.safetensors"),
        ema=load_file(path / "ema.safetensors"),
        state=json.loads((path / "state.json").read_text(encoding="utf-8")),
        run=json.loads((path / "run.json").read_text(encoding="utf-8")),
        best=path / BEST if BEST in seal["files"] else None,
    )


def verify_checkpoint(path: Path) -> dict[str, Any]:
    """Check the seal and the hash of every file; returns the seal."""
    try:
        seal = json.loads((path / SEAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CheckpointError(f"{path}: has no readable {SEAL}: its writing was cut off") from None
    if not isinstance(seal, dict) or seal.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format {seal.get('format') if isinstance(seal, dict) else '?'} is not {FORMAT}")
    for name, expected in seal["files"].items():
        try:
            found = hash_file(path / name)
        except OSError:
            raise CheckpointError(f"{path / name}: is missing") from None
        if found != expected:
            raise CheckpointError(f"{path / name}: its content does not have the hash it was saved with")
    return seal


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None; each one refused is named in a warning."""
    for path in reversed(list_checkpoints(folder)):
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            log.warning("checkpoint refused, using the one before it: %s", error)
    return None


def trained_state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters in training and all buffers by name; frozen weights never change and are not repeated."""
    state = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    persistent = module.state_dict(keep_vars=True)
    return state | {name: buffer for name, buffer in module.named_buffers() if name in persistent}


def load_trained_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy `state` into `module`; CheckpointError when names or shapes differ."""
    current = trained_state(module)
    if current.keys() != state.keys():
        different = sorted(current.keys() ^ state.keys())[:3]
        raise CheckpointError(f"the checkpoint holds other parameters than this model; they differ in {different}")
    with torch.no_grad():
        for name, tensor in current.items():
            if tensor.shape != state[name].shape:
                raise CheckpointError(f"{name}: shape {tuple(state[name].shape)} is not {tuple(tensor.shape)}")
            tensor.copy_(state[name])


class BestWeights:
    """The weights that evaluated best so far: in a file, written whole or not at all, or in memory without one."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.tensors: dict[str, Tensor] = {}

    def keep(self, state: Mapping[str, Tensor]) -> None:
        """Take these weights in place of the earlier ones."""
        from safetensors.torch import save

        if self.path is None:
            self.tensors = {name: value.detach().cpu().clone() for name, value in state.items()}
        else:
            tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
            write_atomically(self.path, save(tensors))

    def restore(self, saved: Path) -> None:
        """Take those of a checkpoint: what was kept after it belongs to steps that are yet to be done again."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            link_or_copy(saved, self.path)

    def load(self) -> dict[str, Tensor]:
        """The weights last kept."""
        from safetensors.torch import load_file

        return self.tensors if self.path is None else load_file(self.path)


def link_or_copy(source: Path, target: Path) -> None:
    """`target` with the content of `source`: without a second copy on the disk where the file system can do that."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[nn.Parameter, str]) -> dict[str, Tensor]:
    """An optimizer's state as flat tensors named `parameter/state`; safetensors holds them, nothing is pickled."""
    return {
        f"{name}/{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for parameter, name in names.items()
        for state in [optimizer.state.get(parameter, {})]
        for key, value in state.items()
    }


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, names: Mapping[nn.Parameter, str], tensors: Mapping[str, Tensor]
) -> None:
    """Put flat tensors of `optimizer_tensors` back into the optimizer."""
    by_name = {name: parameter for parameter, name in names.items()}
    optimizer.state.clear()
    for key, tensor in tensors.items():
        name, _, field = key.rpartition("/")
        if name not in by_name:
            raise CheckpointError(f"the checkpoint's optimizer holds '{name}', which this run does not train")
        parameter = by_name[name]
        optimizer.state[parameter][field] = tensor.to(parameter.device)
