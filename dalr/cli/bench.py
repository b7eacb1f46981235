"""`dalr bench`: time and memory against plain code, measured on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from dalr.cli import Json, bench_app, command, print_json
from dalr.cli.options import ImageColumn, ModelName, Root, Split, load_manifest
from dalr.cli.progress import bar
from dalr.cli.tables import show_table


@command(bench_app, "loss")
def bench_loss(
    rows: Annotated[int, typer.Option(min=2, help="Rows of the batch (B).")] = 16384,
    dim: Annotated[int, typer.Option(min=1, help="Width of the shared space (D).")] = 256,
    tile: Annotated[int, typer.Option(min=1, help="Rows a block of the tiled form.")] = 128,
    dense_rows: Annotated[int, typer.Option(min=2, help="Rows at which tiled and dense are compared.")] = 2048,
    json_output: Json = False,
) -> None:
    """Time and peak memory of the complete DALR loss, forward and backward, tiled against dense.

    Each form runs in a fresh process; the peak is resident memory above the inputs, in megabytes (10⁶ bytes). The
    dense form needs memory in B², so the two are compared at --dense-rows.

    --json prints: dim, text_width, image_width, threads, tiled (at --rows) and small (at --dense-rows: tiled,
    dense, loss_difference); each of these three holds rows, tile, seconds, peak_mb and loss.
    """
    from dalr.bench.loss import bench_loss as measure

    with bar("loss") as progress:
        found = measure(rows, dim, tile, dense_rows, progress)
    if json_output:
        print_json(found)
        return
    table = []
    for form, line in (("tiled", found["tiled"]), *((form, found["small"][form]) for form in ("tiled", "dense"))):
        block = "all" if line["tile"] is None else str(line["tile"])
        table.append([form, str(line["rows"]), block, f"{line['seconds']:.1f}", f"{line['peak_mb']:.0f}"])
    show_table("loss", ["form", "rows", "rows a block", "seconds", "peak MB above inputs"], table)
    typer.echo(
        f"width {dim}, text teacher {found['text_width']}, image teacher {found['image_width']}, "
        f"{found['threads']} threads; at {found['small']['dense']['rows']} rows the two losses differ by "
        f"{found['small']['loss_difference']:.1e}"
    )


@command(bench_app, "images")
def bench_images(
    model: ModelName,
    data: Annotated[str, typer.Option("--data", help="Manifest, image folder, shards or hub dataset.")],
    split: Split = None,
    image_column: ImageColumn = None,
    root: Root = None,
    images: Annotated[int, typer.Option(min=16, help="How many images: the first that can be read.")] = 256,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds in which plain and ours take turns.")] = 3,
    parts: Annotated[bool, typer.Option(help="Also measure what each part brings alone.")] = True,
    json_output: Json = False,
) -> None:
    """Image embedding on the CPU, decoding included: ours against the loop as one first writes it.

    The plain loop opens each file with PIL, transforms it and runs batches of 64 in the usual memory layout. Every
    measurement is a fresh process, since the allocator's setting holds for a whole process.

    --json prints: images, rounds, threads, plain and ours (images_per_second: median, low, high), ratio (ours to
    plain in one round: median, low, high), parts (for each single change to the plain loop images_per_second and its
    ratio to plain) and difference (the largest one between the two loops' features).
    """
    from dalr.bench.images import bench_images as measure

    manifest = load_manifest(data, split, image=image_column, root=root)
    with bar("images") as progress:
        found = measure(model, manifest, images=images, rounds=rounds, parts=parts, progress=progress)
    if json_output:
        print_json(found)
        return

    def spread(values: dict[str, float]) -> str:
        return f"{values['low']:.2f} – {values['high']:.2f}"

    ratio = found["ratio"]
    rows = [["plain loop", f"{found['plain']['median']:.1f}", spread(found["plain"]), "1.00"]]
    rows += [
        [f"  + {name}", f"{part['images_per_second']:.1f}", "", f"{part['ratio']:.2f}"]
        for name, part in found["parts"].items()
    ]
    rows += [["ours", f"{found['ours']['median']:.1f}", spread(found["ours"]), f"{ratio['median']:.2f}"]]
    title = f"{found['images']} images, {found['rounds']} rounds, {found['threads']} threads"
    show_table(title, ["loop", "images/s", "low – high", "ratio"], rows)
    typer.echo(
        f"ours is {ratio['median']:.2f} times the plain loop ({spread(ratio)} over the rounds); "
        f"features differ by at most {found['difference']:.1e}"
    )


@command(bench_app, "train")
def bench_train(
    config: Annotated[Path, typer.Argument(help="A training config whose two towers are frozen.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Dotted overrides.")] = None,
    steps: Annotated[int, typer.Option(min=10, help="Optimizer steps a run.")] = 200,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds in which the bare loop and ours take turns.")] = 5,
    json_output: Json = False,
) -> None:
    """Training of heads on cached features: our whole loop against the shortest plain PyTorch loop.

    The bare loop has the same heads, batch and optimizer, plain symmetric InfoNCE, and neither logs, masks nor saves.
    Ours runs as `dalr train` does, with its log, its checkpoints and all, once with the objective clip and once with
    that of the config. All take turns within one process; ratios are taken within a round.

    --json prints: steps, rounds, batch_size, threads, bare_seconds, clip and own (each: seconds, ratio); each figure
    as median, min, max.
    """
    from dalr.bench.train import compare
    from dalr.run import load_run_config
    from dalr.run.benchmark import heads_benchmark

    settings = load_run_config(config, [*(overrides or []), f"train.steps={steps}", "evaluation.retrieval=false"])
    with bar("embedding") as progress:
        bare, ours = heads_benchmark(settings, steps, progress)
    found = {"steps": steps, "batch_size": settings.train.batch_size, **compare(bare, ours, rounds=rounds)}
    if json_output:
        print_json(found)
        return
    table = [["bare PyTorch", f"{found['bare_seconds']['median']:.2f}", "1"]]
    for name in ours:
        line = found[name]
        table.append([name, f"{line['seconds']['median']:.2f}", _over_rounds(line["ratio"])])
    show_table(f"{steps} steps, {rounds} rounds", ["loop", "seconds", "ratio to the bare loop"], table)


@command(bench_app, "language")
def bench_language(
    config: Annotated[Path, typer.Argument(help="A config of language modelling.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Dotted overrides.")] = None,
    steps: Annotated[int, typer.Option(min=2, help="Optimizer steps a run.")] = 30,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds in which the two take turns.")] = 3,
    json_output: Json = False,
) -> None:
    """Language modelling: our loop against the Trainer of transformers, with the same network, rows and batch.

    Theirs neither logs nor saves and computes the loss as the network does; ours runs as `dalr train` does, with its
    log and its checkpoint. An encoder is trained masked, a decoder causally. Both take turns within one process; the
    ratio of seconds is taken within a round.

    --json prints: steps, rounds, tokens (of a run, padding not counted), transformers_seconds, ours (seconds, ratio),
    and tokens_per_second (transformers, ours: by the median); each figure of time as median, min, max.
    """
    from dalr.antlm.config import LanguageConfig
    from dalr.bench.train import compare
    from dalr.config import load_config
    from dalr.run.benchmark import language_benchmark

    settings = load_config(LanguageConfig, config, overrides or [])
    theirs, ours, tokens = language_benchmark(settings, steps)
    with bar("training"):
        found = compare(theirs, ours, rounds=rounds)
    seconds = {"transformers": found.pop("bare_seconds"), "ours": found["ours"]["seconds"]}
    rates = {name: round(tokens / times["median"]) for name, times in seconds.items()}
    if json_output:
        figures = {"transformers_seconds": seconds["transformers"], **found, "tokens_per_second": rates}
        print_json({"steps": steps, "tokens": tokens, **figures})
        return
    ratios = {"transformers": "1", "ours": _over_rounds(found["ours"]["ratio"])}
    rows = [[name, f"{rates[name]:,}", f"{seconds[name]['median']:.1f}", ratios[name]] for name in seconds]
    show_table(f"{tokens:,} tokens, {rounds} rounds", ["trainer", "tokens/s", "seconds", "ratio of seconds"], rows)


@command(bench_app, "audit")
def bench_audit(
    rows: Annotated[int, typer.Option(min=200, help="Pairs of a caption and a picture.")] = 100_000,
    width: Annotated[int, typer.Option(min=4, help="Of both embeddings.")] = 256,
    json_output: Json = False,
) -> None:
    """Time and memory of judging ready embeddings as `dalr audit` does, without folds, in a fresh process.

    The pairs are drawn, a tenth of them with a caption of another. Memory is the peak of the whole process.

    --json prints: rows, width, threads, seconds, peak_mb (10⁶ bytes), auroc (of the wrong pairs).
    """
    from dalr.run.benchmark import audit_benchmark

    with bar("audit"):
        found = audit_benchmark(rows, width)
    if json_output:
        print_json(found)
        return
    typer.echo(
        f"{found['rows']:,} pairs of width {found['width']}: {found['seconds']:.1f} s on {found['threads']} threads, "
        f"{found['peak_mb']:,} MB at most"
    )


def _over_rounds(figures: dict[str, float]) -> str:
    return f"{figures['median']:.2f} ({figures['min']:.2f}–{figures['max']:.2f})"
