"""A copy of a convolutional network for inference on a CPU: batch norms folded into the convolutions before them."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


def inference_copy(network: nn.Module, pixels_BCHW: Tensor) -> nn.Module | None:
    """A copy in channels-last layout whose batch norms are part of its convolutions, or None where there are none.

    Which convolution feeds which norm is seen by running the copy on `pixels_BCHW`: a norm is folded when its
    input *is* the output of a convolution and both run once. The copy is used only if it then gives what the
    network gives on the same pixels (to 1e-4 of the largest feature), which a convolution with a second reader
    would not. `network` is in eval mode and is not touched.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return None
    folded = copy.deepcopy(network).requires_grad_(False)
    with torch.inference_mode():
        expected = network(pixels_BCHW)
        pairs = _pairs(folded, pixels_BCHW)
    for convolution, norm in pairs:
        _fold(convolution, norm)
    _replace(folded, {norm for _, norm in pairs})
    folded = folded.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        difference = (folded(pixels_BCHW) - expected).abs().max()
    return folded if pairs and difference <= 1e-4 * expected.abs().max() else None


def _pairs(network: nn.Module, pixels_BCHW: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions whose output is, as the very same tensor, the input of a batch norm."""
    made: list[tuple[nn.Conv2d, Tensor]] = []  # keeps the tensors alive, so that identity means the same tensor
    read: list[tuple[nn.BatchNorm2d, Tensor]] = []
    hooks = []
    for module in network.modules():
        if type(module) is nn.Conv2d:
            hooks.append(module.register_forward_hook(lambda layer, _, output: made.append((layer, output))))
        elif isinstance(module, nn.BatchNorm2d) and _is_plain(module):
            hooks.append(module.register_forward_pre_hook(lambda layer, inputs: read.append((layer, inputs[0]))))
    try:
        network(pixels_BCHW)
    finally:
        for hook in hooks:
            hook.remove()
    makers = [layer for layer, _ in made]
    readers = [layer for layer, _ in read]
    return [
        (convolution, norm)
        for norm, value in read
        for convolution, output in made
        if output is value and makers.count(convolution) == 1 and readers.count(norm) == 1
    ]


def _is_plain(norm: nn.BatchNorm2d) -> bool:
    """Scale, shift and kept statistics, and at most timm's activation behind them."""
    known = type(norm) is nn.BatchNorm2d or type(norm).__name__ == "BatchNormAct2d"
    return known and norm.affine and norm.track_running_stats


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """γ(Wx + b − μ)/√(σ² + ε) + β as one convolution; in float64, so that each weight is rounded once."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = convolution.bias.double() if convolution.bias is not None else torch.zeros_like(scale)
    weight = convolution.weight.double() * scale.reshape(-1, 1, 1, 1)
    kind = convolution.weight.dtype
    convolution.weight = nn.Parameter(weight.to(kind), requires_grad=False)
    shifted = (bias - norm.running_mean.double()) * scale + norm.bias.double()
    convolution.bias = nn.Parameter(shifted.to(kind), requires_grad=False)


def _replace(network: nn.Module, norms: set[nn.BatchNorm2d]) -> None:
    """Put what is left of each folded norm in its place: nothing, or the activation that timm keeps inside it."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if child in norms:
                rest: Any = getattr(child, "act", None)
                setattr(parent, name, rest if isinstance(rest, nn.Module) else nn.Identity())
