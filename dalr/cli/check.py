"""`dalr check`: what is wrong with a catalogue, before anything is built on it."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dalr.cli import Json, app, command, print_json
from dalr.cli.options import (
    AllowUrls,
    Encoding,
    GroupColumn,
    IdColumn,
    ImageColumn,
    MaxPixels,
    Root,
    Separator,
    Split,
    SplitColumn,
    TextColumn,
    check_output,
)
from dalr.cli.progress import bar

if TYPE_CHECKING:
    from dalr.data.manifest import DataConfig, Manifest
    from dalr.run import RunConfig


@command(app, "check")
def check(
    data: Annotated[
        list[str] | None,
        typer.Argument(
            help="CSV, TSV, JSONL, Parquet or text file, folder of images, WebDataset shards (.tar) or hub data set; "
            "several are looked at together, each as a split."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Training config: its data, its columns, its limits, an estimate.")
    ] = None,
    set_keys: Annotated[
        list[str] | None, typer.Option("--set", help="Dotted override of the config, such as train.batch_size=64.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Model folder or encoder name, for token lengths and embedding time.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if any row is bad.")] = False,
    open_images: Annotated[bool, typer.Option("--images/--no-images", help="Open every image (or trust them).")] = True,
    show: Annotated[int, typer.Option("--show", min=0, help="How many bad rows to print.")] = 10,
    bad_rows: Annotated[
        Path | None, typer.Option("--bad-rows", help="Write every bad row to this file, one JSON object a line.")
    ] = None,
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    group_column: GroupColumn = None,
    weight_column: Annotated[str | None, typer.Option("--weight-column", help="Column of row weights, from 0.")] = None,
    id_column: IdColumn = None,
    split_column: SplitColumn = None,
    split: Split = None,
    root: Root = None,
    encoding: Encoding = None,
    separator: Separator = None,
    max_pixels: MaxPixels = None,
    allow_urls: AllowUrls = False,
    json_output: Json = False,
) -> None:
    """Look a catalogue over: columns, bad rows, images, captions, duplicates, leaks between splits, lengths, cost.

    Nothing is changed. Exit code 0 when usable rows remain (bad ones are listed), 1 with --strict if any row is bad,
    2 when nothing is usable. Two images look alike if they are one photo re-encoded, resized or slightly brightened.

    --json prints: source, rows, usable, bad, bad_rows (file, row, key, reason; the first 1,000), columns (role to
    column, guessed, others), notes, captions (empty, different, shared, mean_words, most_words), images (different,
    rows_without, missing, unreadable, copies, alike; null if not opened), duplicate_rows, splits (rows by split,
    shared by image, look-alike, caption and group; null without splits), tokens (limit, longest, mean, p95, over,
    examples; null without --config or --model), estimate (embedding, training, seconds, memory_mb, gpu_memory_mb,
    left_out; null without them) and seconds. What repeats has groups, members and examples (lists of file:row).
    """
    from dalr.catalogue.check import check_catalogue
    from dalr.catalogue.joined import join_manifests
    from dalr.config import parse_config
    from dalr.data.manifest import DataConfig
    from dalr.errors import DataError, UsageError

    start = time.perf_counter()
    run = _run_config(config, set_keys)
    options = {
        "image": image_column, "text": text_column or None, "group": group_column, "weight": weight_column,
        "id": id_column, "split": split_column, "root": root, "encoding": encoding, "separator": separator,
        "max_pixels": max_pixels, "allow_urls": allow_urls or None,
    }  # fmt: skip
    base = {} if run is None else {name: getattr(run.data, name) for name in DataConfig.model_fields}
    columns = parse_config(
        DataConfig, base | {name: value for name, value in options.items() if value is not None}, "options"
    )
    named = [columns.train, columns.val] if run is None or columns.train else [run.data.corpus]
    sources = data or list(dict.fromkeys(source for source in named if source))
    if not sources:
        raise UsageError("name the data to check, or a --config whose data.train does")
    if bad_rows is not None:
        check_output("--bad-rows", bad_rows, config, *sources)
    manifests = _read(sources, columns, split)
    manifest = join_manifests(manifests)
    counts, limit, estimate, failure = None, 0, None, ""
    try:
        counts, limit, estimate = _cost(run, model, manifests, manifest)
    except DataError as error:
        # The report says what is wrong with the data; that no run can be put together on it follows from that.
        failure = f"no estimate: {error}"
    with bar("opening images") as progress:
        report = check_catalogue(
            manifest, open_images=open_images, token_counts=counts, token_limit=limit, progress=progress
        )
    report.estimate = estimate
    report.notes += [failure] if failure else []
    report.seconds = round(time.perf_counter() - start, 2)
    if bad_rows is not None:
        from dataclasses import asdict

        from dalr.files import write_atomically

        lines = [json.dumps(asdict(row), ensure_ascii=False) for row in report.bad_rows]
        write_atomically(bad_rows, "".join(f"{line}\n" for line in lines))
    if json_output:
        print_json(report.as_json())
    else:
        from dalr.cli.check_report import show_report

        show_report(report, show)
    if not report.usable:
        why = "no row is usable" if report.rows else "has no rows"
        print(f"dalr check: {report.source}: {why}", file=sys.stderr)
        raise typer.Exit(2)
    if strict and report.bad_rows:
        print(f"dalr check: {len(report.bad_rows):,} bad rows, and --strict is on", file=sys.stderr)
        raise typer.Exit(1)


def _run_config(config: Path | None, overrides: list[str] | None) -> "RunConfig | None":
    from dalr.errors import UsageError

    if config is None:
        if overrides:
            raise UsageError("--set changes a config; name one with --config")
        return None
    from dalr.run import load_run_config

    return load_run_config(config, overrides or [])


def _read(sources: list[str], columns: "DataConfig", split: str | None) -> "dict[str, Manifest]":
    """Manifests by the name that stands for them as a split; without one usable row they may be empty."""
    from dalr.data.manifest import Manifest

    manifests: dict[str, Manifest] = {}
    for source in sources:
        name = Path(source).stem or source
        while name in manifests:
            name += "+"
        manifest = Manifest.read(source, columns)
        manifests[name] = manifest.part(split) if split is not None else manifest
    return manifests


def _cost(run: "RunConfig | None", model: str | None, manifests: "dict[str, Manifest]", manifest: "Manifest") -> Any:
    """(token counts, token limit, estimate) by the config's model or the one that is named; nothing without either."""
    if (run is None and model is None) or not len(manifest):
        return None, 0, None
    if run is not None and model is None:
        from dalr.cli.estimate import estimate_run

        train = next(iter(manifests.values()))
        if train.split_rows(run.data.train_split):
            train = train.part(run.data.train_split)
        encoder, estimate = estimate_run(run, train, manifest)
    else:
        from dalr.catalogue.estimate import estimate_embedding, peak_memory
        from dalr.cli.options import load_model

        encoder = load_model(str(model))
        embedding = estimate_embedding(encoder, manifest)
        estimate = {"embedding": embedding, "seconds": embedding["seconds"], "memory_mb": round(peak_memory() / 1e6)}
    text = encoder.text
    if run is not None and model is None and run.model.text is not None and run.model.text.name == "new":
        # Its vocabulary comes from all captions; the estimate's model has seen a sample.
        from dalr.encoders.text import build_text_encoder

        text = build_text_encoder(run.model.text, corpus=[caption for caption in manifest.texts if caption])
    if text is None:
        return None, 0, estimate
    return text.token_counts, text.max_length, estimate
