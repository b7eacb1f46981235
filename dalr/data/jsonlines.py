"""JSON Lines and plain text lines, read line by line: a broken one costs itself, and no value depends on other rows.

`datasets` would make times of all strings of a column that look like one, and fail a whole file for one line.
"""

import codecs
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dalr.data.records import Part, as_cell, check_readable
from dalr.errors import DataError, one_line

_BOM = b"\xef\xbb\xbf"


def read_jsonl(path: Path) -> Part:
    """Read JSON Lines: one object a line; a list of strings stays a list (several captions of one image).

    A line that is not an object, not UTF-8 or not JSON is a bad row. Raises DataError for a file that is missing,
    empty, or one JSON array.
    """
    check_readable(path)
    with open(path, "rb") as stream:
        if stream.read(4096).removeprefix(_BOM).lstrip().startswith(b"["):
            raise DataError(f"{path}: is a JSON array; expected JSON Lines, one object a line")
    return _line_by_line(path, json_object)


def read_lines(path: Path) -> Part:
    """Read a text file as one text a line (blank lines are passed over); the only column is `text`."""
    check_readable(path)
    return _line_by_line(path, lambda text: {"text": text})


def decoded_lines(path: Path, refuse: Callable[[int, str], None]) -> Iterator[tuple[int, str]]:
    """(line number from 1, line with its end) of a UTF-8 file or its gzip, one line in memory at a time.

    A line that is not UTF-8, or has a NUL byte, goes to `refuse` with its reason. Raises DataError for a file that
    cannot be read, and for one in UTF-16.
    """
    try:
        with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as stream:
            for number, raw in enumerate(stream, start=1):
                if number == 1 and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise DataError(f"{path}: is UTF-16; expected UTF-8, save it so")
                content = raw.removeprefix(_BOM) if number == 1 else raw
                if b"\0" in content:
                    refuse(number, "holds a NUL byte; expected UTF-8")
                    continue
                try:
                    yield number, content.decode("utf-8")
                except UnicodeDecodeError as error:
                    refuse(number, f"holds the byte 0x{content[error.start]:02x}, which is not UTF-8")
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)})") from None


def parsed_lines(
    path: Path, parse: Callable[[str], dict[str, Any]], refuse: Callable[[int, str], None]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, parsed line) of the lines that are not blank; what `parse` cannot read goes to `refuse`."""
    for number, line in decoded_lines(path, refuse):
        content = line.strip()
        if not content:
            continue
        try:
            row = parse(content)
        except RecursionError:
            refuse(number, "is nested too deeply")
        except ValueError as error:
            refuse(number, one_line(error))
        else:
            yield number, row


def json_object(text: str) -> dict[str, Any]:
    """The JSON object that a line holds; ValueError where it is none."""
    try:
        row = json.loads(text)
    except ValueError as error:
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(row, dict):
        raise ValueError(f"is a JSON {type(row).__name__}; expected an object")
    return row


def _line_by_line(path: Path, parse: Callable[[str], dict[str, Any]]) -> Part:
    part = Part(path.name)
    good: list[dict[str, Any]] = []
    for number, row in parsed_lines(path, parse, part.refuse):
        good.append(row)
        part.rows.append(number)
    names = list(dict.fromkeys(name for row in good for name in row))
    part.columns = {name: [as_cell(row.get(name)) for row in good] for name in names}
    return part
