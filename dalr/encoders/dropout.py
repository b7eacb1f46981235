"""Dropout policies of a text tower in training: the same rate throughout, one that grows, or one for each unit."""

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dalr.config import Config
from dalr.errors import ConfigError

LEAST_KEEP = 0.05  # a unit that is kept more seldom would be scaled up without bound
USUAL_RATE = 0.1  # where the adaptive policy starts in a network whose rates are 0


class DropoutConfig(Config):
    """How dropout is drawn while a tower trains; the rates are the network's own, or `text.dropout`.

    - `standard`: each rate as it is.
    - `curriculum`: step t of T has p(t) = p·(1 − e^(−γt)), so that the rate rises from 0 to its own; γ is `gamma`,
      by default 10 / T (Morerio et al. 2017, whose θ̄ is the final *keep* probability 1 − p).
    - `adaptive`: a unit with the value h = Wx + b is kept with probability σ(αh + β) (standout, Ba and Frey 2013, the
      weights shared with the layer's own); β is by default logit(1 − p), so that h = 0 is kept as in `standard`. Kept
      units are divided by that probability, so that nothing changes in evaluation. Attention, whose weights are not
      units, keeps the standard rate.
    """

    policy: Literal["standard", "curriculum", "adaptive"] = "standard"
    gamma: float | None = Field(default=None, gt=0)
    alpha: float = 1.0
    beta: float | None = None


class Standout(nn.Dropout):
    """Dropout whose keep probability hangs on the unit's own value; any shape in, the same out."""

    def __init__(self, p: float, alpha: float, beta: float | None) -> None:
        super().__init__(p)
        rate = p or USUAL_RATE
        self.alpha, self.beta = alpha, math.log((1 - rate) / rate) if beta is None else beta

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return input
        keep = torch.sigmoid(self.alpha * input.detach() + self.beta).clamp(min=LEAST_KEEP)
        return input * torch.bernoulli(keep) / keep


class CurriculumDropout:
    """Sets every dropout rate of a network by the step."""

    def __init__(self, network: nn.Module, gamma: float | None) -> None:
        self.gamma = gamma
        self.rates = [(module, name, float(getattr(module, name))) for module, name in _rates(network)]

    def set_step(self, step: int, total: int) -> None:
        """The rates of step `step` (from 0) of `total`."""
        gamma = self.gamma if self.gamma is not None else 10.0 / total
        for module, name, final in self.rates:
            setattr(module, name, final * -math.expm1(-gamma * step))


def apply_dropout(network: nn.Module, config: DropoutConfig) -> CurriculumDropout | None:
    """Put a policy into a network, in place; what comes back wants to know the step.

    Raises ConfigError where a policy other than `standard` meets a network without dropout.
    """
    if config.policy == "standard":
        return None
    layers = [(module, name) for module, name in _rates(network) if isinstance(module, nn.Dropout)]
    if not layers:
        raise ConfigError(f"text.dropout_policy: {config.policy}: this network has no dropout layers; use standard")
    if config.policy == "curriculum":
        return CurriculumDropout(network, config.gamma)
    for path, parent in list(network.named_modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout and "lora_" not in f"{path}.{name}":
                setattr(parent, name, Standout(child.p, config.alpha, config.beta))
    return None


def _rates(network: nn.Module) -> Iterator[tuple[Any, str]]:
    """Where the dropout rates of a network are kept: in its layers, and as numbers that its attention reads."""
    for name, module in network.named_modules():
        if "lora_" in name:
            continue
        if isinstance(module, nn.Dropout):
            yield module, "p"
        else:
            for attribute in ("attention_dropout", "attn_dropout", "dropout_p"):
                if isinstance(getattr(module, attribute, None), float):
                    yield module, attribute
