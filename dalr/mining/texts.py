"""Negatives of texts, through the feature cache, and the file of triplets that training reads."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dalr.data.groups import distinct_texts
from dalr.data.pairs import GROUP, Pairs, Texts
from dalr.data.texts import TRIPLET
from dalr.errors import DataError
from dalr.features import embed_texts
from dalr.features.towers import Encoder
from dalr.files import write_atomically
from dalr.mining.known import KnownPositives
from dalr.mining.vectors import Mined, MiningConfig, Rows, View, mine_vectors
from dalr.progress import ProgressSink

SCORES = ("rank", "positive_cosine", "negative_cosine")
TEACHER_SCORES = ("positive_teacher_cosine", "negative_teacher_cosine")


def mine_texts(
    pairs: Pairs,
    candidates: Texts,
    encoder: Encoder,
    config: MiningConfig = MiningConfig(),  # noqa: B008 - frozen
    *,
    teacher: Encoder | None = None,
    prompts: tuple[str | None, str | None] = (None, None),
    cache: str | Path | None = None,
    device: torch.device | str = "cpu",
    embedding: ProgressSink | None = None,
    progress: ProgressSink | None = None,
) -> tuple[Mined, list[str]]:
    """Negatives of pairs of texts among candidates, each text embedded once through the feature cache.

    Args:
        pairs: anchors with their positives.
        candidates: texts; equal after `normalise_caption` is one candidate.
        encoder: a text tower, by whose cosines candidates are ranked.
        teacher: another one, which refuses what it finds as near the anchor as its positive. It reads with its own
            default prompt.
        prompts: of the encoder, for anchors and for all other texts: names or texts; None is its default.
        cache: folder of the feature cache; None is the user's own.
        device: where cosines are computed.
        embedding, progress: called with (done, total) of texts, and of pairs.

    Returns:
        What was mined, and the distinct candidates whose numbers it holds.

    Raises DataError where there is no pair or no candidate, or a text cannot be embedded.
    """
    _, distinct = distinct_texts(candidates.texts)
    if not len(pairs) or not distinct:
        raise DataError(f"{len(pairs)} pairs and {len(distinct)} candidates: there is nothing to mine")

    def view(tower: Encoder, prompts: tuple[str | None, str | None]) -> View:
        anchors = embed_texts(pairs.anchors, tower, cache, embedding, prompts[0])
        others = embed_texts([*pairs.positives, *distinct], tower, cache, embedding, prompts[1])
        return View(anchors, _Part(others, 0, len(pairs)), _Part(others, len(pairs), len(others)))

    mined = mine_vectors(
        view(encoder, prompts),
        KnownPositives(pairs, candidates),
        config,
        teacher=None if teacher is None else view(teacher, (None, None)),
        device=device,
        progress=progress,
    )
    return mined, distinct


def write_triplets(
    path: str | Path, pairs: Pairs, mined: Mined, candidates: list[str], *, scores: bool = False
) -> None:
    """Write the CSV that `data.triplets` of a training config names: anchor, positive, negative, one negative a row.

    Where pairs have groups, so has the file: training must not take a text of the group for a negative either. `scores`
    adds the negative's rank and the cosines behind it. The file appears whole or not at all. Raises DataError when
    nothing was mined.
    """
    if not len(mined.pair):
        reason = next(iter(mined.without.values()), "there are no pairs")
        raise DataError(
            f"not one of {mined.counts['pairs']:,} pairs has a negative left (the first: {reason}); widen the window "
            "of ranks, loosen the margins, or give more candidates"
        )
    columns: list[Any] = [
        [pairs.anchors[pair] for pair in mined.pair],
        [pairs.positives[pair] for pair in mined.pair],
        [candidates[candidate] for candidate in mined.candidate],
    ]
    names = list(TRIPLET)
    if any(pairs.group):
        names.append(GROUP)
        columns.append([pairs.group[pair] or "" for pair in mined.pair])
    if scores:
        names += SCORES
        columns += [mined.rank, _written(mined.positive_cosine[mined.pair]), _written(mined.cosine)]
        if mined.teacher_cosine is not None and mined.teacher_positive_cosine is not None:
            names += TEACHER_SCORES
            columns += [_written(mined.teacher_positive_cosine[mined.pair]), _written(mined.teacher_cosine)]
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([names, *zip(*columns, strict=True)])
    write_atomically(path, stream.getvalue())


def _written(cosines: npt.NDArray[np.float32]) -> list[str]:
    return [f"{cosine:.4f}" for cosine in cosines]


@dataclass(frozen=True)
class _Part:
    """Rows `start` to `stop` of other rows."""

    rows: Rows
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, rows: Any) -> Any:
        return self.rows[np.arange(self.start, self.stop)[rows]]
