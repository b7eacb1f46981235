"""What a run did, gathered from its folder, its model and its catalogue, for a person to look at.

`summarise` measures and collects; `dalr.catalogue.page` writes the page.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dalr.catalogue.check import CheckReport, check_catalogue
from dalr.catalogue.suspects import caption_fits
from dalr.data.manifest import Manifest
from dalr.errors import DataError, UsageError
from dalr.evaluation.embeddings import ProgressSink, SideFeatures, image_features, text_features
from dalr.evaluation.relevance import relevance
from dalr.evaluation.retrieval import retrieval
from dalr.model import DualEncoder
from dalr.run_folder import read_run
from dalr.training_log import read_log

HITS = 5


@dataclass(frozen=True)
class Hit:
    """One picture found: its place on disk, its own caption, the cosine, and whether it is a right answer."""

    image: Path
    caption: str
    score: float
    right: bool


@dataclass(frozen=True)
class Query:
    """One example query, its best-placed right picture and where that came, and the first pictures found."""

    text: str
    answer: Path
    rank: int
    hits: list[Hit]


@dataclass(frozen=True)
class Suspect:
    """A row whose caption fits badly: `known` says what the truth file says, or None where there is none."""

    where: str
    image: Path
    caption: str
    rank: int
    known: bool | None
    right_caption: str | None


@dataclass(frozen=True)
class Suspects:
    """The worst rows, best shown first; with a truth file, how many of its rows are among the `looked_at` worst."""

    rows: int
    pictures: int
    shown: list[Suspect]
    looked_at: int
    planted: int | None = None
    found: int | None = None


@dataclass(frozen=True)
class Summary:
    """Everything on the page."""

    title: str
    split: str | None
    check: CheckReport
    attributes: dict[str, int]
    run: dict[str, Any]
    history: list[dict[str, Any]]
    retrieval: dict[str, Any]
    gallery: list[Query]
    suspects: Suspects
    commands: list[tuple[str, str]] = field(default_factory=list)


def summarise(
    run: str | Path,
    model: DualEncoder,
    manifest: Manifest,
    *,
    title: str,
    split: str | None = None,
    truth: str | Path | None = None,
    queries: int = 8,
    suspects: int = 12,
    seed: int = 0,
    cache: str | Path | None = None,
    progress: ProgressSink | None = None,
) -> Summary:
    """Measure a finished run on its catalogue and gather what the page shows.

    Args:
        run: the run's folder (its record and log are read).
        model: the run's model.
        manifest: the whole catalogue. Its bad rows are listed.
        split: what is measured and shown in the gallery; None takes `test` or `val` where there is one, else all.
        truth: a CSV with the column `id` of rows whose captions are known to be wrong (and, if it has it,
            `right_text`), to see how many of them come out.
        queries: example queries, drawn at random by `seed`.
        suspects: rows shown as suspicious, of those the model was trained on (all where no split is called train).

    Raises:
        UsageError: `run` is not a finished run. DataError: the catalogue has nothing to compare, or a truth file
            that does not fit it.
    """
    record = read_run(Path(run))
    if record is None or record["status"] != "finished":
        raise UsageError(f"{run}: is not a finished run; train it to the end with dalr train … --out {run}")
    texts = text_features(model, manifest, cache, progress)
    images = image_features(model, manifest, cache, progress)
    split, measured = _measured(manifest, split)
    part = manifest.select(measured)
    related = relevance(part.texts, [images.keys[row] for row in measured], part.group)
    t_TD = texts.embeddings(model, measured[related.text_rows])
    v_MD = images.embeddings(model, measured[related.image_rows])
    return Summary(
        title=title,
        split=split,
        check=check_catalogue(manifest),
        attributes=attribute_counts(manifest),
        run={"config": record["config"], **record["result"]},
        history=read_log(Path(run) / "log.jsonl"),
        retrieval=retrieval(t_TD, v_MD, related),
        gallery=_gallery(part, related, t_TD @ v_MD.T, queries, seed),
        suspects=find_suspects(model, manifest, texts, images, truth, suspects),
    )


def attribute_counts(manifest: Manifest) -> dict[str, int]:
    """How many different values each further column has, for columns that sort the rows into kinds."""
    counts = {name: len({value for value in values if value is not None}) for name, values in manifest.columns.items()}
    return {name: count for name, count in counts.items() if 1 < count <= len(manifest) ** 0.5}


def find_suspects(
    model: DualEncoder,
    manifest: Manifest,
    texts: SideFeatures,
    images: SideFeatures,
    truth: str | Path | None,
    count: int,
) -> Suspects:
    """The rows of train (of all rows without such a split) whose captions fit worst; see `caption_fits`.

    With a truth file the list that is compared with it is as long as the truth.
    """
    rows = _rows_of(manifest, "train") if manifest.split is not None and "train" in manifest.split else None
    chosen = np.arange(len(manifest)) if rows is None else rows
    part = manifest.select(chosen)
    fits = caption_fits(model, part, _selected(texts, chosen), _selected(images, chosen))
    wrong = None if truth is None else read_truth(truth, manifest)
    looked_at = count if wrong is None else len(wrong)
    worst = fits.rows[fits.worst(max(looked_at, count))]
    ranks = dict(zip(fits.rows.tolist(), fits.rank.tolist(), strict=True))
    shown = [
        Suspect(
            where=part.where(row),
            image=part.image_path(row),
            caption=part.texts[row] or "",
            rank=ranks[row],
            known=None if wrong is None else part.keys[row] in wrong,
            right_caption=None if wrong is None else wrong.get(part.keys[row]),
        )
        for row in worst[:count].tolist()
    ]
    if wrong is None:
        return Suspects(len(fits.rows), fits.pictures, shown, looked_at)
    found = sum(part.keys[row] in wrong for row in worst[:looked_at].tolist())
    return Suspects(len(fits.rows), fits.pictures, shown, looked_at, len(wrong), found)


def read_truth(path: str | Path, manifest: Manifest) -> dict[str, str | None]:
    """Right captions by row key, from a CSV with the columns `id` and, where known, `right_text`.

    Raises DataError for a file without `id`, or with an id that the manifest has not.
    """
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a truth file ({error}); expected a CSV with a column id") from None
    if not rows or "id" not in rows[0]:
        raise DataError(f"{path}: has no column 'id', or no rows; expected the ids of rows with a wrong caption")
    known = set(manifest.keys)
    for number, row in enumerate(rows, start=2):
        if row["id"] not in known:
            raise DataError(f"{path}:{number}: no row of {manifest.source} has the id {row['id']!r}")
    return {row["id"]: row.get("right_text") for row in rows}


def _measured(manifest: Manifest, split: str | None) -> tuple[str | None, Any]:
    if split is None and manifest.split is not None:
        split = next((name for name in ("test", "val") if name in manifest.split), None)
    return split, np.arange(len(manifest)) if split is None else _rows_of(manifest, split)


def _rows_of(manifest: Manifest, split: str) -> Any:
    wanted = set(manifest.part(split).keys)
    return np.array([row for row, key in enumerate(manifest.keys) if key in wanted], dtype=np.int64)


def _selected(features: SideFeatures, rows: Any) -> SideFeatures:
    return SideFeatures(features.side, [features.keys[row] for row in rows], features.stored.select(rows), features.bad)


def _gallery(part: Manifest, related: Any, scores_TM: Any, count: int, seed: int) -> list[Query]:
    """Queries drawn at random, so that nobody picks the pretty ones."""
    right_TM = (related.text_facts @ related.image_facts.T).toarray() > 0
    asked = np.flatnonzero(right_TM.any(axis=1))
    drawn = np.random.default_rng(seed).permutation(asked)[:count]
    found = []
    for text in drawn.tolist():
        order = np.argsort(-scores_TM[text], kind="stable")
        hits = [
            Hit(
                image=part.image_path(int(related.image_rows[at])),
                caption=part.texts[int(related.image_rows[at])] or "",
                score=float(scores_TM[text, at]),
                right=bool(right_TM[text, at]),
            )
            for at in order[:HITS].tolist()
        ]
        place = int(np.flatnonzero(right_TM[text, order])[0])
        answer = part.image_path(int(related.image_rows[order[place]]))
        found.append(Query(part.texts[int(related.text_rows[text])] or "", answer, place + 1, hits))
    return found


def curve(history: Sequence[Mapping[str, Any]], event: str, name: str) -> list[tuple[float, float]]:
    """(epoch, value) of a figure over the events of a run's log; an event without an epoch gets its step's."""
    per_step = next((e["epoch"] / e["step"] for e in reversed(history) if e.get("epoch") and e["step"]), 1.0)
    found = [e for e in history if e.get("event") == event and e.get(name) is not None]
    return [(float(e.get("epoch", e["step"] * per_step)), float(e[name])) for e in found]
