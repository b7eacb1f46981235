"""Which candidates are known positives of a pair, and so never its negatives.

P pairs, T distinct texts, C distinct candidates among them, F facts: a pair, a group or a text, each of which puts
the texts that take part in it together.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dalr.data.groups import normalise_caption
from dalr.data.pairs import Pairs, Texts

Ints = npt.NDArray[np.int64]


class KnownPositives:
    """Known positives of P pairs among candidates, whose numbers are those of `distinct_texts(candidates.texts)`.

    They are the candidates with the anchor's or the positive's own text, and those that any pair or any group puts
    together with one of these two: pairs that share a text are positives of each other, in both directions. It goes
    no further (no transitive closure). Texts are compared normalised.

        row, candidate = known[10:20]     # numbers of the known positives of pairs 10 … 19, row 0 being pair 10
    """

    def __init__(self, pairs: Pairs, candidates: Texts) -> None:
        from scipy.sparse import csr_array

        self._texts: dict[str, int] = {}
        self._groups: dict[str, int] = {}
        candidate = self._numbers(candidates.texts)
        self.candidates = len(self._texts)
        self._anchor_P, self._positive_P = self._numbers(pairs.anchors), self._numbers(pairs.positives)
        grouped = [
            self._grouped(candidate, candidates.group),
            self._grouped(self._anchor_P, pairs.group),
            self._grouped(self._positive_P, pairs.group),
        ]
        pair, every = np.arange(len(pairs)), np.arange(len(self._texts))
        text = np.concatenate([self._anchor_P, self._positive_P, every, *(texts for texts, _ in grouped)])
        fact = np.concatenate(
            [pair, pair, len(pairs) + every, *(len(pairs) + len(every) + groups for _, groups in grouped)]
        )
        shape = (len(every), len(pairs) + len(every) + len(self._groups))
        self._facts_TF = csr_array((np.ones(len(text), np.int32), (text, fact)), shape=shape)
        self._facts_FC = self._facts_TF[: self.candidates].T.tocsr()

    def __len__(self) -> int:
        return len(self._anchor_P)

    def __getitem__(self, pairs: slice) -> tuple[Ints, Ints]:
        facts = self._facts_TF[self._anchor_P[pairs]] + self._facts_TF[self._positive_P[pairs]]
        found = (facts @ self._facts_FC).tocoo()
        return found.coords[0].astype(np.int64), found.coords[1].astype(np.int64)

    def _numbers(self, texts: Sequence[str]) -> Ints:
        known = self._texts
        return np.array([known.setdefault(normalise_caption(text), len(known)) for text in texts], np.int64)

    def _grouped(self, texts: Ints, names: Sequence[str | None]) -> tuple[Ints, Ints]:
        """(text, group) of those that have one."""
        groups = self._groups
        rows = [row for row, name in enumerate(names) if name is not None]
        numbers = [groups.setdefault(names[row] or "", len(groups)) for row in rows]
        return texts[np.array(rows, np.int64)], np.array(numbers, np.int64)
