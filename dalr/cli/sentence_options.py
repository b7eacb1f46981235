"""Options of the commands that measure sentence embeddings: their form, and where they are kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dalr.cli.options import load_model

if TYPE_CHECKING:
    from dalr.evaluation.sentences import SentenceModel

TruncateDim = Annotated[
    int | None, typer.Option("--truncate-dim", min=1, help="Only the first N dimensions, at length one again.")
]
Int8 = Annotated[bool, typer.Option("--int8", help="Embeddings stored as int8 (scalar quantisation) and read back.")]
Cache = Annotated[
    Path | None, typer.Option("--cache", help="Keep the embeddings in this folder; a second call embeds nothing anew.")
]


def load_sentence_model(
    source: str, device: str | None, *, truncate_dim: int | None, int8: bool, cache: Path | None
) -> "SentenceModel":
    """The model behind `--model`, its embeddings in the form asked for."""
    from dalr.evaluation.compression import in_int8, truncated
    from dalr.evaluation.sentences import SentenceModel, StoredSentences

    encoder = load_model(source, device)
    model: SentenceModel = encoder if cache is None else StoredSentences(encoder, cache)
    if truncate_dim is not None:
        model = truncated(model, truncate_dim)
    return in_int8(model) if int8 else model


def listed(values: Sequence[str] | None) -> tuple[str, ...]:
    """Names given several times, or with commas between them, each once."""
    names = [name.strip() for value in values or () for name in value.split(",")]
    return tuple(dict.fromkeys(name for name in names if name))
