"""`dalr eval pairs`: how well cosines tell pairs that belong together from pairs that do not."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dalr.cli import Json, command, eval_app, print_json
from dalr.cli.options import Device, ModelName, tell_left_out
from dalr.cli.progress import bar
from dalr.cli.sentence_options import Cache, Int8, TruncateDim, load_sentence_model

PairFile = Annotated[
    Path, typer.Option("--data", help="Labelled pairs: CSV, TSV or JSON Lines with two sentences and a score.")
]


@command(eval_app, "pairs")
def pairs(
    model: ModelName,
    data: PairFile,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="A pair is positive from this score on; 0.5 for labels 0 and 1.")
    ] = None,
    low: Annotated[float | None, typer.Option("--low", help="Smallest score that is no mistake.")] = None,
    high: Annotated[float | None, typer.Option("--high", help="Largest score that is no mistake.")] = None,
    truncate_dim: TruncateDim = None,
    int8: Int8 = False,
    cache: Cache = None,
    resamples: Annotated[int, typer.Option(min=10, help="Bootstrap resamples for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    device: Device = None,
    json_output: Json = False,
) -> None:
    """Measure how well cosines tell positive pairs of sentences (duplicates, paraphrases) from the others.

    Average precision needs no threshold; F1 and accuracy are the best that a threshold on the cosine can give.

    --json prints: ap, f1, f1_threshold, precision and recall (at that threshold), accuracy, accuracy_threshold (in
    percent but thresholds), pairs, positive_pairs, ci95 (of ap, f1, accuracy: [low, high]), definition, bad (rows
    left out).
    """
    from dalr.data.scored_pairs import read_scored_pairs
    from dalr.data.text_retrieval_sets import label_pairs
    from dalr.evaluation.pair_classification import evaluate_pairs

    found, bad = read_scored_pairs(data, low=low, high=high)
    labelled = label_pairs(found, threshold, data)
    encoder = load_sentence_model(model, device, truncate_dim=truncate_dim, int8=int8, cache=cache)
    with bar("embedding sentences") as progress:
        figures = evaluate_pairs(encoder, labelled, resamples=resamples, seed=seed, progress=progress)
    if json_output:
        print_json(figures | {"bad": len(bad)})
        return
    _show(figures)
    tell_left_out(bad, "pairs")


def _show(figures: dict[str, Any]) -> None:
    from dalr.cli.tables import show_table

    rows = [
        [metric, f"{figures[metric]:.2f}", f"{low:.2f} – {high:.2f}", _at(figures, metric)]
        for metric, (low, high) in figures["ci95"].items()
    ]
    show_table(
        f"{figures['pairs']:,} pairs, {figures['positive_pairs']:,} of them positive",
        ["metric", "%", "95 %", "threshold"],
        rows,
    )
    typer.echo(f"\n{figures['definition']}")


def _at(figures: dict[str, Any], metric: str) -> str:
    threshold = figures.get(f"{metric}_threshold")
    return "" if threshold is None else f"{threshold:.4f}"
