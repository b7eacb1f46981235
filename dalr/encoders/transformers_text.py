"""Text towers of the transformers library: encoders, decoders, the encoder of an encoder–decoder, a CLIP half."""

from pathlib import Path
from typing import Any

from torch import Tensor

from dalr.encoders import transformers_models as library
from dalr.encoders.attention import additive_mask
from dalr.encoders.pooling import OWN, TokenStates
from dalr.encoders.text_parts import TextBackbone, TextParts, TextSpec
from dalr.encoders.tokens import TransformersTokenizer
from dalr.errors import ConfigError, ModelError, one_line

DROPOUTS = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "dropout_rate",
    "embd_pdrop", "attn_pdrop", "resid_pdrop", "hidden_dropout", "activation_dropout", "embedding_dropout",
    "mlp_dropout", "pooler_dropout",
)  # fmt: skip
DEFAULT_MAX_LENGTH = 512  # for tokenizers and architectures that name no limit (T5: relative positions)


class TransformersText(TextBackbone):
    """A transformers model as a text backbone; its attention treats padding as absent, unless told to attend it."""

    def __init__(self, model: Any, attend_padding: bool = False) -> None:
        super().__init__()
        self.model = model
        config = model.config
        self.width = config.get_text_config().hidden_size if hasattr(config, "get_text_config") else config.hidden_size
        self.attend_padding = attend_padding
        self.is_half = config.model_type in library.HALVES
        if self.is_half:
            projected = type(model).__name__.endswith("WithProjection")
            self.own_width = (
                config.projection_dim if projected else getattr(config, "projection_size", None) or self.width
            )
        if getattr(config, "use_cache", False):
            config.use_cache = False  # a decoder would keep keys and values that nothing reads

    def states(self, tokens: dict[str, Tensor], lower: bool, own: bool) -> TokenStates:
        model = self.model
        if getattr(model.config, "is_encoder_decoder", False) and hasattr(model, "get_encoder"):
            model = model.get_encoder()
        mask = None if self.attend_padding else tokens["attention_mask"]
        if self.bidirectional and mask is not None:
            mask = additive_mask(mask, causal=False, dtype=self.model.dtype)
        output = model(input_ids=tokens["input_ids"], attention_mask=mask, output_hidden_states=lower, return_dict=True)
        pooled = output.get("text_embeds", output.get("pooler_output")) if own else None
        embeddings, first = output.hidden_states[:2] if lower else (None, None)
        return TokenStates(output.last_hidden_state, first, pooled, embeddings)

    def describe(self) -> dict[str, Any]:
        return {"model": type(self.model).__name__, **library.describe_config(self.model.config)}

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        with library.quiet():
            self.model.save_pretrained(folder, state_dict={k.removeprefix("model."): v for k, v in state.items()})


def load_transformers_text(folder: Path, pretrained: bool = True, dropout: float | None = None) -> TextParts:
    """A transformers folder as text parts: mean pooling (a CLIP half: its own), its own longest length, no prompt.

    Raises ModelError for a folder without text weights or tokenizer, ConfigError for a `dropout` that the
    architecture does not have.
    """
    config = library.load_config(folder)
    if dropout is not None:
        set_dropout(config, dropout, str(folder))
    model = library.load_model(folder, config, "text", pretrained)
    tokenizer = load_tokenizer(folder)
    # Without added tokens, of which a tokenizer may have one that no text brings up.
    words, rows = tokenizer.vocab_size, model.get_input_embeddings().num_embeddings
    if words > rows:
        raise ModelError(f"{folder}: its tokenizer has {words} words and its model {rows}; they are not of one model")
    fixed = model.config.model_type.startswith("siglip")
    backbone = TransformersText(model, attend_padding=fixed)
    spec = TextSpec(
        library="transformers",
        pooling=(OWN,) if backbone.is_half else ("mean",),
        max_length=longest_length(model.config, tokenizer),
        fixed_length=fixed,
    )
    return TextParts(backbone, TransformersTokenizer(tokenizer), spec)


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer; ModelError when it has none."""
    from transformers import AutoTokenizer

    try:
        with library.quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder)
        if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
            # What transformers makes of a folder without its files: every word is unknown to it.
            raise ValueError("its files are missing: the vocabulary has no words")
        return tokenizer
    except (OSError, ValueError, KeyError, ImportError, TypeError) as error:
        reason = one_line(error)
        raise ModelError(f"{folder}: no tokenizer that transformers can read ({reason})") from None


def position_limit(config: Any) -> int | None:
    """How many tokens the architecture's position table holds; None where positions are relative."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    limit = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    if not limit or limit < 0 or text.model_type in ("t5", "mt5", "umt5"):
        return None
    return int(limit) - position_offset(text)


def position_offset(config: Any) -> int:
    """The number of the first position: the RoBERTa family starts counting behind the padding id."""
    families = ("roberta", "camembert", "data2vec-text", "longformer", "mpnet", "luke", "ibert", "xmod", "esm")
    return (config.pad_token_id or 0) + 1 if any(name in config.model_type for name in families) else 0


def longest_length(config: Any, tokenizer: Any) -> int:
    """The smaller of what the tokenizer and the position table allow."""
    known = [limit for limit in (tokenizer.model_max_length, position_limit(config)) if limit and limit < 10**9]
    return min(known) if known else DEFAULT_MAX_LENGTH


def set_dropout(config: Any, dropout: float, where: str) -> None:
    """Set every dropout rate that the architecture has; ConfigError when it has none."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    present = [name for name in DROPOUTS if isinstance(getattr(text, name, None), int | float)]
    if not present:
        raise ConfigError(
            f"text.dropout: the architecture '{config.model_type}' of {where} has no dropout; leave it out"
        )
    for name in present:
        setattr(text, name, dropout)
