"""Prompts: a prefix in front of every text or a template around it, and which tokens are pooled then.

A prompt with `{text}` in it is a template: `{text}` stands once, or twice for echo, where only the tokens of the last
occurrence are pooled, which have seen the whole text before (Springer et al. 2024, "Repetition improves language model
embeddings"). `{mask}` is the tokenizer's mask token, for pooling there (Jiang et al. 2022, "PromptBERT"). Any other
prompt is a prefix.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from dalr.config import nearest
from dalr.encoders.text_parts import TextSpec
from dalr.encoders.tokens import Tokenizer, TransformersTokenizer
from dalr.errors import ConfigError, shortened

TEXT, MASK = "{text}", "{mask}"
MASK_EXAMPLE = f"""'This sentence: "{TEXT}" means {MASK}.'"""


class Prompt(Protocol):
    """A prompt as a tower uses it. `room` is how many tokens of a text fit; `selects`: some tokens are not pooled."""

    room: int
    selects: bool

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        """Rows of token ids, special tokens included, cut to the tower's length, and each row's whole length."""
        ...

    def pooled(self, length: int) -> tuple[int, int]:
        """The first and, exclusively, the last token that is pooled in a row of `encode` with `length` tokens."""
        ...


def find_prompt(prompt: str | None, prompts: Mapping[str, str], default: str, key: str = "prompt") -> str:
    """The prompt itself: None is the default, a name among `prompts` what it names, anything else a prompt's text.

    Raises ConfigError for a single word that is no known name, where there are names (a prefix of one word has a
    space or a colon behind it).
    """
    if prompt is None:
        return default
    if prompt in prompts:
        return prompts[prompt]
    if prompts and re.fullmatch(r"[\w.-]+", prompt):
        raise ConfigError(f"{key}: this encoder has no prompt '{prompt}'; {nearest(prompt, list(prompts))}")
    return prompt


def build_prompt(text: str, tokenizer: Tokenizer, spec: TextSpec) -> Prompt:
    """What the prompt `text` does with the tower's tokenizer, length and pooling.

    Raises ConfigError for a template that cannot be used: an unknown or missing placeholder, no mask token, no room
    for a text, an open_clip tower; and for pooling `mask` without a mask token.
    """
    named = f"prompt '{shortened(text, 60)}'"
    unknown = [found for found in re.findall(r"\{\s*\w*\s*\}", text) if found not in (TEXT, MASK)]
    if unknown:
        raise ConfigError(f"{named}: {unknown[0]} is not known; expected {TEXT} and {MASK}, or no braces around a word")
    if TEXT in text:
        if not isinstance(tokenizer, TransformersTokenizer):
            raise ConfigError(f"{named}: an open_clip tower takes a prefix only, without {TEXT}")
        return Template(text, tokenizer, spec, named)
    if MASK in text:
        raise ConfigError(f"{named}: has {MASK} but no {TEXT}; expected a template such as {MASK_EXAMPLE}")
    if "mask" in spec.pooling:
        raise ConfigError(f"{named}: pooling 'mask' needs a template with {MASK}, such as {MASK_EXAMPLE}")
    return Prefix(text, tokenizer, spec)


class Prefix:
    """A text put before every text and tokenised together with it, as sentence-transformers does.

    Without `include_prompt` its tokens are not pooled, nor is the special token before them.
    """

    def __init__(self, text: str, tokenizer: Tokenizer, spec: TextSpec) -> None:
        self.text, self.tokenizer, self.spec = text, tokenizer, spec
        self.selects = bool(text) and not spec.include_prompt
        self._skipped = self._count() if self.selects else 0
        # A text's own first token may fuse with the prefix, so this is not exact for every text.
        self.room = spec.max_length - self.encode(["a"])[1][0] + len(tokenizer.pieces(["a"])[0])

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        inputs = [self.text + text for text in texts]
        if self.spec.lowercase:
            inputs = [text.lower() for text in inputs]
        return self.tokenizer.encode(inputs, self.spec.max_length)

    def pooled(self, length: int) -> tuple[int, int]:
        return self._skipped, length

    def _count(self) -> int:
        """How many leading tokens pooling leaves out; a closing special token is not one of them."""
        alone, extended = self.tokenizer.encode([self.text, f"{self.text} a"], self.spec.max_length)[0]
        return next((k for k, (a, b) in enumerate(zip(alone, extended, strict=False)) if a != b), len(alone))


class Template:
    """A text inside a template, once or twice; the text is cut so that the whole template stays.

    The template's parts and the text are tokenised apart, so that no token belongs to both; a space before the text
    goes with the text's first word, as byte-level tokenizers have it. Where the text stands twice, the last place
    decides about that space for both, which then have equally many tokens.
    """

    def __init__(self, text: str, tokenizer: TransformersTokenizer, spec: TextSpec, named: str) -> None:
        self.tokenizer, self.spec = tokenizer, spec
        parts = text.split(TEXT)
        self.times = len(parts) - 1
        if self.times > 2 or text.count(MASK) > 1:
            raise ConfigError(f"{named}: expected {TEXT} once or twice and {MASK} at most once")
        if MASK in text and tokenizer.mask_token is None:
            raise ConfigError(f"{named}: this encoder's tokenizer has no mask token; leave {MASK} out")
        if self.times == 2 and "own" in spec.pooling:
            raise ConfigError(f"{named}: the tower's own pooling cannot leave tokens out; name another text.pooling")
        self.lead = " " if parts[-2].endswith(" ") else ""
        parts = [part.removesuffix(self.lead) for part in parts[:-1]] + parts[-1:]
        if spec.lowercase:
            parts = [part.lower() for part in parts]
        start, end = tokenizer.edges()
        ids = tokenizer.pieces([part.replace(MASK, tokenizer.mask_token or "") for part in parts])
        ids[0], ids[-1] = start + ids[0], ids[-1] + end
        self.parts = ids
        self.fixed = sum(len(part) for part in ids)
        self.room = (spec.max_length - self.fixed) // self.times
        if self.room < 1:
            raise ConfigError(
                f"{named}: has {self.fixed} tokens, which leaves no room for a text in max_length = {spec.max_length}"
            )
        self._mask = self._find_mask(named) if "mask" in spec.pooling else None
        self.selects = self._mask is not None or self.times == 2 or not spec.include_prompt

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        texts = [text.lower() for text in texts] if self.spec.lowercase else texts
        inner = self.tokenizer.pieces([self.lead + text if text.strip() else "" for text in texts])
        return [self._around(row) for row in inner], [max(self.fixed + self.times * len(row), 1) for row in inner]

    def pooled(self, length: int) -> tuple[int, int]:
        count = max(length - self.fixed, 0) // self.times
        if self._mask is not None:
            part, place = self._mask
            place += sum(len(ids) for ids in self.parts[:part]) + part * count
            return place, place + 1
        if count == 0 or not self.selects:
            return 0, length  # a text without any token: what stands around it is all there is
        stop = length - len(self.parts[-1])
        return stop - count, stop

    def _around(self, row: list[int]) -> list[int]:
        ids = list(self.parts[0])
        for part in self.parts[1:]:
            ids += row[: self.room]
            ids += part
        return ids or [self.tokenizer.empty_id]

    def _find_mask(self, named: str) -> tuple[int, int]:
        found = [
            (part, place)
            for part, ids in enumerate(self.parts)
            for place, token in enumerate(ids)
            if token == self.tokenizer.mask_id
        ]
        if len(found) != 1:
            raise ConfigError(f"{named}: pooling 'mask' needs {MASK} in the template once, as in {MASK_EXAMPLE}")
        return found[0]
