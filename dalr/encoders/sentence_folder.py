"""Reading a sentence-transformers folder by its own files: pooling, later layers, length, prompts, lower-casing.

The package itself is not needed. Only weights are read; a module whose class is not known here is refused.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from dalr.encoders.names import read_json
from dalr.encoders.text_parts import TextParts
from dalr.encoders.tower import load_weights
from dalr.encoders.transformers_text import load_transformers_text
from dalr.errors import ModelError

POOLING_NAMES = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
# The older form: one switch a mode, concatenated in this order.
POOLING_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last",
}
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "Identity": nn.Identity, "Tanh": nn.Tanh, "ReLU": nn.ReLU, "GELU": nn.GELU, "SiLU": nn.SiLU, "Sigmoid": nn.Sigmoid,
}  # fmt: skip


class Dense(nn.Module):
    """activation(W x + b), and with `residual` the input added (through its own projection when widths differ)."""

    def __init__(self, layer: dict[str, Any]) -> None:
        super().__init__()
        inside, self.out_features = int(layer["in"]), int(layer["out"])
        self.linear = nn.Linear(inside, self.out_features, bias=bool(layer["bias"]))
        self.activation = ACTIVATIONS[layer["activation"]]()
        self.add_input = bool(layer["residual"])
        if self.add_input and inside != self.out_features:
            self.residual = nn.Linear(inside, self.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.linear(x))
        return y + (self.residual(x) if hasattr(self, "residual") else x) if self.add_input else y


class Norm(nn.Module):
    """Layer normalisation under the name that the folder's weights have."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)  # type: ignore[no-any-return]


class Normalize(nn.Module):
    """Rows to length one."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)


class Truncate(nn.Module):
    """The first `dim` numbers of a row."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out_features = dim

    def forward(self, x: Tensor) -> Tensor:
        return x[..., : self.out_features]


def load_sentence_folder(folder: Path, pretrained: bool = True, dropout: float | None = None) -> TextParts:
    """A sentence-transformers folder as text parts. Raises ModelError, naming the file, for what is not supported."""
    modules = _modules(folder)
    paths = [folder / path for _, path in modules]
    kinds = [kind for kind, _ in modules]
    if kinds[:1] != ["Transformer"] or kinds.count("Transformer") != 1:
        raise ModelError(f"{folder}/modules.json: expected a Transformer first, found {' → '.join(kinds) or 'nothing'}")
    parts = load_transformers_text(paths[0], pretrained, dropout)
    settings = _first_json(paths[0], "sentence_*_config.json")
    changes: dict[str, Any] = {"lowercase": bool(settings.get("do_lower_case"))}
    if settings.get("max_seq_length"):
        changes["max_length"] = int(settings["max_seq_length"])
    after: list[dict[str, Any]] = []
    for kind, path in zip(kinds[1:], paths[1:], strict=True):
        if kind == "Pooling":
            config = read_json(path / "config.json")
            changes["pooling"] = _pooling(config, path)
            changes["include_prompt"] = bool(config.get("include_prompt", True))
        elif kind != "Dropout":
            after.append(_layer(kind, path))
    changes["after"] = tuple(after)
    changes["prompts"], changes["prompt"] = _prompts(folder)
    parts.spec = type(parts.spec)(**{**parts.spec.model_dump(), **changes})
    parts.after = build_after(parts.spec.after)
    if pretrained:
        weighted = [path for kind, path in zip(kinds, paths, strict=True) if kind in ("Dense", "LayerNorm")]
        layers = [layer for layer in parts.after if isinstance(layer, Dense | Norm)]
        for layer, path in zip(layers, weighted, strict=True):
            _load_layer(layer, path)
    return parts


def build_after(layers: tuple[dict[str, Any], ...]) -> nn.Sequential:
    """The layers behind the pooling, with fresh weights."""
    built: list[nn.Module] = []
    for layer in layers:
        if layer["type"] == "dense":
            built.append(Dense(layer))
        elif layer["type"] == "truncate":
            built.append(Truncate(int(layer["dim"])))
        else:
            built.append(Norm(int(layer["width"])) if layer["type"] == "layer_norm" else Normalize())
    return nn.Sequential(*built)


def _modules(folder: Path) -> list[tuple[str, str]]:
    """(class name, sub-folder) of each module, in order."""
    import json

    try:
        entries = sorted(
            json.loads((folder / "modules.json").read_text(encoding="utf-8")), key=lambda entry: entry["idx"]
        )
        return [(entry["type"].rpartition(".")[2], entry.get("path", "")) for entry in entries]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{folder}/modules.json: cannot be read as a list of modules ({error})") from None


def _pooling(config: dict[str, Any], path: Path) -> tuple[str, ...]:
    if "pooling_mode" in config:
        wanted = config["pooling_mode"]
        names = [wanted] if isinstance(wanted, str) else list(wanted)
        unknown = [name for name in names if name not in POOLING_NAMES]
        if unknown:
            raise ModelError(
                f"{path}/config.json: pooling_mode '{unknown[0]}' is not one of {', '.join(POOLING_NAMES)}"
            )
        return tuple(POOLING_NAMES[name] for name in names)
    return tuple(mode for switch, mode in POOLING_SWITCHES.items() if config.get(switch)) or ("mean",)


def _layer(kind: str, path: Path) -> dict[str, Any]:
    if kind == "Normalize":
        return {"type": "normalize"}
    config = read_json(path / "config.json") if (path / "config.json").is_file() else {}
    if kind == "LayerNorm":
        return {"type": "layer_norm", "width": config["dimension"]}
    if kind != "Dense":
        raise ModelError(
            f"{path}: the sentence-transformers module '{kind}' is not supported; expected Transformer, Pooling, "
            "Dense, LayerNorm, Dropout, Normalize"
        )
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
    if activation not in ACTIVATIONS:
        raise ModelError(f"{path}/config.json: activation '{activation}' is not one of {', '.join(ACTIVATIONS)}")
    for key in ("module_input_name", "module_output_name"):
        if config.get(key, "sentence_embedding") not in ("sentence_embedding", None):
            raise ModelError(f"{path}/config.json: {key} '{config[key]}' is not supported; expected sentence_embedding")
    return {
        "type": "dense",
        "in": config["in_features"],
        "out": config["out_features"],
        "bias": config.get("bias", True),
        "activation": activation,
        "residual": config.get("use_residual", False),
    }


def _prompts(folder: Path) -> tuple[dict[str, str], str]:
    """The folder's named prompts, and the text of its default one."""
    path = folder / "config_sentence_transformers.json"
    config = read_json(path) if path.is_file() else {}
    prompts = {str(name): str(text) for name, text in (config.get("prompts") or {}).items() if text is not None}
    default = config.get("default_prompt_name")
    return prompts, prompts.get(default, "") if default else ""


def _load_layer(layer: nn.Module, path: Path) -> None:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (path / name).is_file():
            return load_weights(layer, path / name)
    raise ModelError(f"{path}: has neither model.safetensors nor pytorch_model.bin")


def _first_json(folder: Path, pattern: str) -> dict[str, Any]:
    found = sorted(path for path in folder.glob(pattern) if path.name != "config_sentence_transformers.json")
    return read_json(found[0]) if found else {}
