"""What a reader hands over: columns of equal length, where each row came from, and what was left out.

Every reader follows one rule. The file is surveyed first, row by row, by the standard library's own parser.
Where nothing is wrong, `datasets` reads it; where a row is, `datasets` would fail as a whole or pad in silence,
and the rows that the survey has parsed are taken, each bad one recorded with its place and reason.
"""

import contextlib
import glob
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dalr.errors import DataError

BATCH = 10_000


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used: `row` is the line of a text file (the header is line 1), else counted from 1."""

    file: str
    row: int
    key: str
    reason: str

    @property
    def where(self) -> str:
        """`file:row`, as editors understand it."""
        return f"{self.file}:{self.row}"


@dataclass
class Part:
    """Rows of one source. `columns` hold raw cells: str, number, list, bytes handle or None."""

    file: str
    columns: dict[str, list[Any]] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    split: str | None = None

    def refuse(self, row: int, reason: str, key: str = "") -> None:
        """Record a bad row."""
        self.bad.append(BadRow(self.file, row, key or str(row), reason))

    def rename(self, file: str) -> None:
        """Call its file by another name, in what was refused too."""
        self.file = file
        self.bad = [replace(bad, file=file) for bad in self.bad]


def open_stream(builder: str, path: Path, **options: Any) -> Any:
    """One local file as an IterableDataset of `datasets`, without a copy in its cache."""
    import datasets

    with quiet_datasets():
        # A path is a glob pattern to `datasets`: '[1]' in a file's name would silently match nothing.
        files = {"train": [glob.escape(str(path))]}
        return datasets.load_dataset(builder, data_files=files, split="train", streaming=True, **options)


def read_columns(builder: str, path: Path, **options: Any) -> dict[str, list[Any]]:
    """All of one local file through `datasets`."""
    stream = open_stream(builder, path, **options)
    columns: dict[str, list[Any]] = {}
    with quiet_datasets():
        for table in stream.with_format("arrow").iter(BATCH):
            for name, values in table.to_pydict().items():
                columns.setdefault(name, []).extend(values)
    return columns


def as_cell(value: Any) -> Any:
    """A value as a cell: None, text, a number, a bool or a list of strings; anything else becomes text.

    What a table of pandas writes for an empty cell, NaN, is None.
    """
    if isinstance(value, float) and math.isnan(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, str) or item is None for item in value):
        return [item for item in value if item is not None]
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


@contextlib.contextmanager
def quiet_datasets() -> Iterator[None]:
    """No progress bars and no log lines of `datasets` within the block; ours say what matters."""
    import datasets

    bars = datasets.are_progress_bars_disabled()
    level = datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()


def check_readable(path: Path) -> None:
    """DataError where a file is missing, a folder, not readable or empty."""
    import stat

    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise DataError(f"{path}: is a folder; expected a file")
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: is not a regular file")
        if not status.st_size:
            raise DataError(f"{path}: is empty (0 bytes); expected rows of data")
        path.open("rb").close()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
