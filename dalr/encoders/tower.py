"""What text and image towers share: the training mode, the weights as they are saved, and the fingerprint."""

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from dalr.encoders.lora import LoraConfig, add_lora, merged_state
from dalr.errors import ConfigError, ModelError, one_line
from dalr.files import hash_json, hash_tensors

MORE_THAN_TENSORS = "holds more than tensors, and code in a weights file is not run; convert it to safetensors"
Train = Literal["frozen", "lora", "full"]


class Tower(nn.Module):
    """Base of `TextEncoder` and `ImageEncoder`.

    A frozen tower has no parameter with `requires_grad` and stays in eval mode whatever `train()` is called
    with: no dropout, no moving batch-norm statistics. A `lora` tower keeps its batch-norm statistics too, since
    what it saves is the base plus the adapters.
    """

    train_mode: Train = "frozen"

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`, but for what is frozen."""
        super().train(mode and self.train_mode != "frozen")
        if self.train_mode == "lora":
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.train(False)
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def description(self) -> dict[str, Any]:
        """Everything but the weights that decides the tower's output, as JSON values."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """32 hex digits over weights and `description`: equal after save and load, different when either changes."""
        return hash_json({"weights": hash_tensors(merged_state(self)), "description": self.description()})


def set_training(
    tower: Tower, backbone: nn.Module, train: Train, lora: LoraConfig, probe: Callable[[], Tensor]
) -> None:
    """Freeze the tower, open it whole, or give its backbone LoRA adapters.

    `probe` runs the tower on a tiny input. What its output does not depend on (an unused pooler, a head) is
    frozen in every mode, since under DDP no parameter may stay without a gradient.

    Raises MissingExtraError when LoRA is wanted and peft is not installed.
    """
    tower.train_mode = train
    if train != "full":  # else what the library itself keeps fixed (sinusoidal positions) stays fixed
        tower.requires_grad_(False)
    if train == "lora":
        add_lora(backbone, lora)
        for name, parameter in tower.named_parameters():
            if name.startswith("pooling."):
                parameter.requires_grad_(True)
    if train != "frozen":
        try:
            freeze_unused(tower, probe)
        except (AttributeError, TypeError) as error:
            if train != "lora":
                raise
            raise ConfigError(
                f"train: lora: this network looks into layers that have an adapter now ({error}); "
                "name others in lora.targets"
            ) from None
    tower.eval()


def freeze_unused(tower: Tower, probe: Callable[[], Tensor]) -> None:
    """Freeze every parameter that gets no gradient from the output of `probe`, called in eval mode."""
    tower.eval()
    with torch.enable_grad():
        output = probe()
    wanted = [parameter for parameter in tower.parameters() if parameter.requires_grad]
    gradients: Sequence[Tensor | None] = torch.autograd.grad(output.sum(), wanted, allow_unused=True)
    for parameter, gradient in zip(wanted, gradients, strict=True):
        if gradient is None:
            parameter.requires_grad_(False)


def save_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a state dict as safetensors; tensors that share memory are written once each under every name."""
    from safetensors.torch import save_file

    seen: set[int] = set()
    tensors = {}
    for name, tensor in state.items():
        value = tensor.detach().cpu().contiguous()
        tensors[name] = value.clone() if value.data_ptr() in seen else value
        seen.add(value.data_ptr())
    save_file(tensors, path, metadata={"format": "pt"})


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a pickle that holds nothing else (it is never run).

    Raises ModelError when the file is missing, damaged, or holds more than tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)  # type: ignore[no-any-return]
        return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]
    except pickle.UnpicklingError:
        raise ModelError(f"{path}: {MORE_THAN_TENSORS}") from None
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as weights ({one_line(error, 300)})") from None


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a weights file into a module; every name and shape must fit. Raises ModelError when they do not."""
    try:
        state = OrderedDict(read_weights(path))
        state._metadata = module.state_dict()._metadata  # type: ignore[attr-defined] # MNASNet asks for its version
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = one_line(error, 300)
        raise ModelError(f"{path}: does not hold the weights that its folder describes ({reason})") from None
