"""CSV and TSV: found out, surveyed line by line, and read.

The survey knows the file's encoding and separator, and for every record its line and whether it can be used:
wrong number of fields, a quote that is never closed, bytes that are not text, NUL. After a broken record it goes
on with the next line, so that one stray quote does not swallow the rest of the file.
"""

import codecs
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dalr.data.records import Part, check_readable, read_columns
from dalr.errors import DataError

SEPARATORS = (",", ";", "\t", "|")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SEPARATOR_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True)
class Dialect:
    """How a delimited file is written. `damaged`: some lines are not text in that encoding."""

    encoding: str
    separator: str
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """One record: the line it begins on, and its fields or the reason it has none. `exact`: taken as it stands."""

    line: int
    fields: list[str]
    reason: str = ""
    exact: bool = True


def read_delimited(path: Path, *, separator: str | None = None, encoding: str | None = None) -> Part:
    """Read a CSV or TSV file; all cells are strings as written (`NA` is a word, `007` keeps its zeros).

    Args:
        separator: None takes what the header line holds most of (a tab for `.tsv`).
        encoding: None finds it: UTF-8 with or without a BOM, UTF-16 or 32 by BOM, else Windows-1252.

    Raises DataError for a file that is missing, empty, without a usable header, or with a column given twice.
    """
    check_readable(path)
    part = Part(path.name)
    dialect = find_dialect(path, separator, encoding)
    records = list(_records(path, dialect))
    if dialect.separator == "\t" and any(record.reason for record in records):
        # Many TSV files know no quoting, and a title may begin with a quote.
        unquoted = Dialect(dialect.encoding, "\t", csv.QUOTE_NONE, dialect.damaged)
        again = list(_records(path, unquoted))
        if sum(1 for record in again if record.reason) < sum(1 for record in records if record.reason):
            dialect, records = unquoted, again
            part.notes.append(f"{part.file}: quotes are taken as they stand; as quoting they would have cost rows")
    _note(part, dialect, separator, encoding)
    header, plain = _header(path, records)
    others = [_SEPARATOR_NAMES[other] for other in SEPARATORS if other in header[0]]
    if separator is not None and len(header) == 1 and others:
        part.notes.append(
            f"{part.file}: has one column, '{header[0]}': is '{separator}' its separator, or {others[0]}?"
        )
    good = []
    for record in records[1:]:
        if record.reason:
            part.refuse(record.line, record.reason)
        else:
            good.append(record)
    part.rows = [record.line for record in good]
    plain = plain and len(good) == len(records) - 1 and all(record.exact for record in good)
    columns = _through_datasets(path, dialect, header) if plain and good else None
    if columns is None or any(len(values) != len(good) for values in columns.values()):
        columns = {name: [record.fields[place] for record in good] for place, name in enumerate(header)}
    part.columns = dict(columns)
    return part


def find_dialect(path: Path, separator: str | None = None, encoding: str | None = None) -> Dialect:
    """The encoding and separator of a file, each found where it is not given."""
    found, damaged = (encoding, False) if encoding else _find_encoding(path)
    try:
        with open(path, encoding=found, errors="surrogateescape", newline="") as stream:
            head = next((line for line in stream if line.strip()), "")
    except LookupError:
        raise DataError(
            f"{path}: data.encoding '{encoding}' is not known; expected utf-8, cp1252, latin-1, …"
        ) from None
    except UnicodeError as error:
        raise DataError(f"{path}: is not text in {found} ({error})") from None
    if separator is None:
        outside = "".join(head.split('"')[::2])
        counts = {candidate: outside.count(candidate) for candidate in SEPARATORS}
        preferred = "\t" if path.suffix.lower() in (".tsv", ".tab") else ","
        separator = max(counts, key=lambda candidate: (counts[candidate], candidate == preferred))
        if not counts[separator]:
            separator = preferred
    return Dialect(found, separator, damaged=damaged)


def _find_encoding(path: Path) -> tuple[str, bool]:
    with open(path, "rb") as stream:
        head = stream.read(4096)
        for bom, name in _BOMS:
            if head.startswith(bom):
                return name, False
        for start, name in ((1, "utf-16-le"), (0, "utf-16-be")):
            half = head[start::2]
            if len(half) > 8 and half.count(0) > 0.6 * len(half):
                return name, False
        stream.seek(0)
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while chunk := stream.read(1 << 20):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
            return "utf-8", False
        except UnicodeDecodeError:
            pass
        stream.seek(0)
        valid = any(not line.isascii() and _decodes(line, "utf-8") for line in stream)
    # Accents that are right UTF-8 on some lines make the others damaged; accents on wrong lines alone are another
    # encoding, and on a catalogue's way through a spreadsheet that is Windows-1252.
    return ("utf-8", True) if valid else ("cp1252", True)


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _note(part: Part, dialect: Dialect, separator: str | None, encoding: str | None) -> None:
    if encoding is None and dialect.encoding not in ("utf-8", "utf-8-sig"):
        part.notes.append(f"{part.file}: read as {dialect.encoding}; set data.encoding if that is wrong")
    usual = "\t" if part.file.lower().endswith((".tsv", ".tab")) else ","
    if separator is None and dialect.separator != usual:
        part.notes.append(f"{part.file}: fields are separated by {_SEPARATOR_NAMES[dialect.separator]}")


def _header(path: Path, records: list[Record]) -> tuple[list[str], bool]:
    """Column names, and whether they stand in the file exactly so."""
    if not records:
        raise DataError(f"{path}: holds only blank lines; expected a header line and rows")
    first = records[0]
    if first.reason:
        raise DataError(f"{path}:{first.line}: the header {first.reason}")
    names = [name.strip() or f"column {place}" for place, name in enumerate(first.fields, start=1)]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise DataError(f"{path}:{first.line}: the column '{name}' is given twice; rename one of them")
    return names, names == first.fields and first.line == 1


def _through_datasets(path: Path, dialect: Dialect, header: list[str]) -> dict[str, list[str]] | None:
    import datasets

    try:
        return read_columns(
            "csv",
            path,
            sep=dialect.separator,
            quoting=dialect.quoting,
            encoding=dialect.encoding,
            keep_default_na=False,
            na_filter=False,
            features=datasets.Features({name: datasets.Value("string") for name in header}),
        )
    except Exception:
        # The survey found the file in order; whatever stopped the other reader, the rows are at hand.
        return None


class _Lines:
    """Lines of a file with a memory of those since the last `mark`, which can be put back."""

    def __init__(self, stream: Iterator[str]) -> None:
        self._stream = stream
        self._waiting: list[str] = []
        self.taken: list[str] = []
        self.number = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._waiting.pop() if self._waiting else next(self._stream)
        self.taken.append(line)
        self.number += 1
        return line

    def mark(self) -> None:
        self.taken = []

    def put_back_all_but_first(self) -> None:
        while len(self.taken) > 1:
            self._waiting.append(self.taken.pop())
            self.number -= 1


def _records(path: Path, dialect: Dialect) -> Iterator[Record]:
    """Every record that is not a blank line, the header first."""
    with open(path, encoding=dialect.encoding, errors="surrogateescape", newline="") as stream:
        lines = _Lines(iter(stream))
        reader = _reader(lines, dialect)
        width = 0
        while True:
            lines.mark()
            first = lines.number + 1
            fields: list[str] = []
            try:
                fields = next(reader)
                reason = ""
            except StopIteration:
                return
            except csv.Error as error:
                reason = _quote_reason(error, lines)
            except UnicodeError as error:
                yield Record(first, [], f"is not text in {dialect.encoding}, nor is what follows ({error})")
                return
            if not reason and not fields:
                continue
            exact = True
            if not reason:
                width = width or len(fields)
                if len(fields) > width and not any(fields[width:]):
                    fields, exact = fields[:width], False
                if len(fields) != width:
                    reason = f"has {_count(len(fields))}, the header has {width}"
            if reason and len(lines.taken) > 1:
                lines.put_back_all_but_first()
                reader = _reader(lines, dialect)
            yield Record(first, fields, reason or _not_text(lines.taken, dialect), exact)


def _reader(lines: _Lines, dialect: Dialect) -> Iterator[list[str]]:
    return csv.reader(lines, delimiter=dialect.separator, quoting=dialect.quoting, strict=True)


def _quote_reason(error: csv.Error, lines: _Lines) -> str:
    message = str(error)
    if "unexpected end" in message or len(lines.taken) > 1:
        return "opens a quote that is never closed"
    if "field limit" in message:
        return f"holds a field longer than {csv.field_size_limit():,} characters"
    return 'holds a quote inside a quoted field; write it twice ("")'


def _not_text(lines: list[str], dialect: Dialect) -> str:
    for line in lines:
        if "\0" in line:
            return "holds a NUL byte"
        if dialect.damaged and not line.isascii():
            lone = next((character for character in line if "\udc80" <= character <= "\udcff"), None)
            if lone is not None:
                return f"holds the byte 0x{ord(lone) - 0xDC00:02x}, which is not {dialect.encoding.upper()}"
    return ""


def _count(fields: int) -> str:
    return f"{fields} field" if fields == 1 else f"{fields} fields"
