"""Batches as a pure function of their number.

The rows of global batch `t` depend on `(seed, t, dataset fingerprint, global batch size)` and on nothing else:
there is no loader state, so a run that is resumed at step t reads what it would have read. A process takes its
slice of the global batch by rank.
"""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from dalr.errors import DataError
from dalr.files import hash_bytes

Rows = npt.NDArray[np.int64]


def bits_for(*what: str | int) -> np.random.Philox:
    """Random bits of these values' own: for other values, though they differ by one, unrelated ones.

    (A Philox of one key, set to counters that follow each other, gives one stream shifted by four words.)
    """
    return np.random.Philox(key=int(hash_bytes(*(str(value).encode() for value in what)), 16))


class Stream:
    """Endless batches over `size` rows, every row once an epoch.

    An epoch is one order of all rows; the batches cut the endless sequence of epochs, so the remainder of one
    epoch begins the next one's first batch and no row is ever dropped. Where `size >= 3 * batch_size`, a batch
    never holds a row twice (the head of an epoch steps aside for the tail of the one before it).

    Args:
        size: rows in the data set, at least 1.
        batch_size: rows in a *global* batch, over all processes and accumulated parts. May exceed `size`.
        seed: any int.
        fingerprint: of the data set (`Manifest.fingerprint()`): other data, other order.
    """

    def __init__(self, size: int, batch_size: int, seed: int, fingerprint: str) -> None:
        if size < 1:
            raise DataError("a stream needs at least one row; the manifest has none that can be used")
        if batch_size < 1:
            raise DataError(f"train.batch_size is {batch_size}; expected at least 1")
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.fingerprint = fingerprint
        # Memory only: what is in it never changes what `rows` returns.
        self._orders: dict[int, Rows] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Batches that cover every row at least once: size / batch_size, rounded up."""
        return -(-self.size // self.batch_size)

    def rows(self, t: int) -> Rows:
        """Row numbers of global batch `t` (from 0), int64 (batch_size,)."""
        if t < 0:
            raise ValueError(f"batch number {t} is negative")
        position = t * self.batch_size
        parts = []
        left = self.batch_size
        while left:
            epoch, offset = divmod(position, self.size)
            part = self._order(epoch)[offset : offset + left]
            parts.append(part)
            position += len(part)
            left -= len(part)
        return np.concatenate(parts)

    def _order(self, epoch: int) -> Rows:
        if epoch not in self._orders:
            order = self._draw(epoch)
            if epoch and self.size >= 3 * self.batch_size:
                self._step_aside(order, epoch)
            self._orders = {e: known for e, known in self._orders.items() if e >= epoch - 1} | {epoch: order}
        return self._orders[epoch]

    def _draw(self, epoch: int) -> Rows:
        # Raw output and a stable sort: numpy guarantees the bits of a bit generator for ever, which it does not for
        # Generator.permutation.
        bits = bits_for("stream", self.seed, self.fingerprint, epoch).random_raw(self.size)
        return np.argsort(bits, kind="stable").astype(np.int64, copy=False)

    def _step_aside(self, order: Rows, epoch: int) -> None:
        """Keep the rows that end the epoch before out of the batch that this epoch's head completes.

        They change places with rows from the middle of this epoch. The last `batch_size` places are never
        touched, so the tail of an epoch is known from its draw alone and the rule does not recurse.
        """
        tail_length = epoch * self.size % self.batch_size
        if not tail_length:
            return
        tail = self._draw(epoch - 1)[-tail_length:]
        head_length = self.batch_size - tail_length
        clash = np.flatnonzero(np.isin(order[:head_length], tail))
        middle = order[head_length : self.size - self.batch_size]
        free = head_length + np.flatnonzero(~np.isin(middle, tail))[: len(clash)]
        order[clash], order[free] = order[free], order[clash]


class MixedStreams:
    """Several streams in one run, each step drawn from one of them by an explicit ratio.

    `ratio={"pairs": 1, "text": 3}` gives one step on pairs in every four, spread evenly, for ever; the kind of
    step `t` and its number within its kind are closed forms of `t`. All processes therefore agree on the kind.

    Args:
        streams: by kind.
        ratio: whole numbers by the same kinds; a kind with 0 is never drawn, and at least one is positive.
    """

    def __init__(self, streams: Mapping[str, Stream], ratio: Mapping[str, int]) -> None:
        if set(streams) != set(ratio):
            raise DataError(f"the ratio names {sorted(ratio)}, the streams are {sorted(streams)}; give one number each")
        if any(share < 0 or int(share) != share for share in ratio.values()) or not sum(ratio.values()):
            raise DataError(f"the ratio {dict(ratio)} is not usable: whole numbers from 0, at least one above 0")
        self.streams = dict(streams)
        divisor = math.gcd(*(int(share) for share in ratio.values()))
        self.ratio = {kind: int(share) // divisor for kind, share in ratio.items()}
        self._pattern = _spread(self.ratio)
        # Steps of each kind among the first i steps of the pattern.
        self._before = {
            kind: np.concatenate([[0], np.cumsum([entry == kind for entry in self._pattern])]) for kind in self.ratio
        }

    def kind(self, t: int) -> str:
        """The kind of global step `t` (from 0)."""
        return self._pattern[t % len(self._pattern)]

    def rows(self, t: int) -> Rows:
        """Row numbers of global step `t` in the stream of its kind, int64 (that stream's batch_size,)."""
        kind = self.kind(t)
        whole, part = divmod(t, len(self._pattern))
        return self.streams[kind].rows(whole * self.ratio[kind] + int(self._before[kind][part]))


def _spread(ratio: Mapping[str, int]) -> list[str]:
    """One period of the mix, each kind as evenly spaced as whole steps allow (smooth weighted round robin)."""
    period = sum(ratio.values())
    credit = dict.fromkeys(ratio, 0)
    pattern = []
    for _ in range(period):
        for kind, share in ratio.items():
            credit[kind] += share
        chosen = max(ratio, key=lambda kind: credit[kind])
        credit[chosen] -= period
        pattern.append(chosen)
    return pattern


def process_slice(rows: Rows, rank: int, world: int) -> Rows:
    """The part of a global batch that process `rank` of `world` takes: equal, consecutive, in rank order.

    Raises DataError when the batch does not divide: unequal parts would weigh rows unequally.
    """
    if len(rows) % world:
        raise DataError(
            f"a global batch of {len(rows)} rows does not divide over {world} processes; "
            f"set train.batch_size to a multiple of {world}"
        )
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} of {world} processes")
    size = len(rows) // world
    return rows[rank * size : (rank + 1) * size]
