"""Pictures that lie inside tar shards, Parquet files or hub streams, turned once into memory-mapped shards.

The copy is filed under what it was made from (paths, sizes and times of the files; the revision of a hub data set),
below `cache_root()/packed`. One process writes it, others wait and read; a broken off copy leaves nothing.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dalr.data.fetch import cache_root
from dalr.data.images import StoredImage
from dalr.data.records import BadRow, Part
from dalr.data.shards import MemoryShards, PackedImage, ShardWriter
from dalr.errors import DataError
from dalr.files import hash_bytes, hash_json, made_once, write_atomically, write_json

VERSION = 3
# Adds a picture's bytes under a name and gives the cell that stands for it in a column.
Keep = Callable[[bytes, str], Any]


def packed_parts(identity: Sequence[Any], fill: Callable[[Keep], list[Part]]) -> list[Part]:
    """The parts that `fill` makes, their pictures in memory-mapped shards; made again only if `identity` changed.

    Raises DataError where the cache cannot be written.
    """
    folder = cache_root() / "packed" / hash_json([VERSION, *identity])
    try:
        made_once(folder, lambda fresh: _write(fresh, fill))
    except OSError as error:
        raise DataError(
            f"{cache_root()}: pictures cannot be unpacked here ({error.strerror}); "
            "point DALR_CACHE at a folder with room"
        ) from None
    return _read(folder)


def files_identity(paths: Sequence[Path]) -> list[Any]:
    """What tells a set of files from its changed self: absolute paths, sizes and times of change."""
    found = []
    for path in paths:
        status = path.stat()
        found.append([str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ctime_ns])
    return found


def unpacked_file(image: StoredImage) -> Path:
    """A file of its own for a picture inside a shard, named by its content, written once into the cache."""
    content = image.read_bytes()
    key = hash_bytes(content)
    path = cache_root() / "unpacked" / key[:2] / f"{key}{Path(str(image)).suffix.lower()[:6]}"
    if not path.is_file():
        write_atomically(path, content)
    return path


def _write(folder: Path, fill: Callable[[Keep], list[Part]]) -> None:
    writer = ShardWriter(folder)
    parts = fill(lambda content, name: {"packed": writer.append(content), "name": name})
    writer.finish()
    write_json(folder / "parts.json", [asdict(part) for part in parts])


def _read(folder: Path) -> list[Part]:
    MemoryShards(folder)
    parts = []
    for record in json.loads((folder / "parts.json").read_text(encoding="utf-8")):
        part = Part(**{**record, "bad": [BadRow(**bad) for bad in record["bad"]]})
        for name, cells in part.columns.items():
            part.columns[name] = [
                PackedImage(str(folder), cell["packed"], cell["name"]) if isinstance(cell, dict) else cell
                for cell in cells
            ]
        parts.append(part)
    return parts
