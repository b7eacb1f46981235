"""Texts with a class: the SST and CFIMDB files of the minBERT setting, and own tables."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from dalr.data.annotated import find_column, number_in, read_table, refuse_nothing_usable, text_in
from dalr.data.records import BadRow
from dalr.errors import DataError

TEXT_NAMES = ("sentence", "text", "review", "title", "caption")
LABEL_NAMES = ("sentiment", "label", "class", "target")
Label = TypeVar("Label", str, int)


def read_labelled_texts(
    path: str | Path, text: str | None = None, label: str | None = None
) -> tuple[list[str], list[int], list[BadRow]]:
    """Texts, the class of each as a whole number from 0, and the rows that cannot be used.

    Args:
        path: CSV, TSV or JSON Lines with a heading.
        text, label: the columns; guessed by name (sentence, text, …; sentiment, label, …) if not given.

    Raises DataError for a file that is missing, has not these columns, or holds no usable row.
    """
    return _read(Path(path), text, label, _class_number)


def read_named_classes(
    path: str | Path, text: str | None = None, label: str | None = None
) -> tuple[list[str], list[str], list[BadRow]]:
    """As `read_labelled_texts`, a class being any name or number as it is written."""
    return _read(Path(path), text, label, _class_name)


def _read(
    path: Path, text: str | None, label: str | None, parse: Callable[[Any], Label]
) -> tuple[list[str], list[Label], list[BadRow]]:
    part = read_table(path)
    columns = {
        "texts": find_column(part, TEXT_NAMES, text, path),
        "classes": find_column(part, LABEL_NAMES, label, path),
    }
    lacking = [what for what, found in columns.items() if found is None]
    if lacking:
        options = {"texts": "--text-column", "classes": "--label-column"}
        raise DataError(
            f"{path}: found no column of {' and '.join(lacking)} among {', '.join(map(repr, part.columns)) or 'none'}; "
            f"expected one of {', '.join(TEXT_NAMES)}, and one of {', '.join(LABEL_NAMES)}, or name it with "
            f"{' and '.join(options[what] for what in lacking)}"
        )
    texts: list[str] = []
    labels: list[Label] = []
    for line, cell, value in zip(part.rows, *(part.columns[str(found)] for found in columns.values()), strict=True):
        try:
            content, parsed = text_in(cell, "text"), parse(value)
        except ValueError as error:
            part.refuse(line, str(error))
            continue
        texts.append(content)
        labels.append(parsed)
    if not texts:
        raise refuse_nothing_usable(path, "labelled text", part.bad)
    return texts, labels, sorted(part.bad, key=lambda row: row.row)


def _class_number(cell: Any) -> int:
    number = number_in(cell, "class")
    if number != int(number) or number < 0:
        raise ValueError(f"the class {number:g} is not a whole number from 0")
    return int(number)


def _class_name(cell: Any) -> str:
    return text_in(cell, "class")
