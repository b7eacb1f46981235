"""`dalr label`: graded labels for pairs, from several experts."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dalr.cli import Json, app, command, print_json
from dalr.cli.options import check_output, tell_left_out
from dalr.cli.progress import bar


@command(app, "label")
def label(
    data: Annotated[str, typer.Argument(help="Pairs of texts (CSV, TSV, JSONL, Parquet), or a catalogue of photos.")],
    config: Annotated[Path, typer.Option("--config", help="YAML config of the experts; see configs/experts.yaml.")],
    out: Annotated[Path, typer.Option("--out", help="Parquet to write.")],
    dev: Annotated[
        Path | None, typer.Option("--dev", help="Hold out some labelled pairs, and write them to this Parquet.")
    ] = None,
    dev_share: Annotated[float, typer.Option(min=0.01, max=0.5, help="How many of all pairs, with --dev.")] = 0.1,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Dotted overrides, such as aggregation.rule=max.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Let experts score every pair, and join their scores into soft labels.

    The Parquet has the pairs, `score` (the soft label), `weight`, and every expert's raw and calibrated score; `dalr
    train` takes it as data.scores (of a catalogue as data.train). An expert's scores are kept: adding one computes only
    its own, and one that fails loses none of the others'. Pairs that --dev holds out, to select by in training, share
    no text with the others and are not judged.

    --json prints: out, pairs, dev (pairs held out), bad (rows left out), reused (experts whose scores were kept),
    correlation (Spearman, between experts), experts (of each: mean; bias against the hard labels, or without any
    against the other experts; with hard labels auc and error), label (mean, sd), disputed (the pairs on which they
    differ most).
    """
    from dalr.config import load_config
    from dalr.data.sources import PARQUET
    from dalr.errors import DataError, UsageError
    from dalr.experts.labels import LabelConfig, label_pairs, write_held_out, write_labels
    from dalr.experts.pairs import hold_out, read_judged
    from dalr.experts.report import describe_labels

    for name, path in (("--out", out), ("--dev", dev)):
        if path is None:
            continue
        if path.suffix.lower() not in PARQUET or path.is_dir():
            raise UsageError(f"{name} {path}: expected the name of a Parquet file, ending in .parquet")
        check_output(name, path, data, config)
    if out == dev:
        raise UsageError(f"--dev {dev}: is --out as well; name another file")
    settings = load_config(LabelConfig, config, overrides or [])
    pairs = read_judged(data, settings.data)
    held = None
    if dev is not None:
        try:
            pairs, held = hold_out(pairs, dev_share)
        except DataError as error:
            raise DataError(f"--dev: {error}") from None
        write_held_out(dev, held)
    with bar("experts") as progress:
        labels = label_pairs(pairs, settings, progress)
    write_labels(out, pairs, labels)
    found = describe_labels(pairs, labels)
    if json_output:
        sizes = {"pairs": len(pairs), "dev": 0 if held is None else len(held), "bad": len(pairs.bad)}
        print_json({"out": str(out), **sizes, "reused": labels.reused, **found})
        return
    _show(found)
    tell_left_out(pairs.bad)
    if held is not None:
        typer.echo(f"{len(held):,} pairs held out: {dev}")
    typer.echo(f"{len(pairs):,} labels, mean {found['label']['mean']:.2f} ± {found['label']['sd']:.2f}: {out}")


def _show(found: dict[str, Any]) -> None:
    from dalr.cli.tables import show_table

    names = list(found["experts"])
    judged = "auc" in found["experts"][names[0]]
    columns = ["expert", "mean", "bias", *(["AUC", "error"] if judged else []), *(f"ρ {name}" for name in names)]
    rows = []
    for name, expert in found["experts"].items():
        cells = [_cell(expert["mean"], ".3f"), _cell(expert["bias"], "+.3f")]
        if judged:
            cells += [_cell(expert["auc"], ".3f"), _cell(expert["error"], ".3f")]
        rows.append([name, *cells, *(_cell(found["correlation"][name][other], ".2f") for other in names)])
    show_table("calibrated scores; ρ is Spearman's correlation of the raw ones", columns, rows)
    typer.echo("the pairs on which they differ most:")
    for pair in found["disputed"]:
        scores = "  ".join(f"{name} {value:.2f}" for name, value in pair["scores"].items())
        typer.echo(f"{pair['where']}: {scores}\n  {pair['first']}\n  {pair['second']}")


def _cell(value: float | None, how: str) -> str:
    return "–" if value is None else format(value, how)
