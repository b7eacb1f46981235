"""`dalr audit`: which rows of a catalogue are wrong, and why."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dalr.cli import Json, app, command, print_json
from dalr.cli.options import (
    CatalogueColumns,
    Device,
    Split,
    load_model,
    on_device,
    with_columns,
)
from dalr.cli.progress import bar

if TYPE_CHECKING:
    from dalr.model import DualEncoder


@command(app, "audit")
@with_columns
def audit(
    data: Annotated[str, typer.Option("--data", help="Manifest, image folder, shards or hub dataset.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for what is found.")],
    model: Annotated[str | None, typer.Option("--model", help="A model folder, or the name of a CLIP.")] = None,
    store: Annotated[Path | None, typer.Option("--store", help="Store of dalr embed, whose model is taken.")] = None,
    text_encoder: Annotated[
        str | None, typer.Option("--text-encoder", help="Without a trained model: any text encoder …")
    ] = None,
    image_encoder: Annotated[str | None, typer.Option("--image-encoder", help="… and any image encoder.")] = None,
    crossfit: Annotated[
        int | None, typer.Option("--crossfit", min=2, help="Judge each row by heads trained on the other folds.")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="Dotted overrides, such as wrong=0.7.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="YAML with thresholds and the rest.")] = None,
    truth: Annotated[
        Path | None, typer.Option("--truth", help="CSV with the ids of rows whose captions are known to be wrong.")
    ] = None,
    split: Split = None,
    *,
    columns: CatalogueColumns,
    device: Device = None,
    json_output: Json = False,
) -> None:
    """Find the rows of a catalogue that are wrong: captions of other pictures, doubles, broken or empty things.

    Each row gets the probability that its caption does not fit its picture, from its neighbours' captions and pictures,
    the model's cosine against those of its row and column, and other pictures of the caption; no label is needed. With
    two plain encoders the neighbours alone speak, with --crossfit heads are trained on the other folds. Beside that it
    names pictures that are blank, blurred, dark, small, odd in shape, or the same for many products; captions that are
    empty, boilerplate, in another script, too long, or shouting; doubles, also across splits; and outliers.

    Written are audit.parquet and audit.csv (a line a row), products.csv (a line a product), cleaned.csv (what is left,
    with weights, for dalr train) and summary.json. Run again into the same folder, it judges only what changed; what
    people decided stands. With --truth it says how many of the known wrong captions are flagged, and how many of those
    flagged are known.

    --json prints the summary: source, fingerprint, model, config, rows, compared, judged (of these, now), decided (by
    people), verdicts (wrong, doubtful, faulty, ok: they add up to rows), findings, products, usable, share (of
    mismatches, estimated), bad_rows (of the reader), notes, truth (with --truth: planted, flagged, found, precision,
    recall, auroc, precision_at_planted; else null), worst (row, key, text, verdict, probability, reason).
    """
    from dalr.catalogue.audit import AuditConfig, Memory, audit_catalogue, read_decisions, read_truth, write_audit
    from dalr.catalogue.audit.output import check_folder
    from dalr.config import apply_overrides, parse_config, read_yaml

    check_folder(out)
    folds = [f"folds={crossfit}"] if crossfit is not None else []
    values = apply_overrides(read_yaml(config) if config is not None else {}, [*(overrides or []), *folds])
    settings = parse_config(AuditConfig, values, str(config or "options"))
    manifest = columns.load(data, split)
    known = None if truth is None else read_truth(truth, manifest)
    name, encoder, shared = _encoder(model, store, text_encoder, image_encoder, device)
    decisions, broken = read_decisions(out)
    with bar("audit") as progress:
        result = audit_catalogue(
            encoder,
            manifest,
            settings,
            shared=shared,
            memory=Memory.load(out),
            decisions=decisions,
            progress=progress,
        )
    if broken:
        result.notes.append(f"{broken} lines of {out / 'decisions.jsonl'} cannot be read and were left out")
    summary = write_audit(out, manifest, result, settings, name, known)
    if json_output:
        print_json(summary)
        return
    from dalr.cli.tables import show_table

    verdicts = summary["verdicts"]
    show_table(
        f"{summary['rows']:,} rows, {summary['products']:,} products",
        ["finding", "rows"],
        [[name, f"{count:,}"] for name, count in {**verdicts, **summary["findings"]}.items()],
    )
    for note in summary["notes"]:
        typer.echo(note)
    for row in summary["worst"][:5]:
        typer.echo(f"{row['row']}: {row['text'] or '–'}: {row['reason']}")
    if summary["truth"] is not None:
        found = summary["truth"]
        precision = "none" if found["precision"] is None else f"{found['precision']:.0%}"
        typer.echo(
            f"of {found['planted']:,} known wrong captions {found['found']:,} are among the {found['flagged']:,} "
            f"flagged: precision {precision}, recall {found['recall']:.0%}"
        )
    typer.echo(f"audit: {out}; train on the rest with data.train={out / 'cleaned.csv'} data.root={manifest.root}")


def _encoder(
    model: str | None, store: Path | None, text: str | None, image: str | None, device: str | None
) -> "tuple[str, DualEncoder, bool]":
    """(what to call it, the model, whether it has a shared space)."""
    from dalr.encoders import ImageConfig, TextConfig
    from dalr.errors import UsageError
    from dalr.model import DualEncoder, ModelConfig

    if sum((model is not None, store is not None, text is not None or image is not None)) != 1:
        raise UsageError("give --model, --store, or --text-encoder with --image-encoder")
    if store is not None:
        from dalr.catalogue.search import Catalogue

        model = Catalogue.model_source(store)
    if model is not None:
        return model, load_model(model, device), True
    if text is None or image is None:
        raise UsageError("--text-encoder and --image-encoder go together; one of them is missing")
    built = DualEncoder.build(ModelConfig(text=TextConfig(name=text), image=ImageConfig(name=image)))
    return f"{text} + {image}", on_device(built, device), False
