"""Low-rank adapters (Hu et al., LoRA, 2021) inside a tower, through peft; saved merged into the base weights."""

from pydantic import Field
from torch import Tensor, nn

from dalr.config import Config
from dalr.errors import ConfigError, MissingExtraError


class LoraConfig(Config):
    """Adapters W + (alpha / rank)·B·A. `targets` are module names or their endings; None chooses them.

    The choice: every linear layer; in a network without any, every ungrouped convolution.
    """

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: list[str] | None = None


def add_lora(module: nn.Module, config: LoraConfig) -> None:
    """Put adapters into `module`, in place; only they have `requires_grad` afterwards. B = 0: outputs are unchanged.

    Raises MissingExtraError without peft, ConfigError when `targets` match nothing that can carry an adapter.
    """
    try:
        import peft
    except ImportError:
        raise MissingExtraError("peft", "peft", "training a tower with 'lora'") from None

    targets = _targets(module, config.targets)
    module.requires_grad_(False)
    transposed = any(type(module.get_submodule(name)).__name__ == "Conv1D" for name in targets)
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets,
        bias="none",
        fan_in_fan_out=transposed,
    )
    peft.inject_adapter_in_model(settings, module)


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict that the module would have if its adapters were part of its weights; the module is untouched."""
    state = dict(module.state_dict())
    for name, layer in module.named_modules():
        if not hasattr(layer, "get_delta_weight") or not hasattr(layer, "base_layer"):
            continue
        prefix = f"{name}."
        own = {key: state.pop(key) for key in list(state) if key.startswith(prefix)}
        for key, value in own.items():
            if key.startswith(f"{prefix}base_layer."):
                state[prefix + key.removeprefix(f"{prefix}base_layer.")] = value
        weight = state[f"{prefix}weight"]
        state[f"{prefix}weight"] = weight + layer.get_delta_weight("default").detach().to(weight.dtype)
    return state


def _targets(module: nn.Module, wanted: list[str] | None) -> list[str]:
    # peft's adapter for nn.MultiheadAttention adds to the base weight and subtracts again in every forward pass
    # (the base drifts by rounding, and parameters are replaced under DDP), so attention of that kind has none.
    inside_attention = {
        f"{name}.out_proj" for name, layer in module.named_modules() if isinstance(layer, nn.MultiheadAttention)
    }
    usable = {
        name: layer
        for name, layer in module.named_modules()
        if name not in inside_attention
        and not name.endswith("text_projection")  # open_clip asks for its class, which an adapter changes
        and (_is_linear(layer) or (isinstance(layer, nn.Conv2d) and layer.groups == 1))
    }
    if wanted is not None:
        chosen = [name for name in usable if any(name == end or name.endswith(f".{end}") for end in wanted)]
        if not chosen:
            raise ConfigError(
                f"lora.targets: {wanted} name no layer that can carry an adapter; such as: "
                f"{', '.join(list(usable)[:8]) or 'none in this network'}"
            )
        return chosen
    linear = [name for name, layer in usable.items() if _is_linear(layer)]
    chosen = linear or list(usable)
    if not chosen:
        raise ConfigError("train: lora: this network has no linear layer or convolution that can carry an adapter")
    return chosen


def _is_linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D"  # GPT-2's transposed linear layer
