"""`dalr eval mteb`: a model on tasks of the Massive Text Embedding Benchmark."""

from pathlib import Path
from typing import Annotated

import typer

from dalr.cli import Json, command, eval_app, print_json
from dalr.cli.options import Device, ModelName, load_model


@command(eval_app, "mteb")
def mteb(
    model: ModelName,
    tasks: Annotated[list[str], typer.Option("--tasks", help="MTEB's names of tasks, split by commas or repeated.")],
    languages: Annotated[list[str] | None, typer.Option("--language", help="Only these, such as eng.")] = None,
    splits: Annotated[list[str] | None, typer.Option("--split", help="Only these splits, such as test.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of MTEB's results; what is there is not run again.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images held in memory at once.")] = 32,
    device: Device = None,
    json_output: Json = False,
) -> None:
    """Measure a model on MTEB tasks, by MTEB itself: texts alone, or texts and images.

    A task's data is fetched from the hub once. Tasks with images are measured in the shared space, others in the
    sentence space. A task that fails is named, the others go on, and the exit code is 1. Needs dalr[mteb].

    --json prints: model, revision (the model's fingerprint), mteb (its version), tasks (by name: metric, main_score
    from 0 to 1, seconds, scores by split), failed (name: reason).
    """
    import logging
    import sys

    from dalr.errors import UsageError
    from dalr.evaluation.mteb import evaluate_mteb, load_mteb, results_name

    names = list(dict.fromkeys(name.strip() for given in tasks for name in given.split(",") if name.strip()))
    if not names:
        raise UsageError("--tasks: names no task; expected such as STS12,STSBenchmark")
    load_mteb()
    # What failed is told below, once.
    logging.getLogger("mteb").setLevel(logging.CRITICAL)
    found = evaluate_mteb(
        load_model(model, device),
        names,
        name=results_name(model),
        languages=languages,
        splits=splits,
        out=out,
        batch_size=batch_size,
        progress=sys.stderr.isatty(),
    )
    if json_output:
        print_json(found)
    else:
        from dalr.cli.tables import show_table

        rows = [[task, figures["metric"], f"{figures['main_score']:.4f}"] for task, figures in found["tasks"].items()]
        if rows:
            show_table(f"{found['model']} (mteb {found['mteb']})", ["task", "metric", "main score"], rows)
    for task, reason in found["failed"].items():
        typer.echo(f"failed: {task}: {reason}", err=True)
    if found["failed"]:
        raise typer.Exit(1)
