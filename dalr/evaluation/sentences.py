"""What is evaluated on sentences, and the embeddings of many of them, each distinct one once.

Legend: N sentences · H width of an embedding
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from dalr.errors import DalrError, ModelError
from dalr.progress import ProgressSink

if TYPE_CHECKING:
    from dalr.model import DualEncoder

# Sentences of one call of the encoder, between two steps of the progress bar.
CALL = 2048


class SentenceModel(Protocol):
    """What is evaluated: a DualEncoder is one."""

    def encode_text(self, texts: list[str], *, space: Any = ...) -> npt.NDArray[Any]: ...


@runtime_checkable
class CompressedModel(Protocol):
    """A sentence model that stores the embeddings of another in a smaller form and reads them back."""

    @property
    def inner(self) -> SentenceModel: ...

    def read_back(self, h_NH: npt.NDArray[Any]) -> npt.NDArray[Any]: ...


@dataclass(frozen=True)
class Embedded:
    """Embeddings h_NH of N distinct sentences; `embedded(texts)` gives their rows, in the order asked for."""

    h_NH: npt.NDArray[Any]
    row_of: dict[str, int]

    def __call__(self, texts: Iterable[str]) -> npt.NDArray[Any]:
        rows: npt.NDArray[Any] = self.h_NH[[self.row_of[text] for text in texts]]
        return rows


def embed_sentences(model: SentenceModel, sentences: Iterable[str], progress: ProgressSink | None = None) -> Embedded:
    """Each distinct sentence through `encode_text(…, space="sentence")` once.

    The encoder is called with many sentences of like length. A model that stores embeddings in a smaller form is
    given all of them at once, so that it fits itself to the whole set.

    Raises DalrError when an embedding is not finite.
    """
    # By length, so that a call of the encoder pads little.
    distinct = sorted(dict.fromkeys(sentences), key=len)
    row_of = {text: row for row, text in enumerate(distinct)}
    if isinstance(model, CompressedModel):
        return Embedded(model.read_back(embed_sentences(model.inner, distinct, progress).h_NH), row_of)
    parts = []
    for start in range(0, len(distinct), CALL):
        parts.append(np.asarray(model.encode_text(distinct[start : start + CALL], space="sentence")))
        if progress:
            progress(min(start + CALL, len(distinct)), len(distinct))
    h_NH = np.concatenate(parts)
    check_finite(h_NH)
    return Embedded(h_NH, row_of)


def check_finite(h_NH: npt.NDArray[Any]) -> None:
    """DalrError where an embedding holds NaN or an infinity."""
    if not np.isfinite(h_NH).all():
        raise DalrError("the model's sentence embeddings are not finite; its weights are broken")


def unit_rows(h_NH: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Rows at length one; a zero row stays zero."""
    unit: npt.NDArray[Any] = h_NH / np.maximum(np.linalg.norm(h_NH, axis=1, keepdims=True), 1e-12)
    return unit


def cosines(first_PD: npt.NDArray[Any], second_PD: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The cosine of each pair of rows, float64 (P,), 0 where a row is zero."""
    first, second = (np.asarray(side, np.float64) for side in (first_PD, second_PD))
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    found: npt.NDArray[np.float64] = (first * second).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)
    return found


class StoredSentences:
    """A DualEncoder whose sentence embeddings are kept in a feature store: a second look embeds nothing anew.

    Args:
        model: any with a text tower.
        cache: folder of the store; vectors of another model there are never mixed in.

    Raises ModelError for a model without a text tower.
    """

    def __init__(self, model: "DualEncoder", cache: str | Path) -> None:
        if model.text is None:
            raise ModelError("this model has no text tower; it encodes images only")
        self._tower, self._cache = model.text, cache

    def encode_text(self, texts: Sequence[str], *, space: str = "sentence") -> npt.NDArray[Any]:
        """(N, H) unit vectors in the sentence space, as those of the model itself."""
        from dalr.features import embed_texts

        if space != "sentence":
            raise ValueError(f"space {space!r}; only sentence embeddings are kept")
        return unit_rows(embed_texts(texts, self._tower, self._cache)[:])
