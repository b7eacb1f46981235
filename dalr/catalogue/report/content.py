"""What a report shows, measured and gathered from a run's folder, its model, its catalogue and an audit of it.

Legend: T distinct texts · M distinct images · D shared width
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dalr.catalogue.audit import Audited, read_audit
from dalr.catalogue.check import CheckReport, check_catalogue
from dalr.catalogue.report.figures import (
    OTHER,
    Categories,
    CategoryRecall,
    HeatMap,
    Map,
    category_recall,
    gap,
    heat_map,
    map_of,
)
from dalr.data.manifest import Manifest
from dalr.errors import UsageError
from dalr.evaluation.embeddings import image_features, text_features
from dalr.evaluation.relevance import Relevance, relevance
from dalr.evaluation.retrieval import score_both, summarised, unit_rows
from dalr.model import DualEncoder
from dalr.progress import ProgressSink
from dalr.run_folder import read_run
from dalr.training_log import read_log

HITS = 5
MOST_CATEGORIES = 32  # of a column that is shown by default
LEAST_IN_CATEGORY = 3
MOST_LOOKED_AT = 32  # queries found first, for each that is shown as one of the best

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Hit:
    """One picture found: its row, its own caption, the cosine, and whether it is a right answer."""

    row: int
    caption: str
    score: float
    right: bool


@dataclass(frozen=True)
class Query:
    """One query, the row of its best-placed right picture and where that came, and the first pictures found."""

    text: str
    answer: int
    rank: int
    hits: list[Hit]


@dataclass(frozen=True)
class Examples:
    """Queries drawn at random; those whose right picture came last; and those found first with the highest cosine."""

    random: list[Query]
    worst: list[Query]
    best: list[Query]


@dataclass(frozen=True)
class Report:
    """Everything on the pages; rows are numbers of `manifest`, whose pictures' contents are `image_keys`."""

    title: str
    manifest: Manifest
    image_keys: list[str | None]
    split: str | None
    check: CheckReport
    attributes: dict[str, int]
    run: dict[str, Any]
    history: list[dict[str, Any]]
    retrieval: dict[str, Any]
    examples: Examples
    by: str | None
    recall_by: list[CategoryRecall]
    heat: HeatMap | None
    map: Map | None
    gap: dict[str, float]
    doubles: list[tuple[str, list[int]]]
    audited: Audited | None
    commands: list[tuple[str, str]] = field(default_factory=list)


def gather_report(
    run: str | Path,
    model: DualEncoder,
    manifest: Manifest,
    *,
    title: str,
    split: str | None = None,
    audit: str | Path | None = None,
    by: str | None = None,
    queries: int = 6,
    seed: int = 0,
    cache: str | Path | None = None,
    progress: ProgressSink | None = None,
) -> Report:
    """Measure a finished run on its catalogue and gather what the report shows.

    Args:
        run: the run's folder (its record and log are read).
        model: the run's model.
        manifest: the whole catalogue. Its bad rows are listed.
        split: what is measured and searched; None takes `test` or `val` where there is one, else all rows.
        audit: folder of an audit of the same rows.
        by: the column whose values are the categories; None takes one that sorts the rows into a few.
        queries: random examples, drawn by `seed`; two thirds as many of the best and of the worst.

    Raises:
        UsageError: `run` is not a finished run, `audit` not one of these rows, or there is no column `by`.
        DataError: the catalogue has nothing to compare.
    """
    record = read_run(Path(run))
    if record is None or record["status"] != "finished":
        raise UsageError(f"{run}: is not a finished run; train it to the end with dalr train … --out {run}")
    audited = None if audit is None else read_audit(audit, manifest)
    attributes = attribute_counts(manifest)
    by = _column(manifest, attributes, by)
    texts = text_features(model, manifest, cache, progress)
    images = image_features(model, manifest, cache, progress)
    split, measured = _measured(manifest, split)
    part = manifest.select(measured)
    related = relevance(part.texts, [images.keys[row] for row in measured], part.group)
    text_rows, image_rows = measured[related.text_rows], measured[related.image_rows]
    t_TD = unit_rows(texts.embeddings(model, text_rows), "text")
    v_MD = unit_rows(images.embeddings(model, image_rows), "image")
    both = score_both(t_TD, v_MD, related)
    scores = both["text_to_image"]
    asked = _answered(related)
    categories = None if by is None else _categories(manifest, by, text_rows, image_rows)
    links = _links(related)
    check = check_catalogue(manifest)
    captions = [manifest.texts[row] or "" for row in text_rows], [manifest.texts[row] or "" for row in image_rows]
    return Report(
        title=title,
        manifest=manifest,
        image_keys=images.keys,
        split=split,
        check=check,
        attributes=attributes,
        run={"config": record["config"], **record["result"]},
        history=read_log(Path(run) / "log.jsonl"),
        retrieval=summarised(both),
        examples=_examples(manifest, related, (text_rows, image_rows), t_TD, v_MD, scores.rank, asked, queries, seed),
        by=by,
        recall_by=[] if categories is None else category_recall(categories, scores, asked),
        heat=None if categories is None else heat_map(categories, t_TD.numpy(), v_MD.numpy()),
        map=map_of(categories, t_TD.numpy(), v_MD.numpy(), captions, seed),
        gap=gap(t_TD.numpy(), v_MD.numpy(), (t_TD[links[0]] * v_MD[links[1]]).sum(1).numpy()),
        doubles=_doubles(manifest, check),
        audited=audited,
    )


def attribute_counts(manifest: Manifest) -> dict[str, int]:
    """How many different values each further column has, for columns that sort the rows into kinds."""
    counts = {name: len({value for value in values if value is not None}) for name, values in manifest.columns.items()}
    return {name: count for name, count in counts.items() if 1 < count <= len(manifest) ** 0.5}


def _column(manifest: Manifest, attributes: dict[str, int], by: str | None) -> str | None:
    """The column of the categories: the one asked for, else of those with few values the one with the most."""
    if by is not None and by not in manifest.columns:
        known = ", ".join(manifest.columns) or "none"
        raise UsageError(f"--by {by}: {manifest.source} has no such column; its further columns are {known}")
    few = {name: count for name, count in attributes.items() if count <= MOST_CATEGORIES}
    return by or max(few, key=lambda name: few[name], default=None)


def _categories(manifest: Manifest, column: str, text_rows: Ints, image_rows: Ints) -> Categories:
    """The category of each text and image; those of few pictures are one, as are rows without."""
    cells = [str(value).strip() if value is not None else "" for value in manifest.columns[column]]
    counts = Counter(cells[row] for row in image_rows.tolist())
    large = {name for name, count in counts.most_common(MOST_CATEGORIES) if name and count >= LEAST_IN_CATEGORY}
    named = [cell if cell in large else OTHER for cell in cells]
    return Categories([named[row] for row in text_rows], [named[row] for row in image_rows])


def _answered(related: Relevance) -> Ints:
    """Numbers of the texts that have a right picture, the queries that are scored."""
    pictured = np.asarray(related.image_facts.sum(axis=0)).ravel() > 0
    return np.flatnonzero(related.text_facts @ pictured.astype(np.int32)).astype(np.int64)


def _links(related: Relevance) -> tuple[Ints, Ints]:
    """Texts and images that are right answers for each other, as two columns of numbers."""
    found = (related.text_facts @ related.image_facts.T).tocoo()
    return found.coords[0].astype(np.int64), found.coords[1].astype(np.int64)


def _measured(manifest: Manifest, split: str | None) -> tuple[str | None, Ints]:
    if split is None and manifest.split is not None:
        split = next((name for name in ("test", "val") if name in manifest.split), None)
    if split is None:
        return None, np.arange(len(manifest), dtype=np.int64)
    wanted = set(manifest.part(split).keys)
    return split, np.array([row for row, key in enumerate(manifest.keys) if key in wanted], dtype=np.int64)


def _examples(
    manifest: Manifest,
    related: Relevance,
    rows: tuple[Ints, Ints],
    t_TD: Any,
    v_MD: Any,
    rank: Any,
    asked: Ints,
    count: int,
    seed: int,
) -> Examples:
    """Queries to look at; those at random are drawn, so that nobody picks the pretty ones."""

    def query(place: int) -> Query:
        text = int(asked[place])
        cosine = (v_MD @ t_TD[text]).numpy()
        right = (related.image_facts @ related.text_facts[[text]].T).toarray().ravel() > 0
        order = np.argsort(-cosine, kind="stable")
        hits = [
            Hit(int(row), manifest.texts[int(row)] or "", float(cosine[at]), bool(right[at]))
            for at, row in ((at, rows[1][at]) for at in order[:HITS].tolist())
        ]
        answer = int(rows[1][order[np.flatnonzero(right[order])[0]]])
        return Query(manifest.texts[int(rows[0][text])] or "", answer, int(rank[place]), hits)

    few = max(1, 2 * count // 3)
    drawn = np.random.default_rng(seed).permutation(len(asked))[:count]
    last = [place for place in np.argsort(-rank, kind="stable").tolist() if rank[place] > 1][:few]
    found = np.flatnonzero(rank == 1)[: MOST_LOOKED_AT * few]
    first = sorted((query(place) for place in found.tolist()), key=lambda one: -one.hits[0].score)
    return Examples([query(place) for place in drawn.tolist()], [query(place) for place in last], first[:few])


def _doubles(manifest: Manifest, check: CheckReport) -> list[tuple[str, list[int]]]:
    """(what is the same, its rows) of the pictures that the check gives as examples."""
    if check.images is None:
        return []
    at = {manifest.where(row): row for row in range(len(manifest))}
    return [
        (what, [at[place] for place in places if place in at])
        for what, repeats in (("the same file twice", check.images.copies), ("they look alike", check.images.alike))
        for places in repeats.examples
    ]


def curve(history: Sequence[Mapping[str, Any]], event: str, name: str) -> list[tuple[float, float]]:
    """(epoch, value) of a figure over the events of a run's log; an event without an epoch gets its step's."""
    per_step = next((e["epoch"] / e["step"] for e in reversed(history) if e.get("epoch") and e["step"]), 1.0)
    found = [e for e in history if e.get("event") == event and e.get(name) is not None]
    return [(float(e.get("epoch", e["step"] * per_step)), float(e[name])) for e in found]
