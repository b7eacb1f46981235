"""What the readers of annotated texts share: tables by their ending, plain lines, columns by name, numbers in cells."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dalr.config import nearest
from dalr.data.columns import plain_name
from dalr.data.delimited import read_delimited
from dalr.data.jsonlines import read_jsonl
from dalr.data.records import BadRow, Part, check_readable
from dalr.data.rows import as_text, unusable_text
from dalr.data.sources import JSONL, PARQUET
from dalr.errors import DataError, shortened

_TRUTH = {"true": 1.0, "false": 0.0}


def read_table(path: Path) -> Part:
    """A table: JSON Lines and Parquet by their ending, anything else by its separator (commas, tabs, …)."""
    if path.suffix.lower() in PARQUET:
        from dalr.data.hub import read_parquet

        check_readable(path)
        return read_parquet(path)[0]
    return read_jsonl(path) if path.suffix.lower() in JSONL else read_delimited(path)


def read_plain_lines(path: Path) -> list[str]:
    """Lines by newline alone: a sentence may hold a character that `splitlines` takes for the end of one.

    A line that is not UTF-8 is read as Windows-1252, which for printed text is latin-1. Raises DataError for a file
    that is missing or empty.
    """
    check_readable(path)
    raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n")
    return [_decoded(line.removesuffix(b"\r")) for line in raw.split(b"\n")]


def _decoded(line: bytes) -> str:
    for encoding in ("utf-8", "cp1252"):
        try:
            return line.decode(encoding)
        except UnicodeDecodeError:
            continue
    return line.decode("latin-1")


def find_column(part: Part, known: Sequence[str], named: str | None, source: Path) -> str | None:
    """The column that is `named`, which must be there, else the first that has one of the `known` names, or None."""
    if named is not None:
        if named not in part.columns:
            raise DataError(f"{source}: there is no column '{named}'; {nearest(named, list(part.columns))}")
        return named
    by_name = {plain_name(name): name for name in reversed(list(part.columns))}
    return next((by_name[name] for name in known if name in by_name), None)


def text_in(cell: Any, what: str) -> str:
    """The text in a cell, without space around it; ValueError says that `what` is blank or no text."""
    text = as_text(cell)
    if text is None:
        raise ValueError(f"has no {what}")
    spoilt = unusable_text([text])
    if spoilt:
        raise ValueError(f"the {what} {spoilt}")
    return text


def number_in(cell: Any, what: str) -> float:
    """The finite number in a cell, true is 1 and false 0; ValueError says that `what` is blank or not a number."""
    text = as_text(cell)
    if text is None:
        raise ValueError(f"has no {what}")
    try:
        value = _TRUTH[text.lower()] if text.lower() in _TRUTH else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"the {what} {shortened(text, 40)!r} is not a number")
    return value


def refuse_nothing_usable(source: Path, what: str, bad: Sequence[BadRow]) -> DataError:
    """The error for a file that has not one usable row."""
    first = f"; the first of {len(bad):,} bad rows, {bad[0].where}: {bad[0].reason}" if bad else ""
    return DataError(f"{source}: holds no usable {what}{first}")
