"""Which column is which: named in the config, or guessed by its name, then by what is in it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dalr.config import nearest
from dalr.data.images import EXTENSIONS, is_url
from dalr.errors import DataError

# In order of preference; compared without case, with spaces and dashes as underscores.
IMAGE_NAMES = (
    "image", "image_path", "img", "img_path", "photo", "picture", "file_name", "filename", "filepath", "file_path",
    "image_file", "image_name", "image_url", "img_url", "photo_url", "url", "path", "file", "jpg", "png", "webp",
)  # fmt: skip
TEXT_NAMES = (
    "text", "caption", "captions", "title", "sentence", "sentences", "product_title", "product_name", "name",
    "description", "alt_text", "alt", "txt", "prompt", "query", "label", "labels", "class", "category",
)  # fmt: skip
GROUP_NAMES = ("group", "group_id")
WEIGHT_NAMES = ("weight", "sample_weight")
ID_NAMES = ("id", "key", "uid", "uuid", "sku", "product_id", "item_id", "image_id", "__key__")
SPLIT_NAMES = ("split",)
SAMPLE = 2_000


@dataclass(frozen=True)
class Roles:
    """The column of each role, or None; `guessed` holds the roles that the config did not name.

    `near_miss` is a column that is called like a key and nearly is one, "" where there is none.
    """

    image: str | None = None
    text: tuple[str, ...] = ()
    group: str | None = None
    weight: str | None = None
    id: str | None = None
    split: str | None = None
    guessed: frozenset[str] = field(default_factory=frozenset)
    near_miss: str = ""

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
    that look like paths of pictures, and the text column by cells of several words. `id` is guessed only where its
    cells are all there and all different: five captions of one photo may well carry the photo's id.

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

    def guess(role: str, names: Sequence[str]) -> str | None:
        found = _by_name(free, names)
        if found is not None:
            guessed.add(role)
            free.remove(found)
        return found

    split = split or guess("split", SPLIT_NAMES)
    group = group or guess("group", GROUP_NAMES)
    weight = weight or guess("weight", WEIGHT_NAMES)
    if image is None:
        if any(_is_image(name) for name in columns):
            raise DataError(
                f"{source}: the first line looks like a row, not like a header; write the column names above it"
            )
        candidates = [name for name in free if _could_be_images(columns[name])]
        image = _by_name(candidates, IMAGE_NAMES) or next(
            (name for name in candidates if _share(columns[name], _is_image) > 0.5), None
        )
        if image is not None:
            guessed.add("image")
            free.remove(image)
    if not wanted_text:
        candidates = [name for name in free if _share(columns[name], _is_text) > 0.5]
        chosen = _by_name(candidates, TEXT_NAMES) or max(
            (name for name in candidates if _words(columns[name]) >= 2), key=lambda name: _words(columns[name]),
            default=None,
        )  # fmt: skip
        if chosen is not None:
            wanted_text = [chosen]
            guessed.add("text")
            free.remove(chosen)
    near_miss = ""
    if id is None:
        shares = {name: _distinct_share(columns[name]) for name in free}
        id = _by_name([name for name in free if shares[name] == 1.0], ID_NAMES)
        if id is not None:
            guessed.add("id")
        else:
            near_miss = _by_name([name for name in free if shares[name] > 0.9], ID_NAMES) or ""
    if image is None and not wanted_text:
        raise DataError(
            f"{source}: found no column of images or texts among {', '.join(repr(name) for name in columns)}; "
            "name them with data.image and data.text"
        )
    return Roles(image, tuple(wanted_text), group, weight, id, split, frozenset(guessed), near_miss)


def _by_name(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    plain = {name.strip().lower().replace(" ", "_").replace("-", "_"): name for name in reversed(names)}
    return next((plain[name] for name in wanted if name in plain), None)


def _is_image(cell: Any) -> bool:
    if hasattr(cell, "read_bytes"):
        return True
    if not isinstance(cell, str):
        return False
    return os.path.splitext(cell.split("?")[0])[1].lower() in EXTENSIONS or (is_url(cell) and " " not in cell)


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
    sample = [cell for cell in cells[:SAMPLE] if cell not in (None, "", [])]
    return sum(1 for cell in sample if test(cell)) / len(sample) if sample else 0.0


def _words(cells: Sequence[Any]) -> float:
    sample = [cell for cell in cells[:SAMPLE] if isinstance(cell, str) and cell]
    return sum(len(cell.split()) for cell in sample) / len(sample) if sample else 0.0


def _distinct_share(cells: Sequence[Any]) -> float:
    """How many of the cells are different keys, from 0 to 1; only text and whole numbers can be keys."""
    keys = {cell for cell in cells if isinstance(cell, str | int) and str(cell).strip()}
    return len(keys) / len(cells) if cells else 0.0
