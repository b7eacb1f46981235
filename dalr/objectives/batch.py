"""What one training step sees, and the one place that builds it from row numbers.

A tower in training gives its raw input to the batch (tokens, pixels); a frozen tower gives its cached features,
so that a step never runs it. Legend: B rows of the batch · H text width · V image-feature width · K id columns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dalr.losses import PairScores
from dalr.model import Table

Kind = str  # `pairs`, `text`, or the name of a task
TextInput = Tensor | dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """Rows of a data set as tensors; every tensor has B as its first dimension.

    Attributes:
        kind: `pairs` (texts with images), `text` (texts alone) or a task of several. All processes agree on it.
        index_B: row numbers in the training set (int64); pair weights are looked up by them.
        ids_BK: group ids (int64): two rows are mutual positives if any column is equal. -1 matches nothing.
        weight_B: pair weights from the data, at least 0 (float32).
        text: tokens (`input_ids`, `attention_mask`) or cached features h_BH.
        image: pixels (B, 3, height, width) or cached features f_BV.
        positive, negative: texts of supervised SimCSE triplets, as `text`; of a scored pair the second is `positive`.
        negative_ids_BK: the ids that a triplet's negative has among the rows; -1 where it is no row's text.
        target_B: what a row is trained towards: the score of a pair, or a class number (float32).
        text_teachers, image_teachers: rows of each teacher's own embedding; of one that has scores of pairs the
            texts' numbers in it, int64 (B,).
    """

    kind: Kind
    index_B: Tensor
    ids_BK: Tensor
    weight_B: Tensor
    text: TextInput | None = None
    image: Tensor | None = None
    positive: TextInput | None = None
    negative: TextInput | None = None
    negative_ids_BK: Tensor | None = None
    target_B: Tensor | None = None
    text_teachers: tuple[Tensor, ...] = field(default=())
    image_teachers: tuple[Tensor, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.index_B)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def rows(self, part: slice) -> "Batch":
        """The rows of `part` as a batch of their own (a chunk of the cached two-pass step)."""
        return self.map(lambda tensor: tensor[part])

    def map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """A batch with `function` applied to every tensor."""

        def apply(value: Any) -> Any:
            if isinstance(value, Tensor):
                return function(value)
            if isinstance(value, Mapping):
                return {name: function(tensor) for name, tensor in value.items()}
            if isinstance(value, tuple):
                return tuple(function(tensor) for tensor in value)
            return value

        return replace(self, **{item.name: apply(getattr(self, item.name)) for item in fields(self)})


class Column(Protocol):
    """One input of a data set, by row numbers: cached features, tokens or pixels."""

    def take(self, rows: np.ndarray, seeds: np.ndarray) -> TextInput:
        """The rows as a tensor (or a dict of tensors); `seeds` are for random augmentation, one a row."""
        ...


@dataclass(frozen=True)
class Features:
    """Rows of an embedding, ready or memory-mapped: shape (N, width), given as float32."""

    array: Table

    def take(self, rows: np.ndarray, seeds: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(self.array[rows], dtype=np.float32))


@dataclass(frozen=True)
class ScoredTexts:
    """Texts by their numbers, (N,) int64, in the scores that a teacher has of pairs of them."""

    number_N: np.ndarray
    scores: PairScores

    def take(self, rows: np.ndarray, seeds: np.ndarray) -> Tensor:
        return torch.from_numpy(self.number_N[rows])


@dataclass(frozen=True)
class Tokens:
    """Texts tokenised once; `collate` pads the rows of a batch."""

    token_ids: Sequence[Sequence[int]]
    collate: Callable[[list[list[int]]], dict[str, Tensor]]

    def take(self, rows: np.ndarray, seeds: np.ndarray) -> dict[str, Tensor]:
        return self.collate([list(self.token_ids[row]) for row in rows])


@dataclass(frozen=True)
class Pixels:
    """Photos decoded when they are needed; `load(row, seed)` gives one as (3, height, width)."""

    load: Callable[[int, int], Tensor]
    threads: int = 2

    def take(self, rows: np.ndarray, seeds: np.ndarray) -> Tensor:
        from concurrent.futures import ThreadPoolExecutor

        if self.threads < 2:
            return torch.stack([self.load(int(row), int(seed)) for row, seed in zip(rows, seeds, strict=True)])
        with ThreadPoolExecutor(self.threads) as pool:
            return torch.stack(list(pool.map(self.load, rows.tolist(), seeds.tolist())))


@dataclass(frozen=True)
class Rows:
    """A training set's columns, by row number. `ids_NK`, `negative_ids_NK`, `weight_N`, `target_N` as in `Batch`.

    `photo_keys` are the content keys of a paired set's photos, by which another set is told.
    """

    ids_NK: np.ndarray
    weight_N: np.ndarray
    text: Column | None = None
    image: Column | None = None
    positive: Column | None = None
    negative: Column | None = None
    negative_ids_NK: np.ndarray | None = None
    target_N: np.ndarray | None = None
    text_teachers: tuple[Features | ScoredTexts, ...] = ()
    image_teachers: tuple[Features, ...] = ()
    photo_keys: Sequence[str | None] = ()

    def __len__(self) -> int:
        return len(self.ids_NK)

    def batch(self, kind: Kind, rows: np.ndarray, seeds: np.ndarray) -> Batch:
        """The batch of these rows; a text-only batch takes nothing of the image side."""

        def take(column: Column | None) -> Any:
            return None if column is None else column.take(rows, seeds)

        paired = kind == "pairs"
        return Batch(
            kind=kind,
            index_B=torch.from_numpy(rows.astype(np.int64)),
            ids_BK=torch.from_numpy(self.ids_NK[rows]),
            weight_B=torch.from_numpy(self.weight_N[rows].astype(np.float32)),
            text=take(self.text),
            image=take(self.image) if paired else None,
            positive=take(self.positive),
            negative=take(self.negative),
            negative_ids_BK=None if self.negative_ids_NK is None else torch.from_numpy(self.negative_ids_NK[rows]),
            target_B=None if self.target_N is None else torch.from_numpy(self.target_N[rows].astype(np.float32)),
            text_teachers=tuple(teacher.take(rows, seeds) for teacher in self.text_teachers),
            image_teachers=tuple(teacher.take(rows, seeds) for teacher in self.image_teachers) if paired else (),
        )
