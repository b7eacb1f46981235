"""`dalr eval sts`: how well the cosines of sentence pairs follow people's scores."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from dalr.cli import Json, command, eval_app, print_json
from dalr.cli.options import Device, ModelName
from dalr.cli.progress import bar
from dalr.cli.sentence_options import Cache, Int8, TruncateDim, listed, load_sentence_model


@command(eval_app, "sts")
def sts(
    model: ModelName,
    data: Annotated[Path | None, typer.Option("--data", help="Folder of the STS sets in the SentEval layout.")] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", help="Of STS12 … STS16, STSB, SICKR, STSB-dev, SICKR-dev; the first seven by default."),
    ] = None,
    pairs: Annotated[
        list[Path] | None, typer.Option("--pairs", help="Own file of scored pairs (CSV, TSV, JSONL); repeatable.")
    ] = None,
    low: Annotated[float, typer.Option("--low", help="Smallest score that a pair of --pairs may have.")] = 0.0,
    high: Annotated[float, typer.Option("--high", help="Largest score that a pair of --pairs may have.")] = 5.0,
    aggregate: Annotated[
        str, typer.Option("--aggregate", help="A year's subsets: all (joined), mean, or weighted by their pairs.")
    ] = "all",
    truncate_dim: TruncateDim = None,
    int8: Int8 = False,
    cache: Cache = None,
    device: Device = None,
    json_output: Json = False,
) -> None:
    """Measure sentence embeddings: Spearman and Pearson x 100 on STS12 to STS16, the STS benchmark, SICK relatedness.

    Give --data, own files by --pairs, or both. A year's subsets are joined before the correlation is taken ("all").
    STS13 is without SMT. A pair with a blank score, a score that is no number or outside its range, or an empty
    sentence is left out and counted.

    --json prints: STS12, STS13, STS14, STS15, STS16, STSB, SICKR and avg (Spearman, of the tasks asked for), pearson
    (the same), pairs (how many), dev and files (name: spearman, pearson, pairs), dropped (file: rows), aggregate.
    """
    from dalr.errors import UsageError
    from dalr.evaluation.sentences import embed_sentences
    from dalr.evaluation.sts import TASKS, check_aggregate, read_sets, score_sets, sentences_of

    check_aggregate(aggregate)
    if data is None and not pairs:
        raise UsageError("nothing to measure on: give --data FOLDER of the STS sets, --pairs FILE, or both")
    chosen = listed(tasks) or (TASKS if data is not None else ())
    if chosen and data is None:
        raise UsageError(f"--tasks {','.join(chosen)} needs --data, the folder of the STS sets")
    sets, dropped = read_sets(data, chosen, pairs or (), low=low, high=high)
    encoder = load_sentence_model(model, device, truncate_dim=truncate_dim, int8=int8, cache=cache)
    with bar("embedding sentences") as progress:
        embedded = embed_sentences(encoder, sentences_of(sets), progress)
    found = score_sets(sets, embedded, dropped, aggregate)  # type: ignore[arg-type]
    if json_output:
        print_json(found)
        return
    _show(found)


def _show(found: dict[str, Any]) -> None:
    from dalr.cli.tables import show_table
    from dalr.evaluation.sts import YEARS

    rows = [
        [name, f"{found[name]:.2f}", f"{found['pearson'][name]:.2f}", f"{count:,}"]
        for name, count in found["pairs"].items()
    ]
    if found["avg"] is not None:
        rows.append(
            ["avg", f"{found['avg']:.2f}", f"{found['pearson']['avg']:.2f}", f"{sum(found['pairs'].values()):,}"]
        )
    for name, one in (found["dev"] | found["files"]).items():
        rows.append([name, f"{one['spearman']:.2f}", f"{one['pearson']:.2f}", f"{one['pairs']:,}"])
    show_table(f"× 100, subsets: {found['aggregate']}", ["set", "Spearman", "Pearson", "pairs"], rows)
    dropped: Counter[str] = Counter()
    for file, count in found["dropped"].items():
        # A year's subsets together: most lines of STS15 and STS16 have no score.
        dropped[file.partition("/")[0] if file.startswith(YEARS) else file] += count
    for name, count in dropped.items():
        typer.echo(f"left out of {name}: {count:,} (a blank, unreadable or impossible score, or an empty sentence)")
