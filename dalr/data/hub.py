"""Everything that `datasets` reads as rows: Parquet, hub data sets and their local copies, class folders."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dalr.data.packing import Keep, files_identity, packed_parts
from dalr.data.records import Part, as_cell, open_stream, quiet_datasets
from dalr.data.webdataset import is_pickled
from dalr.errors import DataError, one_line
from dalr.files import hash_bytes

# Rows read at once: what a damaged place can cost, and with pictures in them some hundred megabytes at most.
BATCH = 1_000
PICTURE_BATCH = 128
# The readers of `datasets` that are used; others exist, and older versions had one for pickles.
READERS = ("csv", "json", "parquet", "arrow", "text", "imagefolder", "webdataset")
_HUB_NAME = re.compile(r"^[\w.-]+(/[\w.-]+)?$")


def read_parquet(path: Path, split: str | None = None) -> list[Part]:
    """A Parquet file; pictures in it (hub layout: `{bytes, path}`) go to memory-mapped shards."""
    try:
        stream = open_stream("parquet", path)
    except Exception as error:
        raise DataError(f"{path}: is not a Parquet file that can be read ({one_line(error)})") from None

    def fill(keep: Keep) -> list[Part]:
        part = _read(stream, Part(path.name, split=split), keep, path.parent)
        return [_read_groups(path, stream.features, Part(path.name, split=split), keep) if part.bad else part]

    return packed_parts(files_identity([path]), fill) if _holds_bytes(stream.features) else fill(_no_pictures)


def read_saved(folder: Path) -> list[Part]:
    """A folder written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`."""
    import datasets

    try:
        with quiet_datasets():
            found = datasets.load_from_disk(str(folder))
    except Exception as error:
        raise DataError(f"{folder}: cannot be read as a saved data set ({one_line(error)})") from None
    streams = _streams(folder.name, found)
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".arrow", ".json"))
    return _parts(streams, files_identity(files), folder)


def read_hub(name: str, root: Path) -> list[Part]:
    """A data set by hub name (`owner/name`, or `owner/name:config`), or a local folder in the hub's layout.

    Raises DataError where there is none of that name, or the hub cannot be reached.
    """
    import datasets

    path, _, config = name.partition(":") if not os.path.exists(name) else (name, "", "")
    try:
        builder = _builder(path, config)
        with quiet_datasets():
            found = datasets.load_dataset(path, config or None, streaming=True)
        streams = _streams(Path(path).name, found)
    except Exception as error:
        raise _unreadable(name, error) from None
    pickled = [column for _, _, stream in streams for column in stream.features or () if is_pickled(column)]
    if pickled:
        raise DataError(f"{name}: its shards hold members that end in '.{pickled[0]}': a pickle can run code")
    identity = [name, str(builder.config.data_files), str(builder.hash)]
    files = [Path(file) for group in (builder.config.data_files or {}).values() for file in group]
    if all(file.exists() for file in files):
        identity += files_identity(files)
    return _parts(streams, identity, root)


def tables_by_split(folder: Path) -> dict[str, list[Path]]:
    """The data files that a local folder's own layout (README, `data/train-*`, …) names, by split.

    Raises DataError for a folder whose layout is not understood, or whose files are of a kind that is not read.
    """
    try:
        builder = _builder(str(folder))
    except Exception as error:
        raise _unreadable(str(folder), error) from None
    return {str(split): [Path(file) for file in files] for split, files in (builder.config.data_files or {}).items()}


def _builder(path: str, config: str = "") -> Any:
    import datasets

    with quiet_datasets():
        builder = datasets.load_dataset_builder(path, config or None)
    kind = type(builder).__module__.rsplit(".", 1)[-1]
    if kind not in READERS:
        raise DataError(f"its files are of the kind '{kind}'; expected one of {', '.join(READERS)}")
    return builder


def _unreadable(name: str, error: Exception) -> DataError:
    kind = "folder" if os.path.exists(name) else "data set on the hub"
    return DataError(f"{name}: cannot be read as a {kind} ({one_line(error)})")


def is_hub_name(source: str) -> bool:
    """True for what may be the name of a hub data set: `owner/name`, with an optional `:config`."""
    return bool(_HUB_NAME.match(source.partition(":")[0])) and "/" in source and not source.startswith(".")


def _streams(name: str, found: Any) -> list[tuple[str, str | None, Any]]:
    if hasattr(found, "items"):
        return [(f"{name}/{split}", str(split), stream) for split, stream in found.items()]
    return [(name, None, found)]


def _parts(streams: list[tuple[str, str | None, Any]], identity: list[Any], root: Path) -> list[Part]:
    def fill(keep: Keep) -> list[Part]:
        return [_read(stream, Part(file, split=split), keep, root) for file, split, stream in streams]

    if any(_holds_bytes(stream.features) for _, _, stream in streams):
        return packed_parts(identity, fill)
    return fill(_no_pictures)


def _no_pictures(content: bytes, name: str) -> Any:
    raise AssertionError("no column was announced to hold pictures")


def _read(stream: Any, part: Part, keep: Keep, root: Path) -> Part:
    """Copy a stream's rows into `part`. What is read before a damaged place is kept, the place recorded."""
    size = PICTURE_BATCH if _holds_bytes(stream.features) else BATCH
    number = 0
    try:
        for columns in _batches(stream, size):
            number += _append(part, columns, number, stream.features, keep, root)
    except Exception as error:
        what = "is damaged, and all that follows" if number else "cannot be read, nor can what follows"
        part.refuse(number + 1, f"{what} ({one_line(error)})")
    return part


def _read_groups(path: Path, features: Any, part: Part, keep: Keep) -> Part:
    """A damaged Parquet file group by group: each damaged group of rows costs itself alone."""
    from pyarrow import parquet

    number = 0
    with parquet.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            try:
                _append(part, file.read_row_group(group).to_pydict(), number, features, keep, path.parent)
            except Exception as error:
                part.refuse(number + 1, f"to {number + count} are damaged ({one_line(error)})")
            number += count
    if not part.rows:
        raise DataError(f"{path}: cannot be read ({part.bad[0].reason if part.bad else 'it has no rows'})")
    return part


def _append(part: Part, columns: dict[str, list[Any]], number: int, features: Any, keep: Keep, root: Path) -> int:
    """Add rows that begin after row `number`; how many they were."""
    length = len(next(iter(columns.values()), []))
    for name, cells in columns.items():
        labels = getattr((features or {}).get(name), "names", None)
        part.columns.setdefault(name, [None] * len(part.rows)).extend(
            _cell(cell, labels, keep, root, name) for cell in cells
        )
    part.rows.extend(range(number + 1, number + length + 1))
    return length


def _batches(stream: Any, size: int) -> Iterator[dict[str, list[Any]]]:
    with quiet_datasets():
        for table in stream.with_format("arrow").iter(size):
            yield table.to_pydict()


def _cell(cell: Any, labels: list[str] | None, keep: Keep, root: Path, name: str) -> Any:
    if labels is not None and isinstance(cell, int):
        # A class name is the nearest thing to a caption that a class folder has.
        return labels[cell].replace("_", " ") if 0 <= cell < len(labels) else None
    if isinstance(cell, dict) and set(cell) == {"bytes", "path"}:
        if cell["bytes"] is not None:
            return keep(cell["bytes"], cell["path"] or _named(name, cell["bytes"]))
        return _relative(cell["path"], root)
    if isinstance(cell, bytes):
        return keep(cell, _named(name, cell))
    return as_cell(cell)


def _named(column: str, content: bytes) -> str:
    """A name for a picture without a path; one picture in two files is one."""
    return f"{column}-{hash_bytes(content)[:16]}"


def _relative(path: str | None, root: Path) -> str | None:
    if path is None or not os.path.isabs(path):
        return path
    relative = os.path.relpath(path, root)
    return path if relative.startswith(os.pardir) else relative


def _holds_bytes(features: Any) -> bool:
    """Whether a column may hold pictures; unknown features may."""
    if features is None:
        return True
    for feature in features.values():
        if type(feature).__name__ == "Image" or getattr(feature, "dtype", None) in ("binary", "large_binary"):
            return True
        if isinstance(feature, dict) and "bytes" in feature:
            return True
    return False
