"""Texts without pictures: a corpus of sentences, and triplets for supervised contrast.

Read by the readers of catalogues, so that a line that cannot be used costs only itself and comes back as a bad row.
"""

from pathlib import Path

from dalr.data.delimited import read_delimited
from dalr.data.jsonlines import read_lines
from dalr.data.records import BadRow
from dalr.errors import DataError

TRIPLET = ("anchor", "positive", "negative")


def read_corpus(path: str) -> tuple[list[str], list[BadRow]]:
    """The sentences of a text file, one a line, empty lines left out; and the lines that are not UTF-8 text.

    Raises DataError for a file that is missing or holds no sentence.
    """
    part = read_lines(Path(path))
    sentences = [text.strip() for text in part.columns.get("text", [])]
    if not sentences:
        raise DataError(f"data.corpus: {path}: holds no sentence; expected one a line")
    return sentences, part.bad


def read_triplets(path: str) -> tuple[tuple[list[str], list[str], list[str]], list[BadRow]]:
    """Anchors, positives and negatives of a CSV with these three columns; and the rows that lack one of them.

    Raises DataError for a file that is missing, lacks a column or holds no complete row.
    """
    part = read_delimited(Path(path))
    missing = [name for name in TRIPLET if name not in part.columns]
    if missing:
        raise DataError(f"data.triplets: {path}: lacks the columns {', '.join(missing)}")
    kept: list[tuple[str, ...]] = []
    for line, *fields in zip(part.rows, *(part.columns[name] for name in TRIPLET), strict=True):
        empty = [name for name, field in zip(TRIPLET, fields, strict=True) if not (field or "").strip()]
        if empty:
            part.refuse(line, f"has no {' and no '.join(empty)}")
        else:
            kept.append(tuple(fields))
    if not kept:
        raise DataError(f"data.triplets: {path}: holds no complete row")
    anchors, positives, negatives = zip(*kept, strict=True)
    return (list(anchors), list(positives), list(negatives)), part.bad
