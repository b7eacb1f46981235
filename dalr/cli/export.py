"""`dalr export`: a store for other tools."""

from pathlib import Path
from typing import Annotated

import typer

from dalr.cli import Json, app, command, print_json


@command(app, "export")
def export(
    store: Annotated[Path, typer.Option("--store", help="Store made by dalr embed.")],
    to: Annotated[str, typer.Option("--to", help="parquet or faiss.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")],
    json_output: Json = False,
) -> None:
    """Write an embedded catalogue in a format of others.

    parquet: rows.parquet, a line a row with its vectors of both sides. faiss: text.faiss and image.faiss, flat indices
    by cosine of the distinct texts and images, with text.parquet and image.parquet to say what stands at each place.

    --json prints: out and files (how many rows or vectors are in each).
    """
    from dalr.catalogue.export import export_store

    files = export_store(store, out, to)
    if json_output:
        print_json({"out": str(out), "files": files})
        return
    for name, count in files.items():
        typer.echo(f"{out / name}: {count:,}")
