"""`dalr eval clustering`: whether texts of one class lie together."""

from pathlib import Path
from typing import Annotated

import typer

from dalr.cli import Json, command, eval_app, print_json
from dalr.cli.options import Device, ModelName, tell_left_out
from dalr.cli.progress import bar
from dalr.cli.sentence_options import Cache, Int8, TruncateDim, load_sentence_model


@command(eval_app, "clustering")
def clustering(
    model: ModelName,
    data: Annotated[Path, typer.Option("--data", help="CSV, TSV or JSON Lines with a text and a class on each row.")],
    text_column: Annotated[
        str | None, typer.Option("--text-column", help="Column of texts; guessed if not given.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option("--label-column", help="Column of classes (names or numbers); guessed if not given.")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many times k-means runs, seeds 0, 1, …")] = 10,
    truncate_dim: TruncateDim = None,
    int8: Int8 = False,
    cache: Cache = None,
    device: Device = None,
    json_output: Json = False,
) -> None:
    """Measure clustering: k-means with as many clusters as classes, compared with the classes by v-measure.

    --json prints: v_measure (mean over seeds), sd, v_measures (each), homogeneity and completeness (means), all in
    percent; texts, classes, largest_class (percent of the texts), definition, bad (rows left out).
    """
    from dalr.data.labelled_texts import read_named_classes
    from dalr.evaluation.clustering import evaluate_clustering

    texts, labels, bad = read_named_classes(data, text_column, label_column)
    encoder = load_sentence_model(model, device, truncate_dim=truncate_dim, int8=int8, cache=cache)
    with bar("embedding sentences") as progress:
        found = evaluate_clustering(encoder, texts, labels, seeds=range(seeds), progress=progress)
    if json_output:
        print_json(found | {"bad": len(bad)})
        return
    from dalr.cli.tables import show_table

    rows = [
        ["v-measure", f"{found['v_measure']:.2f} ± {found['sd']:.2f}"],
        ["homogeneity", f"{found['homogeneity']:.2f}"],
        ["completeness", f"{found['completeness']:.2f}"],
    ]
    show_table(
        f"{found['texts']:,} texts in {found['classes']:,} classes (the largest {found['largest_class']:.1f} %)",
        ["measure", "%"],
        rows,
    )
    typer.echo(f"\n{found['definition']}")
    tell_left_out(bad)
