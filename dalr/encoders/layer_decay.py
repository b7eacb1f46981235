"""Optimizer groups: a learning rate that falls towards the input, and no weight decay where it does harm."""

from typing import Any

from torch import nn


def parameter_groups(
    encoder: nn.Module, lr: float, lr_decay: float = 1.0, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """The trainable parameters of a tower or a head as optimizer groups.

    Layer k of n has the rate lr·lr_decay^(n−k): embeddings or stem are layer 0, then each block, and what is
    trained behind the last block is layer n with the full rate (Clark et al., ELECTRA, 2020). Biases, norms and other
    one-dimensional parameters have no weight decay. A frozen encoder gives [].

    Each group holds `params`, `lr`, `weight_decay`, and `name` for a log; lr_decay = 1 gives at most two groups.
    """
    layers, last = layer_numbers(encoder)
    # Where nothing behind the last block is trained (a BERT without its pooler), that block has the full rate.
    last = max(
        (layers[name] for name, parameter in encoder.named_parameters() if parameter.requires_grad), default=last
    )
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in encoder.named_parameters():
        if not parameter.requires_grad:
            continue
        layer = layers[name] if lr_decay != 1 else last
        plain = parameter.ndim <= 1
        group = groups.setdefault(
            (layer, plain),
            {
                "params": [],
                "lr": lr * lr_decay ** (last - layer),
                "weight_decay": 0.0 if plain else weight_decay,
                "name": f"layer {layer}{' without decay' if plain else ''}",
            },
        )
        group["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def layer_numbers(encoder: nn.Module) -> tuple[dict[str, int], int]:
    """Each parameter's layer, in the order in which the network registers its parts, and the last layer's number.

    A block is a child with children of its own inside a ModuleList or Sequential (a transformer layer, a residual
    block); lists of lists, and stages that hold their blocks under that name, are followed down to the blocks.
    """
    blocks = _block_prefixes(encoder)
    last = len(blocks) + 1
    numbers: dict[str, int] = {}
    reached = 0
    for name, _ in encoder.named_parameters():
        inside = next((k for k, prefix in enumerate(blocks, 1) if name.startswith(prefix)), None)
        leaf = name.rpartition(".")[2]
        if inside is not None:
            reached = inside
            numbers[name] = inside
        elif leaf in ("proj", "text_projection") or name.startswith(("pooling.", "after.")):
            numbers[name] = last  # registered first by CLIP towers, used last
        elif "embed" in name:
            numbers[name] = 0
        else:
            numbers[name] = last if reached == len(blocks) else reached
    return numbers, last


def _block_prefixes(module: nn.Module, prefix: str = "") -> list[str]:
    found: list[str] = []
    for name, child in module.named_children():
        path = f"{prefix}{name}."
        if isinstance(module, nn.ModuleList | nn.Sequential) and _is_block(child):
            found.append(path)
        else:
            found += _block_prefixes(child, path)
    return found


def _is_block(child: nn.Module) -> bool:
    parts = dict(child.named_children())
    return (
        bool(parts) and not isinstance(child, nn.ModuleList | nn.Sequential) and not {"blocks", "layers"} & set(parts)
    )
