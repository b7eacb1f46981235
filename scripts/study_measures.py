"""What a study measures of each cell: the figures that its tables show, and the scores that differences are tested on.

Scores are one array a task, an entry a query; of sentence pairs their cosines, with people's scores as TASK.gold; of
captions also which photo each is of, as TASK.group.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from dalr import DualEncoder
from dalr.config import Config
from dalr.data.manifest import DataConfig, Manifest
from dalr.data.scored_pairs import joined
from dalr.errors import DataError
from dalr.evaluation import transfer as transfer_tasks
from dalr.evaluation.geometry import sentence_geometry
from dalr.evaluation.parts import Part, embed_part, part_relevance
from dalr.evaluation.relevance import Relevance
from dalr.evaluation.retrieval import QueryScores, score_both, summarised, unit_rows
from dalr.evaluation.sentences import Embedded, cosines, embed_sentences
from dalr.evaluation.sts import read_sets, read_task, score_sets, sentences_of
from dalr.run import RunConfig
from dalr.run.assembly import load_parts
from dalr.teachers import AttributeRows
from dalr.training_data import pair_rows

ALIKE = 4.0  # the score in 0 … 5 from which a pair of the STS benchmark counts as alike (Gao et al. 2021: above it)
DEPTH = 10
Found = tuple[dict[str, Any], dict[str, Any]]


class Retrieval(Config):
    """The manifest and its part in which photos and captions are looked for; without one the run's own dev or val.

    `attributes` are columns by which `graded` counts a candidate that agrees in some of them as partly right.
    """

    manifest: str | None = None
    root: str | None = None
    split: str | None = None
    attributes: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check(self) -> "Retrieval":
        if self.manifest is None and (self.root is not None or self.split is not None):
            raise ValueError("retrieval.manifest: name the manifest that root and split are of")
        return self


@dataclass
class Measured:
    """A finished cell, loaded when something is first asked of it.

    Attributes:
        folder: its run folder.
        config: what it was trained by.
        data: holds sts/ and transfer/.
        where: what retrieval is measured on.
        precision: in which the sentences of STS and transfer are embedded.
    """

    folder: Path
    config: RunConfig
    data: Path
    where: Retrieval
    precision: Literal["fp32", "bf16"] = "fp32"

    @cached_property
    def model(self) -> DualEncoder:
        return DualEncoder.from_pretrained(self.folder)

    @cached_property
    def part(self) -> tuple[Part, Relevance, Any, Any]:
        """The rows to look in, who belongs to whom, and the unit embeddings of texts and images."""
        where = self.where
        if where.manifest is not None:
            manifest: Manifest | None = Manifest.load(where.manifest, DataConfig(root=where.root))
            manifest = manifest.part(where.split) if manifest is not None and where.split else manifest
        else:
            manifest = load_parts(self.config.data, self.config.train.seed)[1]
        if manifest is None:
            raise DataError("retrieval: the run has no dev and no val part; name a manifest in the study's retrieval")
        part = Part(*pair_rows(manifest, self.model))
        related = part_relevance(part)
        text, image = embed_part(self.model, part, related)
        return part, related, unit_rows(text, "text"), unit_rows(image, "image")

    @cached_property
    def ranked(self) -> dict[str, QueryScores]:
        """Every query of both directions with its rank."""
        _, related, text, image = self.part
        return score_both(text, image, related)


def _embedded(cell: Measured, sentences: Iterable[str]) -> Embedded:
    # The network alone: a cosine in bf16 would be a tie with many others.
    with torch.autocast("cpu", torch.bfloat16, enabled=cell.precision == "bf16"):
        return embed_sentences(cell.model, sentences)


def sts(cell: Measured) -> Found:
    """The seven STS tasks."""
    sets, dropped = read_sets(cell.data / "sts")
    embedded = _embedded(cell, sentences_of(sets))
    scores = {}
    for task, subsets in sets.items():
        pairs = joined(subsets.values())
        # As the figures are: rounding in float32 makes no order.
        scores[task] = cosines(embedded(pairs.first), embedded(pairs.second)).round(7)
        scores[f"{task}.gold"] = np.array(pairs.score)
    return score_sets(sets, embedded, dropped), scores


def transfer(cell: Measured) -> Found:
    """The eight transfer tasks, and which of their sentences each classifier tells right."""
    sets = transfer_tasks.read_sets(cell.data / "transfer")
    embedded = _embedded(cell, transfer_tasks.sentences_of(sets))
    answers = transfer_tasks.answers(sets, embedded)
    usual = {task: answers[task].right for task in transfer_tasks.USUAL_SEVEN}
    return transfer_tasks.score_sets(sets, answers), usual


def geometry(cell: Measured) -> Found:
    """Alignment and uniformity on the dev part of the STS benchmark."""
    return sentence_geometry(cell.model, read_task(cell.data / "sts", "STSB-dev")[0][""], ALIKE), {}


def retrieval(cell: Measured) -> Found:
    """Texts by photos and photos by texts: the full evaluation, and every query's reciprocal rank."""
    scores = {direction: 1 / scores.rank for direction, scores in cell.ranked.items()}
    return summarised(cell.ranked), {**scores, **_photos(cell)}


def graded(cell: Measured) -> Found:
    """NDCG@10 whose gains are the share of attributes in which query and candidate agree."""
    from sklearn.metrics import ndcg_score

    part, related, text, image = cell.part
    attributes = AttributeRows.of(part.manifest, cell.where.attributes)
    gains = attributes[related.text_rows] @ attributes[related.image_rows].T
    cosine = (text @ image.T).numpy()
    scores = {
        direction: np.array([ndcg_score(gain[None], row[None], k=DEPTH) for gain, row in zip(of, by, strict=True)])
        for direction, of, by in (("text_to_image", gains, cosine), ("image_to_text", gains.T, cosine.T))
    }
    figures = {name: {"ndcg@10": round(100 * float(values.mean()), 4)} for name, values in scores.items()}
    return figures, {**scores, **_photos(cell)}


def _photos(cell: Measured) -> dict[str, Any]:
    """The first photo of every text, and of every photo its first text: captions of one photo, and photos with one
    caption, are no independent queries."""
    _, related, _, _ = cell.part
    matches = related.text_facts @ related.image_facts.T
    photos, texts = (np.asarray(matches.argmax(axis=axis)).ravel() for axis in (1, 0))
    return {"text_to_image.group": photos, "image_to_text.group": texts}


MEASURES: dict[str, Callable[[Measured], Found]] = {
    "sts": sts,
    "transfer": transfer,
    "geometry": geometry,
    "retrieval": retrieval,
    "graded": graded,
}
# Only a method that looks at images has a shared space to look in.
OF_IMAGES = ("retrieval", "graded")
