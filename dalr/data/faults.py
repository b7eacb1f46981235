"""Faults planted on purpose, to measure what noise does to training and what of it an audit finds."""

from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from dalr.data.manifest import Manifest


def shuffle_captions(manifest: Manifest, share: float, seed: int) -> Manifest:
    """The manifest with the captions of a random `share` of its rows moved around among these rows."""
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(manifest))[: round(share * len(manifest))]
    texts = list(manifest.texts)
    for target, source in zip(chosen, np.roll(chosen, 1), strict=True):
        texts[target] = manifest.texts[source]
    return replace(manifest, texts=texts)


def swap_captions(
    manifest: Manifest, share: float, seed: int, kinds: Sequence[Hashable], hard: bool
) -> tuple[Manifest, npt.NDArray[np.bool_]]:
    """(The manifest with wrong captions on about `share` of its rows, which rows these are).

    Plain faults: the captions of random rows move among these rows, each to a row of another kind. Hard ones: two rows
    of one kind with different captions swap them. `kinds` gives each row's kind. A row whose new caption happens to be
    its old one is not wrong. Where the kinds do not give as many hard swaps as were asked for, there are fewer.
    """
    generator = np.random.default_rng(seed)
    source = np.arange(len(manifest))
    count = round(share * len(manifest))
    if hard:
        for a, b in _pairs_within(manifest, kinds, generator)[: count // 2]:
            source[[a, b]] = b, a
    else:
        chosen = generator.permutation(len(manifest))[:count]
        source[chosen] = _apart(chosen, [kinds[row] for row in chosen], generator)
    texts = [manifest.texts[row] for row in source]
    wrong = np.array([new != old for new, old in zip(texts, manifest.texts, strict=True)], dtype=bool)
    return replace(manifest, texts=texts), wrong


def _pairs_within(
    manifest: Manifest, kinds: Sequence[Hashable], generator: np.random.Generator
) -> list[tuple[int, int]]:
    """Random disjoint pairs of rows of one kind with different captions, in random order."""
    members: dict[Hashable, list[int]] = {}
    for row, kind in enumerate(kinds):
        members.setdefault(kind, []).append(row)
    pairs = []
    for rows in members.values():
        order = generator.permutation(rows).tolist()
        pairs += [
            (a, b) for a, b in zip(order[::2], order[1::2], strict=False) if manifest.texts[a] != manifest.texts[b]
        ]
    generator.shuffle(pairs)
    return pairs


def _apart(
    chosen: npt.NDArray[np.int64], kinds: Sequence[Hashable], generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """The chosen rows in another order, in which each place has a row of another kind, as far as there are any."""
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    own = np.array([numbers[kind] for kind in kinds], dtype=np.int64)
    order = np.roll(np.arange(len(chosen)), 1)
    for _ in range(1000):
        same = np.flatnonzero(own[order] == own)
        if not len(same):
            break
        for place, other in zip(same, generator.integers(len(order), size=len(same)), strict=True):
            order[[place, other]] = order[[other, place]]
    return np.asarray(chosen[order])
