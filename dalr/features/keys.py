"""Content keys: what an embedding is filed under.

A key is the hash of what was embedded (a text's UTF-8 bytes, an image file's bytes), never a path or a row number:
a file that moves keeps its embedding, a file that changes loses it, and two copies of one photo share one row.
"""

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from dalr.data.fetch import cache_root
from dalr.errors import DataError
from dalr.files import DIGEST_BYTES, hash_bytes, hash_file

# A file changed this shortly before it was hashed may change again without its time stamp moving.
SETTLED_NS = 2_000_000_000


def text_keys(texts: Iterable[str]) -> list[str]:
    """The key of each text: 32 hex digits over its exact characters (no case folding: encoders see case)."""
    return [hash_bytes(text.encode("utf-8", "surrogatepass")) for text in texts]


class Readable(Protocol):
    """An image inside another file, such as a shard."""

    def read_bytes(self) -> bytes: ...


def image_keys(images: Sequence[str | Path | Readable | None], *, cache: str | Path | None = None) -> list[str | None]:
    """The key of each image: 32 hex digits over its file's bytes, or None for one that cannot be read (or is None).

    Hashes of files are remembered in `cache` (an SQLite file, by default in `cache_root()`) under the file's
    absolute path, size, inode, and times of modification and change, so that a catalogue is read through once. A
    cache that cannot be used (a read-only home, a broken file) costs time, never correctness.
    """
    states = [_state(image) if isinstance(image, str | Path) else None for image in images]
    known = _remembered(cache, [state[0] for state in states if state])
    keys: list[str | None] = []
    fresh: dict[str, tuple[str, str, str]] = {}
    now = time.time_ns()
    for image, state in zip(images, states, strict=True):
        name, stamp, changed = state or ("", "", now)
        if state and known.get(name, ("", ""))[0] == stamp:
            keys.append(known[name][1])
            continue
        key = _hash(image)
        keys.append(key)
        if state and key is not None:
            known[name] = (stamp, key)
            if now - changed > SETTLED_NS:
                fresh[name] = (name, stamp, key)
    _remember(cache, list(fresh.values()))
    return keys


def _hash(image: str | Path | Readable | None) -> str | None:
    try:
        if isinstance(image, str | Path):
            return hash_file(image) if os.path.isfile(image) else None
        return None if image is None else hashlib.blake2b(image.read_bytes(), digest_size=DIGEST_BYTES).hexdigest()
    except (OSError, ValueError, DataError):
        return None


def _state(path: str | Path) -> tuple[str, str, int] | None:
    """(absolute path, stamp, newest time in ns) of a regular file, or None."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    if not os.path.isfile(path):
        return None
    stamp = f"{status.st_size}.{status.st_ino}.{status.st_mtime_ns}.{status.st_ctime_ns}"
    return os.path.abspath(path), stamp, max(status.st_mtime_ns, status.st_ctime_ns)


def _connect(cache: str | Path | None) -> sqlite3.Connection:
    path = Path(cache) if cache else cache_root() / "image-keys.sqlite"
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=30)
    connection.execute("CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, stamp TEXT, key TEXT) WITHOUT ROWID")
    return connection


def _remembered(cache: str | Path | None, names: Sequence[str]) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    with contextlib.suppress(sqlite3.Error, OSError, UnicodeError), contextlib.closing(_connect(cache)) as connection:
        for start in range(0, len(names), 500):
            some = names[start : start + 500]
            marks = ",".join("?" * len(some))
            query = f"SELECT path, stamp, key FROM files WHERE path IN ({marks})"
            found.update({path: (stamp, key) for path, stamp, key in connection.execute(query, some)})
    return found


def _remember(cache: str | Path | None, entries: Sequence[tuple[str, str, str]]) -> None:
    if not entries:
        return
    with (
        contextlib.suppress(sqlite3.Error, OSError, UnicodeError),
        contextlib.closing(_connect(cache)) as connection,
        connection,
    ):
        connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", entries)
