"""How well each caption fits its picture, as the neighbours of both see it.

The captions of a picture's nearest pictures, averaged, are compared with its own caption, in standard deviations of
that comparison over all captions; the same from the caption's side; the score is the mean of both. The neighbours are
found in the frozen encoders' own spaces, which have never seen these pairs. Shared by the pair weights of training and
by the audit.

Legend: N pairs · H text width · V image width · K columns of group ids · R rows asked about · M random pairs
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from dalr.config import Config

TILE = 1024
NULL_PAIRS = 20_000
LEAST_SAY = 0.02  # how much a row counts among its neighbours that surely does not fit itself


class NeighbourConfig(Config):
    """Who is asked.

    `neighbours` and `neighbour_temperature` say how many neighbours are asked and how steeply the nearer ones weigh
    more; `references` bounds the rows among which they are sought; in each of `passes` but the first, they have a say
    according to how well they fit themselves.
    """

    neighbours: Annotated[int, Field(ge=1)] = 20
    neighbour_temperature: Annotated[float, Field(gt=0)] = 0.1
    references: Annotated[int, Field(ge=100)] = 50_000
    passes: Annotated[int, Field(ge=1)] = 3
    seed: int = 0


@dataclass(frozen=True)
class Scores:
    """A score a pair (higher fits better), and scores of pairs put together at random, the null."""

    own_N: Tensor
    null_M: Tensor

    def standardised(self) -> "Scores":
        """In units of the null's standard deviation above its mean."""
        mean, deviation = self.null_M.mean(), self.null_M.std().clamp(min=1e-6)
        return Scores((self.own_N - mean) / deviation, (self.null_M - mean) / deviation)


@dataclass(frozen=True)
class RandomPairs:
    """M pairs of different groups: the picture of `picture_M` with the caption of `caption_M`, as row numbers."""

    picture_M: Tensor
    caption_M: Tensor

    @classmethod
    def draw(
        cls, ids_NK: Tensor, generator: torch.Generator, folds_N: Tensor | None = None, count: int = NULL_PAIRS
    ) -> "RandomPairs":
        """About `count` pairs and at least one a row; with `folds_N` both halves of a pair are of one fold."""
        size = len(ids_NK)
        own = torch.arange(size)
        others = [_shuffled(folds_N, size, generator) for _ in range(max(1, math.ceil(count / max(1, size))))]
        kept = [~((ids_NK == ids_NK[other]) & (ids_NK >= 0)).any(1) & (other != own) for other in others]
        return cls(
            torch.cat([own[keep] for keep in kept]),
            torch.cat([other[keep] for other, keep in zip(others, kept, strict=True)]),
        )

    @classmethod
    def none(cls) -> "RandomPairs":
        """No pair at all."""
        return cls(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long))

    def __len__(self) -> int:
        return len(self.picture_M)


def _shuffled(folds_N: Tensor | None, size: int, generator: torch.Generator) -> Tensor:
    if folds_N is None:
        return torch.randperm(size, generator=generator)
    other = torch.empty(size, dtype=torch.long)
    for fold in torch.unique(folds_N):
        rows = torch.nonzero(folds_N == fold).flatten()
        other[rows] = rows[torch.randperm(len(rows), generator=generator)]
    return other


class NeighbourAgreement:
    """The neighbours of a catalogue's pictures and captions, sought once; `scores` asks them.

    Args:
        text_NH, image_NV: frozen features of N pairs.
        ids_NK: group ids; rows of one group never vouch for each other.
        config: see `NeighbourConfig`.
        pairs: the random pairs of the null; None draws some.
        rows: the R rows that are asked about, whose scores are `own_N`; None is all. The null is of all rows alone.
    """

    def __init__(
        self,
        text_NH: Tensor,
        image_NV: Tensor,
        ids_NK: Tensor,
        config: NeighbourConfig,
        *,
        pairs: RandomPairs | None = None,
        rows: Tensor | None = None,
    ) -> None:
        generator = torch.Generator().manual_seed(config.seed)
        size = len(text_NH)
        self.text_NH, self.image_NV = _centred(text_NH), _centred(image_NV)
        self.config = config
        self.rows_R = torch.arange(size) if rows is None else rows
        self.references = torch.randperm(size, generator=generator)[: config.references].sort().values
        if rows is None:
            self.pairs = RandomPairs.draw(ids_NK, generator) if pairs is None else pairs
        else:
            self.pairs = RandomPairs.none()
        self._of_pictures = self._nearest(self.image_NV, ids_NK)
        self._of_captions = self._nearest(self.text_NH, ids_NK)

    def settled(self, fit: Callable[[Scores], Tensor]) -> Scores:
        """The scores after all passes; `fit` gives the probabilities by which the rows count in the next one."""
        scores = self.scores()
        for _ in range(self.config.passes - 1):
            scores = self.scores(fit(scores).clamp(min=LEAST_SAY))
        return scores

    def nearness(self) -> tuple[Tensor, Tensor]:
        """Mean cosine with the neighbours of each row asked about, (R,) of captions and (R,) of pictures."""
        return self._of_captions[1].mean(1), self._of_pictures[1].mean(1)

    def scores(self, weight_N: Tensor | None = None) -> Scores:
        """Scores of the rows asked about and of the random pairs; `weight_N` in [0, 1] says how much a row counts."""
        text_RH = self._expected(self._of_pictures, self.text_NH, weight_N)
        image_RV = self._expected(self._of_captions, self.image_NV, weight_N)
        own, pairs = torch.arange(len(self.rows_R)), self.pairs
        # Then a row's picture with another's caption: what the neighbours of each expect of the other.
        there = outstanding(
            text_RH, self.text_NH, torch.cat([own, pairs.picture_M]), torch.cat([self.rows_R, pairs.caption_M])
        )
        back = outstanding(
            image_RV, self.image_NV, torch.cat([own, pairs.caption_M]), torch.cat([self.rows_R, pairs.picture_M])
        )
        return Scores(*torch.split((there + back) / 2, [len(own), len(pairs)]))

    def _nearest(self, from_NW: Tensor, ids_NK: Tensor) -> tuple[Tensor, Tensor]:
        """Row numbers and cosines (R, neighbours) of the nearest references, the row's own group left out."""
        pool = from_NW[self.references]
        known = [_Equals(column) for column in (*ids_NK[self.references].T, self.references)]
        count = min(self.config.neighbours, len(self.references))
        found = []
        for rows in _blocks(self.rows_R):
            cosine = from_NW[rows] @ pool.T
            for column, values in zip(known, (*ids_NK[rows].T.contiguous(), rows), strict=True):
                cosine[column.places(values)] = -1e4
            found.append(cosine.topk(count, dim=1))
        return (
            self.references[torch.cat([nearest.indices for nearest in found])],
            torch.cat([nearest.values for nearest in found]),
        )

    def _expected(self, nearest: tuple[Tensor, Tensor], to_NU: Tensor, weight_N: Tensor | None) -> Tensor:
        """For each row asked about, the weighted mean of the other side of its neighbours, (R, U)."""
        result = torch.empty(len(self.rows_R), to_NU.shape[1])
        for block in _blocks(torch.arange(len(self.rows_R))):
            row, cosine = nearest[0][block], nearest[1][block]
            share = torch.softmax(cosine / self.config.neighbour_temperature, dim=1)
            if weight_N is not None:
                share = share * weight_N[row]
                share = share / share.sum(1, keepdim=True).clamp(min=1e-6)
            result[block] = torch.einsum("rk,rku->ru", share, to_NU[row])
        return result


class _Equals:
    """Where a value stands in a column of ids, without comparing all pairs; -1 stands nowhere."""

    def __init__(self, column_N: Tensor) -> None:
        self._sorted, self._order = torch.sort(column_N)

    def places(self, values_B: Tensor) -> tuple[Tensor, Tensor]:
        """(Positions in `values_B`, positions in the column) of all equal pairs."""
        start = torch.searchsorted(self._sorted, values_B)
        count = torch.searchsorted(self._sorted, values_B, right=True) - start
        count = torch.where(values_B >= 0, count, 0)
        rows = torch.repeat_interleave(torch.arange(len(values_B)), count)
        first = torch.repeat_interleave(start - (count.cumsum(0) - count), count)
        return rows, self._order[first + torch.arange(len(rows))]


def _centred(x_NW: Tensor) -> Tensor:
    """Rows standardised by column and brought to unit length, so that no feature all rows share drowns the rest."""
    x_NW = x_NW.float()
    return F.normalize((x_NW - x_NW.mean(0)) / (x_NW.std(0) + 1e-6), dim=1)


def outstanding(expected_RU: Tensor, side_NU: Tensor, expecting_M: Tensor, row_M: Tensor) -> Tensor:
    """How far `expected[expecting] · side[row]` stands out from what that expectation gives with all rows, (M,)."""
    mean_U = side_NU.mean(0)
    centred = side_NU - mean_U
    covariance = centred.T @ centred / len(side_NU)
    deviation_R = torch.cat([((block @ covariance) * block).sum(1) for block in _blocks(expected_RU)])
    deviation_R = deviation_R.clamp(min=1e-8).sqrt()
    average_R = expected_RU @ mean_U
    found = [
        ((expected_RU[expecting] * side_NU[row]).sum(1) - average_R[expecting]) / deviation_R[expecting]
        for expecting, row in zip(_blocks(expecting_M), _blocks(row_M), strict=True)
    ]
    return torch.cat(found) if found else torch.zeros(0)


def _blocks(x_N: Tensor) -> tuple[Tensor, ...]:
    return torch.split(x_N, TILE)
