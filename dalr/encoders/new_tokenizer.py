"""Tokenizers trained from a corpus, as transformers tokenizers with the special tokens of BERT."""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field

from dalr.config import Config
from dalr.errors import ConfigError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class TokenizerConfig(Config):
    """What is trained: `wordpiece` (as BERT's), `bpe` over bytes (as GPT-2's) or `unigram` (as SentencePiece's)."""

    kind: Literal["wordpiece", "bpe", "unigram"] = "wordpiece"
    vocab_size: int = Field(default=8192, ge=64)
    lowercase: bool = True


def train_tokenizer(corpus: Iterable[str], config: TokenizerConfig, max_length: int) -> Any:
    """A transformers tokenizer of at most `vocab_size` entries; each text stands between [CLS] and [SEP].

    `corpus` is read twice. The same corpus gives the same vocabulary (but for `unigram`, whose trainer orders equal
    scores anew in each process). Characters outside the corpus become [UNK], but for `bpe`, which knows every byte, and
    whose vocabulary has 261 entries at least.
    Raises ConfigError for a corpus without text.
    """
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    train = {"wordpiece": _wordpiece, "bpe": _bpe, "unigram": _unigram}[config.kind]
    try:
        tokenizer = train(corpus, config)
    except _NoTextError:
        raise ConfigError("tokenizer: it is built from the training text, and there is none") from None
    tokenizer.add_special_tokens(list(SPECIAL))
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = processors.BertProcessing(*ends)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length, **names)


class _NoTextError(Exception):
    pass


def _wordpiece(corpus: Iterable[str], config: TokenizerConfig) -> Any:
    from tokenizers import models, trainers

    tokenizer = _around_words(models.WordPiece(unk_token="[UNK]"), config)
    # The trainer numbers inner characters ("##a") in the order of a hash map, another one in each process, and that
    # order decides ties. Numbered beforehand, beside the special tokens, the same corpus gives the same vocabulary.
    letters: set[str] = set()
    for text in corpus:
        letters.update(tokenizer.normalizer.normalize_str(text))
    if not "".join(letters).strip():
        raise _NoTextError
    inner = [f"##{letter}" for letter in sorted(letters)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.vocab_size, special_tokens=[*SPECIAL, *inner], show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    return _around_words(models.WordPiece(vocab=vocabulary, unk_token="[UNK]", max_input_chars_per_word=100), config)


def _around_words(model: Any, config: TokenizerConfig) -> Any:
    """A tokenizer that splits words as BERT does, around a WordPiece model."""
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers

    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=config.lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _bpe(corpus: Iterable[str], config: TokenizerConfig) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    lower = [normalizers.Lowercase()] if config.lowercase else []
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), *lower])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_some(corpus), trainer)
    return tokenizer


def _unigram(corpus: Iterable[str], config: TokenizerConfig) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    lower = [normalizers.Lowercase()] if config.lowercase else []
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), *lower])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=config.vocab_size, special_tokens=list(SPECIAL), unk_token="[UNK]", show_progress=False
    )
    tokenizer.train_from_iterator(_some(corpus), trainer)
    return tokenizer


def _some(corpus: Iterable[str]) -> Iterable[str]:
    """The corpus itself, once it has been seen to hold text."""
    if not any(text and text.strip() for text in corpus):
        raise _NoTextError
    return corpus
