"""The texts and images of a manifest through a model, by way of the feature cache: towers run once, heads always.

What is cached are the towers' features, so that a model whose heads were trained anew opens no image again.

Legend: N rows · D shared width · H text width
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dalr.data.manifest import BadRow, Manifest
from dalr.errors import DataError, ModelError
from dalr.features import StoredRows, embed_images, embed_texts, text_keys
from dalr.model import DualEncoder, Side
from dalr.progress import ProgressSink
from dalr.training_data import photo_keys


@dataclass(frozen=True)
class SideFeatures:
    """One side of a manifest.

    Attributes:
        side: text or image.
        keys: the content key of each row's item; None for a row without one that can be used.
        stored: the tower's features, by row; only rows with a key may be asked for.
        bad: rows whose item cannot be used, with the reason.
    """

    side: Side
    keys: list[str | None]
    stored: StoredRows
    bad: list[BadRow]

    def embeddings(self, model: DualEncoder, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Unit embeddings of these rows: in the shared space, or in the space of the model's only tower."""
        return model.project_features(self.side, self.stored, rows)


def text_features(
    model: DualEncoder, manifest: Manifest, cache: str | Path | None = None, progress: ProgressSink | None = None
) -> SideFeatures:
    """The text side. Raises ModelError when the model has no text tower, DataError when no row has a text."""
    if model.text is None:
        raise ModelError("the model has no text tower; it encodes images only")
    rows = [row for row, text in enumerate(manifest.texts) if text]
    if not rows:
        raise DataError(f"{manifest.source}: no row has a text; name the text column")
    texts = [manifest.texts[row] or "" for row in rows]
    stored = embed_texts(texts, model.text, cache, progress)
    keys: list[str | None] = [None] * len(manifest)
    places = np.full(len(manifest), -1, np.int64)
    places[rows] = stored.places
    for row, key in zip(rows, text_keys(texts), strict=True):
        keys[row] = key
    return SideFeatures("text", keys, StoredRows(stored.store, places), [])


def image_features(
    model: DualEncoder, manifest: Manifest, cache: str | Path | None = None, progress: ProgressSink | None = None
) -> SideFeatures:
    """The image side; images that cannot be read are left out and returned as bad rows.

    Raises ModelError when the model has no image tower, DataError when no image can be read.
    """
    if model.image is None:
        raise ModelError("the model has no image tower; it encodes texts only")
    rows = [row for row, image in enumerate(manifest.images) if image]
    if not rows:
        raise DataError(f"{manifest.source}: no row has an image; name the image column")
    keys = photo_keys(manifest)
    found = [keys[row] for row in rows]
    stored, items = embed_images(rows, model.image, manifest.open_image, cache, progress, found)
    lost = {rows[item.position]: item.reason for item in items}
    if len(lost) == len(rows):
        raise DataError(f"{manifest.source}: not one of {len(rows)} images can be read; the first: {lost[rows[0]]}")
    places = np.full(len(manifest), -1, np.int64)
    places[rows] = stored.places
    keys = [None if row in lost else key for row, key in enumerate(keys)]
    bad = [manifest.bad_row(row, reason) for row, reason in lost.items()]
    return SideFeatures("image", keys, StoredRows(stored.store, places), bad)
