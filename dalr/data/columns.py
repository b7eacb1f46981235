"""Which column is which: named in the config, or guessed by its name, then by what is in it."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dalr.config import nearest
from dalr.data.images import EXTENSIONS
from dalr.errors import DataError

# In order of preference; compared without case, with spaces and dashes as underscores. What a weak name means is
# settled by its cells: `url` may be a product's page.
IMAGE_NAMES = (
    "image", "image_path", "img", "img_path", "photo", "picture", "file_name", "image_file", "image_name", "image_url",
    "img_url", "photo_url", "jpg", "png", "webp",
)  # fmt: skip
WEAK_IMAGE_NAMES = ("filename", "filepath", "file_path", "path", "file", "url", "link")
TEXT_NAMES = (
    "text", "caption", "captions", "title", "sentence", "sentences", "product_title", "product_name", "name",
    "description", "alt_text", "alt", "txt", "prompt", "query", "label", "labels", "class", "category",
)  # fmt: skip
# The words of a column's name that say so too, as in `Produkt Titel`.
TEXT_WORDS = ("title", "caption", "description", "titel", "bezeichnung", "beschreibung", "titre", "titolo", "titulo")
GROUP_NAMES = ("group", "group_id")
WEIGHT_NAMES = ("weight", "sample_weight")
ID_NAMES = ("id", "key", "uid", "uuid", "sku", "product_id", "item_id", "image_id", "__key__")
SPLIT_NAMES = ("split",)
SAMPLE = 2_000
# Beyond these a column of that name means something else: an age group, a weight in grams, a split skirt.
MOST_ROWS_A_GROUP = 50
MOST_SPLITS = 10
LARGEST_WEIGHT = 10.0


@dataclass(frozen=True)
class Roles:
    """The column of each role, or None; `guessed` holds the roles that the config did not name.

    `notes` say which columns have the name of a role and were left alone, and why.
    """

    image: str | None = None
    text: tuple[str, ...] = ()
    group: str | None = None
    weight: str | None = None
    id: str | None = None
    split: str | None = None
    guessed: frozenset[str] = field(default_factory=frozenset)
    notes: tuple[str, ...] = ()

    def used(self) -> set[str]:
        """Every column that has a role."""
        singles = (self.image, self.group, self.weight, self.id, self.split)
        return {name for name in (*singles, *self.text) if name is not None}

    def describe(self) -> dict[str, Any]:
        """Role → column(s), for a report."""
        text = self.text[0] if len(self.text) == 1 else list(self.text) or None
        return {
            "image": self.image,
            "text": text,
            "group": self.group,
            "weight": self.weight,
            "id": self.id,
            "split": self.split,
        }


def find_columns(
    columns: Mapping[str, Sequence[Any]],
    source: str,
    *,
    image: str | None = None,
    text: str | Sequence[str] | None = None,
    group: str | None = None,
    weight: str | None = None,
    id: str | None = None,
    split: str | None = None,
) -> Roles:
    """Settle the role of every column.

    A named column must exist. An unnamed one is guessed by its name; the image column, failing that, by cells
    that look like paths of pictures, and the text column by cells of several words. A role is not given by name to
    cells that cannot mean it, and a note says so: `id` must be there and different in every row (five captions of
    one photo may carry the photo's id), `weight` small numbers, `group` of few rows each, `split` of few values.

    Raises DataError for a named column that is not there (naming the nearest one), or when neither an image nor a
    text column can be found.
    """
    wanted_text = [text] if isinstance(text, str) else list(text or [])
    named = {"image": image, "group": group, "weight": weight, "id": id, "split": split}
    for key, name in [*named.items(), *(("text", name) for name in wanted_text)]:
        if name is not None and name not in columns:
            raise DataError(f"{source}: there is no column '{name}' (data.{key}); {nearest(name, list(columns))}")
    free = [name for name in columns if name not in {*named.values(), *wanted_text}]
    guessed: set[str] = set()
    notes: list[str] = []

    def guess(role: str, names: Sequence[str], doubt: Callable[[Sequence[Any]], str]) -> str | None:
        found = _by_name(free, names)
        if found is None:
            return None
        reason = doubt(columns[found])
        if reason:
            notes.append(f"the column '{found}' {reason}: not taken as the {role}; name it with data.{role} if it is")
            return None
        guessed.add(role)
        free.remove(found)
        return found

    split = split or guess("split", SPLIT_NAMES, _no_split)
    group = group or guess("group", GROUP_NAMES, _no_group)
    weight = weight or guess("weight", WEIGHT_NAMES, _no_weight)
    if image is None:
        if any(_is_image(name) for name in columns):
            raise DataError(
                f"{source}: the first line looks like a row, not like a header; write the column names above it"
            )
        pictured = [name for name in free if _share(columns[name], _is_image) > 0.5]
        image = (
            _by_name([name for name in free if _could_be_images(columns[name])], IMAGE_NAMES)
            or _by_name(pictured, WEAK_IMAGE_NAMES)
            or next(iter(pictured), None)
        )
        if image is not None:
            guessed.add("image")
            free.remove(image)
    if not wanted_text:
        candidates = [name for name in free if _share(columns[name], _is_text) > 0.5]
        chosen = _by_name(candidates, TEXT_NAMES) or max(
            (name for name in candidates if _words(columns[name]) >= 2), key=lambda name: _words(columns[name]),
            default=None,
        ) or _by_word(candidates, TEXT_WORDS)  # fmt: skip
        if chosen is not None:
            wanted_text = [chosen]
            guessed.add("text")
            free.remove(chosen)
        elif candidates:
            listed = ", ".join(f"'{name}'" for name in candidates)
            notes.append(f"none of the columns {listed} is taken for the texts; name the one that is with data.text")
    id = id or guess("id", ID_NAMES, _no_key)
    if image is None and not wanted_text:
        raise DataError(
            f"{source}: found no column of images or texts among {', '.join(repr(name) for name in columns)}; "
            "name them with data.image and data.text"
        )
    return Roles(image, tuple(wanted_text), group, weight, id, split, frozenset(guessed), tuple(notes))


def plain_name(name: str) -> str:
    """A heading as it is compared: without case, spaces and dashes as underscores."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _by_name(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    plain = {plain_name(name): name for name in reversed(names)}
    return next((plain[name] for name in wanted if name in plain), None)


def _by_word(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    words = {name: set(plain_name(name).split("_")) for name in names}
    return next((name for word in wanted for name in names if word in words[name]), None)


def _is_image(cell: Any) -> bool:
    if hasattr(cell, "read_bytes"):
        return True
    if not isinstance(cell, str):
        return False
    return os.path.splitext(cell.split("?")[0])[1].lower() in EXTENSIONS


def _could_be_images(cells: Sequence[Any]) -> bool:
    """Paths or stored images: no column of numbers, and no sentences."""
    return (
        _share(cells, lambda cell: hasattr(cell, "read_bytes") or (isinstance(cell, str) and len(cell) < 2_000)) > 0.5
    )


def _is_text(cell: Any) -> bool:
    if isinstance(cell, list):
        return all(isinstance(item, str) for item in cell)
    return isinstance(cell, str) and any(character.isalpha() for character in cell)


def _share(cells: Sequence[Any], test: Any) -> float:
    """The share of non-empty cells among the first ones that pass `test`; 0 where all are empty."""
    sample = [cell for cell in cells[:SAMPLE] if cell not in (None, "", []) and not str(cell).isspace()]
    return sum(1 for cell in sample if test(cell)) / len(sample) if sample else 0.0


def _words(cells: Sequence[Any]) -> float:
    sample = [cell for cell in cells[:SAMPLE] if isinstance(cell, str) and cell.strip()]
    return sum(len(cell.split()) for cell in sample) / len(sample) if sample else 0.0


def _no_split(cells: Sequence[Any]) -> str:
    values = {cell for cell in cells if cell not in (None, "")}
    return f"has {len(values):,} different values" if len(values) > MOST_SPLITS else ""


def _no_group(cells: Sequence[Any]) -> str:
    known = [str(cell) for cell in cells if cell not in (None, "")]
    size = len(known) / max(1, len(set(known)))
    return f"has {size:,.0f} rows for each of its values" if size > MOST_ROWS_A_GROUP else ""


def _no_weight(cells: Sequence[Any]) -> str:
    numbers = [number for cell in cells[:SAMPLE] if cell not in (None, "") for number in _number(cell)]
    known = sum(1 for cell in cells[:SAMPLE] if cell not in (None, ""))
    if 2 * len(numbers) < known:
        return "holds few numbers"
    largest = max((number for number in numbers if math.isfinite(number)), default=0.0)
    return f"holds numbers up to {largest:,.0f}" if largest > LARGEST_WEIGHT else ""


def _number(cell: Any) -> list[float]:
    try:
        return [float(cell)]
    except (TypeError, ValueError):
        return []


def _no_key(cells: Sequence[Any]) -> str:
    keys = {cell for cell in cells if isinstance(cell, str | int) and str(cell).strip()}
    return "" if len(keys) == len(cells) else "has empty or repeated values"
