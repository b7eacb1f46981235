"""A catalogue looked over before anything is built on it: what cannot be used, what is there twice, what leaks.

Nothing is changed. A bad row costs itself and is named with file, row, key and reason.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dalr.catalogue.lookalikes import alike_rows, lookalikes
from dalr.catalogue.photos import PhotoSurvey, survey_photos
from dalr.data.groups import group_ids, joint_ids, rows_by_id
from dalr.data.manifest import BadRow, Manifest
from dalr.progress import ProgressSink

Numbers = npt.NDArray[np.int64]

EXAMPLES = 5


@dataclass(frozen=True)
class Repeats:
    """Things that are there more than once: how many groups, how many members in all, and the first few.

    Each example lists the places (`file:row`) of one group, at most four of them.
    """

    groups: int = 0
    members: int = 0
    examples: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True)
class Captions:
    """The texts: rows without one, different ones after normalisation, and those that several rows share."""

    empty: int
    different: int
    shared: Repeats
    mean_words: float
    most_words: int


@dataclass(frozen=True)
class Images:
    """The pictures: different paths, those that are missing or unreadable, and rows that name none."""

    different: int
    rows_without: int
    missing: int
    unreadable: int
    copies: Repeats
    alike: Repeats


@dataclass(frozen=True)
class Splits:
    """Rows by split, and what stands in more than one: the same image, one that looks alike, a caption, a group."""

    rows: dict[str, int]
    shared: dict[str, Repeats]


@dataclass(frozen=True)
class Tokens:
    """Lengths of the texts in tokens, special tokens and prompt included. `over`: texts that would be cut."""

    limit: int
    longest: int
    mean: float
    p95: int
    over: int
    examples: list[str]


@dataclass
class CheckReport:
    """What `check_catalogue` found; `as_json` is what `dalr check --json` prints.

    Attributes:
        source: what was read.
        rows: rows of the source, bad ones included (a list of captions in one cell counts one row each).
        usable: rows that have what their columns promise: a readable image, a text, or both.
        bad_rows: the others, with file, row, key and reason.
        columns: role → column, `guessed` roles, and `others`.
        duplicate_rows: rows with the same image and the same caption.
        images: None where there is no image column, or images were not opened.
    """

    source: str
    rows: int
    usable: int
    bad_rows: list[BadRow]
    columns: dict[str, Any]
    notes: list[str]
    captions: Captions | None = None
    images: Images | None = None
    duplicate_rows: Repeats = field(default_factory=Repeats)
    splits: Splits | None = None
    tokens: Tokens | None = None
    estimate: dict[str, Any] | None = None
    seconds: float = 0.0

    def as_json(self, most_bad_rows: int = 1_000) -> dict[str, Any]:
        """The report as plain values, with `bad` the number of bad rows and at most `most_bad_rows` of them."""
        values = asdict(self)
        values["bad"] = len(self.bad_rows)
        values["bad_rows"] = values["bad_rows"][:most_bad_rows]
        return values


def check_catalogue(
    manifest: Manifest,
    *,
    open_images: bool = True,
    token_counts: Callable[[Sequence[str]], list[int]] | None = None,
    token_limit: int = 0,
    progress: ProgressSink | None = None,
) -> CheckReport:
    """Look over a manifest (see `CheckReport`).

    Args:
        manifest: the rows; bad ones that its reader found are part of the report.
        open_images: open every picture; False leaves out all that needs their content.
        token_counts, token_limit: a text encoder's `token_counts` and `max_length`; None leaves out token lengths.
        progress: called with (done, total) pictures.
    """
    survey = survey_photos(manifest, progress=progress) if open_images and manifest.roles.image else None
    reasons = _reasons(manifest, survey)
    bad = [*manifest.bad, *(manifest.bad_row(row, "; ".join(why)) for row, why in reasons.items())]
    places = {name: number for number, name in enumerate(dict.fromkeys(manifest.files))}
    captions = group_ids([None] * len(manifest), manifest.texts)[:, 1]
    contents = manifest.ids()[:, 0] if survey is None else survey.contents()
    alike = np.full(len(manifest), -1, dtype=np.int64)
    images = None
    if survey is not None:
        groups = lookalikes(manifest, survey)
        images = _images(manifest, survey, groups)
        alike = alike_rows(groups, survey)
    return CheckReport(
        source=manifest.source,
        rows=len(manifest) + len(manifest.bad),
        usable=len(manifest) - len(reasons),
        bad_rows=sorted(bad, key=lambda row: (places.get(row.file, len(places)), row.row)),
        columns={
            **manifest.roles.describe(),
            "guessed": sorted(manifest.roles.guessed),
            "others": list(manifest.columns),
        },
        notes=list(manifest.notes),
        captions=_captions(manifest, captions) if manifest.roles.text else None,
        images=images,
        duplicate_rows=_repeats(manifest, joint_ids(contents, captions)),
        splits=_splits(manifest, {"image": contents, "look-alike": alike, "caption": captions}),
        tokens=_tokens(manifest, token_counts, token_limit) if token_counts is not None else None,
    )


def _reasons(manifest: Manifest, survey: PhotoSurvey | None) -> dict[int, list[str]]:
    """Why rows of the manifest cannot be used, by row."""
    reasons: dict[int, list[str]] = {}
    for row, (image, text) in enumerate(zip(manifest.images, manifest.texts, strict=True)):
        found = []
        if manifest.roles.image is not None and image is None:
            found.append("has no image")
        elif survey is not None and image is not None:
            reason = survey.photos[survey.photo_of[row]].reason
            if reason:
                found.append(f"image '{image}' {reason}")
        if manifest.roles.text and not text:
            found.append("has no caption")
        if found:
            reasons[row] = found
    return reasons


def _captions(manifest: Manifest, ids: Numbers) -> Captions:
    words = [len(text.split()) for text in manifest.texts if text]
    return Captions(
        empty=sum(1 for text in manifest.texts if not text),
        different=int(ids.max(initial=-1)) + 1,
        shared=_repeats(manifest, ids),
        mean_words=round(float(np.mean(words)), 2) if words else 0.0,
        most_words=max(words, default=0),
    )


def _images(manifest: Manifest, survey: PhotoSurvey, alike: list[list[int]]) -> Images:
    reasons = [photo.reason for photo in survey.photos]
    missing = sum(1 for reason in reasons if reason.startswith("is missing"))
    # Copies are counted by path: five captions of one path are one picture.
    row_of = {int(photo): row for row, photo in reversed(list(enumerate(survey.photo_of))) if photo >= 0}
    by_key: dict[str, list[int]] = {}
    for number, photo in enumerate(survey.photos):
        if photo.key:
            by_key.setdefault(photo.key, []).append(number)
    return Images(
        different=len(survey.photos),
        rows_without=sum(1 for image in manifest.images if image is None),
        missing=missing,
        unreadable=sum(1 for reason in reasons if reason) - missing,
        copies=_listed([[manifest.where(row_of[n]) for n in group] for group in by_key.values() if len(group) > 1]),
        alike=_listed([[manifest.where(row_of[n]) for n in group] for group in alike]),
    )


def _splits(manifest: Manifest, ids: dict[str, Numbers]) -> Splits | None:
    if manifest.split is None:
        return None
    names = sorted({split for split in manifest.split if split})
    of_row = np.array([names.index(split) if split else -1 for split in manifest.split], dtype=np.int64)
    if manifest.group is not None:
        ids = {**ids, "group": group_ids(manifest.group, [None] * len(manifest))[:, 0]}
    shared = {}
    for kind, labels in ids.items():
        known = np.flatnonzero((labels >= 0) & (of_row >= 0))
        pairs = np.unique(np.stack([labels[known], of_row[known]], axis=1), axis=0)
        crossing = np.flatnonzero(np.bincount(pairs[:, 0]) > 1) if len(pairs) else np.zeros(0, dtype=np.int64)
        found = np.where(np.isin(labels, crossing) & (of_row >= 0), labels, -1)
        shared[kind] = _repeats(manifest, found, of_row)
    return Splits({name: int((of_row == number).sum()) for number, name in enumerate(names)}, shared)


def _tokens(manifest: Manifest, count: Callable[[Sequence[str]], list[int]], limit: int) -> Tokens | None:
    rows = [row for row, text in enumerate(manifest.texts) if text]
    if not rows:
        return None
    lengths = np.array(count([manifest.texts[row] or "" for row in rows]))
    over = np.flatnonzero(lengths > limit)
    return Tokens(
        limit=limit,
        longest=int(lengths.max()),
        mean=round(float(lengths.mean()), 2),
        p95=int(np.quantile(lengths, 0.95, method="higher")),
        over=len(over),
        examples=[manifest.where(rows[at]) for at in over[:EXAMPLES]],
    )


def _repeats(manifest: Manifest, ids: Numbers, spread: Numbers | None = None) -> Repeats:
    """Groups of rows with one id (-1 has none); an example shows rows of different `spread` first."""
    groups = rows_by_id(ids)
    groups.sort(key=lambda group: (-len(group), int(group[0])))
    examples = []
    for group in groups[:EXAMPLES]:
        if spread is not None:
            firsts = np.unique(spread[group], return_index=True)[1]
            group = np.concatenate([group[np.sort(firsts)], np.delete(group, firsts)])
        examples.append([manifest.where(row) for row in group[:4]])
    return Repeats(len(groups), sum(len(group) for group in groups), examples)


def _listed(groups: list[list[str]]) -> Repeats:
    groups = sorted(groups, key=len, reverse=True)
    return Repeats(len(groups), sum(map(len, groups)), [group[:4] for group in groups[:EXAMPLES]])
