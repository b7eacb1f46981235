"""`dalr eval sts`: how well the cosines of sentence pairs follow people's scores."""

from pathlib import Path
from typing import Annotated

import typer

from dalr.cli import Json, command, eval_app, print_json
from dalr.cli.options import Device, ModelName, load_model
from dalr.cli.progress import bar


@command(eval_app, "sts")
def sts(
    model: ModelName,
    data: Annotated[Path, typer.Option("--data", help="Folder of the STS sets in the SentEval layout.")],
    device: Device = None,
    json_output: Json = False,
) -> None:
    """Measure sentence embeddings: Spearman x 100 on STS12 to STS16, the STS benchmark and SICK relatedness.

    A year's subsets are joined before the correlation is taken ("all"). STS13 is without SMT.

    --json prints: STS12, STS13, STS14, STS15, STS16, STSB, SICKR, avg.
    """
    from dalr.evaluation.sts import evaluate_sts

    encoder = load_model(model, device)
    with bar("embedding sentences") as progress:
        found = evaluate_sts(encoder, data, progress=progress)
    if json_output:
        print_json(found)
        return
    from dalr.cli.tables import show_table

    show_table("Spearman × 100", list(found), [[f"{value:.2f}" for value in found.values()]])
