"""`dalr report`: pages that show a person what a catalogue is and what a run made of it."""

from pathlib import Path
from typing import Annotated

import typer

from dalr.cli import Json, app, command, print_json
from dalr.cli.options import (
    CatalogueColumns,
    Device,
    Split,
    load_model,
    with_columns,
)
from dalr.cli.progress import bar

NEXT = [
    ("Look at the data: what is missing, broken, double, or in two splits at once.", "dalr check my/products.csv"),
    (
        "Train; a tenth is kept aside to choose the best weights. configs/demo.yaml starts from nothing, "
        "configs/fashion.yaml from pretrained encoders.",
        "dalr train configs/demo.yaml data.train=my/products.csv data.val=null data.dev=0.1 --out runs/mine",
    ),
    (
        "Embed everything once, then search by words or by a picture.",
        "dalr embed --model runs/mine --data my/products.csv --out runs/store\n"
        'dalr search --store runs/store "red striped mug"',
    ),
    ("Find captions that do not fit.", "dalr audit --model runs/mine --data my/products.csv --out runs/audit"),
    (
        "This report, for your run.",
        "dalr report --run runs/mine --data my/products.csv --audit runs/audit --out report",
    ),
]


@command(app, "report")
@with_columns
def report(
    run: Annotated[Path, typer.Option("--run", help="Run folder of dalr train.")],
    data: Annotated[str, typer.Option("--data", help="The catalogue: manifest, image folder or shards.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the report.")] = Path("report"),
    audit: Annotated[Path | None, typer.Option("--audit", help="Folder of dalr audit, of the same rows.")] = None,
    by: Annotated[str | None, typer.Option("--by", help="Column of the categories; chosen if not given.")] = None,
    split: Split = None,
    title: Annotated[str | None, typer.Option("--title", help="Heading; by default the catalogue's name.")] = None,
    queries: Annotated[int, typer.Option(min=1, help="Random queries to show.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw of example queries.")] = 0,
    *,
    columns: CatalogueColumns,
    device: Device = None,
    json_output: Json = False,
) -> None:
    """Write a report about a finished run into a folder that opens in any browser, without a network.

    It shows searches (at random, the best, the worst), retrieval with intervals and its definition, recall by category,
    a map and a heat map of the shared space, how training went, what the data is and what is there twice; with --audit
    also what the audit found, all of it on pages of their own; and what to do next. Retrieval and searches are those of
    --split (by default test or val where the catalogue has them). Pictures are small copies below the folder.

    --json prints: out, page, split, retrieval (as eval retrieval prints it), by, recall_by (name, queries, recall and
    mrr of each category), gap (modality gap, mean cosine of right pairs and of all), findings (rows that the audit
    names, or null), next (what to do and the command).
    """
    from dataclasses import asdict, replace

    from dalr.catalogue.report import gather_report, write_report
    from dalr.catalogue.report.writing import check_folder, next_steps

    check_folder(out)
    manifest = columns.load(data)
    with bar("embedding") as progress:
        found = gather_report(
            run,
            load_model(str(run), device),
            manifest,
            title=title or Path(data).stem,
            split=split,
            audit=audit,
            by=by,
            queries=queries,
            seed=seed,
            progress=progress,
        )
    page = write_report(out, replace(found, commands=NEXT))
    if json_output:
        print_json(
            {
                "out": str(out),
                "page": str(page),
                "split": found.split,
                "retrieval": found.retrieval,
                "by": found.by,
                "recall_by": [asdict(one) for one in found.recall_by],
                "gap": found.gap,
                "findings": None if found.audited is None else len(found.audited.findings()),
                "next": [asdict(step) for step in next_steps(found)],
            }
        )
        return
    typer.echo(f"report: {page.resolve()}")
