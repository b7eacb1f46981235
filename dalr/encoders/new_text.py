"""A small text encoder from scratch: a WordPiece vocabulary from the captions and a fresh BERT-like network."""

from collections.abc import Iterable

from pydantic import Field, model_validator

from dalr.config import Config
from dalr.encoders.new_tokenizer import TokenizerConfig, train_tokenizer
from dalr.encoders.text_parts import TextParts, TextSpec
from dalr.encoders.tokens import TransformersTokenizer
from dalr.encoders.transformers_text import TransformersText
from dalr.errors import ConfigError


class NewTextConfig(Config):
    """Size of a `new` text encoder. The feed-forward layers are 4 × `width`; `width` is a multiple of `heads`."""

    layers: int = Field(default=3, ge=1)
    width: int = Field(default=192, ge=8)
    heads: int = Field(default=4, ge=1)
    vocab_size: int = Field(default=3000, ge=64)
    max_length: int = Field(default=64, ge=4)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _divides(self) -> "NewTextConfig":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


def new_text(config: NewTextConfig, corpus: Iterable[str] | None) -> TextParts:
    """Train the tokenizer on `corpus` and draw the network's weights from torch's own generator.

    The saved tower is an ordinary BERT folder. Raises ConfigError without a corpus.
    """
    from transformers import BertConfig, BertModel

    texts = [text for text in corpus or () if text and text.strip()]
    if not texts:
        raise ConfigError("text.name: 'new' builds its tokenizer from the training captions, and there are none")
    tokenizer = train_tokenizer(texts, TokenizerConfig(vocab_size=config.vocab_size), config.max_length)
    model = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=4 * config.width,
            max_position_embeddings=config.max_length,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
            type_vocab_size=1,
            pad_token_id=tokenizer.pad_token_id,
        ),
        add_pooling_layer=False,
    )
    spec = TextSpec(library="transformers", pooling=("mean",), max_length=config.max_length)
    return TextParts(TransformersText(model.eval()), TransformersTokenizer(tokenizer), spec)
