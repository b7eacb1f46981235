"""Memory-mapped shards: what has no random access is copied once into files that have it.

A folder holds `shard-00000.bin`, `shard-00001.bin`, … (records one after the other), `index.npy` (where each
record lies) and `shards.json` (how many). Any record is then one slice of a memory map, from any process,
in any order: tar shards, hub streams and packed tokens become something that a `Stream` can draw from.
"""

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dalr.errors import DataError
from dalr.files import write_json

FORMAT = 1


class ShardWriter:
    """Appends records to shards in `folder`; `finish` writes the index. Use it inside `dalr.files.new_folder`."""

    def __init__(self, folder: Path, shard_bytes: int = 1 << 30) -> None:
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._index: list[tuple[int, int, int]] = []
        self._shard = -1
        self._offset = shard_bytes
        self._stream: Any = None

    def append(self, record: bytes) -> int:
        """Add one record (any bytes, also none) and return its number."""
        if self._offset >= self._shard_bytes:
            self._close()
            self._shard += 1
            self._offset = 0
            self._stream = open(self._folder / f"shard-{self._shard:05d}.bin", "wb")  # noqa: SIM115 - closed in _close
        self._stream.write(record)
        self._index.append((self._shard, self._offset, len(record)))
        self._offset += len(record)
        return len(self._index) - 1

    def finish(self) -> None:
        """Close the shards and write the index."""
        self._close()
        np.save(self._folder / "index.npy", np.array(self._index, dtype=np.int64).reshape(-1, 3), allow_pickle=False)
        write_json(self._folder / "shards.json", {"format": FORMAT, "records": len(self._index)})

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()


class MemoryShards:
    """Random access to the records of a shard folder. Picklable: a copy in another process opens its own map.

    Raises DataError where the folder is no complete shard folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            head = json.loads((self.folder / "shards.json").read_text(encoding="utf-8"))
            index = np.load(self.folder / "index.npy", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.folder}: is not a folder of memory-mapped shards ({error})") from None
        if head.get("format") != FORMAT or index.shape != (head.get("records"), 3):
            raise DataError(f"{self.folder}: its index does not fit its shards.json; delete the folder to rebuild it")
        self._index: npt.NDArray[np.int64] = index
        self._maps: dict[int, npt.NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, number: int) -> bytes:
        shard, offset, length = (int(value) for value in self._index[number])
        if not length:
            return b""
        if shard not in self._maps:
            self._maps[shard] = np.memmap(self.folder / f"shard-{shard:05d}.bin", dtype=np.uint8, mode="r")
        record = self._maps[shard][offset : offset + length].tobytes()
        if len(record) != length:
            raise DataError(f"{self.folder}: shard {shard} is cut short; delete the folder to rebuild it")
        return record

    def __reduce__(self) -> tuple[Any, ...]:
        return (MemoryShards, (os.fspath(self.folder),))


@dataclass(frozen=True, slots=True)
class PackedImage:
    """One image inside a shard folder: read like a Path (`read_bytes`), small, picklable."""

    folder: str
    number: int
    name: str

    def read_bytes(self) -> bytes:
        """The file's bytes."""
        return _opened(self.folder)[self.number]

    def __str__(self) -> str:
        return self.name


@functools.lru_cache(maxsize=8)
def _opened(folder: str) -> MemoryShards:
    return MemoryShards(folder)
