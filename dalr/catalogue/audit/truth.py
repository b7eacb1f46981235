"""What is known of a catalogue's wrong captions, and how much of it an audit finds."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dalr.catalogue.audit.judging import AuditResult
from dalr.data.manifest import Manifest
from dalr.errors import DataError


def read_truth(path: str | Path, manifest: Manifest) -> dict[str, str | None]:
    """Right captions by row key, from a CSV with the columns `id` and, where known, `right_text`.

    Raises DataError for a file without `id`, or with an id that the manifest has not.
    """
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a truth file ({error}); expected a CSV with a column id") from None
    if not rows or "id" not in rows[0]:
        raise DataError(f"{path}: has no column 'id', or no rows; expected the ids of rows with a wrong caption")
    known = set(manifest.keys)
    for number, row in enumerate(rows, start=2):
        if row["id"] not in known:
            raise DataError(f"{path}:{number}: no row of {manifest.source} has the id {row['id']!r}")
    return {row["id"]: row.get("right_text") for row in rows}


def compared_with_truth(manifest: Manifest, result: AuditResult, truth: Mapping[str, str | None]) -> dict[str, Any]:
    """How the verdicts `wrong` compare with the rows that are known to be wrong.

    Returns:
        planted (known wrong rows), flagged (rows with the verdict), found (of these, known), precision and recall
        (0 to 1; precision is None where nothing is flagged), and, over the rows that were compared, auroc and
        precision_at_planted: of as many rows as are known, those of the highest probability.
    """
    from sklearn.metrics import roc_auc_score

    wrong = np.array([key in truth for key in manifest.keys])
    flagged = np.array([row.verdict == "wrong" for row in result.rows])
    found = int((wrong & flagged).sum())
    compared = np.array([row.probability is not None for row in result.rows])
    values = np.array([row.probability for row in result.rows if row.probability is not None])
    fit = np.array([row.fit for row in result.rows if row.fit is not None])
    told = wrong[compared]
    both = bool(told.any() and not told.all())
    order = np.lexsort((fit, -values))[: int(told.sum())]
    return {
        "planted": int(wrong.sum()),
        "flagged": int(flagged.sum()),
        "found": found,
        "precision": round(found / int(flagged.sum()), 4) if flagged.any() else None,
        "recall": round(found / int(wrong.sum()), 4),
        "auroc": round(float(roc_auc_score(told, -fit)), 4) if both else None,
        "precision_at_planted": round(float(told[order].mean()), 4) if len(order) else None,
    }
