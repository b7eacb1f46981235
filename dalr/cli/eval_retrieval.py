"""`dalr eval retrieval`: how well texts find images and the reverse."""

from typing import Annotated, Any

import typer

from dalr.cli import Json, command, eval_app, print_json
from dalr.cli.options import (
    CatalogueColumns,
    Device,
    ModelName,
    Split,
    load_model,
    with_columns,
)
from dalr.cli.progress import bar


@command(eval_app, "retrieval")
@with_columns
def retrieval(
    model: ModelName,
    data: Annotated[str, typer.Option("--data", help="Manifest, image folder, shards or hub dataset.")],
    split: Split = None,
    *,
    columns: CatalogueColumns,
    resamples: Annotated[int, typer.Option(min=10, help="Bootstrap resamples for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    device: Device = None,
    json_output: Json = False,
) -> None:
    """Measure how well a model finds images by their texts and texts by their images.

    Texts are the distinct captions, images the distinct files. Several right answers count, by row and by group;
    a tie counts against the model. The definition is printed with the numbers. Images are embedded once and cached.

    --json prints: text_to_image and image_to_text, each with recall@1, recall@5, recall@10, mrr, ndcg@10, map@10 (in
    percent), median_rank, queries, candidates and ci95 (metric: [low, high]); and definition.
    """
    from dalr.evaluation.catalogue import evaluate_retrieval

    manifest = columns.load(data, split)
    encoder = load_model(model, device)
    with bar("embedding") as progress:
        found = evaluate_retrieval(encoder, manifest, resamples=resamples, seed=seed, progress=progress)
    if json_output:
        print_json(found)
        return
    _show_retrieval(found)


def _show_retrieval(found: dict[str, Any]) -> None:
    from dalr.cli.tables import show_table
    from dalr.evaluation.retrieval import DIRECTIONS, METRICS

    rows = []
    for metric in METRICS:
        cells = [metric]
        for direction in DIRECTIONS:
            low, high = found[direction]["ci95"][metric]
            cells += [f"{found[direction][metric]:.2f}", f"{low:.2f} – {high:.2f}"]
        rows.append(cells)
    counts = "; ".join(
        f"{name.replace('_', ' ')}: {found[name]['queries']:,} queries, {found[name]['candidates']:,} candidates"
        for name in DIRECTIONS
    )
    columns = ["metric", "text to image", "95 %", "image to text", "95 %"]
    show_table(counts, columns, rows)
    typer.echo(f"\n{found['definition']}")
