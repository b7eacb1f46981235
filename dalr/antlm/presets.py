"""Networks to pre-train from nothing: the two backbones of the AntLM paper, in its size and in one for a laptop.

- `babyllama`: a Llama decoder as BabyLlama's (Timiryasov and Tastet 2023): RMS norms, rotary positions, SwiGLU.
- `ltg-bert`: an encoder in the manner of LTG-BERT (Samuel et al. 2023). That one adds to BERT gated GELUs, norms before
  and inside each layer, and relative positions in buckets; it is no architecture of transformers. ModernBERT is the
  nearest that is kept there: gated GELUs, norms before each layer, and *rotary* relative positions. It is used with
  attention over the whole row in every layer.

Both tie the output to the input embeddings. Their config is that of transformers; `AutoModel` loads what was trained.
"""

from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from dalr.config import Config

Preset = Literal["babyllama", "ltg-bert"]
Size = Literal["small", "paper"]
SIZES: dict[Size, dict[str, int]] = {
    "paper": {"layers": 12, "width": 768, "heads": 12, "feed_forward": 2048},
    "small": {"layers": 4, "width": 256, "heads": 4, "feed_forward": 688},
}


class NetworkConfig(Config):
    """A fresh network. What is not given is the preset's in that size, `feed_forward` 8/3 of an own `width`."""

    preset: Preset = "ltg-bert"
    size: Size = "small"
    layers: int | None = Field(default=None, ge=1)
    width: int | None = Field(default=None, ge=8)
    heads: int | None = Field(default=None, ge=1)
    feed_forward: int | None = Field(default=None, ge=8)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _divides(self) -> "NetworkConfig":
        shape = self.shape()
        if shape["width"] % shape["heads"] or (shape["width"] // shape["heads"]) % 2:
            raise ValueError(f"width {shape['width']} over {shape['heads']} heads must be a whole, even number")
        return self

    def shape(self) -> dict[str, int]:
        """`layers`, `width`, `heads` and `feed_forward`."""
        found = dict(SIZES[self.size])
        own = {name: getattr(self, name) for name in found if getattr(self, name) is not None}
        if "width" in own:
            found["feed_forward"] = -(-own["width"] * 8 // 3 // 16) * 16
        return found | own


def build_network(config: NetworkConfig, tokenizer: Any, max_length: int) -> Any:
    """A transformers model with its head, its weights drawn from torch's own generator."""
    from transformers import LlamaConfig, LlamaForCausalLM, ModernBertConfig, ModernBertForMaskedLM

    shape = config.shape()
    ids = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    common: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": shape["width"],
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "intermediate_size": shape["feed_forward"],
        "max_position_embeddings": max_length,
        "tie_word_embeddings": True,
        "dtype": torch.float32,
        **ids,
    }
    if config.preset == "babyllama":
        return LlamaForCausalLM(LlamaConfig(**common, attention_dropout=config.dropout, use_cache=False))
    return ModernBertForMaskedLM(
        ModernBertConfig(
            **common,
            cls_token_id=tokenizer.cls_token_id,
            sep_token_id=tokenizer.sep_token_id,
            global_attn_every_n_layers=1,
            embedding_dropout=config.dropout,
            attention_dropout=config.dropout,
            mlp_dropout=config.dropout,
        )
    )
