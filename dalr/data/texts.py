"""Texts without pictures: a corpus of sentences, and triplets for supervised contrast."""

import csv
from pathlib import Path

from dalr.errors import DataError


def read_corpus(path: str) -> list[str]:
    """The sentences of a text file, one a line, empty lines left out."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.corpus: {path}: cannot be read as UTF-8 text ({error})") from None
    sentences = [line.strip() for line in lines if line.strip()]
    if not sentences:
        raise DataError(f"data.corpus: {path}: holds no sentence; expected one a line")
    return sentences


def read_triplets(path: str) -> tuple[list[str], list[str], list[str]]:
    """Anchors, positives and negatives of a CSV with these three columns; rows with an empty field are left out."""
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = {"anchor", "positive", "negative"} - set(reader.fieldnames or ())
            if missing:
                raise DataError(f"data.triplets: {path}: lacks the columns {', '.join(sorted(missing))}")
            rows = [(row["anchor"], row["positive"], row["negative"]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"data.triplets: {path}: cannot be read as CSV ({error})") from None
    rows = [row for row in rows if all(field and field.strip() for field in row)]
    if not rows:
        raise DataError(f"data.triplets: {path}: holds no complete row")
    anchors, positives, negatives = zip(*rows, strict=True)
    return list(anchors), list(positives), list(negatives)
