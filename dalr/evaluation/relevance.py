"""Which texts and images of a catalogue are right answers for each other.

Legend: N rows of the manifest · T distinct texts · M distinct images · F facts
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dalr.data.groups import normalise_caption
from dalr.errors import DataError

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Relevance:
    """The distinct texts and images of some rows, and which of them are positives of each other.

    A text and an image are positives if they have a fact in common: a row that links them, or a group in which
    both occur. That is two incidence matrices instead of one of T × M, and it is not transitive.

    Attributes:
        text_rows: (T,) the first row of each distinct text: embed `[texts[row] for row in text_rows]`.
        image_rows: (M,) the first row of each distinct image.
        text_facts: sparse (T, F), 1 where a text takes part in a fact.
        image_facts: sparse (M, F).
    """

    text_rows: Rows
    image_rows: Rows
    text_facts: Any
    image_facts: Any


def relevance(
    texts: Sequence[str | None], images: Sequence[str | None], groups: Sequence[str | None] | None = None
) -> Relevance:
    """Who belongs to whom among N rows.

    Args:
        texts: captions; equal after `normalise_caption` is one text. None or blank: the row has no text.
        images: what tells images apart, best the content key, else the path. None: no (readable) image.
        groups: the group column, if there is one; it overrides the row's own link, which it implies. None or blank
            for a row without a group.

    Raises:
        DataError: no text has an image.
    """
    from scipy.sparse import csr_array

    text_ids, text_rows = _number([normalise_caption(text) or None if text else None for text in texts])
    image_ids, image_rows = _number(images)
    names = groups if groups is not None else [None] * len(text_ids)
    if not len(text_ids) == len(image_ids) == len(names):
        raise ValueError(f"{len(text_ids)} texts, {len(image_ids)} images and {len(names)} groups: not one a row")
    facts, _ = _number(
        [
            ("group", group) if group else ("link", text, image)
            for text, image, group in zip(text_ids.tolist(), image_ids.tolist(), names, strict=True)
        ]
    )
    if not ((text_ids >= 0) & (image_ids >= 0)).any():
        raise DataError("no row has both a text and an image that can be read: there is nothing to retrieve")

    def incidence(ids: Rows, count: int) -> Any:
        present = ids >= 0
        ones = np.ones(int(present.sum()), np.int32)
        return csr_array((ones, (ids[present], facts[present])), shape=(count, int(facts.max()) + 1))

    return Relevance(text_rows, image_rows, incidence(text_ids, len(text_rows)), incidence(image_ids, len(image_rows)))


def _number(values: Sequence[Hashable | None]) -> tuple[Rows, Rows]:
    """(number of each value in order of appearance, -1 for None; position of each number's first value)."""
    numbers: dict[Hashable, int] = {}
    first: list[int] = []
    ids = np.full(len(values), -1, np.int64)
    for at, value in enumerate(values):
        if value is None:
            continue
        number = numbers.setdefault(value, len(numbers))
        if number == len(first):
            first.append(at)
        ids[at] = number
    return ids, np.array(first, np.int64)
