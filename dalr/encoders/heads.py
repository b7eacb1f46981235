"""Heads: from a tower's features to the shared space. They do not normalise; `DualEncoder.project_*` does.

B rows, W input width, D shared width.
"""

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from dalr.config import Config
from dalr.errors import ConfigError


class HeadConfig(Config):
    """`linear` is one layer; `mlp` has one hidden layer with GELU; `none` passes features through unchanged.

    With `standardise`, each input feature is brought to mean 0 and deviation 1 of the training features first (the
    run fits it once). `none` is for towers that share a space already (both halves of a CLIP), and needs W = D.
    """

    kind: Literal["linear", "mlp", "none"] = "linear"
    hidden: int = Field(default=1024, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    input_dropout: float = Field(default=0.0, ge=0, lt=1)
    standardise: bool = False


class Head(nn.Module):
    """x_BW → p_BD, not normalised. Raises ConfigError when `kind` is none and the widths differ."""

    mean_W: Tensor
    scale_W: Tensor

    def __init__(self, width: int, dim: int, config: HeadConfig) -> None:
        if config.kind == "none" and width != dim:
            raise ConfigError(f"head kind 'none' needs a tower of width {dim} (model.dim), but this one has {width}")
        # The dropouts are there also at rate 0: the names of the weights do not depend on the rates.
        layers: list[nn.Module] = [nn.Dropout(config.input_dropout)] if config.kind != "none" else []
        if config.kind == "linear":
            layers += [nn.Linear(width, dim)]
        elif config.kind == "mlp":
            layers += [nn.Linear(width, config.hidden), nn.GELU(), nn.Dropout(config.dropout)]
            layers += [nn.Linear(config.hidden, dim)]
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.width, self.dim, self.config = width, dim, config
        self.register_buffer("mean_W", torch.zeros(width))
        self.register_buffer("scale_W", torch.ones(width))

    @property
    def fitted(self) -> bool:
        """Whether the standardisation of the input is set: by `fit_input`, or with the weights of a saved head."""
        return bool(self.mean_W.any() or (self.scale_W != 1).any())

    def fit_input(self, features_NW: np.ndarray) -> None:
        """Set the standardisation of the input to the mean and deviation of these features (N, W)."""
        features = torch.from_numpy(features_NW).double()
        self.mean_W.copy_(features.mean(0))
        self.scale_W.copy_(1.0 / features.std(0, correction=0).clamp(min=1e-6))

    def forward(self, x_BW: Tensor) -> Tensor:
        """Any number of rows of width W → the same number of width D."""
        if self.config.standardise:
            x_BW = (x_BW - self.mean_W) * self.scale_W
        return self.layers(x_BW)  # type: ignore[no-any-return]
