"""Negatives by vectors: ranks, margins, a teacher's word, and a choice among what is left.

Each anchor's candidates are ranked by cosine, its known positives left out. From a window of ranks go the candidates
too near the positive's own cosine, as in the positive-aware mining of NV-Retriever (de Souza Moreira et al. 2024:
`margin` is TopK-MarginPos, `share` is TopK-PercPos), then those that a teacher finds as near as the positive.

P pairs, Q pairs of a tile, C candidates, W ranks of the window, D width. Cosines in float32.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, field_validator
from torch.nn import functional as F

from dalr.config import Config
from dalr.mining.known import Ints, KnownPositives
from dalr.progress import ProgressSink

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
# One tile of cosines is 64 MiB.
ANCHOR_TILE, CANDIDATE_TILE = 1024, 16_384
# Candidates of this many anchors are read at once for the teacher.
TEACHER_TILE = 128


class MiningConfig(Config):
    """Which candidates may become negatives. Cosines are those of an anchor with a candidate or with its positive.

    Attributes:
        ranks: first and last + 1 rank, counted from 0 among the candidates that are no known positives of the pair:
            (10, 100) skips the first ten and looks at the next ninety.
        margin: a negative's cosine is at most the positive's minus this; None for no such rule.
        share: a negative's cosine is at most this share of the positive's; None for no such rule. The bound of a
            positive's cosine p is p − (1 − share)·|p|, so that it never lies above p.
        teacher_margin: with a teacher, a negative's cosine by the teacher is at most the positive's minus this.
        teacher_ceiling: and at most this; None for no ceiling.
        negatives: most negatives of a pair.
        choice: `top` takes the nearest that are left, `random` draws among them.
        seed: of the draw.
    """

    ranks: tuple[int, int] = (0, 100)
    margin: float | None = Field(default=None, ge=0, le=2)
    share: float | None = Field(default=0.95, gt=0, le=1)
    teacher_margin: float = Field(default=0.0, ge=0, le=2)
    teacher_ceiling: float | None = Field(default=None, ge=-1, le=1)
    negatives: int = Field(default=1, ge=1)
    choice: Literal["top", "random"] = "top"
    seed: int = Field(default=0, ge=0)

    @field_validator("ranks")
    @classmethod
    def _is_a_window(cls, ranks: tuple[int, int]) -> tuple[int, int]:
        if not 0 <= ranks[0] < ranks[1]:
            raise ValueError(f"{ranks[0]}:{ranks[1]} is no window; expected FIRST:LAST with FIRST < LAST, as in 10:100")
        return ranks

    def bound(self, positive_P: Floats) -> Floats:
        """The largest cosine that a negative may have, by its positive's."""
        bound = np.full_like(positive_P, np.inf)
        if self.margin is not None:
            bound = np.minimum(bound, positive_P - np.float32(self.margin))
        if self.share is not None:
            bound = np.minimum(bound, positive_P - np.float32(1 - self.share) * np.abs(positive_P))
        return bound

    def teacher_bound(self, positive_P: Floats) -> Floats:
        """The same by the teacher's cosines."""
        bound = positive_P - np.float32(self.teacher_margin)
        return bound if self.teacher_ceiling is None else np.minimum(bound, np.float32(self.teacher_ceiling))


class Rows(Protocol):
    """Vectors by number, of any length: an array, or rows of a feature store."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> Any: ...


@dataclass(frozen=True)
class View:
    """One encoder's vectors of the anchors (P), positives (P) and candidates (C)."""

    anchors: Rows
    positives: Rows
    candidates: Rows


@dataclass(frozen=True)
class Mined:
    """M negatives, and what became of all other candidates.

    Attributes:
        pair, candidate, rank: (M,) whose negative, which candidate, and its rank (from 1); in order of pairs, then of
            ranks.
        cosine: (M,) of anchor and negative; `positive_cosine`: (P,) of anchor and positive.
        teacher_cosine, teacher_positive_cosine: the same by the teacher; None without one.
        counts: `pairs` = `with_negatives` + `without`; and `pairs` × `candidates` = `known_positives` +
            `outside_ranks` + `refused_by_margin` + `refused_by_teacher` + `spare` (allowed, not needed) + `negatives`.
        without: pair → why it has no negative.
    """

    pair: Ints
    candidate: Ints
    rank: Ints
    cosine: Floats
    positive_cosine: Floats
    teacher_cosine: Floats | None
    teacher_positive_cosine: Floats | None
    counts: dict[str, int]
    without: dict[int, str]


def mine_vectors(
    view: View,
    known: KnownPositives,
    config: MiningConfig,
    *,
    teacher: View | None = None,
    device: torch.device | str = "cpu",
    progress: ProgressSink | None = None,
) -> Mined:
    """The negatives of P pairs among C candidates.

    No table of P × C is made: memory grows with a tile, and with the negatives. Among candidates of one cosine the
    order is not defined.
    """
    first, last = config.ranks
    pairs, candidates = len(view.anchors), len(view.candidates)
    generator = np.random.default_rng(config.seed)
    tiles: list[_Tile] = []
    for start, known_Q, cosine_QK, candidate_QK in _nearest(view, known, min(last, candidates), device):
        here = slice(start, start + len(known_Q))
        cosine_QW, candidate_QW = cosine_QK[:, first:], candidate_QK[:, first:]
        positive_Q = _paired(view.anchors[here], view.positives[here])
        inside = np.isfinite(cosine_QW)
        distant = inside & (cosine_QW <= config.bound(positive_Q)[:, None])
        allowed, taught_QW, taught_positive_Q = distant, None, None
        if teacher is not None:
            taught_positive_Q = _paired(teacher.anchors[here], teacher.positives[here])
            taught_QW = _taught(teacher, here, candidate_QW, distant)
            allowed = distant & (taught_QW <= config.teacher_bound(taught_positive_Q)[:, None])
        # Numbers are drawn for all pairs in their order and for the whole window: the same whatever the tiles.
        key_QW = generator.random((len(known_Q), last - first)) if config.choice == "random" else None
        row, place = np.nonzero(_chosen(allowed, config.negatives, key_QW))
        tiles.append(
            _Tile(
                pair=start + row,
                candidate=candidate_QW[row, place],
                rank=first + 1 + place,
                cosine=cosine_QW[row, place],
                taught=None if taught_QW is None else taught_QW[row, place],
                positive=positive_Q,
                taught_positive=taught_positive_Q,
                left=np.stack([candidates - known_Q, *(kept.sum(axis=1) for kept in (inside, distant, allowed))]),
            )
        )
        if progress:
            progress(here.stop, pairs)
    return _joined(tiles, candidates, first)


@dataclass(frozen=True)
class _Tile:
    """What came of some pairs. `left` (4, Q): candidates left after known positives, ranks, margin, teacher."""

    pair: Ints
    candidate: Ints
    rank: Ints
    cosine: Floats
    taught: Floats | None
    positive: Floats
    taught_positive: Floats | None
    left: Ints


def _nearest(
    view: View, known: KnownPositives, depth: int, device: torch.device | str
) -> Iterator[tuple[int, Ints, Floats, Ints]]:
    """For each tile of anchors: its start, the known positives of each, and the cosines and numbers (Q, depth) of the
    nearest candidates that are none, best first; -inf fills up where there are not as many."""
    for start in range(0, len(view.anchors), ANCHOR_TILE):
        here = slice(start, min(start + ANCHOR_TILE, len(view.anchors)))
        anchor_QD = _unit(view.anchors[here], device)
        row, candidate = known[here]
        by_candidate = np.argsort(candidate, kind="stable")
        row, candidate = row[by_candidate], candidate[by_candidate]
        best = torch.empty((len(anchor_QD), 0), device=device)
        numbers = torch.empty((len(anchor_QD), 0), dtype=torch.int64, device=device)
        for low in range(0, len(view.candidates), CANDIDATE_TILE):
            high = min(low + CANDIDATE_TILE, len(view.candidates))
            scores = anchor_QD @ _unit(view.candidates[low:high], device).T
            some = slice(*np.searchsorted(candidate, [low, high]))
            scores[torch.from_numpy(row[some]), torch.from_numpy(candidate[some] - low)] = -torch.inf
            top, at = scores.topk(min(depth, high - low), dim=1)
            best, numbers = torch.cat([best, top], dim=1), torch.cat([numbers, at + low], dim=1)
            best, at = best.topk(min(depth, best.shape[1]), dim=1)
            numbers = numbers.gather(1, at)
        yield start, np.bincount(row, minlength=len(anchor_QD)), best.cpu().numpy(), numbers.cpu().numpy()


def _chosen(allowed: Bools, negatives: int, key_QW: npt.NDArray[np.float64] | None) -> Bools:
    """At most `negatives` of the allowed places of each row: the first ones, or those with the smallest keys."""
    width = allowed.shape[1]
    key = np.arange(width, dtype=np.float64)[None] if key_QW is None else key_QW[:, :width]
    order = np.argsort(np.where(allowed, key, np.inf), axis=1, kind="stable")[:, :negatives]
    chosen = np.zeros_like(allowed)
    np.put_along_axis(chosen, order, True, axis=1)
    return chosen & allowed


def _taught(teacher: View, here: slice, candidate_QW: Ints, wanted: Bools) -> Floats:
    """The teacher's cosines (Q, W) of anchors and candidates where they are wanted, else 0."""
    result = np.zeros(candidate_QW.shape, np.float32)
    for low in range(0, len(candidate_QW), TEACHER_TILE):
        row, place = np.nonzero(wanted[low : low + TEACHER_TILE])
        if len(row):
            anchors = teacher.anchors[here.start + low : min(here.start + low + TEACHER_TILE, here.stop)]
            candidates = teacher.candidates[candidate_QW[low + row, place]]
            result[low + row, place] = _paired(anchors[row], candidates)
    return result


def _paired(a: Any, b: Any) -> Floats:
    """The cosine of each row with its fellow."""
    return (_unit(a, "cpu") * _unit(b, "cpu")).sum(dim=1).numpy()


def _unit(rows: Any, device: torch.device | str) -> torch.Tensor:
    return F.normalize(torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32)).to(device), dim=1)


def _joined(tiles: list[_Tile], candidates: int, skipped: int) -> Mined:
    def column(name: str) -> Any:
        parts = [getattr(tile, name) for tile in tiles]
        return None if parts[0] is None else np.concatenate(parts)

    left = np.concatenate([tile.left for tile in tiles], axis=1)
    unknown, inside, distant, allowed = (int(count) for count in left.sum(axis=1))
    pairs, negatives = left.shape[1], sum(len(tile.pair) for tile in tiles)
    without = {int(pair): _reason(left[:, pair].tolist(), skipped) for pair in np.flatnonzero(left[3] == 0)}
    return Mined(
        pair=column("pair"),
        candidate=column("candidate"),
        rank=column("rank"),
        cosine=column("cosine"),
        positive_cosine=column("positive"),
        teacher_cosine=column("taught"),
        teacher_positive_cosine=column("taught_positive"),
        counts={
            "pairs": pairs,
            "with_negatives": pairs - len(without),
            "without": len(without),
            "candidates": candidates,
            "known_positives": pairs * candidates - unknown,
            "outside_ranks": unknown - inside,
            "refused_by_margin": inside - distant,
            "refused_by_teacher": distant - allowed,
            "spare": allowed - negatives,
            "negatives": negatives,
        },
        without=without,
    )


def _reason(left: list[int], skipped: int) -> str:
    """Why a pair has no negative, by how many candidates were left after each rule."""
    unknown, inside, distant, _ = left
    if not unknown:
        return "every candidate is a known positive"
    if not inside:
        return f"has {unknown:,} candidates, none from rank {skipped + 1:,} on"
    refusals = [(inside - distant, "as too near its positive's cosine"), (distant, "by the teacher")]
    return "refused " + " and ".join(f"{count:,} {rule}" for count, rule in refusals if count)
