"""`dalr app`: a page to search a catalogue and to decide what its audit found."""

from pathlib import Path
from typing import Annotated

import typer

from dalr.cli import app, command
from dalr.cli.options import (
    CatalogueColumns,
    Device,
    Split,
    load_model,
    with_columns,
)


@command(app, "app")
@with_columns
def app_page(
    db: Annotated[str | None, typer.Option("--db", help="Database made by dalr index, to search.")] = None,
    table: Annotated[str, typer.Option("--table", help="Name of the table in it.")] = "products",
    compare: Annotated[
        str | None, typer.Option("--compare", help="Another database, of another model, asked the same beside it.")
    ] = None,
    audit: Annotated[Path | None, typer.Option("--audit", help="Folder of dalr audit, to decide its findings.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="The audited catalogue.")] = None,
    port: Annotated[int, typer.Option(min=1024, max=65535, help="Port on this machine.")] = 7860,
    split: Split = None,
    *,
    columns: CatalogueColumns,
    device: Device = None,
) -> None:
    """Open a page to search in, and to go through what an audit found. It is served to this machine alone.

    Search: by words, by a picture that is dropped there, or both, with filters; with --compare two models answer side
    by side. Audit: picture, caption, reason and suggestion of each finding, and right / wrong / fix, also as the keys
    r, w and f, with the arrows to go on; each decision is written to decisions.jsonl in the audit's folder at once. A
    button writes the corrected manifest, cleaned.csv. Ctrl-C ends it.
    """
    from dalr.catalogue.app import Review, build_app, launch_app
    from dalr.catalogue.audit import read_audit
    from dalr.catalogue.table_search import SearchTable
    from dalr.errors import UsageError

    if db is None and audit is None:
        raise UsageError("there is nothing to show; give --db, or --audit with --data")
    if compare is not None and db is None:
        raise UsageError("--compare needs --db, to compare with")
    if (audit is None) != (data is None):
        raise UsageError("--audit and --data go together: the folder of the audit, and the catalogue it is of")
    tables = []
    for uri in (db, compare):
        if uri is not None:
            products = SearchTable(uri, table)
            products.model = load_model(products.head.model, device)
            tables.append((uri, products))
    review = None
    if audit is not None and data is not None:
        manifest = columns.load(data, split)
        review = Review.of(read_audit(audit, manifest))
    page = build_app(tables, review)
    typer.echo(f"open {launch_app(page, port)} in a browser; Ctrl-C ends it")
    page.block_thread()
