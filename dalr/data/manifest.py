"""The manifest: every usable row of a catalogue in memory, and a record of each row that is not.

One row is an image, a text, or both, with its key and weight, and optionally a group, a split and any other
columns. Pictures stay where they are; a row knows its path, or its place in a shard.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import AfterValidator, Field

from dalr.config import Config
from dalr.data.columns import Roles, find_columns
from dalr.data.groups import carve_dev, connected_components, group_ids, normalise_caption
from dalr.data.images import MAX_PIXELS, StoredImage, is_url, open_image, resolve_image
from dalr.data.records import BadRow
from dalr.data.shards import PackedImage
from dalr.errors import DataError
from dalr.files import hash_json

__all__ = [
    "BadRow", "DataConfig", "Manifest", "carve_dev", "connected_components", "group_ids", "normalise_caption",
]  # fmt: skip

# Names in use for one and the same part of a data set.
_SAME_SPLIT = ({"train", "training"}, {"val", "valid", "validation", "dev"}, {"test", "testing"})


def _separator(value: str) -> str:
    if len(value) != 1 or value in '"\r\n':
        raise ValueError(f"expected one character, no quote and no end of a line, got {value!r}")
    return value


class DataConfig(Config):
    """Where a catalogue lies and what its columns mean. A column that is not named is guessed and reported.

    Attributes:
        train, val: a CSV, TSV, JSONL, Parquet or text file, an image folder, WebDataset shards
            (`shards/{000..009}.tar`), or the name of a hub dataset.
        root: the folder that image paths are relative to and may not leave; None is the manifest's own folder.
        image, text, group, weight, id, split: columns. Several text columns are joined with ", ".
        train_split, val_split: the values of the split column that mean train and val.
        dev: share of train, carved off by group, for selection.
        encoding, separator: of a CSV or TSV file; None finds them out.
        max_pixels: largest width × height of a picture.
        allow_urls: whether pictures may be fetched from public http(s) addresses.
    """

    train: str | None = None
    val: str | None = None
    root: str | None = None
    image: str | None = None
    text: str | list[str] | None = None
    group: str | None = None
    weight: str | None = None
    id: str | None = None
    split: str | None = None
    train_split: str = "train"
    val_split: str = "val"
    dev: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    encoding: str | None = None
    separator: Annotated[str, AfterValidator(_separator)] | None = None
    # Above 178 million PIL refuses on its own.
    max_pixels: Annotated[int, Field(ge=1, le=178_000_000)] = MAX_PIXELS
    allow_urls: bool = False


@dataclass(frozen=True, eq=False)
class Manifest:
    """N usable rows of a catalogue. Make one with `Manifest.load`.

    Attributes:
        source: what was loaded, as given.
        root: the folder that image paths are relative to.
        keys: one a row, all different: the id column, else the row number.
        images: as written; None where a row has none. `image_path` makes a file of it.
        texts: None where a row has none.
        group: the group column, or None where there is none; a row without a group holds None.
        weight: float32 (N,), 1 where nothing is said.
        split: the split column or the name of the file's split, or None.
        columns: all other columns by name.
        bad: the rows left out, with file, row, key and reason.
        files, file_numbers, row_numbers: where each row came from (`where(i)`).
        roles: which column has which role, and which of these were guessed.
        notes: what a person should know about the reading (encoding, separator, …).
        stored: the picture inside a shard, for rows that have no file of their own.
    """

    source: str
    root: Path
    keys: list[str]
    images: list[str | None]
    texts: list[str | None]
    group: list[str | None] | None
    weight: npt.NDArray[np.float32]
    split: list[str | None] | None
    columns: dict[str, list[Any]]
    bad: list[BadRow]
    files: list[str]
    file_numbers: npt.NDArray[np.int32]
    row_numbers: npt.NDArray[np.int64]
    roles: Roles
    notes: list[str] = field(default_factory=list)
    stored: list[PackedImage | None] | None = None
    max_pixels: int = MAX_PIXELS
    allow_urls: bool = False

    @classmethod
    def load(cls, source: str | Path, config: DataConfig | None = None, split: str | None = None) -> "Manifest":
        """Read a source of any supported kind (see `DataConfig.train`).

        Bad rows are recorded in `bad` and left out. With `split`, only that part of the rows is kept (`val`,
        `valid`, `validation` and `dev` are one name).

        Raises DataError where the source cannot be read, a named column is missing, the split does not exist, or
        not one row is usable.
        """
        manifest = cls.read(source, config or DataConfig())
        if not len(manifest):
            if not manifest.bad:
                raise DataError(f"{source}: has a header and no rows")
            reasons = "; ".join(f"{bad.where}: {bad.reason}" for bad in manifest.bad[:3])
            raise DataError(f"{source}: has {len(manifest.bad):,} rows, not one usable ({reasons})")
        return manifest if split is None else manifest.part(split)

    @classmethod
    def read(cls, source: str | Path, config: DataConfig) -> "Manifest":
        """Like `load`, but a source without one usable row gives an empty manifest with its bad rows."""
        from dalr.data.rows import accept_rows
        from dalr.data.sources import read_source

        table = read_source(str(source), config.root, separator=config.separator, encoding=config.encoding)
        columns = table.columns()
        # Without a single row there is nothing to guess from, and that there is none is what matters.
        roles = Roles() if not any(part.rows for part in table.parts) else find_columns(
            columns,
            str(source),
            image=config.image,
            text=config.text,
            group=config.group,
            weight=config.weight,
            id=config.id,
            split=config.split,
        )  # fmt: skip
        return cls(
            source=str(source),
            root=table.root,
            roles=roles,
            max_pixels=config.max_pixels,
            allow_urls=config.allow_urls,
            **accept_rows(columns, table, roles, config.allow_urls),
        )

    def __len__(self) -> int:
        return len(self.keys)

    def select(self, rows: Sequence[int] | npt.NDArray[Any]) -> "Manifest":
        """The given rows, in the given order; `bad` stays as it is. `rows` are numbers or a bool mask."""
        chosen = np.asarray(rows)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)

        def take(values: list[Any]) -> list[Any]:
            return [values[row] for row in chosen]

        return replace(
            self,
            keys=take(self.keys),
            images=take(self.images),
            texts=take(self.texts),
            group=None if self.group is None else take(self.group),
            weight=self.weight[chosen],
            split=None if self.split is None else take(self.split),
            columns={name: take(values) for name, values in self.columns.items()},
            file_numbers=self.file_numbers[chosen],
            row_numbers=self.row_numbers[chosen],
            stored=None if self.stored is None else take(self.stored),
        )

    def part(self, split: str) -> "Manifest":
        """The rows of one split. DataError where there is no split column, or no row has that value."""
        if self.split is None:
            raise DataError(f"{self.source}: has no split column (data.split), so there is no split '{split}'")
        rows = self.split_rows(split)
        if not rows:
            known = ", ".join(sorted({repr(value) for value in self.split if value})) or "none"
            raise DataError(f"{self.source}: no row has the split '{split}'; its splits are {known}")
        return self.select(rows)

    def split_rows(self, split: str) -> list[int]:
        """The rows of one split, by its own name, else by one that means the same; none without a split column."""
        values = self.split or []
        wanted = next((names for names in _SAME_SPLIT if split.lower() in names), {split.lower()})
        exact = [row for row, value in enumerate(values) if value == split]
        return exact or [row for row, value in enumerate(values) if (value or "").lower() in wanted]

    def pairs(self) -> npt.NDArray[np.int64]:
        """Numbers of the rows that have both an image and a text."""
        return np.array(
            [row for row, (image, text) in enumerate(zip(self.images, self.texts, strict=True)) if image and text],
            dtype=np.int64,
        )

    def where(self, row: int) -> str:
        """`file:row` of a row, as editors understand it."""
        return f"{self.files[self.file_numbers[row]]}:{self.row_numbers[row]}"

    def bad_row(self, row: int, reason: str) -> BadRow:
        """A row found unusable after all, as `bad` lists it."""
        plain = reason.removeprefix(f"{self.where(row)}: ")
        return BadRow(self.files[self.file_numbers[row]], int(self.row_numbers[row]), self.keys[row], plain)

    def image_source(self, row: int) -> Path | StoredImage:
        """What `open_image` reads for a row, with nothing copied: its file, or its place in a shard."""
        stored = self.stored[row] if self.stored is not None else None
        if stored is not None:
            return stored
        written = self.images[row]
        if written is None:
            raise DataError(f"{self.where(row)}: has no image")
        try:
            return resolve_image(self.root, written, self.allow_urls)
        except DataError as error:
            raise DataError(f"{self.where(row)}: {error}") from None

    def image_path(self, row: int) -> Path:
        """A local file of a row's picture. One in a shard is copied out once, a URL fetched once (into the cache).

        Raises DataError (file:row and reason) where the row has no image, or it cannot be fetched.
        """
        image = self.image_source(row)
        if isinstance(image, Path):
            return image
        from dalr.data.packing import unpacked_file

        return unpacked_file(image)

    def open_image(self, row: int, *, at_least: int | None = None) -> Image.Image:
        """A row's picture in RGB (see `dalr.data.images.open_image`); DataError names file:row and the reason."""
        try:
            return open_image(self.image_source(row), max_pixels=self.max_pixels, at_least=at_least)
        except DataError as error:
            message = str(error)
            where = self.where(row)
            name = self.images[row]
            raise DataError(message if message.startswith(where) else f"{where}: image '{name}' {message}") from None

    def ids(self, image_keys: Sequence[str | None] | None = None) -> npt.NDArray[np.int64]:
        """Group ids, int64 (N, 2), as losses and metrics read them (see `dalr.data.groups`).

        `image_keys` (content hashes by row) make copies of one picture one image; without them its path does.
        """
        from posixpath import normpath

        images = image_keys if image_keys is not None else [
            image if image is None or is_url(image) else normpath(image) for image in self.images
        ]  # fmt: skip
        return group_ids(images, self.texts, self.group)

    def fingerprint(self) -> str:
        """Hash of what the rows say: keys, images, texts, groups, weights, splits; not of where they lie."""
        group = self.group if self.group is None or any(self.group) else None
        return hash_json([self.keys, self.images, self.texts, group, self.weight.tolist(), self.split])
