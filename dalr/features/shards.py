"""How the rows of a store lie on disk, and how a row is committed: whole or not at all.

    rows-00000.bin    one shard: rows of `width` numbers, memory-mapped by readers; one writer a shard (file lock)
    index.bin         one 48-byte record for each committed row: key, row, shard, the row's hash, a check word

A row counts once its index record is whole, and the record is written after the row has reached the disk. A killed
writer therefore leaves only bytes that nobody reads and the next writer of that shard overwrites. Several processes
write side by side: rows go to a shard of each one's own, and only the short append to the index takes turns.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dalr.errors import StoreError

RECORD = np.dtype([("key", "<u8", 2), ("row", "<i8"), ("shard", "<i8"), ("hash", "<u8"), ("check", "<u8")])
KEY_BYTES = 16
FORGOTTEN = -1

Records = npt.NDArray[Any]
Rows = npt.NDArray[Any]


class Shards:
    """The index and the shards of one folder, for rows of one width and dtype. Not safe across threads."""

    def __init__(self, folder: Path, width: int, dtype: npt.DTypeLike) -> None:
        self.folder = folder
        self.width = width
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.numbers: dict[bytes, int] = {}  # key -> number of its record in the index
        self._index: Records = np.empty(0, RECORD)
        self._filled: dict[int, int] = {}  # shard -> committed rows
        self._maps: dict[int, Rows] = {}
        self.refresh()

    def refresh(self) -> None:
        """See what has been committed since, by this process or another."""
        path = self.folder / "index.bin"
        old = len(self._index)
        try:
            with open(path, "rb") as stream:
                # Read, not mapped: the unfinished end of the file may be cut off by its next writer.
                stream.seek(old * RECORD.itemsize)
                data = stream.read()
        except FileNotFoundError:
            return
        fresh = np.frombuffer(data, RECORD, count=len(data) // RECORD.itemsize)
        valid = np.flatnonzero(fresh["check"] == check_words(fresh))
        if not len(valid):
            return
        # What follows the last valid record is a write that is under way or was killed: looked at again next time.
        self._index = np.memmap(path, RECORD, mode="r", shape=(old + int(valid[-1]) + 1,))
        self._measure(fresh[valid])
        raws = np.ascontiguousarray(fresh["key"]).tobytes()
        forgotten = fresh["row"] == FORGOTTEN
        for at in valid.tolist():
            raw = raws[KEY_BYTES * at : KEY_BYTES * (at + 1)]
            if forgotten[at]:
                self.numbers.pop(raw, None)
            else:
                self.numbers[raw] = old + at

    def records(self, raws: Sequence[bytes]) -> Records:
        """The index records of these keys; KeyError for an absent one."""
        numbers = np.fromiter((self.numbers[raw] for raw in raws), dtype=np.int64, count=len(raws))
        return np.array(self._index[numbers])

    def read(self, shard: int) -> Rows:
        """The committed rows of a shard as a read-only memory map (rows, width)."""
        rows = self._filled[shard]
        if shard not in self._maps or len(self._maps[shard]) < rows:
            self._maps[shard] = np.memmap(self._path(shard), self.dtype, mode="r", shape=(rows, self.width))
        return self._maps[shard]

    @contextlib.contextmanager
    def writer(self) -> Iterator["ShardWriter"]:
        """The first shard that no other process writes to, ours until the block ends or the process dies."""
        stream, shard = self._lock_first()
        try:
            yield ShardWriter(self, shard, stream)
        finally:
            os.close(stream)

    @contextlib.contextmanager
    def turn(self) -> Iterator[int]:
        """Hold the index alone, up to date; yields its descriptor. The system frees the lock of a killed process."""
        index = os.open(self.folder / "index.bin", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(index, fcntl.LOCK_EX)
            self.refresh()
            yield index
        finally:
            os.close(index)

    def forget(self, raws: Sequence[bytes]) -> None:
        """Drop these keys: their rows are no longer found."""
        records = _records(raws)
        records["row"] = FORGOTTEN
        with self.turn() as index:
            self._append(index, records)

    def commit(self, raws: Sequence[bytes], records: Records) -> None:
        """Append records whose rows are on disk, but for keys that another process has committed meanwhile."""
        with self.turn() as index:
            self._append(index, records[[raw not in self.numbers for raw in raws]])

    def _append(self, index: int, records: Records) -> None:
        """Write records to the end of the index, over what a killed writer left unfinished there (lock held)."""
        records["check"] = check_words(records)
        end = self._index.nbytes
        write_all(index, records.tobytes(), end)
        os.ftruncate(index, end + records.nbytes)
        os.fsync(index)
        self.refresh()

    def _measure(self, records: Records) -> None:
        """Count the rows of each shard, and refuse a shard file that is shorter than its records say."""
        for shard in np.unique(records["shard"]).tolist():
            rows = records["row"][records["shard"] == shard]
            filled = self._filled[shard] = max(self._filled.get(shard, 0), int(rows.max()) + 1)
            path = self._path(shard)
            if filled and (not path.exists() or path.stat().st_size < filled * self.width * self.dtype.itemsize):
                raise StoreError(f"{path}: is shorter than the {filled} rows that were written; delete {self.folder}")

    def _lock_first(self) -> tuple[int, int]:
        shard = 0
        while True:
            stream = os.open(self._path(shard), os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return stream, shard
            except BlockingIOError:
                os.close(stream)
                shard += 1
            except BaseException:
                os.close(stream)
                raise

    def _path(self, shard: int) -> Path:
        return self.folder / f"rows-{shard:05d}.bin"


class ShardWriter:
    """The one writer of a shard."""

    def __init__(self, shards: Shards, shard: int, stream: int) -> None:
        self.shard = shard
        self._shards = shards
        self._stream = stream

    def append(self, raws: Sequence[bytes], rows: Rows) -> None:
        """Write rows after the shard's committed ones, flush them to the disk, then commit their records."""
        self._shards.refresh()
        start = self._shards._filled.get(self.shard, 0)
        rows = np.ascontiguousarray(rows, dtype=self._shards.dtype)
        write_all(self._stream, rows.tobytes(), start * rows.itemsize * self._shards.width)
        os.fsync(self._stream)
        records = _records(raws)
        records["row"] = np.arange(start, start + len(rows))
        records["shard"] = self.shard
        records["hash"] = [hash_row(row) for row in rows]
        self._shards.commit(raws, records)


def hash_row(row: Rows) -> int:
    """BLAKE2b-64 of a row's bytes."""
    return int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little")


def check_words(records: Records) -> npt.NDArray[np.uint64]:
    """A 64-bit mix of each record's other words; a torn record or one of zeros does not carry its own."""
    words = [records["key"][:, 0], records["key"][:, 1], records["row"], records["shard"], records["hash"]]
    mixed = np.full(len(records), 0x9E3779B97F4A7C15, np.uint64)
    for word in words:
        mixed = (mixed ^ word.astype(np.uint64)) * np.uint64(0xD6E8FEB86659FD93)
        mixed ^= mixed >> np.uint64(32)
    return mixed


def write_all(stream: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`."""
    view = memoryview(data)
    while view:
        written = os.pwrite(stream, view, offset)
        view, offset = view[written:], offset + written


def _records(raws: Sequence[bytes]) -> Records:
    records = np.zeros(len(raws), RECORD)
    records["key"] = np.frombuffer(b"".join(raws), "<u8").reshape(-1, 2)
    return records
