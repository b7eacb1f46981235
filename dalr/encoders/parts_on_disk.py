"""A folder of several parts that a reader finds whole or not at all, beside files that are none of its own.

The record is written last and names the hash of every file; while a new version replaces an old one there is no
record, so that a crash in between leaves a folder that says it is incomplete, never a mixture.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dalr.encoders.names import read_json
from dalr.errors import ModelError
from dalr.files import hash_file, remove, sync_folder, sync_tree, write_json


def write_parts(
    folder: Path, record: str, values: Mapping[str, Any], parts: Sequence[str], write: Callable[[Path], None]
) -> None:
    """Replace the `parts` (names of files or folders) of `folder` by what `write` puts into an empty folder.

    `record` is the JSON file that makes the whole valid: `values`, and `files`, the hash of each file. A part
    that `write` does not make is removed; anything else in `folder` stays as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Of processes that were killed while they saved: the folder of fresh parts, or the record half-written.
    for left in (*folder.glob(".saving.*"), *folder.glob(f".{record}.*")):
        remove(left)
    fresh = Path(tempfile.mkdtemp(dir=folder, prefix=".saving."))
    try:
        write(fresh)
        for parent, _, names in os.walk(fresh):
            for name in (*names, "."):
                os.chmod(os.path.join(parent, name), 0o755 if name == "." else 0o644)
        files = {
            path.relative_to(fresh).as_posix(): hash_file(path) for path in sorted(fresh.rglob("*")) if path.is_file()
        }
        sync_tree(fresh)
        (folder / record).unlink(missing_ok=True)
        sync_folder(folder)
        for part in parts:
            remove(folder / part)
            if (fresh / part).exists():
                os.rename(fresh / part, folder / part)
        sync_folder(folder)
        write_json(folder / record, {**values, "files": files})
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def read_record(folder: Path, record: str) -> dict[str, Any]:
    """The record of a folder, after every file that it names was found unchanged.

    Raises ModelError naming the file that is missing or was altered.
    """
    values = read_json(folder / record)
    files = values.get("files")
    if not isinstance(files, dict):
        raise ModelError(f"{folder / record}: has no list of files; it was not written by dalr")
    for name, digest in files.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts or not path.is_file():
            raise ModelError(f"{path}: missing, but {record} names it; save the model again")
        if hash_file(path) != digest:
            raise ModelError(f"{path}: altered or damaged since {record} was written; save the model again")
    return values
