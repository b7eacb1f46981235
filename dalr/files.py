"""Atomic writes and content hashes: how anything of value reaches the disk.

A reader sees the old file or the whole new one, never a part, also after a power cut: the bytes are written
under another name beside the target, flushed to the disk, and renamed.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dalr.errors import UsageError

if TYPE_CHECKING:
    import torch

DIGEST_BYTES = 16


def sync_folder(folder: Path) -> None:
    """Flush a folder's own entries (names, not contents) to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder` to the disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            descriptor = os.open(os.path.join(parent, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(parent))


def write_atomically(path: str | Path, data: bytes | str) -> None:
    """Write `data` to `path` so that a reader or a crash finds the old file or the whole new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data.encode() if isinstance(data, str) else data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; a NaN is an error, since JSON has none."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def new_folder(target: str | Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `target` (replacing it) when the block ends without an error.

    Between the removal of an old `target` and the rename a crash leaves no `target`; where that matters, give
    each version a new name, as checkpoints do.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield temporary
        os.chmod(temporary, 0o755)
        sync_tree(temporary)
        if target.exists():
            shutil.rmtree(target)
        os.rename(temporary, target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_own_folder(folder: Path, own: bool, what: str) -> None:
    """UsageError where `folder` is a file, or holds anything and is not `own`, that is `what` ("an audit's folder")."""
    used = any(not entry.name.startswith(".") for entry in folder.iterdir()) if folder.is_dir() else folder.exists()
    if used and not own:
        raise UsageError(f"{folder}: is there already and is not {what}; choose another --out")


def made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """The folder `target`, which `make` fills where there is none; of several processes one makes it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.with_name(f"{target.name}.lock"), "a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if not target.is_dir():
            with new_folder(target) as temporary:
                make(temporary)
    return target


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def hash_bytes(*parts: bytes) -> str:
    """BLAKE2b-128 of the parts, each preceded by its length, as 32 hex digits."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def hash_file(path: str | Path) -> str:
    """BLAKE2b-128 of a file's bytes, as 32 hex digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)).hexdigest()


def hash_json(value: Any) -> str:
    """BLAKE2b-128 of a value's canonical JSON (sorted keys), as 32 hex digits."""
    return hash_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode())


def hash_tensors(tensors: "Mapping[str, torch.Tensor]") -> str:
    """BLAKE2b-128 over names, dtypes, shapes and values of a state dict, as 32 hex digits."""
    import torch

    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
