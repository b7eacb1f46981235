"""What an audit left in its folder, for the report to show."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dalr.catalogue.audit.output import SUMMARY, TABLE
from dalr.data.manifest import Manifest
from dalr.errors import UsageError


@dataclass(frozen=True)
class Finding:
    """A row with a finding: its number in the manifest, and what the audit says of it."""

    row: int
    verdict: str
    probability: float | None
    reason: str
    better: int | None
    better_text: str | None
    known_wrong: bool | None


@dataclass(frozen=True)
class Audited:
    """The summary of an audit, and its findings, the likeliest mismatch first."""

    folder: Path
    summary: dict[str, Any]
    findings: list[Finding]


def read_audit(folder: str | Path, manifest: Manifest) -> Audited:
    """Read an audit of these rows. UsageError where there is none, or it is of other rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(folder)
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        table = pq.read_table(folder / TABLE).to_pydict()
        fingerprint, keys = summary["fingerprint"], table["key"]
    except (OSError, ValueError, KeyError, pa.ArrowException):
        raise UsageError(f"{folder}: is not a finished audit; make one with dalr audit --out {folder}") from None
    if fingerprint != manifest.fingerprint():
        raise UsageError(f"{folder}: is an audit of other rows than {manifest.source} has now; run dalr audit again")
    rows = {key: row for row, key in enumerate(keys)}
    known = table.get("known_wrong", [None] * len(keys))
    found = [
        Finding(
            row,
            verdict,
            table["probability"][row],
            table["reason"][row],
            rows.get(table["better_key"][row]),
            table["better_text"][row],
            known[row],
        )
        for row, verdict in enumerate(table["verdict"])
        if verdict != "ok"
    ]
    fit = [0.0 if value is None else value for value in table["fit"]]
    return Audited(folder, summary, sorted(found, key=lambda one: (-(one.probability or 0.0), fit[one.row])))
