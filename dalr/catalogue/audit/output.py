"""What an audit leaves: a table of all rows, the same for a spreadsheet, a summary, and a manifest to train on."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dalr.catalogue.audit.config import AuditConfig
from dalr.catalogue.audit.judging import VERDICTS, AuditedRow, AuditResult, worst_first
from dalr.catalogue.audit.memory import STATE
from dalr.catalogue.audit.truth import compared_with_truth
from dalr.data.manifest import Manifest
from dalr.encoders.parts_on_disk import write_parts
from dalr.errors import UsageError
from dalr.files import check_own_folder, write_atomically

TABLE, SHEET, PRODUCTS, CLEANED = "audit.parquet", "audit.csv", "products.csv", "cleaned.csv"
SUMMARY = "summary.json"
WORST = 20  # rows in the summary


def check_folder(folder: str | Path) -> None:
    """UsageError where an audit would be written among files that are not an audit's."""
    check_own_folder(Path(folder), (Path(folder) / SUMMARY).is_file(), "an audit's folder")


def write_audit(
    folder: str | Path,
    manifest: Manifest,
    result: AuditResult,
    config: AuditConfig,
    model: str,
    truth: Mapping[str, str | None] | None = None,
) -> dict[str, Any]:
    """Write the five files and what the next audit can take over into `folder`, and return the summary.

    `audit.parquet` and `audit.csv` have a line a row: row, key, image, text, split, product, verdict, probability, fit
    (log-odds), reason, findings, usable, decision (of a person), content (a hash of what the row says), better_key and
    better_text (of the row whose picture the caption fits better), and a column for each kind of evidence.
    `products.csv` has a line a product: what its rows come to. `cleaned.csv` is a manifest of the usable rows, captions
    fixed where people did so, with the weight of each: one minus the probability (1 where a person approved), times the
    weight that it had; `dalr train` takes it with `data.root` at the catalogue's folder. `summary.json` comes last:
    where it is, the audit is whole. With the keys of rows that are known to be wrong (`truth`), the table has a column
    known_wrong, and the summary says how the verdicts compare with them.

    Raises UsageError where the folder cannot be written, or holds files that are not an audit's.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(folder)
    check_folder(folder)
    columns = table_columns(manifest, result)
    if truth is not None:
        columns["known_wrong"] = [key in truth for key in manifest.keys]
    summary = {
        "source": manifest.source,
        "fingerprint": manifest.fingerprint(),
        "model": model,
        "config": config.model_dump(mode="json"),
        **result.counts(),
        "share": result.share,
        "bad_rows": len(manifest.bad),
        "notes": result.notes,
        "truth": None if truth is None else compared_with_truth(manifest, result, truth),
        "worst": [_told(manifest, row) for row in worst_rows(result)[:WORST]],
    }

    def write(fresh: Path) -> None:
        pq.write_table(pa.table(columns), fresh / TABLE)
        write_atomically(fresh / SHEET, sheet(columns))
        write_atomically(fresh / PRODUCTS, sheet(product_columns(manifest, result)))
        write_atomically(fresh / CLEANED, sheet(cleaned_columns(manifest, result.rows)))
        if result.memory is not None:
            result.memory.save(fresh)

    try:
        # All is written beside an earlier audit and then put in its place: a full disk costs nothing that was there.
        write_parts(folder, SUMMARY, summary, (TABLE, SHEET, PRODUCTS, CLEANED, STATE), write)
    except OSError as error:
        raise UsageError(f"{folder}: the audit cannot be written ({error.strerror}); choose another --out") from None
    return summary


def table_columns(manifest: Manifest, result: AuditResult) -> dict[str, list[Any]]:
    """The table of all rows, by column."""
    rows = result.rows
    names = sorted({name for row in rows for name in row.scores})
    better = [row.better for row in rows]
    return {
        "row": [manifest.where(row.row) for row in rows],
        "key": manifest.keys,
        "image": manifest.images,
        "text": manifest.texts,
        "split": manifest.split or [None] * len(rows),
        "product": [row.product for row in rows],
        "verdict": [row.verdict for row in rows],
        "probability": [None if row.probability is None else round(row.probability, 4) for row in rows],
        "fit": [None if row.fit is None else round(row.fit, 4) for row in rows],
        "reason": [row.reason for row in rows],
        "findings": [", ".join(row.findings) for row in rows],
        "usable": [row.usable for row in rows],
        "decision": [None if row.decision is None else row.decision.choice for row in rows],
        "content": [row.content for row in rows],
        "better_key": [None if other is None else manifest.keys[other] for other in better],
        "better_text": [None if other is None else manifest.texts[other] for other in better],
        **{
            f"score_{name}": [round(row.scores[name], 3) if name in row.scores else None for row in rows]
            for name in names
        },
    }


def product_columns(manifest: Manifest, result: AuditResult) -> dict[str, list[Any]]:
    """What the rows of each product come to, the product with the worst row first; it is named by its first row."""
    members: dict[int, list[AuditedRow]] = {}
    for row in result.rows:
        members.setdefault(row.product, []).append(row)
    order = sorted(members.values(), key=lambda rows: -max(row.probability or 0.0 for row in rows))
    first = [rows[0].row for rows in order]
    return {
        "product": [rows[0].product for rows in order],
        "group": [manifest.group[row] if manifest.group is not None else None for row in first],
        "first_key": [manifest.keys[row] for row in first],
        "first_text": [manifest.texts[row] for row in first],
        "rows": [len(rows) for rows in order],
        "pictures": [len({manifest.images[row.row] for row in rows} - {None}) for rows in order],
        **{name: [sum(row.verdict == name for row in rows) for rows in order] for name in VERDICTS},
        "worst": [round(max(row.probability or 0.0 for row in rows), 4) for rows in order],
        "findings": [", ".join(dict.fromkeys(name for row in rows for name in row.findings)) for rows in order],
    }


def cleaned_columns(manifest: Manifest, audited: Sequence[AuditedRow]) -> dict[str, list[Any]]:
    """The usable rows as a manifest with weights, its columns named as they were; joined captions are `text`."""
    rows = [row for row in audited if row.usable]
    chosen, roles = manifest.select([row.row for row in rows]), manifest.roles
    found: dict[str, list[Any]] = {
        roles.id or "id": chosen.keys,
        roles.image or "image": chosen.images,
        roles.text[0] if len(roles.text) == 1 else "text": [
            row.decision.text if row.decision is not None and row.decision.choice == "fix" else text
            for row, text in zip(rows, chosen.texts, strict=True)
        ],
    }
    if chosen.group is not None:
        found[roles.group or "group"] = list(chosen.group)
    if chosen.split is not None:
        found[roles.split or "split"] = list(chosen.split)
    weights = zip(chosen.weight, rows, strict=True)
    found[roles.weight or "weight"] = [round(float(old) * row.weight, 4) for old, row in weights]
    return found | {name: cells for name, cells in chosen.columns.items() if name not in found}


def worst_rows(result: AuditResult) -> list[AuditedRow]:
    """The rows with a finding, the likeliest mismatch first."""
    return worst_first(row for row in result.rows if row.verdict != "ok")


def _told(manifest: Manifest, row: AuditedRow) -> dict[str, Any]:
    return {
        "row": manifest.where(row.row),
        "key": manifest.keys[row.row],
        "text": manifest.texts[row.row],
        "verdict": row.verdict,
        "probability": None if row.probability is None else round(row.probability, 4),
        "reason": row.reason,
    }


def sheet(columns: dict[str, list[Any]]) -> str:
    """Columns as CSV."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return stream.getvalue()
