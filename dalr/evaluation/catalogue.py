"""Retrieval of a whole model on a manifest: what `dalr eval retrieval` prints."""

import logging
from pathlib import Path
from typing import Any

from dalr.data.manifest import Manifest
from dalr.errors import ModelError
from dalr.evaluation.embeddings import image_features, text_features
from dalr.evaluation.relevance import relevance
from dalr.evaluation.retrieval import retrieval
from dalr.model import DualEncoder
from dalr.progress import ProgressSink

logger = logging.getLogger(__name__)


def evaluate_retrieval(
    model: DualEncoder,
    manifest: Manifest,
    *,
    cache: str | Path | None = None,
    resamples: int = 1000,
    seed: int = 0,
    progress: ProgressSink | None = None,
) -> dict[str, Any]:
    """Text to image and image to text over all rows of a manifest; see `retrieval` for what comes back.

    Rows without an image take part with their text and the reverse; an image that cannot be read counts as none,
    is logged, and is mentioned in the definition.

    Args:
        model: with both towers.
        manifest: the rows, say those of one split.
        cache: folder of the feature cache; None is the user's own.

    Raises:
        ModelError: the model lacks a tower. DataError: nothing can be retrieved.
    """
    if model.text is None or model.image is None:
        raise ModelError("retrieval between texts and images needs a model with both towers; this one has one")
    images = image_features(model, manifest, cache, progress)
    texts = text_features(model, manifest, cache, progress)
    related = relevance(manifest.texts, images.keys, manifest.group)
    for bad in images.bad:
        logger.warning("left out: %s: %s", bad.where, bad.reason)
    return retrieval(
        texts.embeddings(model, related.text_rows),
        images.embeddings(model, related.image_rows),
        related,
        resamples=resamples,
        seed=seed,
        note=f"{len(images.bad)} images could not be read and were left out." if images.bad else "",
    )
