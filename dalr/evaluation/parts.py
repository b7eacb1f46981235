"""Retrieval on a part of a data set, during training and after it: what is cached is projected, not run again."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dalr.data.manifest import Manifest
from dalr.evaluation.relevance import Relevance, relevance
from dalr.evaluation.retrieval import retrieval_metrics
from dalr.model import DualEncoder
from dalr.objectives import Features, Rows
from dalr.training_data import photo_keys


@dataclass(frozen=True)
class Part:
    """A manifest whose rows can be used, and its columns as the model takes them."""

    manifest: Manifest
    rows: Rows


def retrieval_evaluator(part: Part) -> Callable[[DualEncoder], dict[str, float]]:
    """A function that measures retrieval on a part; cached features are projected, nothing frozen runs again."""
    found = part_relevance(part)

    def evaluate(model: DualEncoder) -> dict[str, float]:
        return retrieval_metrics(*embed_part(model, part, found), found)

    return evaluate


def part_relevance(part: Part) -> Relevance:
    """Which distinct texts and images of a part belong together."""
    manifest = part.manifest
    return relevance(manifest.texts, photo_keys(manifest), manifest.group)


def embed_part(model: DualEncoder, part: Part, found: Relevance) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of the distinct texts and images of a part in the shared space."""
    manifest, rows = part.manifest, part.rows
    if isinstance(rows.text, Features):
        text = model.project_features("text", rows.text.array, found.text_rows)
    else:
        text = model.encode_text([manifest.texts[row] or "" for row in found.text_rows], space="shared")
    if isinstance(rows.image, Features):
        image = model.project_features("image", rows.image.array, found.image_rows)
    else:
        assert model.image is not None
        pictures = model.image.encode(found.image_rows.tolist(), open_image=manifest.open_image)
        image = model.project_features("image", pictures)
    return text, image
