"""Which tokens masked language modelling hides, and what is put in their place.

Devlin et al. 2019: of the chosen tokens 80 % become the mask token, 10 % a random one, 10 % stay. Chosen are single
tokens, whole words (all pieces of a word or none) or spans of words (SpanBERT, Joshi et al. 2020).

Legend: B rows · L tokens · V vocabulary.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from dalr.config import Config
from dalr.errors import ConfigError

Ids = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
SPAN_STOP, LONGEST_SPAN = 0.2, 10  # words in a span: geometric, cut (mean 3.8, as SpanBERT)


class MaskingConfig(Config):
    """How much is masked and how. `final_share` is that of the last step, reached in a line from `share`.

    Of the chosen tokens `mask` become the mask token and `random` another one; the rest stays as it is.
    """

    share: float = Field(default=0.15, gt=0, lt=1)
    final_share: float | None = Field(default=None, gt=0, lt=1)
    form: Literal["token", "word", "span"] = "token"
    mask: float = Field(default=0.8, ge=0, le=1)
    random: float = Field(default=0.1, ge=0, le=1)

    @model_validator(mode="after")
    def _sums(self) -> "MaskingConfig":
        if self.mask + self.random > 1:
            raise ValueError(f"mask {self.mask} and random {self.random} are more than 1 together")
        return self

    def share_at(self, done: float) -> float:
        """The share of tokens to choose when `done` (0 to 1) of the run is over."""
        last = self.share if self.final_share is None else self.final_share
        return self.share + (last - self.share) * done


@dataclass(frozen=True)
class Vocabulary:
    """What masking must know of a tokenizer.

    Attributes:
        mask_id: of the mask token.
        special_V: true for tokens that are never masked nor drawn.
        continues_V: true for tokens that go on with the word before them.
        ordinary: ids of all other tokens, to draw random ones from.
    """

    mask_id: int
    special_V: Flags
    continues_V: Flags
    ordinary: Ids

    @classmethod
    def of(cls, tokenizer: Any) -> "Vocabulary":
        """Read a transformers tokenizer. Raises ConfigError for one without a mask token."""
        if tokenizer.mask_token_id is None:
            raise ConfigError(
                "model: its tokenizer has no mask token, which a phase of MLM needs; use CLM alone, or a tokenizer "
                "with one (a new one has it)"
            )
        tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        special_V = np.zeros(len(tokens), dtype=bool)
        special_V[tokenizer.all_special_ids] = True
        style = _style(tokens)
        continues_V = np.array([_continues(token, style) for token in tokens]) & ~special_V
        return cls(tokenizer.mask_token_id, special_V, continues_V, np.flatnonzero(~special_V))


def _style(tokens: list[str]) -> str:
    """How most of the vocabulary marks words: `##` inside one (WordPiece), `Ġ` or `▁` at the beginning of one."""
    counts = {mark: sum(token.startswith(mark) for token in tokens) for mark in ("##", "Ġ", "▁")}
    style = max(counts, key=lambda mark: counts[mark])
    return style if counts[style] else ""


def _continues(token: str, style: str) -> bool:
    if style == "##":
        return token.startswith("##")
    return bool(style) and not token.startswith(style) and any(map(str.isalnum, token))


def mask_rows(
    ids_BL: Ids, real_BL: Flags, words: Vocabulary, config: MaskingConfig, share: float, generator: np.random.Generator
) -> tuple[Ids, Flags]:
    """(the ids with some hidden, which places were chosen (B, L)).

    In each row round(share · n) of its n tokens that are neither special nor padding are chosen, at least one where
    there is one. By words and spans it is the largest number up to that which whole words in the order drawn give.
    `real_BL` is false on padding.
    """
    hidden_BL, chosen_BL = ids_BL.copy(), np.zeros(ids_BL.shape, dtype=bool)
    for row, ids_L in enumerate(ids_BL):
        places = np.flatnonzero(real_BL[row] & ~words.special_V[ids_L])
        if not len(places):
            continue
        count = max(1, round(share * len(places)))
        chosen = _choose(places, ids_L, words, config.form, count, generator)
        chosen_BL[row, chosen] = True
        masked, random = round(config.mask * len(chosen)), round((config.mask + config.random) * len(chosen))
        order = generator.permutation(chosen)
        hidden_BL[row, order[:masked]] = words.mask_id
        hidden_BL[row, order[masked:random]] = generator.choice(words.ordinary, random - masked)
    return hidden_BL, chosen_BL


def _choose(places: Ids, ids_L: Ids, words: Vocabulary, form: str, count: int, generator: np.random.Generator) -> Ids:
    if form == "token":
        return generator.permutation(places)[:count]
    # A word begins where a token does not go on with the token just before it.
    begins = ~words.continues_V[ids_L[places]] | (np.diff(places, prepend=-2) != 1)
    groups = np.split(places, np.flatnonzero(begins)[1:] if begins[0] else np.flatnonzero(begins))
    free = np.ones(len(groups), dtype=bool)
    taken: list[Ids] = []
    left = count
    for first in generator.permutation(len(groups)):
        length = 1 if form == "word" else min(int(generator.geometric(SPAN_STOP)), LONGEST_SPAN)
        for number in range(first, min(first + length, len(groups))):
            if not free[number] or len(groups[number]) > left:
                break
            free[number] = False
            taken.append(groups[number])
            left -= len(groups[number])
        if not left:
            break
    # A row whose every word is longer than the count still learns from one of them.
    return np.concatenate(taken) if taken else groups[int(generator.integers(len(groups)))]
