"""Texts with a class number: the SST and CFIMDB files of the minBERT setting, and own tables."""

from pathlib import Path

from dalr.data.annotated import find_column, number_in, read_table, refuse_nothing_usable
from dalr.data.records import BadRow
from dalr.errors import DataError

TEXT_NAMES = ("sentence", "text", "review", "title", "caption")
LABEL_NAMES = ("sentiment", "label", "class", "target")


def read_labelled_texts(
    path: str | Path, text: str | None = None, label: str | None = None
) -> tuple[list[str], list[int], list[BadRow]]:
    """Texts, the class of each, and the rows that cannot be used.

    Args:
        path: CSV, TSV or JSON Lines with a heading.
        text, label: the columns; guessed by name (sentence, text, …; sentiment, label, …) if not given. A class is a
            whole number from 0.

    Raises DataError for a file that is missing, has not these columns, or holds no usable row.
    """
    path = Path(path)
    part = read_table(path)
    text_column = find_column(part, TEXT_NAMES, text, path)
    label_column = find_column(part, LABEL_NAMES, label, path)
    if text_column is None or label_column is None:
        lacking = " and ".join(
            name for name, found in (("texts", text_column), ("class numbers", label_column)) if found is None
        )
        raise DataError(
            f"{path}: found no column of {lacking} among {', '.join(map(repr, part.columns)) or 'none'}; expected one "
            f"of {', '.join(TEXT_NAMES)}, and one of {', '.join(LABEL_NAMES)}"
        )
    texts: list[str] = []
    labels: list[int] = []
    for line, cell, value in zip(part.rows, part.columns[text_column], part.columns[label_column], strict=True):
        content = "" if cell is None else str(cell).strip()
        try:
            number = number_in(value, "class")
            if number != int(number) or number < 0:
                raise ValueError(f"the class {number:g} is not a whole number from 0")
            if not content:
                raise ValueError("has no text")
        except ValueError as error:
            part.refuse(line, str(error))
            continue
        texts.append(content)
        labels.append(int(number))
    if not texts:
        raise refuse_nothing_usable(path, "labelled text", part.bad)
    return texts, labels, sorted(part.bad, key=lambda row: row.row)
