"""What a text tower is made of: a backbone that gives token states, a tokenizer, and a record of the rest."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dalr.config import Config
from dalr.encoders.pooling import TokenStates
from dalr.encoders.tokens import Tokenizer


class TextSpec(Config):
    """Everything but weights and tokenizer that decides what a text tower computes; saved as `tower.json`.

    `pooling` are the modes whose results are concatenated. With `fixed_length` every text is padded to
    `max_length` and the padding takes part, as SigLIP's towers were trained. `after` lists the layers that follow
    the pooling: those of a sentence-transformers folder, and what was added to them (whitening, a shorter width).
    `prompt` is the default prompt's text, `prompts` are named ones. `architecture` rebuilds an open_clip tower.
    """

    library: Literal["transformers", "open_clip"]
    pooling: tuple[str, ...] = ("mean",)
    max_length: int
    prompt: str = ""
    include_prompt: bool = True
    lowercase: bool = False
    fixed_length: bool = False
    after: tuple[dict[str, Any], ...] = ()
    architecture: dict[str, Any] | None = None
    prompts: dict[str, str] = Field(default_factory=dict)
    long_texts: Literal["cut", "chunk"] = "cut"
    chunk_overlap: int = 0
    attention: Literal["own", "bidirectional"] = "own"


# Fields that towers saved before do not have, with what such a tower does.
NEWER_FIELDS: dict[str, Any] = {"prompts": {}, "long_texts": "cut", "chunk_overlap": 0, "attention": "own"}


class TextBackbone(nn.Module):
    """A network from token ids to states. `width` is that of a state, `own_width` that of its own pooling, if any.

    With `bidirectional` a decoder's tokens see those behind them too (see `attention.make_bidirectional`).
    """

    width: int
    own_width: int | None = None
    bidirectional: bool = False

    def states(self, tokens: dict[str, Tensor], lower: bool, own: bool) -> TokenStates:
        """`lower`: also the embeddings and the first block's output; `own`: also the architecture's own pooling."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """What the weights do not say: heads, activation, layout."""
        raise NotImplementedError

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Write the backbone into `folder` with these weights (adapters merged)."""
        raise NotImplementedError


@dataclass
class TextParts:
    """A loaded text tower before it is put together."""

    backbone: TextBackbone
    tokenizer: Tokenizer
    spec: TextSpec
    after: nn.Sequential = field(default_factory=nn.Sequential)
    attention_query: torch.Tensor | None = None
