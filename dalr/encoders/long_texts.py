"""Texts longer than the tower takes: split at word boundaries into pieces that fit, then averaged.

N texts, P pieces, H width.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dalr.encoders.prompts import Prompt
from dalr.encoders.tokens import Tokenizer
from dalr.errors import ConfigError


@dataclass(frozen=True)
class Pieces:
    """The pieces of some texts, in order: token ids, the text each is of, and how many tokens of that text it holds."""

    ids: list[list[int]]
    text_P: np.ndarray
    tokens_P: np.ndarray

    def average(self, features_PH: np.ndarray, unit: bool) -> np.ndarray:
        """Each text's features (N, H): the mean of its pieces weighted by their tokens; at length one with `unit`.

        A text in one piece keeps its features as they are.
        """
        count = int(self.text_P[-1]) + 1 if len(self.text_P) else 0
        parts_N = np.bincount(self.text_P, minlength=count)
        starts_N = np.cumsum(parts_N) - parts_N
        result_NH: np.ndarray = features_PH[starts_N]
        for text in np.flatnonzero(parts_N > 1).tolist():
            own = slice(starts_N[text], starts_N[text] + parts_N[text])
            mean_H = np.average(features_PH[own].astype(np.float64), axis=0, weights=self.tokens_P[own])
            result_NH[text] = mean_H / max(np.linalg.norm(mean_H), 1e-12) if unit else mean_H
        return result_NH


def split_long(texts: Sequence[str], prompt: Prompt, tokenizer: Tokenizer, max_length: int, overlap: int) -> Pieces:
    """Every text as one piece, or as several where with its prompt it has more than `max_length` tokens.

    Neighbouring pieces share up to `overlap` tokens, in whole words. Raises ConfigError where the prompt leaves
    less room than the overlap and one token.
    """
    ids, lengths = prompt.encode(texts)
    split: list[list[str]] = []
    for text, length in zip(texts, lengths, strict=True):
        if length > max_length and prompt.room <= overlap:
            raise ConfigError(
                f"text.chunk_overlap: {overlap} of the {max(prompt.room, 0)} tokens that max_length = {max_length} "
                "leaves for a text beside its prompt; expected fewer"
            )
        split.append(_fitting(text, prompt, tokenizer, max_length, prompt.room, overlap) if length > max_length else [])
    pieces = [piece for parts in split for piece in parts]
    piece_ids = iter(prompt.encode(pieces)[0])
    sizes = iter([max(len(row), 1) for row in tokenizer.pieces(pieces)])
    all_ids: list[list[int]] = []
    owners: list[int] = []
    tokens: list[int] = []
    for number, (own_ids, parts) in enumerate(zip(ids, split, strict=True)):
        if parts:
            all_ids += [next(piece_ids) for _ in parts]
            tokens += [next(sizes) for _ in parts]
        else:
            all_ids.append(own_ids)
            tokens.append(1)
        owners += [number] * max(len(parts), 1)
    return Pieces(all_ids, np.array(owners, dtype=np.int64), np.array(tokens, dtype=np.int64))


def split_words(text: str, room: int, overlap: int, tokenizer: Tokenizer) -> list[str]:
    """`text` in pieces of at most `room` tokens, as its words counted one by one add up; as full as they can be.

    A word that does not fit by itself is split between characters.
    """
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    heads = _count_heads(text, spans, tokenizer)
    for number in [number for number, size in enumerate(heads) if size > room][::-1]:
        spans[number : number + 1] = _split_word(text, spans[number], max(room // 8, 1), tokenizer)
    heads = _count_heads(text, spans, tokenizer)
    ends = [0, *(stop for _, stop in spans)]
    sizes = _count([text[end:stop] for end, (_, stop) in zip(ends, spans, strict=False)], tokenizer)
    pieces: list[str] = []
    start = 0
    while start < len(spans):
        first, stop, total = start, start + 1, heads[start]
        while stop < len(spans) and total + sizes[stop] <= room:
            total += sizes[stop]
            stop += 1
        pieces.append(text[spans[start][0] : spans[stop - 1][1]])
        if stop == len(spans):
            break
        start, shared = stop, 0
        # What is shared leaves room for the next word, so that every piece goes on.
        most = min(overlap, room - sizes[stop])
        while start - 1 > first and heads[start - 1] + shared <= most:
            start -= 1
            shared += sizes[start]
    return pieces


def _fitting(text: str, prompt: Prompt, tokenizer: Tokenizer, max_length: int, room: int, overlap: int) -> list[str]:
    """Pieces that fit with their prompt; where joined words have more tokens than alone, with less room."""
    pieces = split_words(text, room, overlap, tokenizer)
    fitting: list[str] = []
    for piece, length in zip(pieces, prompt.encode(pieces)[1], strict=True):
        if length > max_length and room > 1 and len(piece) > 1:
            fitting += _fitting(piece, prompt, tokenizer, max_length, room // 2, min(overlap, room // 2 - 1))
        else:
            fitting.append(piece)
    return fitting


def _count(words: Sequence[str], tokenizer: Tokenizer) -> list[int]:
    return [len(row) for row in tokenizer.pieces(words)]


def _count_heads(text: str, spans: Sequence[tuple[int, int]], tokenizer: Tokenizer) -> list[int]:
    """Tokens of each span as a piece's first word: byte-level ones differ with and without a space before them."""
    words = [text[start:stop] for start, stop in spans]
    return [max(two) for two in zip(_count(words, tokenizer), _count([f" {w}" for w in words], tokenizer), strict=True)]


def _split_word(text: str, span: tuple[int, int], most: int, tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """A span in halves of halves, until each has at most `most` tokens or one character."""
    done: list[tuple[int, int]] = []
    open_spans = [span]
    while open_spans:
        sizes = _count_heads(text, open_spans, tokenizer)
        following: list[tuple[int, int]] = []
        for (start, stop), size in zip(open_spans, sizes, strict=True):
            if size <= most or stop - start == 1:
                done.append((start, stop))
            else:
                middle = (start + stop) // 2
                following += [(start, middle), (middle, stop)]
        open_spans = following
    return sorted(done)
