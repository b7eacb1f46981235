"""`dalr eval geometry`: how embeddings lie in their space."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dalr.cli import Json, command, eval_app, print_json
from dalr.cli.options import Device, GroupColumn, ImageColumn, ModelName, Split, TextColumn, load_manifest, load_model
from dalr.cli.progress import bar
from dalr.cli.sentence_options import TruncateDim


@command(eval_app, "geometry")
def geometry(
    model: ModelName,
    pairs: Annotated[
        Path | None, typer.Option("--pairs", help="Scored pairs of sentences, for the sentence space.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="A pair is positive from this score on; 0.5 for labels 0 and 1."),
    ] = None,
    low: Annotated[float | None, typer.Option("--low", help="Smallest score that is no mistake.")] = None,
    high: Annotated[float | None, typer.Option("--high", help="Largest score that is no mistake.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="A catalogue of images and texts, for the shared space.")
    ] = None,
    split: Split = None,
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    group_column: GroupColumn = None,
    max_rows: Annotated[
        int, typer.Option("--max-rows", min=2, help="Of more rows, this many are drawn for all but alignment.")
    ] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of that draw.")] = 0,
    truncate_dim: TruncateDim = None,
    device: Device = None,
    json_output: Json = False,
) -> None:
    """Measure geometry: alignment and uniformity, isotropy, hubness, and the gap between texts and images.

    Give scored pairs (--pairs) for the sentence space, a catalogue (--data) for the shared space, or both. The
    definitions are printed with the numbers.

    --json prints: sentence (alignment, positive_pairs, and the spread: uniformity, mean_cosine, partition_ratio,
    isoscore, top_component, hub_skewness, anti_hubs, rows, rows_used), text and image (their spread in the shared
    space), cross (modality_gap, alignment, pairs, hub_skewness, anti_hubs), each where it was asked for; bad (rows
    left out), definition.
    """
    from dalr.errors import UsageError
    from dalr.evaluation.compression import truncated
    from dalr.evaluation.geometry import DEFINITION, sentence_geometry, shared_geometry

    if pairs is None and data is None:
        raise UsageError("nothing to measure on: give --pairs FILE, --data CATALOGUE, or both")
    if truncate_dim is not None and pairs is None:
        raise UsageError("--truncate-dim is for the sentence space; it needs --pairs")
    scored = _read_pairs(pairs, threshold, low, high) if pairs is not None else None
    manifest = None
    if data is not None:
        manifest = load_manifest(data, split, image=image_column, text=text_column, group=group_column)
    encoder = load_model(model, device)
    found: dict[str, Any] = {}
    bad = 0
    with bar("embedding") as progress:
        if scored is not None:
            sentences, at, bad = scored
            form = encoder if truncate_dim is None else truncated(encoder, truncate_dim)
            found["sentence"] = sentence_geometry(form, sentences, at, max_rows=max_rows, seed=seed, progress=progress)
        if manifest is not None:
            found |= shared_geometry(encoder, manifest, max_rows=max_rows, seed=seed, progress=progress)
            bad += found["bad"] + len(manifest.bad)
    found |= {"bad": bad, "definition": DEFINITION}
    if json_output:
        print_json(found)
        return
    _show(found)


def _read_pairs(path: Path, threshold: float | None, low: float | None, high: float | None) -> tuple[Any, float, int]:
    """(pairs, the threshold, rows left out)."""
    from dalr.data.scored_pairs import read_scored_pairs
    from dalr.data.text_retrieval_sets import find_threshold

    pairs, bad = read_scored_pairs(path, low=low, high=high)
    return pairs, find_threshold(pairs, threshold, path), len(bad)


def _show(found: dict[str, Any]) -> None:
    from dalr.cli.tables import show_table

    spaces = [name for name in ("sentence", "text", "image", "cross") if name in found]
    measures = dict.fromkeys(measure for name in spaces for measure in found[name])
    rows = [[measure, *(_cell(found[name].get(measure)) for name in spaces)] for measure in measures]
    show_table("geometry", ["measure", *spaces], rows)
    typer.echo(f"\n{found['definition']}")
    if found["bad"]:
        typer.echo(f"left out: {found['bad']:,} rows", err=True)


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
