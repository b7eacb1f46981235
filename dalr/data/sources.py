"""What kind of thing a source is, and the reader for it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dalr.config import nearest
from dalr.data.delimited import read_delimited
from dalr.data.images import EXTENSIONS
from dalr.data.jsonlines import read_jsonl, read_lines
from dalr.data.packing import Keep, files_identity, packed_parts
from dalr.data.records import Part
from dalr.data.webdataset import expand_shards, read_samples, survey_shard
from dalr.errors import DataError

KINDS = "a CSV, TSV, JSONL, Parquet or text file, a folder of images, WebDataset shards (.tar) or a hub data set"
DELIMITED = (".csv", ".tsv", ".tab")
JSONL = (".jsonl", ".ndjson", ".json")
PARQUET = (".parquet", ".pq")
TABLES = (*DELIMITED, *JSONL, *PARQUET)
METADATA = tuple(f"metadata{ending}" for ending in TABLES)
_SPLITS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")


@dataclass
class Table:
    """Everything read from a source, and the folder that its image paths are relative to."""

    root: Path
    parts: list[Part]

    def columns(self) -> dict[str, list[Any]]:
        """The cells of all parts, one after the other; None where a part lacks a column."""
        names = dict.fromkeys(name for part in self.parts for name in part.columns)
        return {
            name: [cell for part in self.parts for cell in part.columns.get(name) or [None] * len(part.rows)]
            for name in names
        }


def read_source(
    source: str, root: str | None = None, *, separator: str | None = None, encoding: str | None = None
) -> Table:
    """Read a source of any kind.

    Args:
        source: see `DataConfig.train`.
        root: the folder of the images; None takes the source's own.
        separator, encoding: of a delimited file, where they are not to be found out.

    Raises DataError where it is none of the known kinds, or cannot be read at all.
    """
    path = Path(source).expanduser()
    if root is not None and not Path(root).is_dir():
        raise DataError(f"data.root '{root}': is no folder; expected the folder that image paths are relative to")

    def table(home: Path, parts: list[Part]) -> Table:
        return Table(Path(root) if root is not None else home, parts)

    if path.is_dir():
        return table(path, _read_folder(path, separator, encoding))
    ending = path.suffix.lower()
    if ending == ".tar" and (path.exists() or any(mark in source for mark in "{*?[")):
        return table(path.parent, _read_shards(expand_shards(str(path))))
    if path.exists():
        return table(path.parent, _read_file(path, None, separator, encoding))
    from dalr.data.hub import is_hub_name, read_hub

    if is_hub_name(source) and ending not in TABLES and not path.parent.is_dir():
        return table(Path.cwd(), read_hub(source, Path.cwd()))
    raise DataError(f"{source}: no such file or folder{_near(path)}; expected {KINDS}")


def _near(path: Path) -> str:
    """`; did you mean 'x'?` for a name in the same folder that is nearly this one."""
    try:
        hint = nearest(path.name, [entry.name for entry in path.parent.iterdir()])
    except OSError:
        return ""
    return f"; {hint}" if "did you mean" in hint else ""


def _read_file(path: Path, split: str | None, separator: str | None, encoding: str | None) -> list[Part]:
    ending = path.suffix.lower()
    if ending in DELIMITED:
        parts = [read_delimited(path, separator=separator, encoding=encoding)]
    elif ending in JSONL:
        parts = [read_jsonl(path)]
    elif ending in PARQUET:
        from dalr.data.hub import read_parquet

        parts = read_parquet(path)
    elif ending == ".txt":
        parts = [read_lines(path)]
    elif ending in EXTENSIONS:
        raise DataError(f"{path}: is a single picture; expected {KINDS}")
    else:
        raise DataError(f"{path}: the ending '{ending}' is not known; expected {KINDS}")
    for part in parts:
        part.split = split
    return parts


def _read_folder(folder: Path, separator: str | None, encoding: str | None) -> list[Part]:
    try:
        names = sorted(entry for entry in os.listdir(folder) if not entry.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from None
    if not names:
        raise DataError(f"{folder}: is an empty folder; expected {KINDS}")
    from dalr.data.hub import read_hub, read_saved, tables_by_split

    if {"dataset_dict.json", "dataset_info.json", "state.json"} & set(names):
        return read_saved(folder)
    metadata = [name for name in names if name.lower() in METADATA]
    if metadata:
        return _read_file(folder / metadata[0], None, separator, encoding)
    shards = [folder / name for name in names if name.endswith(".tar")]
    if shards:
        return _read_shards(shards)
    if "README.md" not in names:
        tables = [name for name in names if name.lower().endswith(TABLES) and (folder / name).is_file()]
        splits = {name: _split_of(name) for name in tables}
        if len(tables) > 1 and not all(splits.values()):
            raise DataError(
                f"{folder}: is a folder with several tables ({', '.join(tables)}); name the one to read, "
                "or call them train, val and test"
            )
        if tables:
            parts = [_read_file(folder / name, splits[name], separator, encoding) for name in tables]
            return [part for group in parts for part in group]
        if not _holds_pictures(folder) and not _holds_tables(folder):
            raise DataError(f"{folder}: is a folder without pictures or tables; expected {KINDS}")
    found = tables_by_split(folder)
    if found and all(path.suffix.lower() in TABLES and path.exists() for paths in found.values() for path in paths):
        # File by file, so that a broken row costs itself and is named by its own file.
        files = [(split, path) for split, paths in found.items() for path in paths]
        apart = _told_apart([path for _, path in files])
        found_parts = []
        for split, path in files:
            for part in _read_file(path, split, separator, encoding):
                part.rename(apart[path])
                found_parts.append(part)
        return found_parts
    return read_hub(str(folder), folder)


def _split_of(name: str) -> str | None:
    stem = Path(name).stem.lower()
    return next((split for split in sorted(_SPLITS, key=len, reverse=True) if stem == split), None)


def _holds(folder: Path, test: Callable[[str], bool]) -> bool:
    return any(test(name.lower()) for _, _, names in os.walk(folder) for name in names)


def _holds_pictures(folder: Path) -> bool:
    return _holds(folder, lambda name: os.path.splitext(name)[1] in EXTENSIONS)


def _holds_tables(folder: Path) -> bool:
    return _holds(folder, lambda name: name.endswith(TABLES))


def _told_apart(paths: list[Path]) -> dict[Path, str]:
    """A name for each file: its own, or where two have the same one the path from the folder that holds all."""
    if len({path.name for path in paths}) == len(paths):
        return {path: path.name for path in paths}
    home = os.path.commonpath([path.absolute().parent for path in paths])
    return {path: os.path.relpath(path.absolute(), home) for path in paths}


def _read_shards(paths: list[Path]) -> list[Part]:
    surveys = [survey_shard(path) for path in paths]
    files = _told_apart(paths)

    def fill(keep: Keep) -> list[Part]:
        parts = []
        for survey in surveys:
            part = Part(files[survey.path])
            rows = []
            for number, cells in read_samples(survey, part):
                name = cells.pop("image_name", "")
                if "image" in cells:
                    cells["image"] = keep(cells["image"], f"{part.file}/{name}")
                part.rows.append(number)
                rows.append(cells)
            names = dict.fromkeys(name for cells in rows for name in cells)
            part.columns = {name: [cells.get(name) for cells in rows] for name in names}
            parts.append(part)
        return parts

    return packed_parts(files_identity(paths), fill)
