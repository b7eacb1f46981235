"""Writing the report: index.html, the pages of findings behind it, and the pictures they show."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dalr.catalogue.pages import METRIC_NAMES, render_page
from dalr.catalogue.pages.charts import chart
from dalr.catalogue.report.content import Report, curve
from dalr.catalogue.thumbnails import Thumbnails
from dalr.errors import UsageError
from dalr.evaluation.retrieval import METRICS
from dalr.files import check_own_folder, write_atomically

INDEX, PICTURES = "index.html", "pictures"
GENERATOR = '<meta name="generator" content="dalr">'  # of pages/parts.html: by it a report is known
WORST = 12  # findings on the first page
PAGE = 60  # on each of those behind it
MOST_PAGES = 50


@dataclass(frozen=True)
class Step:
    """What to do next, why, and the command if there is one."""

    what: str
    command: str | None = None


def check_folder(folder: str | Path) -> None:
    """UsageError where a report would be written among files that are not a report's."""
    index = Path(folder) / INDEX
    own = index.is_file() and GENERATOR in index.read_text(encoding="utf-8", errors="replace")
    check_own_folder(Path(folder), own, "a report's folder")


def write_report(folder: str | Path, report: Report) -> Path:
    """Write the pages into `folder`, made where it is not there, and return the first.

    A picture that cannot be read is left out. An earlier report there is replaced, page by page, the first one last.
    Raises UsageError where the folder cannot be written, or holds files that are not a report's.
    """
    folder = Path(folder)
    check_folder(folder)
    small = Thumbnails(folder / PICTURES, report.manifest, report.image_keys)

    def picture(row: int) -> str | None:
        path = small(row)
        return None if path is None else f"{PICTURES}/{path.name}"

    findings = report.audited.findings() if report.audited is not None else []
    pages = [findings[start : start + PAGE] for start in range(0, min(len(findings), PAGE * MOST_PAGES), PAGE)]
    known = report.audited.known_wrong if report.audited is not None else None
    shared: dict[str, Any] = {"report": report, "picture": picture, "where": report.manifest.where, "known": known}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / INDEX).is_file():
            # From here on the folder is ours: a report that is stopped below is written anew.
            write_atomically(folder / INDEX, f"<!doctype html>{GENERATOR}<title>dalr report</title>Not yet finished.")
        for number, page in enumerate(pages, start=1):
            values = {**shared, "findings": page, "number": number, "pages": len(pages), "of": len(findings)}
            write_atomically(folder / f"findings-{number}.html", render_page("findings.html", **values))
        for old in folder.glob("findings-*.html"):
            if old.stem.removeprefix("findings-").isdigit() and int(old.stem.removeprefix("findings-")) > len(pages):
                old.unlink()
        values = {
            **shared,
            "charts": _charts(report),
            "metrics": METRICS,
            "found": len(findings),
            "findings": findings[:WORST],
        }
        write_atomically(
            folder / INDEX, render_page("report.html", **values, pages=len(pages), steps=next_steps(report))
        )
    except OSError as error:
        raise UsageError(f"{folder}: the report cannot be written ({error.strerror}); choose another --out") from None
    return folder / INDEX


def next_steps(report: Report) -> list[Step]:
    """What a person should do about what the report shows."""
    check, data = report.check, report.check.source
    model = report.run.get("out") or "runs/mine"
    steps = []
    if check.bad_rows:
        steps.append(Step(f"Mend {len(check.bad_rows):,} rows that cannot be used; they are listed with the data."))
    crossing = [
        what for what, found in (check.splits.shared if check.splits is not None else {}).items() if found.groups
    ]
    if crossing:
        steps.append(
            Step(f"The same {' and the same '.join(crossing)} stands in several splits: the figures are flattered.")
        )
    if report.audited is None:
        steps.append(
            Step("Look for captions that do not fit.", f"dalr audit --model {model} --data {data} --out runs/audit")
        )
    else:
        folder, verdicts = report.audited.folder, report.audited.summary["verdicts"]
        if verdicts["wrong"] + verdicts["doubtful"]:
            what = (
                f"Look through {verdicts['wrong'] + verdicts['doubtful']:,} doubtful captions, and train on the rest."
            )
            root = report.manifest.root
            steps.append(
                Step(what, f"dalr train CONFIG data.train={folder / 'cleaned.csv'} data.root={root} --out runs/next")
            )
    if len(report.recall_by) > 1:
        low = report.recall_by[0]
        steps.append(Step(f"More or better captions would help most where least is found: {report.by} “{low.name}”."))
    return steps


def _charts(report: Report) -> list[Any]:
    metric = report.run.get("metric") or "mrr"
    name = METRIC_NAMES.get(metric, metric) + " on the validation part"
    found = (
        chart(name, curve(report.history, "evaluation", metric)),
        chart("loss on the training part", curve(report.history, "step", "loss"), from_zero=True),
    )
    return [one for one in found if one is not None]
