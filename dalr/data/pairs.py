"""Anchors with a positive each, and the texts that may serve as negatives: what mining starts from.

Pairs come from a table with the columns anchor and positive, from pairs that people scored, or from a catalogue,
where the captions of one group are positives of each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dalr.data.groups import normalise_caption
from dalr.data.manifest import Manifest
from dalr.data.records import BadRow
from dalr.data.rows import as_text, unusable_text
from dalr.data.scored_pairs import SENTENCE_NAMES, read_scored_pairs
from dalr.data.sources import Table
from dalr.errors import DataError

ANCHOR, POSITIVE, GROUP = "anchor", "positive", "group"
Sides = Literal["positives", "anchors", "both"]


@dataclass(frozen=True)
class Texts:
    """Texts, each with the name of its group or None."""

    texts: list[str] = field(default_factory=list)
    group: list[str | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Pairs:
    """P anchors with a positive each.

    Attributes:
        anchors, positives: texts.
        group: what the pair's two texts belong to, or None: texts of one group are never negatives of each other.
        where: the place of each pair, `file:row` where the row is known.
    """

    anchors: list[str] = field(default_factory=list)
    positives: list[str] = field(default_factory=list)
    group: list[str | None] = field(default_factory=list)
    where: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.anchors)

    def add(self, anchor: str, positive: str, group: str | None, where: str) -> None:
        """One more pair."""
        self.anchors.append(anchor)
        self.positives.append(positive)
        self.group.append(group)
        self.where.append(where)

    def candidates(self, sides: Sides = "positives") -> Texts:
        """The texts of these pairs as candidates for negatives of each other."""
        columns = {"positives": [self.positives], "anchors": [self.anchors], "both": [self.positives, self.anchors]}
        chosen = columns[sides]
        return Texts([text for column in chosen for text in column], self.group * len(chosen))


def has_pairs(table: Table) -> bool:
    """Whether a table has the columns of `read_pairs`."""
    return {ANCHOR, POSITIVE} <= set(table.columns())


def has_scored_pairs(table: Table) -> bool:
    """Whether a table has two columns of sentences by name, as a file of scored pairs has."""
    names = {name.strip().lower() for name in table.columns()}
    return any(set(pair) <= names for pair in SENTENCE_NAMES)


def read_pairs(table: Table, source: str, group: str | None = None) -> tuple[Pairs, list[BadRow]]:
    """The pairs of a table with the columns `anchor` and `positive`, and the rows that cannot be used.

    Args:
        table: as `read_source` returns it. Other columns, such as the negatives of triplets, are passed over.
        source: its name, for messages.
        group: the column of groups; None takes the column `group`, if there is one.

    Raises DataError for a column that is not there, or where no row is a pair.
    """
    columns = table.columns()
    missing = [name for name in (ANCHOR, POSITIVE, group) if name is not None and name not in columns]
    if missing:
        raise DataError(f"{source}: lacks the columns {', '.join(missing)}; it has {', '.join(columns) or 'none'}")
    pairs = Pairs()
    bad: list[BadRow] = []
    for part in table.parts:
        # A folder may hold another table, without these columns.
        cells_of = [part.columns.get(name) or [None] * len(part.rows) for name in (ANCHOR, POSITIVE, group or GROUP)]
        for line, *cells, group_cell in zip(part.rows, *cells_of, strict=True):
            texts = [as_text(cell) for cell in cells]
            reason = _unusable(texts)
            if reason:
                part.refuse(line, reason)
            else:
                anchor, positive = (text or "" for text in texts)
                pairs.add(anchor, positive, as_text(group_cell), f"{part.file}:{line}")
        bad += part.bad
    if not len(pairs):
        raise DataError(f"{source}: holds no usable pair{_first(bad)}")
    return pairs, bad


def scored_positives(path: str | Path, threshold: float) -> tuple[Pairs, list[BadRow], int]:
    """The pairs of a scored file (see `read_scored_pairs`) with a score of `threshold` or more.

    Returns the pairs, the rows that cannot be used, and the number of pairs below the threshold. Raises DataError
    where no pair reaches it.
    """
    scored, bad = read_scored_pairs(path, low=None, high=None)
    pairs = Pairs()
    below = 0
    for number, (first, second, score) in enumerate(zip(scored.first, scored.second, scored.score, strict=True), 1):
        if score < threshold:
            below += 1
        else:
            pairs.add(first, second, None, f"{Path(path).name}: pair {number}")
    if not len(pairs):
        raise DataError(
            f"{path}: none of {len(scored):,} pairs has a score of {threshold:g} or more "
            f"(they go from {min(scored.score):g} to {max(scored.score):g})"
        )
    return pairs, bad, below


def caption_pairs(manifest: Manifest) -> tuple[Pairs, Texts, int]:
    """The captions of a catalogue: each with the next other caption of its group, the last with the first.

    A group is the manifest's group column, else an image. Returns the pairs, all captions with their groups, and
    the number of captions whose group has no other. Raises DataError where no group has two captions.
    """
    numbers = manifest.ids()[:, 0]
    named = manifest.group or [None] * len(manifest)
    captions = Texts()
    members: dict[str, dict[str, int]] = {}
    for row, text in enumerate(manifest.texts):
        if text is None:
            continue
        group = named[row] or (f"image {numbers[row]}" if numbers[row] >= 0 else None)
        captions.texts.append(text)
        captions.group.append(group)
        if group is not None:
            members.setdefault(group, {}).setdefault(normalise_caption(text), row)
    pairs = Pairs()
    for group, by_text in members.items():
        rows = list(by_text.values())
        for row, other in zip(rows, [*rows[1:], rows[0]], strict=True):
            if other != row:
                pairs.add(manifest.texts[row] or "", manifest.texts[other] or "", group, manifest.where(row))
    if not len(pairs):
        raise DataError(
            f"{manifest.source}: no group has two different captions, so no caption has a positive; name the group "
            "column, or give a file with the columns anchor and positive"
        )
    lone = sum(len(by_text) == 1 for by_text in members.values()) + captions.group.count(None)
    return pairs, captions, lone


def _unusable(texts: Sequence[str | None]) -> str:
    empty = [name for name, text in zip((ANCHOR, POSITIVE), texts, strict=True) if text is None]
    return f"has no {' and no '.join(empty)}" if empty else unusable_text(texts)


def _first(bad: Sequence[BadRow]) -> str:
    return "".join(f"; {row.where}: {row.reason}" for row in bad[:1])
