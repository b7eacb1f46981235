"""Tokenizers behind one face: texts in, lists of token ids out, and a digest of what they do."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from dalr.errors import ConfigError
from dalr.files import hash_bytes, hash_json

CHUNK = 4096  # texts tokenised at once: bounds the memory of a corpus of long texts


class Tokenizer(Protocol):
    """What a text tower needs of a tokenizer. `pad_id` fills short rows; `digest` changes when the ids would."""

    pad_id: int

    def encode(self, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], list[int]]:
        """Ids with special tokens, cut to `max_length` (special tokens kept), and each text's whole length."""
        ...

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids without special tokens and uncut, of texts that stand inside a longer one."""
        ...

    def digest(self) -> str: ...

    def save(self, folder: Path) -> None: ...


class TransformersTokenizer:
    """A transformers tokenizer. A text that gives no token at all becomes one padding or end token."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        known = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, 0)
        self.pad_id: int = next(token for token in known if token is not None)
        alone = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id, self.pad_id)
        self.empty_id: int = next(token for token in alone if token is not None)
        self.mask_token: str | None = tokenizer.mask_token
        self.mask_id: int | None = tokenizer.mask_token_id
        self._adds_space: bool | None = None

    def encode(self, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], list[int]]:
        ids: list[list[int]] = []
        for start in range(0, len(texts), CHUNK):
            ids += self._ids(list(texts[start : start + CHUNK]), None)
        lengths = [max(len(row), 1) for row in ids]
        long = [row for row, length in enumerate(lengths) if length > max_length]
        if long:
            for row, cut in zip(long, self._ids([texts[row] for row in long], max_length), strict=True):
                ids[row] = cut
        return [row or [self.empty_id] for row in ids], lengths

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        if self._adds_space is None:
            with_space, without = self._ids([" a", "a"], None, special=False)
            first = self.tokenizer.convert_ids_to_tokens(without)[:1]
            self._adds_space = with_space != without and first[0].startswith("▁")
        if self._adds_space:  # sentencepiece marks a word's beginning itself: a space would be marked twice
            texts = [text.removeprefix(" ") for text in texts]
        ids: list[list[int]] = []
        for start in range(0, len(texts), CHUNK):
            ids += self._ids(list(texts[start : start + CHUNK]), None, special=False)
        return ids

    def edges(self) -> tuple[list[int], list[int]]:
        """The special tokens before and behind a text. ConfigError where they are not simply around it."""
        (whole,), (inner,) = self._ids(["a"], None), self._ids(["a"], None, special=False)
        for start in range(len(whole) - len(inner) + 1):
            if whole[start : start + len(inner)] == inner:
                return whole[:start], whole[start + len(inner) :]
        raise ConfigError("prompt: this tokenizer's special tokens are not simply around a text; use a prefix")

    def digest(self) -> str:
        if not self.tokenizer.is_fast:
            return hash_json([type(self.tokenizer).__name__, self.tokenizer.get_vocab()])
        rules = json.loads(self.tokenizer.backend_tokenizer.to_str())
        # The last call's cutting and padding are kept in the tokenizer, but are no property of it.
        return hash_json({key: value for key, value in rules.items() if key not in ("truncation", "padding")})

    def save(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(folder)

    def _ids(self, texts: list[str], max_length: int | None, special: bool = True) -> list[list[int]]:
        if not texts:
            return []
        encoded = self.tokenizer(
            texts,
            add_special_tokens=special,
            truncation=max_length is not None,
            max_length=max_length,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return [list(row) for row in encoded["input_ids"]]


class OpenClipTokenizer:
    """open_clip's own byte-pair tokenizer, whose vocabulary is part of the open_clip package."""

    pad_id = 0

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def encode(self, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], list[int]]:
        start, end = self.tokenizer.sot_token_id, self.tokenizer.eot_token_id
        inner = [self.tokenizer.encode(text) for text in texts]
        ids = [[start, *row[: max_length - 2], end] for row in inner]
        return ids, [len(row) + 2 for row in inner]

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(self.tokenizer.encode(text)) for text in texts]

    def digest(self) -> str:
        clean = getattr(self.tokenizer.clean_fn, "__name__", "")
        vocabulary = json.dumps(self.tokenizer.encoder, sort_keys=True).encode()
        return hash_bytes(b"open_clip", vocabulary, clean.encode())

    def save(self, folder: Path) -> None:
        """Nothing: the package carries it."""


class OpenClipHFTokenizer:
    """The transformers tokenizer of an open_clip tower, with open_clip's text cleaning and fixed length."""

    def __init__(self, tokenizer: Any, settings: dict[str, Any]) -> None:
        self.tokenizer, self.settings = tokenizer, settings
        self.pad_id: int = tokenizer.tokenizer.pad_token_id or 0

    def encode(self, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], list[int]]:
        if not texts:
            return [], []
        clean = [self.tokenizer.clean_fn(text) for text in texts]
        lengths = [len(row) for row in self.tokenizer.tokenizer(clean, verbose=False)["input_ids"]]
        return self.tokenizer(list(texts), context_length=max_length).tolist(), lengths

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        clean = [self.tokenizer.clean_fn(text) for text in texts]
        if not clean:
            return []
        encoded = self.tokenizer.tokenizer(clean, add_special_tokens=False, verbose=False)
        return [list(row) for row in encoded["input_ids"]]

    def digest(self) -> str:
        return hash_json([self.settings, TransformersTokenizer(self.tokenizer.tokenizer).digest()])

    def save(self, folder: Path) -> None:
        self.tokenizer.tokenizer.save_pretrained(folder)
