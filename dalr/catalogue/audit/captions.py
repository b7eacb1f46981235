"""What is wrong with a caption alone: nothing there, no words, one text for everything, another script, shouting."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from pydantic import Field

from dalr.config import Config
from dalr.data.groups import normalise_caption
from dalr.data.images import EXTENSIONS
from dalr.data.rows import is_placeholder

Fault = tuple[str, str]

_FILE_NAME = re.compile(
    rf"\S*({'|'.join(re.escape(end) for end in sorted(EXTENSIONS))})|(?:img|dsc|dscn|image|photo|pic)[\s_-]*\d+", re.I
)
_MARKUP = re.compile(r"</?[a-z][^<>]*>|&(?:[a-z]+|#\d+);", re.I)
LETTERS = 8  # fewer say little about script and case


class CaptionConfig(Config):
    """When a caption is faulty on its own.

    It is `boilerplate` where it stands under more than the share `most_shared` of the pictures (ten at least),
    `shouting` above the share `capitals` of capital letters, and of `another script` than the share `common` of all
    captions, in a catalogue where most are not.
    """

    most_shared: float = Field(default=0.01, gt=0, le=1)
    capitals: float = Field(default=0.8, gt=0, le=1)
    common: float = Field(default=0.8, gt=0.5, le=1)


def caption_faults(
    texts: Sequence[str | None],
    pictures: Sequence[str | None],
    config: CaptionConfig,
    token_counts: Callable[[Sequence[str]], list[int]] | None = None,
    token_limit: int = 0,
) -> list[list[Fault]]:
    """For each of N captions its faults, each a name and a reason in words.

    Args:
        texts: the captions; None where a row has none.
        pictures: the content key of each row's picture, or None.
        token_counts, token_limit: of the text encoder, for `too long`; None leaves that out.
    """
    shared = _pictures_of(texts, pictures)
    most = max(10, round(config.most_shared * len({key for key in pictures if key})))
    scripts = [_script(text) for text in texts]
    written = Counter(script for script in scripts if script)
    usual, count = written.most_common(1)[0] if written else ("", 0)
    one_script = count >= config.common * written.total() > 0
    shouting = [_shouts(text, config.capitals) for text in texts]
    loud = np.mean(shouting) > 0.5 if shouting else False
    cut = _cut(texts, token_counts, token_limit)
    found: list[list[Fault]] = []
    for row, text in enumerate(texts):
        if not text or not text.strip():
            found.append([("empty caption", "there is no caption")])
            continue
        if is_placeholder(text):
            found.append([("empty caption", f"the caption is '{text.strip()}', which stands for an empty cell")])
            continue
        faults: list[Fault] = []
        many = shared.get(normalise_caption(text), 0)
        if _FILE_NAME.fullmatch(text.strip()):
            faults.append(("file name", "the caption is a file's name"))
        elif not any(letter.isalpha() for letter in text):
            faults.append(("no words", "the caption has no letter in it"))
        if many > most:
            faults.append(("boilerplate", f"the same caption stands under {many:,} different pictures"))
        if _MARKUP.search(text):
            faults.append(("markup", "the caption holds HTML"))
        if one_script and scripts[row] and scripts[row] != usual:
            faults.append(("another script", f"the caption is in {scripts[row].title()}, most are in {usual.title()}"))
        if shouting[row] and not loud:
            faults.append(("shouting", "the caption is in capitals"))
        if row in cut:
            faults.append(("too long", f"the caption has {cut[row]:,} tokens, the encoder reads {token_limit:,}"))
        found.append(faults)
    return found


def word_set(text: str) -> str:
    """The different words of a caption in order: captions that differ in order, case or signs have the same."""
    return " ".join(sorted(set(re.findall(r"\w+", normalise_caption(text)))))


def _pictures_of(texts: Sequence[str | None], pictures: Sequence[str | None]) -> Counter[str]:
    pairs = {
        (normalise_caption(text), picture) for text, picture in zip(texts, pictures, strict=True) if text and picture
    }
    return Counter(caption for caption, _ in pairs)


def _cut(
    texts: Sequence[str | None], token_counts: Callable[[Sequence[str]], list[int]] | None, limit: int
) -> dict[int, int]:
    """Tokens of the captions that are longer than the limit, by row."""
    # A token is at least a character: most captions need not be counted.
    rows = [row for row, text in enumerate(texts) if text and len(text) + 2 > limit]
    if token_counts is None or not rows:
        return {}
    counts = token_counts([texts[row] or "" for row in rows])
    return {row: count for row, count in zip(rows, counts, strict=True) if count > limit}


def _shouts(text: str | None, share: float) -> bool:
    cased = [letter for letter in text or "" if letter.isupper() or letter.islower()]
    return len(cased) >= LETTERS and sum(map(str.isupper, cased)) > share * len(cased)


def _script(text: str | None) -> str:
    """The script of most letters (LATIN, CYRILLIC, CJK, …), empty where there are few letters."""
    letters = [letter for letter in text or "" if letter.isalpha()]
    if len(letters) < LETTERS // 2:
        return ""
    return Counter(map(_script_of, letters)).most_common(1)[0][0]


@lru_cache(maxsize=65_536)
def _script_of(letter: str) -> str:
    script = unicodedata.name(letter, "").split(" ")[0]
    return "JAPANESE" if script in ("HIRAGANA", "KATAKANA") else script
