"""`dalr label`: graded labels for pairs, from several experts."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dalr.cli import Json, app, command, print_json
from dalr.cli.progress import bar


@command(app, "label")
def label(
    data: Annotated[str, typer.Argument(help="Pairs of texts (CSV, TSV, JSONL, Parquet), or a catalogue of photos.")],
    config: Annotated[Path, typer.Option("--config", help="YAML config of the experts; see configs/experts.yaml.")],
    out: Annotated[Path, typer.Option("--out", help="Parquet to write.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Dotted overrides, such as aggregation.rule=max.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Let experts score every pair, and join their scores into soft labels.

    The Parquet has the pairs, `score` (the soft label), `weight`, and every expert's raw and calibrated score; `dalr
    train` takes it as data.scores (of a catalogue as data.train). An expert's scores are kept: adding one computes only
    its own, and one that fails loses none of the others'.

    --json prints: out, pairs, bad (rows left out), reused (experts whose scores were kept), correlation (Spearman,
    between experts), experts (of each: mean; bias against the hard labels, or without any against the other experts;
    with hard labels auc and error), label (mean, sd), disputed (the pairs on which they differ most).
    """
    from dalr.config import load_config
    from dalr.data.annotated import PARQUET
    from dalr.errors import UsageError
    from dalr.experts.labels import LabelConfig, label_pairs, write_labels
    from dalr.experts.pairs import read_judged
    from dalr.experts.report import describe_labels

    if out.suffix.lower() not in PARQUET or out.is_dir():
        raise UsageError(f"--out {out}: expected the name of a Parquet file, ending in .parquet")
    settings = load_config(LabelConfig, config, overrides or [])
    pairs = read_judged(data, settings.data)
    with bar("experts") as progress:
        labels = label_pairs(pairs, settings, progress)
    write_labels(out, pairs, labels)
    found = describe_labels(pairs, labels)
    if json_output:
        print_json({"out": str(out), "pairs": len(pairs), "bad": len(pairs.bad), "reused": labels.reused, **found})
        return
    _show(found)
    if pairs.bad:
        first = pairs.bad[0]
        typer.echo(f"left out: {len(pairs.bad):,} rows; the first, {first.where}: {first.reason}", err=True)
    typer.echo(f"{len(pairs):,} labels, mean {found['label']['mean']:.2f} ± {found['label']['sd']:.2f}: {out}")


def _show(found: dict[str, Any]) -> None:
    from dalr.cli.tables import show_table

    names = list(found["experts"])
    judged = "auc" in found["experts"][names[0]]
    columns = ["expert", "mean", "bias", *(["AUC", "error"] if judged else []), *(f"ρ {name}" for name in names)]
    rows = []
    for name, expert in found["experts"].items():
        cells = [f"{expert['mean']:.3f}", "–" if expert["bias"] is None else f"{expert['bias']:+.3f}"]
        if judged:
            cells += ["–" if expert["auc"] is None else f"{expert['auc']:.3f}", f"{expert['error']:.3f}"]
        rows.append([name, *cells, *(f"{found['correlation'][name][other]:.2f}" for other in names)])
    show_table("calibrated scores; ρ is Spearman's correlation of the raw ones", columns, rows)
    for pair in found["disputed"]:
        scores = "  ".join(f"{name} {value:.2f}" for name, value in pair["scores"].items())
        typer.echo(f"{pair['where']}: {scores}\n  {pair['first']}\n  {pair['second']}")
