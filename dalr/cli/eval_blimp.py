"""`dalr eval blimp`: what a language model knows of grammar."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dalr.cli import Json, command, eval_app, print_json
from dalr.cli.options import Device, on_device
from dalr.cli.progress import bar


@command(eval_app, "blimp")
def blimp(
    model: Annotated[
        str, typer.Option("--model", help="A run of language modelling, or any transformers model with its head.")
    ],
    data: Annotated[Path, typer.Option("--data", help="Folder of the 67 JSON Lines files, one a task.")],
    scoring: Annotated[
        str, typer.Option("--scoring", help="causal, masked or both; auto is what the model was trained for.")
    ] = "auto",
    part: Annotated[
        str, typer.Option("--part", help="dev is a fixed tenth of each task, to choose by; test the others; or all.")
    ] = "all",
    per_task: Annotated[
        int | None, typer.Option("--per-task", min=1, help="For a quick look: so many pairs of each task.")
    ] = None,
    device: Device = None,
    json_output: Json = False,
) -> None:
    """Measure a language model on BLiMP: in how many minimal pairs the grammatical sentence is the likelier one.

    causal scores a sentence by its log-likelihood, masked by its pseudo-log-likelihood (each token masked by itself).
    The average is over the tasks; a tie counts against the model.

    --json prints: causal and masked (of those asked for: avg, terms, tasks, in percent), pairs, part, dropped (rows
    that could not be used).
    """
    from dalr.evaluation.blimp import evaluate_blimp, read_blimp
    from dalr.lm import load_language_model

    language_model = on_device(load_language_model(model), device)
    scorings = _scorings(scoring, language_model.trained_for)
    tasks, dropped = read_blimp(data, part, per_task)  # type: ignore[arg-type]
    with bar("scoring sentences") as progress:
        found = evaluate_blimp(language_model, tasks, scorings, progress=progress)  # type: ignore[arg-type]
    if json_output:
        print_json(found | {"part": part, "dropped": dropped})
        return
    _show(found, scorings)
    if dropped:
        typer.echo(f"left out: {dropped:,} rows without two sentences", err=True)


def _scorings(asked: str, trained_for: tuple[str, ...]) -> tuple[str, ...]:
    from dalr.errors import UsageError

    known = {"auto": trained_for, "both": ("causal", "masked"), "causal": ("causal",), "masked": ("masked",)}
    if asked not in known:
        raise UsageError(f"--scoring {asked}: expected one of {', '.join(known)}")
    return known[asked]


def _show(found: dict[str, Any], scorings: tuple[str, ...]) -> None:
    from dalr.cli.tables import show_table

    first = found[scorings[0]]
    rows = [[term, *(f"{found[name]['terms'][term]:.2f}" for name in scorings)] for term in first["terms"]]
    rows.append([f"average of {len(first['tasks'])} tasks", *(f"{found[name]['avg']:.2f}" for name in scorings)])
    show_table(f"{found['pairs']:,} pairs, accuracy × 100", ["phenomenon", *scorings], rows)
