"""What experts judge: pairs of texts, or photos with their captions, each with a hard label where there is one.

Legend: P pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from dalr.config import Config
from dalr.data.annotated import find_column, number_in, read_table, refuse_nothing_usable, text_in
from dalr.data.columns import plain_name
from dalr.data.groups import carve_dev, connected_texts
from dalr.data.manifest import DataConfig, Manifest
from dalr.data.records import BadRow, Part
from dalr.data.scored_pairs import SCORE_NAMES, SENTENCE_NAMES, WEIGHT_NAMES, check_range, weight_in
from dalr.errors import DataError
from dalr.files import hash_json
from dalr.training_data import photo_keys

Floats = npt.NDArray[np.float64]


class JudgedConfig(Config):
    """The columns of the data. Not named, two texts are found by the usual names (see `read_scored_pairs`), an image
    and its text as in any catalogue.

    `label` is a column of hard labels from `low` (no match) to `high` (match), brought to 0 … 1; without one, or where
    it is null, there are none (a column `score`, `label`, `is_duplicate` … is found by name only with `first`).
    """

    first: str | None = None
    second: str | None = None
    image: str | None = None
    text: str | None = None
    label: str | None = None
    low: float = 0.0
    high: float = 1.0

    @model_validator(mode="after")
    def _range(self) -> "JudgedConfig":
        check_range(self.low, self.high)
        return self


@dataclass(frozen=True)
class JudgedPairs:
    """P pairs to judge.

    Attributes:
        first: texts; of a catalogue its captions.
        second: texts, or None where the other side is `images`.
        images: a manifest whose row i is the photo of pair i.
        label: hard labels in 0 … 1 (P,), NaN where a pair has none; None without any.
        cells: every column of the source, for experts that read one, by name.
        where: `file:row` of each pair.
        bad: rows that cannot be used.
        weight: how much each pair counts already, (P,); None is 1 for all.
    """

    first: list[str]
    second: list[str] | None
    images: Manifest | None
    label: Floats | None
    cells: dict[str, list[Any]]
    where: list[str]
    bad: list[BadRow]
    weight: Floats | None = None

    def __len__(self) -> int:
        return len(self.first)

    def fingerprint(self) -> str:
        """32 hex digits over what experts see of the pairs."""
        other = photo_keys(self.images) if self.images is not None else self.second
        return hash_json([self.first, other])

    def numbers(self) -> npt.NDArray[np.int64]:
        """A number for each pair, (P,): the same for pairs that say the same, whichever side comes first."""
        others = self.images.images if self.images is not None else self.second
        assert others is not None
        known: dict[tuple[str, ...], int] = {}
        keys = (tuple(sorted((one, str(other)))) for one, other in zip(self.first, others, strict=True))
        return np.array([known.setdefault(key, len(known)) for key in keys], dtype=np.int64)

    def texts(self) -> tuple[list[str], list[str]]:
        """Both sides as texts. DataError for a catalogue of photos."""
        if self.second is None:
            raise DataError("judges pairs of texts, and these are photos with captions")
        return self.first, self.second


def hold_out(pairs: JudgedPairs, share: float, seed: int = 0) -> tuple[JudgedPairs, JudgedPairs]:
    """(the rest, about `share` of the pairs to select by): no text stands on both sides, also not by a chain of pairs.

    Of the second part only pairs with a hard label are there. Raises DataError for photos, without hard labels, and
    where too few groups of connected pairs are there to be cut between.
    """
    first, second = pairs.texts()
    if pairs.label is None:
        raise DataError("there are no hard labels to hold out; name data.label")
    groups = connected_texts(first, second)
    try:
        kept, held = carve_dev(groups[:, None], share, seed)
    except DataError:
        raise DataError(
            f"{len(pairs):,} pairs form {groups.max() + 1:,} groups that share no text, too few to hold out "
            f"{share:g} of them"
        ) from None
    return _chosen(pairs, kept), _chosen(pairs, held[~np.isnan(pairs.label[held])])


def _chosen(pairs: JudgedPairs, rows: npt.NDArray[np.int64]) -> JudgedPairs:
    def some(column: list[Any]) -> list[Any]:
        return [column[row] for row in rows]

    assert pairs.second is not None
    return replace(
        pairs,
        first=some(pairs.first),
        second=some(pairs.second),
        label=None if pairs.label is None else pairs.label[rows],
        cells={name: some(column) for name, column in pairs.cells.items()},
        where=some(pairs.where),
        weight=None if pairs.weight is None else pairs.weight[rows],
    )


def read_judged(source: str, config: JudgedConfig) -> JudgedPairs:
    """The pairs of a file of texts, or where it has images the rows of a catalogue.

    Raises DataError for a source that cannot be read, lacks the columns, or holds no usable pair.
    """
    path = Path(source)
    if config.image is None and path.is_file() and path.suffix.lower() not in (".tar",):
        part = read_table(path)
        names = _sentence_columns(part, config, path)
        if names is not None:
            return _of_texts(part, names, config, path)
    return _of_catalogue(source, config)


def _sentence_columns(part: Part, config: JudgedConfig, path: Path) -> tuple[str, str] | None:
    if config.first is not None or config.second is not None:
        found = find_column(part, (), config.first, path), find_column(part, (), config.second, path)
        if None in found:
            raise DataError(f"{path}: name both columns of texts, data.first and data.second")
        return found  # type: ignore[return-value]
    by_name = {plain_name(name): name for name in part.columns}
    return next(((by_name[a], by_name[b]) for a, b in SENTENCE_NAMES if a in by_name and b in by_name), None)


def _of_texts(part: Part, names: tuple[str, str], config: JudgedConfig, path: Path) -> JudgedPairs:
    label = find_column(part, SCORE_NAMES, config.label, path)
    counts = find_column(part, WEIGHT_NAMES, None, path)
    kept: list[int] = []
    texts: list[tuple[str, str]] = []
    labels: list[float] = []
    weights: list[float] = []
    for number, (line, first, second) in enumerate(
        zip(part.rows, *(part.columns[name] for name in names), strict=True)
    ):
        try:
            both = text_in(first, "first text"), text_in(second, "second text")
            hard = _label(None if label is None else part.columns[label][number], config)
            weights.append(1.0 if counts is None else weight_in(part.columns[counts][number]))
            labels.append(hard)
            texts.append(both)
            kept.append(number)
        except ValueError as error:
            part.refuse(line, str(error))
    if not kept:
        raise refuse_nothing_usable(path, "pair", part.bad)
    sides = [list(side) for side in zip(*texts, strict=True)]
    columns = {name: [column[number] for number in kept] for name, column in part.columns.items()}
    where = [f"{part.file}:{part.rows[number]}" for number in kept]
    return JudgedPairs(sides[0], sides[1], None, _or_none(labels), columns, where, part.bad, np.array(weights))


def _of_catalogue(source: str, config: JudgedConfig) -> JudgedPairs:
    manifest = Manifest.load(source, DataConfig(image=config.image, text=config.text))
    manifest = manifest.select(manifest.pairs())
    if not len(manifest):
        raise DataError(f"{source}: holds no pair of two texts, and no photo with a caption; name the columns in data")
    labels: list[float] = [np.nan] * len(manifest)
    if config.label is not None:
        if config.label not in manifest.columns:
            raise DataError(
                f"data.label: {source} has no column '{config.label}'; it has {', '.join(manifest.columns)}"
            )
        kept = []
        for row, cell in enumerate(manifest.columns[config.label]):
            try:
                labels[row] = _label(cell, config)
                kept.append(row)
            except ValueError as error:
                manifest.bad.append(manifest.bad_row(row, str(error)))
        manifest, labels = manifest.select(kept), [labels[row] for row in kept]
    texts = [text or "" for text in manifest.texts]
    where = [manifest.where(row) for row in range(len(manifest))]
    weight = manifest.weight.astype(np.float64)
    return JudgedPairs(texts, None, manifest, _or_none(labels), manifest.columns, where, manifest.bad, weight)


def _label(cell: Any, config: JudgedConfig) -> float:
    """A hard label in 0 … 1, NaN for a blank one."""
    if cell is None or not str(cell).strip():
        return float("nan")
    value = number_in(cell, "label")
    if not config.low <= value <= config.high:
        raise ValueError(f"the label {value:g} is outside the range {config.low:g} to {config.high:g}")
    return (value - config.low) / (config.high - config.low)


def _or_none(labels: Sequence[float]) -> Floats | None:
    found = np.array(labels, dtype=np.float64)
    return None if np.isnan(found).all() else found
