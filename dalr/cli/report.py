"""`dalr report`: one HTML page that shows a person what a run did."""

from pathlib import Path
from typing import Annotated

import typer

from dalr.cli import Json, app, command, print_json
from dalr.cli.options import (
    Device,
    GroupColumn,
    IdColumn,
    ImageColumn,
    Root,
    Split,
    SplitColumn,
    TextColumn,
    load_manifest,
    load_model,
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
    ("This page, for your run.", "dalr report --run runs/mine --data my/products.csv --out summary.html"),
]


@command(app, "report")
def report(
    run: Annotated[Path, typer.Option("--run", help="Run folder of dalr train.")],
    data: Annotated[str, typer.Option("--data", help="The catalogue: manifest, image folder or shards.")],
    out: Annotated[Path, typer.Option("--out", help="HTML file to write.")] = Path("summary.html"),
    split: Split = None,
    truth: Annotated[
        Path | None, typer.Option("--truth", help="CSV with the ids of rows whose captions are known to be wrong.")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="Heading; by default the catalogue's name.")] = None,
    queries: Annotated[int, typer.Option(min=1, help="Example queries to show.")] = 8,
    suspects: Annotated[int, typer.Option(min=1, help="Worst-fitting captions to show.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw of example queries.")] = 0,
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    group_column: GroupColumn = None,
    id_column: IdColumn = None,
    split_column: SplitColumn = None,
    root: Root = None,
    device: Device = None,
    json_output: Json = False,
) -> None:
    """Write one HTML page about a finished run: retrieval, example searches, captions that fit badly, the data.

    The page needs no other file and no network. Retrieval and examples are those of --split (by default test or val
    where the catalogue has them), the badly fitting captions those of train. With --truth the page says how many of
    the known wrong captions are among as many worst-fitting ones.

    --json prints: out, split, retrieval (as eval retrieval prints it), suspects (the rows shown: where, caption, rank,
    known), looked_at, planted and found (with --truth, else null).
    """
    from dataclasses import replace

    from dalr.catalogue.page import write_summary
    from dalr.catalogue.summary import summarise

    manifest = load_manifest(
        data,
        None,
        image=image_column,
        text=text_column,
        group=group_column,
        id=id_column,
        split_column=split_column,
        root=root,
    )
    with bar("embedding") as progress:
        summary = summarise(
            run,
            load_model(str(run), device),
            manifest,
            title=title or Path(data).stem,
            split=split,
            truth=truth,
            queries=queries,
            suspects=suspects,
            seed=seed,
            progress=progress,
        )
    write_summary(out, replace(summary, commands=NEXT))
    found = summary.suspects
    if json_output:
        rows = [{"where": s.where, "caption": s.caption, "rank": s.rank, "known": s.known} for s in found.shown]
        counts = {"looked_at": found.looked_at, "planted": found.planted, "found": found.found}
        head = {"out": str(out), "split": summary.split, "retrieval": summary.retrieval}
        print_json({**head, "suspects": rows, **counts})
        return
    if found.planted is not None:
        typer.echo(f"{found.found} of {found.planted} known wrong captions are among the {found.looked_at} worst")
    typer.echo(f"summary: {out.resolve()}")
