"""From columns to usable rows: keys, captions and weights checked one row after the other, bad ones recorded."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dalr.data.columns import Roles
from dalr.data.records import Part
from dalr.data.roots import Roots
from dalr.data.shards import PackedImage
from dalr.data.sources import Table


def accept_rows(columns: Mapping[str, Sequence[Any]], table: Table, roles: Roles, allow_urls: bool) -> dict[str, Any]:
    """The row-wise fields of a `Manifest`, by name, from the cells of all parts (see there what they mean)."""
    parts = table.parts
    rows = _Rows(columns, roles, Roots(table.root, allow_urls))
    several = len({part.file for part in parts}) > 1
    number = 0
    for place, part in enumerate(parts):
        for line in part.rows:
            rows.add(number, place, line, f"{part.file}:{line}" if several else str(line), part)
            number += 1
    notes = [note for part in parts for note in part.notes]
    notes += roles.notes
    if rows.unweighted:
        notes.append(f"{rows.unweighted:,} rows have no '{roles.weight}': their weight is 1")
    said_nothing = sum(1 for text in rows.texts if text is not None and is_placeholder(text))
    if said_nothing:
        notes.append(
            f"{said_nothing:,} captions are a placeholder such as 'nan' or 'n/a'; leave the cell empty instead"
        )
    objects = sum(1 for text in rows.texts if text is not None and text.startswith('{"') and text.endswith("}"))
    if objects:
        notes.append(f"{objects:,} captions are JSON objects as they stand; name a column of plain text with data.text")
    origin = rows.origin

    def cells(name: str) -> list[str | None]:
        return [as_text(columns[name][row]) for row in origin]

    splits = None
    if roles.split is not None or any(part.split for part in parts):
        by_file = [parts[place].split for place in rows.files]
        splits = (
            [own or file for own, file in zip(cells(roles.split), by_file, strict=True)] if roles.split else by_file
        )
    return {
        "keys": rows.keys,
        "images": rows.images,
        "texts": rows.texts,
        "group": cells(roles.group) if roles.group else None,
        "weight": np.array(rows.weights, dtype=np.float32),
        "split": splits,
        "columns": {
            name: [values[row] for row in origin] for name, values in columns.items() if name not in roles.used()
        },
        "bad": [bad for part in parts for bad in part.bad],
        "files": [part.file for part in parts],
        "file_numbers": np.array(rows.files, dtype=np.int32),
        "row_numbers": np.array(rows.lines, dtype=np.int64),
        "notes": notes,
        "stored": rows.stored if any(image is not None for image in rows.stored) else None,
    }


def is_placeholder(text: str) -> bool:
    """Whether it is what programs write for an empty cell, when they write it as text."""
    return text.strip().casefold() in ("nan", "none", "null", "n/a", "<na>")


def as_text(cell: Any) -> str | None:
    """A cell as text without space around it; None for an empty one."""
    if cell is None:
        return None
    return str(cell).strip() or None


def captions_of(cells: Sequence[Any]) -> list[str | None]:
    """The texts of a row: several columns joined by ", "; one text an item where the only column holds a list."""
    if len(cells) == 1 and isinstance(cells[0], list | tuple):
        return [text for text in map(as_text, cells[0]) if text] or [None]
    flat = [part for cell in cells for part in (cell if isinstance(cell, list | tuple) else [cell])]
    return [", ".join(text for text in map(as_text, flat) if text) or None]


def unusable_text(texts: Sequence[str | None]) -> str:
    """Why one of the texts cannot be used: a NUL, or half a surrogate pair (JSON can say it, UTF-8 cannot)."""
    for text in texts:
        if text is not None and not text.isprintable():
            if "\0" in text:
                return "holds a NUL character"
            if any("\ud800" <= character <= "\udfff" for character in text):
                return "holds half a surrogate pair, which is no character"
    return ""


def unspoilt(text: str) -> str:
    """`text` with what cannot be written as UTF-8 replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


class _Rows:
    """Rows as they are accepted; what is wrong with the others goes to their part's `bad`."""

    def __init__(self, columns: Mapping[str, Sequence[Any]], roles: Roles, roots: Roots) -> None:
        self.columns = columns
        self.roles = roles
        self.roots = roots
        self.seen: dict[str, str] = {}
        self.unweighted = 0
        self.keys: list[str] = []
        self.images: list[str | None] = []
        self.texts: list[str | None] = []
        self.weights: list[float] = []
        self.stored: list[PackedImage | None] = []
        self.files: list[int] = []
        self.lines: list[int] = []
        self.origin: list[int] = []

    def add(self, row: int, place: int, line: int, default_key: str, part: Part) -> None:
        """Take row `row` of the columns, or record why not. A cell of several captions makes several rows."""
        roles = self.roles
        written = as_text(self.columns[roles.id][row]) if roles.id else default_key
        key = written or default_key
        cell = self.columns[roles.image][row] if roles.image else None
        stored = cell if isinstance(cell, PackedImage) else None
        image = stored.name if stored else as_text(cell)
        captions = captions_of([self.columns[name][row] for name in roles.text])
        weight, reason = self._weight(row)
        if written is None:
            reason = f"has no '{roles.id}'"
        elif key in self.seen:
            reason = f"has the same '{roles.id or 'key'}' as {self.seen[key]}"
        elif image is None and not any(captions):
            both = roles.image and roles.text
            reason = "has neither an image nor a text" if both else f"has no {'image' if roles.image else 'text'}"
        elif image is not None and stored is None:
            reason = reason or self.roots.refusal(image)
        reason = reason or unusable_text([key, image, *captions])
        if reason:
            part.refuse(line, reason, unspoilt(key))
            return
        self.seen[key] = f"{part.file}:{line}"
        for number, caption in enumerate(captions, start=1):
            self.keys.append(key if len(captions) == 1 else f"{key}#{number}")
            self.images.append(image)
            self.texts.append(caption)
            self.weights.append(weight)
            self.stored.append(stored)
            self.files.append(place)
            self.lines.append(line)
            self.origin.append(row)

    def _weight(self, row: int) -> tuple[float, str]:
        if self.roles.weight is None:
            return 1.0, ""
        written = as_text(self.columns[self.roles.weight][row])
        if written is None:
            self.unweighted += 1
            return 1.0, ""
        try:
            weight = float(written)
        except ValueError:
            weight = math.nan
        if not math.isfinite(weight) or weight < 0.0:
            return 0.0, f"has the weight '{written}'; expected a number from 0"
        return weight, ""
