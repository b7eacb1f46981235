"""Sentence embeddings in a smaller form, to measure what it costs: fewer dimensions, or one byte a dimension.

`truncated` and `in_int8` wrap a sentence model and are sentence models themselves, for `dalr eval sts`, `transfer`
and `retrieval-text`. They nest: `in_int8(truncated(model, 128))` stores 128 bytes a sentence.

Legend: N sentences · H width of an embedding
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dalr.errors import UsageError
from dalr.evaluation.sentences import SentenceModel, embed_sentences, unit_rows

LEVELS = 255  # steps between the smallest and the largest value of a dimension


def truncated(model: SentenceModel, dim: int) -> "Truncated":
    """The model with the first `dim` dimensions of its embeddings, at length one again (as Matryoshka training means).

    Asking for more dimensions than there are is a UsageError when the first sentences are embedded.
    """
    if dim < 1:
        raise UsageError(f"truncate-dim {dim}: expected at least one dimension")
    return Truncated(model, dim)


def in_int8(model: SentenceModel, calibration: Sequence[str] | None = None) -> "Int8":
    """The model with its embeddings stored as int8 by scalar quantisation, and read back as float32.

    Args:
        calibration: sentences whose embeddings set the range of each dimension, once. None takes the range from the
            sentences of each call; `embed_sentences` makes that the whole set that is evaluated.
    """
    return Int8(model, None if calibration is None else fit_int8(embed_sentences(model, calibration).h_NH))


@dataclass(frozen=True)
class Truncated:
    """What `truncated` makes."""

    inner: SentenceModel
    dim: int

    def encode_text(self, texts: list[str], *, space: str = "sentence") -> npt.NDArray[Any]:
        """(N, dim) unit vectors."""
        return self.read_back(self.inner.encode_text(texts, space=space))

    def read_back(self, h_NH: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The first `dim` dimensions of each row, at length one."""
        if self.dim > h_NH.shape[1]:
            raise UsageError(
                f"truncate-dim {self.dim}: the model's sentence embeddings have {h_NH.shape[1]} dimensions"
            )
        return unit_rows(h_NH[:, : self.dim])


@dataclass(frozen=True)
class Int8:
    """What `in_int8` makes."""

    inner: SentenceModel
    ranges: "Int8Ranges | None" = None

    def encode_text(self, texts: list[str], *, space: str = "sentence") -> npt.NDArray[Any]:
        """(N, H) float32 vectors as int8 remembers them, not at length one."""
        return self.read_back(self.inner.encode_text(texts, space=space))

    def read_back(self, h_NH: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Rows through int8 and back."""
        ranges = self.ranges or fit_int8(h_NH)
        return ranges.decode(ranges.encode(h_NH))


@dataclass(frozen=True)
class Int8Ranges:
    """Smallest value and step of each dimension: value ≈ start_H + step_H · (code + 128.5).

    The codes are those of `quantize_embeddings(…, "int8")` of sentence-transformers: 256 buckets of equal width
    between the smallest and the largest value that a dimension had; values outside are clipped. A value is read
    back as the middle of its bucket.
    """

    start_H: npt.NDArray[Any]
    step_H: npt.NDArray[Any]

    def encode(self, h_NH: npt.NDArray[Any]) -> npt.NDArray[np.int8]:
        """(N, H) codes from -128 to 127; a dimension that never varied has one code."""
        steps = np.where(self.step_H == 0, 1, self.step_H)
        buckets = np.clip(np.floor((h_NH - self.start_H) / steps), 0, LEVELS)
        codes: npt.NDArray[np.int8] = (buckets - 128).astype(np.int8)
        return codes

    def decode(self, codes_NH: npt.NDArray[np.int8]) -> npt.NDArray[Any]:
        """(N, H) float32 values."""
        values: npt.NDArray[Any] = self.start_H + self.step_H * (codes_NH.astype(np.float32) + 128.5)
        return values


def fit_int8(h_NH: npt.NDArray[Any]) -> Int8Ranges:
    """The range of each dimension over these embeddings."""
    low_H, high_H = (extreme(axis=0).astype(np.float32) for extreme in (h_NH.min, h_NH.max))
    return Int8Ranges(low_H, (high_H - low_H) / LEVELS)
