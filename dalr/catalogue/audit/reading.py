"""What an audit left in its folder, read again, with what people have decided since."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dalr.catalogue.audit.judging import AuditedRow, worst_first
from dalr.catalogue.audit.memory import read_decisions
from dalr.catalogue.audit.output import CLEANED, SUMMARY, TABLE, cleaned_columns, sheet
from dalr.data.manifest import Manifest
from dalr.errors import UsageError
from dalr.files import write_atomically


@dataclass(frozen=True)
class Audited:
    """An audit of all rows of a manifest.

    `rows` are as they were computed, in the manifest's order, under the decisions there were when it was read;
    `known_wrong` says what a truth file knew, None without one.
    """

    folder: Path
    manifest: Manifest
    summary: dict[str, Any]
    rows: list[AuditedRow]
    known_wrong: list[bool] | None

    def findings(self) -> list[AuditedRow]:
        """The rows with a finding, the likeliest mismatch first; what people decided changes nothing of the order."""
        return worst_first(row for row in self.rows if row.findings)

    def with_decisions(self) -> "Audited":
        """The same with the decisions that are on disk now."""
        decisions, _ = read_decisions(self.folder)
        keys = self.manifest.keys
        return replace(self, rows=[row.under(decisions.get(keys[row.row])) for row in self.rows])

    def write_cleaned(self) -> Path:
        """Write the manifest of the usable rows, as corrected by people, and return its path.

        Raises UsageError where it cannot be written.
        """
        path = self.folder / CLEANED
        try:
            write_atomically(path, sheet(cleaned_columns(self.manifest, self.with_decisions().rows)))
        except OSError as error:
            raise UsageError(f"{path}: cannot be written ({error.strerror})") from None
        return path


def read_audit(folder: str | Path, manifest: Manifest) -> Audited:
    """Read an audit of these rows. UsageError where there is none, or it is of other rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(folder)
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        table = pq.read_table(folder / TABLE).to_pydict()
        if summary["fingerprint"] != manifest.fingerprint():
            raise UsageError(
                f"{folder}: is an audit of other rows than {manifest.source} has now, or read with other column "
                "options; give those of dalr audit, or run it again"
            )
        numbers = {key: row for row, key in enumerate(table["key"])}
        scores = {name.removeprefix("score_"): values for name, values in table.items() if name.startswith("score_")}
        rows = [
            AuditedRow(
                row=row,
                product=table["product"][row],
                findings=table["findings"][row].split(", ") if table["findings"][row] else [],
                reason=table["reason"][row],
                probability=table["probability"][row],
                fit=table["fit"][row],
                scores={name: values[row] for name, values in scores.items() if values[row] is not None},
                verdict=table["verdict"][row],
                better=numbers.get(table["better_key"][row]),
                content=table["content"][row],
            )
            for row in range(len(table["key"]))
        ]
    except (OSError, ValueError, KeyError, pa.ArrowException):
        raise UsageError(f"{folder}: is not a finished audit; make one with dalr audit --out {folder}") from None
    return Audited(folder, manifest, summary, rows, table.get("known_wrong")).with_decisions()
