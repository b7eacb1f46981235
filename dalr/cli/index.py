"""`dalr index`: the search table of an embedded catalogue."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dalr.cli import Json, app, command, print_json
from dalr.cli.options import CatalogueColumns, Split, with_columns
from dalr.cli.progress import bar


@command(app, "index")
@with_columns
def index(
    store: Annotated[Path, typer.Option("--store", help="Store made by dalr embed of the same rows.")],
    data: Annotated[str, typer.Option("--data", help="Manifest, image folder, shards or hub dataset.")],
    out: Annotated[str, typer.Option("--out", help="Database: a folder, or the URI of one in object storage.")],
    table: Annotated[str, typer.Option("--table", help="Name of the table in it.")] = "products",
    thumbnails: Annotated[
        Path | None, typer.Option("--thumbnails", help="Folder for small pictures; none are made if not given.")
    ] = None,
    indexed_from: Annotated[
        int, typer.Option("--indexed-from", help="Rows from which vectors get an approximate index.")
    ] = 20_000,
    split: Split = None,
    *,
    columns: CatalogueColumns,
    json_output: Json = False,
) -> None:
    """Write a catalogue's search table: an embedded LanceDB database that dalr search --db and dalr app read.

    A row has its key, caption, picture, attributes (every other column; one that holds numbers alone is a column of
    numbers) and the embeddings of both sides. Captions get a full-text index, and the vectors of a large table an
    approximate one. Started again, it writes what changed since; who searches meanwhile sees the version before.

    --json prints: db, table, rows, new, changed, removed, rebuilt (whether it was begun anew), indexed (sides with an
    approximate index), bad (thumbnails that could not be made), notes.
    """
    from dalr.catalogue.index import index_catalogue

    manifest = columns.load(data, split)
    with bar("indexing") as progress:
        result = index_catalogue(
            store, manifest, out, name=table, thumbnails=thumbnails, indexed_from=indexed_from, progress=progress
        )
    if json_output:
        print_json({"db": out, "table": table, **asdict(result)})
        return
    for note in result.notes:
        typer.echo(f"note: {note}")
    for reason in result.bad[:10]:
        typer.echo(f"no thumbnail: {reason}")
    if len(result.bad) > 10:
        typer.echo(f"… and {len(result.bad) - 10:,} more")
    parts = (
        "written anew"
        if result.rebuilt
        else f"{result.new:,} new, {result.changed:,} changed, {result.removed:,} removed"
    )
    typer.echo(f"{result.rows:,} rows, {parts}; search it with  dalr search --db {out}")
