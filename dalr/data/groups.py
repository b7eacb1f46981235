"""Groups: which rows are true positives of each other, and a dev part that shares none with the rest.

Two rows are mutual positives when they share an image or a normalised caption; there is no transitive closure
(A–B by the image and B–C by the caption leave A and C apart). A `group` value overrides both. Losses, samplers,
metrics and the audit all read the same (N, 2) array: two different rows are mutual positives iff they are equal
in any column; -1 equals nothing.
"""

import itertools
import re
import unicodedata
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from dalr.errors import DataError
from dalr.files import hash_bytes

Ids = npt.NDArray[np.int64]
_SPACE = re.compile(r"\s+")


def normalise_caption(text: str) -> str:
    """The form in which two captions are the same caption: NFKC, case folded, one space between words."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def group_ids(
    images: Sequence[str | None], texts: Sequence[str | None], group: Sequence[str | None] | None = None
) -> Ids:
    """Group ids of N rows, int64 (N, 2): column 0 the image or the group, column 1 the caption.

    A row with a group has its group in column 0 and -1 in column 1, so that it matches its group alone. A missing
    image or caption (None, or nothing but space) is -1. Ids are numbered by first appearance; they mean nothing
    across calls.
    """
    first = _numbers(
        [
            ("group", group[row]) if group is not None and group[row] else ("image", image) if image else None
            for row, image in enumerate(images)
        ]
    )
    captions = [normalise_caption(text) if text else "" for text in texts]
    second = _numbers(
        [None if not caption or (group is not None and group[row]) else caption for row, caption in enumerate(captions)]
    )
    return np.stack([first, second], axis=1)


def pair_ids(first: Sequence[str], second: Sequence[str], group: Sequence[str | None] | None = None) -> Ids:
    """Group ids of N pairs of texts, int64 (N, K): equal in some column where two pairs share a text on either side.

    A text stands in the same column of all its pairs, and the two texts of a pair in different ones, so K is 2 or 3
    for most data, and larger where many texts are all paired with each other. A pair with a group has its group alone.
    """
    grouped = group if group is not None else [None] * len(first)
    left, right = ([normalise_caption(text) for text in side] for side in (first, second))
    partners: dict[str, set[str]] = {}
    for one, other, name in zip(left, right, grouped, strict=True):
        if not name:
            partners.setdefault(one, set()).add(other)
            partners.setdefault(other, set()).add(one)
    column: dict[str, int] = {}
    for text, others in partners.items():
        taken = {column.get(other) for other in others if other != text}
        column[text] = next(free for free in itertools.count() if free not in taken)
    number: dict[Hashable, int] = {}
    ids = np.full((len(left), max(column.values(), default=0) + 1), -1, dtype=np.int64)
    for row, (one, other, name) in enumerate(zip(left, right, grouped, strict=True)):
        if name:
            ids[row, 0] = number.setdefault(("group", name), len(number))
        else:
            for text in (one, other):
                ids[row, column[text]] = number.setdefault(text, len(number))
    return ids


def ids_of_texts(texts: Sequence[str], first: Sequence[str], second: Sequence[str], ids: Ids) -> Ids:
    """Group ids of M texts, int64 (M, K): those of the first of N pairs in which each stands (`ids`, (N, K)), or -1."""
    stands: dict[str, int] = {}
    for row, pair in enumerate(zip(first, second, strict=True)):
        for text in pair:
            stands.setdefault(normalise_caption(text), row)
    rows = np.array([stands.get(normalise_caption(text), -1) for text in texts], dtype=np.int64)
    return np.where(rows[:, None] >= 0, ids[rows], -1)


def connected_components(ids: Ids) -> Ids:
    """A label per row, int64 (N,), equal for rows joined by a chain of shared ids (here with closure)."""
    from scipy.sparse import coo_matrix, csgraph

    rows, columns = ids.shape
    known = ids >= 0
    width = int(ids.max(initial=-1)) + 1
    # A graph of rows on one side and (column, id) nodes on the other: an edge per known id, never N² pairs.
    node = rows + ids + np.arange(columns) * width
    source = np.broadcast_to(np.arange(rows)[:, None], ids.shape)[known]
    size = rows + columns * width
    graph = coo_matrix((np.ones(len(source), dtype=np.int8), (source, node[known])), shape=(size, size))
    labels = csgraph.connected_components(graph, directed=False)[1][:rows]
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def distinct_texts(texts: Sequence[str]) -> tuple[Ids, list[str]]:
    """(number of each text, the distinct texts as first written), equal after `normalise_caption`."""
    ids = _numbers([normalise_caption(text) for text in texts])
    return ids, [texts[row] for row in np.unique(ids, return_index=True)[1]]


def connected_texts(first: Sequence[str], second: Sequence[str]) -> Ids:
    """A label for each of N pairs, int64 (N,), equal for pairs joined by a chain of shared texts (normalised)."""
    from scipy.sparse import coo_matrix, csgraph

    numbers = _numbers([normalise_caption(text) for text in (*first, *second)])
    ends = numbers[: len(first)], numbers[len(first) :]
    size = int(numbers.max(initial=-1)) + 1
    graph = coo_matrix((np.ones(len(first), dtype=np.int8), ends), shape=(size, size))
    labels = csgraph.connected_components(graph, directed=False)[1]
    return np.asarray(labels[ends[0]], dtype=np.int64)


def carve_dev(ids: Ids, fraction: float, seed: int) -> tuple[Ids, Ids]:
    """Split rows into (train, dev) with about `fraction` of them in dev and no group on both sides.

    Whole connected components go to one side, in an order drawn from `seed` by hashing, until dev holds
    `fraction` of the rows; a component that would overshoot by more than it closes the gap is left in train.
    Both results are sorted row numbers. Raises DataError when a side would be empty.
    """
    if not 0.0 < fraction < 1.0:
        raise DataError(f"data.dev is {fraction}; expected a share between 0 and 1, such as 0.1")
    labels = connected_components(ids)
    sizes = np.bincount(labels)
    order = sorted(range(len(sizes)), key=lambda label: hash_bytes(f"dev|{seed}|{label}".encode()))
    wanted = fraction * len(ids)
    taken = np.zeros(len(sizes), dtype=bool)
    count = 0
    for label in order:
        if abs(count + sizes[label] - wanted) <= abs(count - wanted):
            taken[label] = True
            count += int(sizes[label])
    in_dev = taken[labels] if len(ids) else np.zeros(0, dtype=bool)
    train, dev = np.flatnonzero(~in_dev), np.flatnonzero(in_dev)
    if not len(train) or not len(dev):
        raise DataError(
            f"data.dev={fraction}: {len(ids)} rows form {len(sizes)} groups, too few to carve a dev part by group; "
            "name a data.val file instead"
        )
    return train.astype(np.int64), dev.astype(np.int64)


def joint_ids(a: Ids, b: Ids) -> Ids:
    """One id for each pair of ids, int64 (N,); -1 where either is missing."""
    return np.where((a >= 0) & (b >= 0), a * (int(b.max(initial=0)) + 1) + b, -1)


def rows_by_id(ids: Ids) -> list[Ids]:
    """The rows of each id of `ids` (N,) that several rows have, in their order; -1 has none."""
    known = np.flatnonzero(ids >= 0)
    order = known[np.argsort(ids[known], kind="stable")]
    cuts = np.flatnonzero(np.diff(ids[order])) + 1
    return [rows for rows in np.split(order, cuts) if len(rows) > 1]


def _numbers(values: Sequence[Hashable | None]) -> Ids:
    numbers: dict[Hashable, int] = {}
    return np.array([-1 if value is None else numbers.setdefault(value, len(numbers)) for value in values], np.int64)
