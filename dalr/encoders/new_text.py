"""A small text encoder from scratch: a WordPiece vocabulary from the captions and a fresh BERT-like network."""

from collections.abc import Iterable
from typing import Any

from pydantic import Field, model_validator

from dalr.config import Config
from dalr.encoders.text_parts import TextParts, TextSpec
from dalr.encoders.tokens import TransformersTokenizer
from dalr.encoders.transformers_text import TransformersText
from dalr.errors import ConfigError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


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

    tokenizer = train_tokenizer(corpus, config.vocab_size, config.max_length)
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


def train_tokenizer(corpus: Iterable[str] | None, vocab_size: int, max_length: int) -> Any:
    """A lower-casing WordPiece tokenizer of at most `vocab_size` entries, as a transformers tokenizer.

    The same corpus gives the same vocabulary. Characters outside the corpus become [UNK].
    """
    from tokenizers import models, processors, trainers
    from transformers import PreTrainedTokenizerFast

    texts = [text for text in corpus or () if text and text.strip()]
    if not texts:
        raise ConfigError("text.name: 'new' builds its tokenizer from the training captions, and there are none")
    tokenizer = _around(models.WordPiece(unk_token="[UNK]"))
    # The trainer numbers inner characters ("##a") in the order of a hash map, another one in each process, and that
    # order decides ties. Numbered beforehand, beside the special tokens, the same corpus gives the same vocabulary.
    inner = [f"##{c}" for c in sorted({c for text in texts for c in tokenizer.normalizer.normalize_str(text)})]
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=[*SPECIAL, *inner], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    tokenizer = _around(models.WordPiece(vocab=vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.add_special_tokens(list(SPECIAL))
    # The special tokens have the first ids, in their order.
    sep, cls = SPECIAL.index("[SEP]"), SPECIAL.index("[CLS]")
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length, **names)


def _around(model: Any) -> Any:
    """A tokenizer that lower-cases and splits words as BERT does, around a WordPiece model."""
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers

    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer
