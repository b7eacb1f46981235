"""Exponential moving average of the parameters in training (Polyak averaging), and its exchange for evaluation."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class Ema:
    """Running averages of `parameters` (parameter → name); with `decay` None it holds nothing and does nothing.

    The decay rises as (1 + step) / (10 + step) up to `decay`, so that the start does not weigh on it for long.
    """

    def __init__(self, parameters: Mapping[nn.Parameter, str], decay: float | None) -> None:
        self.parameters = parameters if decay is not None else {}
        self.decay = decay or 0.0
        self.tensors: dict[str, Tensor] = {name: p.detach().clone() for p, name in self.parameters.items()}

    def update(self, step: int) -> None:
        """Move the averages towards the parameters after optimizer step `step` (from 0)."""
        if self.tensors:
            decay = min(self.decay, (1 + step) / (10 + step))
            current = [parameter.detach() for parameter in self.parameters]
            torch._foreach_lerp_(list(self.tensors.values()), current, 1.0 - decay)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the averages of a checkpoint."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model computes with the averages; afterwards with its own parameters again."""
        with torch.no_grad():
            own = [parameter.detach().clone() for parameter in self.parameters]
            for parameter, name in self.parameters.items():
                parameter.copy_(self.tensors[name])
            try:
                yield
            finally:
                for parameter, value in zip(self.parameters, own, strict=True):
                    parameter.copy_(value)
