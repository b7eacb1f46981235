"""Texts without pictures: a corpus of sentences, and triplets for supervised contrast.

Read by the readers of catalogues, so that a line that cannot be used costs only itself and comes back as a bad row.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dalr.data.delimited import read_delimited
from dalr.data.jsonlines import read_lines
from dalr.data.pairs import ANCHOR, GROUP, POSITIVE
from dalr.data.records import BadRow
from dalr.data.rows import as_text
from dalr.errors import DataError

TRIPLET = (ANCHOR, POSITIVE, "negative")


@dataclass(frozen=True)
class Triplets:
    """Anchors, each with a positive and a negative; `group` is of the first two, as in `Pairs`."""

    anchors: list[str] = field(default_factory=list)
    positives: list[str] = field(default_factory=list)
    negatives: list[str] = field(default_factory=list)
    group: list[str | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.anchors)

    @property
    def sides(self) -> tuple[list[str], list[str], list[str]]:
        return self.anchors, self.positives, self.negatives

    def add(self, anchor: str, positive: str, negative: str, group: str | None) -> None:
        """One more triplet."""
        self.anchors.append(anchor)
        self.positives.append(positive)
        self.negatives.append(negative)
        self.group.append(group)

    def chosen(self, kept: Iterable[bool]) -> "Triplets":
        """The triplets for which `kept` is true."""
        found = Triplets()
        for anchor, positive, negative, group, keep in zip(*self.sides, self.group, kept, strict=True):
            if keep:
                found.add(anchor, positive, negative, group)
        return found


def read_corpus(path: str) -> tuple[list[str], list[BadRow]]:
    """The sentences of a text file, one a line, empty lines left out; and the lines that are not UTF-8 text.

    Raises DataError for a file that is missing or holds no sentence.
    """
    part = read_lines(Path(path))
    sentences = [text.strip() for text in part.columns.get("text", [])]
    if not sentences:
        raise DataError(f"data.corpus: {path}: holds no sentence; expected one a line")
    return sentences, part.bad


def read_triplets(path: str) -> tuple[Triplets, list[BadRow]]:
    """The triplets of a CSV with the columns of `TRIPLET`, and `group` where it has one; and the rows that lack a text.

    Raises DataError for a file that is missing, lacks a column or holds no complete row.
    """
    part = read_delimited(Path(path))
    missing = [name for name in TRIPLET if name not in part.columns]
    if missing:
        raise DataError(f"data.triplets: {path}: lacks the columns {', '.join(missing)}")
    found = Triplets()
    groups = part.columns.get(GROUP) or [None] * len(part.rows)
    for line, *cells, group in zip(part.rows, *(part.columns[name] for name in TRIPLET), groups, strict=True):
        empty = [name for name, cell in zip(TRIPLET, cells, strict=True) if not (cell or "").strip()]
        if empty:
            part.refuse(line, f"has no {' and no '.join(empty)}")
        else:
            anchor, positive, negative = cells
            found.add(anchor, positive, negative, as_text(group))
    if not len(found):
        raise DataError(f"data.triplets: {path}: holds no complete row")
    return found, part.bad
