"""Heads: from a tower's features to the shared space. They do not normalise; `DualEncoder.project_*` does.

B rows, W input width, D shared width.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from dalr.config import Config
from dalr.errors import ConfigError


class HeadConfig(Config):
    """`linear` is one layer; `mlp` has one hidden layer with GELU; `none` passes features through unchanged.

    `none` is for towers that share a space already (both halves of a CLIP), and needs W = D.
    """

    kind: Literal["linear", "mlp", "none"] = "linear"
    hidden: int = Field(default=1024, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    input_dropout: float = Field(default=0.0, ge=0, lt=1)


class Head(nn.Module):
    """x_BW → p_BD, not normalised. Raises ConfigError when `kind` is none and the widths differ."""

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

    def forward(self, x_BW: Tensor) -> Tensor:
        """Any number of rows of width W → the same number of width D."""
        return self.layers(x_BW)  # type: ignore[no-any-return]
