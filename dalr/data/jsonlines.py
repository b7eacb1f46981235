"""JSON Lines and plain text lines: read by `datasets`, and line by line where that fails, to say which is broken."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dalr.data.records import Part, as_cell, check_readable, read_columns
from dalr.errors import DataError, one_line

_BOM = b"\xef\xbb\xbf"


def read_jsonl(path: Path) -> Part:
    """Read JSON Lines: one object a line; a list of strings stays a list (several captions of one image).

    A line that is not an object, not UTF-8 or not JSON is a bad row. Raises DataError for a file that is missing,
    empty, or one JSON array.
    """
    check_readable(path)
    with open(path, "rb") as stream:
        head = stream.read(4096).removeprefix(_BOM).lstrip()
        if head.startswith(b"["):
            raise DataError(f"{path}: is a JSON array; expected JSON Lines, one object a line")
        stream.seek(0)
        lines = [number for number, raw in enumerate(stream, start=1) if raw.strip()]
    columns = _whole("json", path)
    if columns and all(len(cells) == len(lines) for cells in columns.values()):
        return Part(path.name, columns, lines)
    return _line_by_line(path, _object)


def read_lines(path: Path) -> Part:
    """Read a text file as one text a line (blank lines are passed over); the only column is `text`."""
    check_readable(path)
    columns = _whole("text", path)
    if columns is None or any("\0" in text for text in columns["text"]):
        return _line_by_line(path, _text)
    kept = [(line, text) for line, text in enumerate(columns["text"], start=1) if text.strip()]
    return Part(path.name, {"text": [text.removeprefix("\ufeff") for _, text in kept]}, [line for line, _ in kept])


def _whole(builder: str, path: Path) -> dict[str, list[Any]] | None:
    try:
        columns = read_columns(builder, path)
    except Exception:
        # One broken line fails the whole file there, with an error that seldom names it.
        return None
    return {name: [as_cell(cell) for cell in cells] for name, cells in columns.items()}


def _line_by_line(path: Path, parse: Callable[[str], dict[str, Any]]) -> Part:
    part = Part(path.name)
    good: list[dict[str, Any]] = []
    with open(path, "rb") as stream:
        for line, raw in enumerate(stream, start=1):
            content = (raw.removeprefix(_BOM) if line == 1 else raw).strip()
            if not content:
                continue
            try:
                good.append(parse(content.decode("utf-8")))
                part.rows.append(line)
            except UnicodeDecodeError as error:
                part.refuse(line, f"holds the byte 0x{content[error.start]:02x}, which is not UTF-8")
            except RecursionError:
                part.refuse(line, "is nested too deeply")
            except ValueError as error:
                part.refuse(line, one_line(error))
    names = list(dict.fromkeys(name for row in good for name in row))
    part.columns = {name: [as_cell(row.get(name)) for row in good] for name in names}
    return part


def _object(text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(row, dict):
        raise ValueError(f"is a JSON {type(row).__name__}; expected an object")
    return row


def _text(text: str) -> dict[str, Any]:
    if "\0" in text:
        raise ValueError("holds a NUL byte")
    return {"text": text}
