"""`dalr eval transfer`: how much a linear classifier finds in frozen sentence embeddings."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dalr.cli import Json, command, eval_app, print_json
from dalr.cli.options import Device, ModelName
from dalr.cli.progress import bar
from dalr.cli.sentence_options import Cache, Int8, TruncateDim, listed, load_sentence_model


@command(eval_app, "transfer")
def transfer(
    model: ModelName,
    data: Annotated[Path, typer.Option("--data", help="Folder of the transfer sets in the SentEval layout.")],
    tasks: Annotated[
        list[str] | None, typer.Option("--tasks", help="Of MR, CR, SUBJ, MPQA, SST2, SST5, TREC, MRPC; by default all.")
    ] = None,
    folds: Annotated[int, typer.Option("--folds", min=2, help="Folds of every cross-validation.")] = 10,
    max_train: Annotated[
        int | None, typer.Option("--max-train", min=1, help="For a quick look: train on so many rows of a task.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the folds and of --max-train.")] = 0,
    truncate_dim: TruncateDim = None,
    int8: Int8 = False,
    cache: Cache = None,
    device: Device = None,
    json_output: Json = False,
) -> None:
    """Measure sentence embeddings by the accuracy of logistic regression on them, on the eight sets of SentEval.

    MR, CR, SUBJ and MPQA are cross-validated; SST2, SST5, TREC and MRPC have their fixed test part. C is picked
    among 4^-7 to 4^-1 on rows that are held out of the training part, never on the test part; features are
    standardised. A pair of MRPC is |u - v| beside u * v.

    --json prints: MR, CR, SUBJ, MPQA, SST2, SST5, TREC, MRPC (accuracy in percent, of the tasks asked for), avg7
    (without SST5) and avg8, f1 (MRPC), C (picked, by fold where there are folds to test on), counts (rows by part),
    dropped (file: rows), folds, max_train, seed.
    """
    from dalr.data.transfer_sets import TRANSFER_TASKS
    from dalr.evaluation.sentences import embed_sentences
    from dalr.evaluation.transfer import answers, read_sets, score_sets, sentences_of

    sets = read_sets(data, listed(tasks) or TRANSFER_TASKS, folds=folds, max_train=max_train, seed=seed)
    encoder = load_sentence_model(model, device, truncate_dim=truncate_dim, int8=int8, cache=cache)
    with bar("embedding sentences") as progress:
        embedded = embed_sentences(encoder, sentences_of(sets), progress)
    with bar("fitting classifiers") as progress:
        told = answers(sets, embedded, folds=folds, seed=seed, progress=progress)
    found = score_sets(sets, told, folds=folds, max_train=max_train, seed=seed)
    if json_output:
        print_json(found)
        return
    _show(found)


def _show(found: dict[str, Any]) -> None:
    from dalr.cli.tables import show_table

    rows = []
    for task, counts in found["counts"].items():
        chosen = found["C"][task]
        picked = f"{chosen:.3g}" if isinstance(chosen, float) else f"{min(chosen):.3g} – {max(chosen):.3g}"
        parts = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        rows.append([task, f"{found[task]:.2f}", picked, parts])
    for name, title in (("avg7", "avg of the usual 7"), ("avg8", "avg of 8")):
        if found[name] is not None:
            rows.append([title, f"{found[name]:.2f}", "", ""])
    show_table("accuracy × 100", ["task", "accuracy", "C", "rows"], rows)
    for task, f1 in found["f1"].items():
        typer.echo(f"{task} F1: {f1:.2f}")
    for file, count in found["dropped"].items():
        typer.echo(f"left out of {file}: {count:,} (an empty sentence, or no class)")
