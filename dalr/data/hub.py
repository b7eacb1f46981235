"""Everything that `datasets` reads as rows: Parquet, hub data sets and their local copies, class folders."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dalr.data.packing import Keep, files_identity, packed_parts
from dalr.data.records import Part, as_cell, one_line, open_stream, quiet_datasets
from dalr.errors import DataError

# Rows read at once: what a damaged place can cost, and with pictures in them some hundred megabytes at most.
BATCH = 1_000
PICTURE_BATCH = 128
_HUB_NAME = re.compile(r"^[\w.-]+(/[\w.-]+)?$")


def read_parquet(path: Path, split: str | None = None) -> list[Part]:
    """A Parquet file; pictures in it (hub layout: `{bytes, path}`) go to memory-mapped shards."""
    try:
        stream = open_stream("parquet", path)
    except Exception as error:
        raise DataError(f"{path}: is not a Parquet file that can be read ({one_line(error)})") from None
    return _parts([(path.name, split, stream)], files_identity([path]), path.parent)


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
        with quiet_datasets():
            builder = datasets.load_dataset_builder(path, config or None)
            found = datasets.load_dataset(path, config or None, streaming=True)
        identity = [name, str(builder.config.data_files), str(builder.hash)]
    except Exception as error:
        kind = "folder" if os.path.exists(name) else "data set on the hub"
        raise DataError(f"{name}: cannot be read as a {kind} ({one_line(error)})") from None
    files = [Path(file) for group in (builder.config.data_files or {}).values() for file in group]
    if all(file.exists() for file in files):
        identity += files_identity(files)
    return _parts(_streams(Path(path).name, found), identity, root)


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

    def refuse(content: bytes, name: str) -> Any:
        raise AssertionError("no column was announced to hold pictures")

    if any(_holds_bytes(stream.features) for _, _, stream in streams):
        return packed_parts(identity, fill)
    return fill(refuse)


def _read(stream: Any, part: Part, keep: Keep, root: Path) -> Part:
    """Copy a stream's rows into `part`. What is read before a damaged place is kept, the place recorded."""
    features = stream.features
    size = PICTURE_BATCH if _holds_bytes(features) else BATCH
    number = 0
    try:
        for columns in _batches(stream, size):
            length = len(next(iter(columns.values()), []))
            for name, cells in columns.items():
                labels = getattr((features or {}).get(name), "names", None)
                part.columns.setdefault(name, [None] * number).extend(
                    _cell(cell, labels, keep, root, f"{name}-{number + place}") for place, cell in enumerate(cells)
                )
            part.rows.extend(range(number + 1, number + length + 1))
            number += length
    except Exception as error:
        if not number:
            raise DataError(f"{part.file}: cannot be read ({one_line(error)})") from None
        part.refuse(number + 1, f"is damaged, and all that follows ({one_line(error)})")
        part.columns = {name: cells[:number] for name, cells in part.columns.items()}
    return part


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
            return keep(cell["bytes"], cell["path"] or name)
        return _relative(cell["path"], root)
    if isinstance(cell, bytes):
        return keep(cell, name)
    return as_cell(cell)


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
