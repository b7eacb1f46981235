"""`dalr embed`: a catalogue's embeddings on disk."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dalr.cli import Json, app, command, print_json
from dalr.cli.options import (
    CatalogueColumns,
    Device,
    ModelName,
    Split,
    load_model,
    with_columns,
)
from dalr.cli.progress import bar

if TYPE_CHECKING:
    from dalr.model import Side

SIDES: dict[str | None, "tuple[Side, ...] | None"] = {None: None, "text": ("text",), "image": ("image",)}


@command(app, "embed")
@with_columns
def embed(
    model: ModelName,
    data: Annotated[str, typer.Option("--data", help="Manifest, image folder, shards or hub dataset.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the store; made, or brought up to date.")],
    side: Annotated[str | None, typer.Option("--side", help="image or text; by default what is there.")] = None,
    split: Split = None,
    *,
    columns: CatalogueColumns,
    device: Device = None,
    json_output: Json = False,
) -> None:
    """Embed a catalogue's texts and images into a store that `dalr search` reads.

    Started again, only new and changed rows are embedded, and a killed run goes on where it stopped. A changed model
    embeds everything anew: rows of two models are never mixed. Rows that cannot be used, and images that cannot be
    read, are skipped, counted, and listed with their reason in bad_rows.jsonl in the store.

    --json prints: store, model, space (shared, sentence or image), rows, embedded (distinct items by side), new (of
    these, embedded by this run), bad (number of rows or images that cannot be used), bad_rows (the first 20: file, row,
    key, reason), fingerprints (of the model, by side).
    """
    from dalr.catalogue.embed import embed_catalogue, read_catalogue
    from dalr.errors import UsageError

    if side not in SIDES:
        raise UsageError(f"--side {side}: expected image or text (leave it out for both)")
    manifest = columns.load(data, split, tell=False)
    encoder = load_model(model, device)
    with bar("embedding") as progress:
        result = embed_catalogue(encoder, model, manifest, out, sides=SIDES[side], progress=progress)
    if json_output:
        head = read_catalogue(out)[0]
        print_json(
            {
                "store": str(out),
                "model": head["model"],
                "space": result.space,
                "rows": result.rows,
                "embedded": result.embedded,
                "new": result.new,
                "bad": len(result.bad),
                "bad_rows": [asdict(row) for row in result.bad[:20]],
                "fingerprints": head["fingerprints"],
            }
        )
        return
    parts = [f"{count:,} {name}s ({result.new.get(name, 0):,} new)" for name, count in result.embedded.items()]
    typer.echo(f"{result.rows:,} rows: {', '.join(parts)}; {result.space} space")
    for row in result.bad[:10]:
        typer.echo(f"skipped: {row.where}: {row.reason}")
    if len(result.bad) > 10:
        typer.echo(f"… and {len(result.bad) - 10:,} more")
    if result.bad:
        typer.echo(f"{len(result.bad):,} rows or their images cannot be used: {out / 'bad_rows.jsonl'}")
    typer.echo(f"store: {out}")
