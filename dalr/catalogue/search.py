"""Search a catalogue's store by text, by image, or by both: exactly, every row looked at in blocks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dalr.catalogue.embed import read_catalogue
from dalr.data.images import is_url
from dalr.errors import DataError, StoreError, UsageError
from dalr.features import FeatureStore
from dalr.model import DualEncoder, Side

BLOCK = 65_536
Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Hit:
    """One result: the best rank is 1. Rows with the same image (or, ranking texts, the same text) are one result.

    `rows` says how many share it, where that is known; a search table alone has `attributes` and thumbnails.
    """

    rank: int
    score: float
    key: str
    caption: str | None
    image: str | None
    rows: int | None = None
    thumbnail: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


class Catalogue:
    """An embedded catalogue, opened with the model that made it.

        catalogue = Catalogue(folder, DualEncoder.from_pretrained(Catalogue.model_source(folder)))
        catalogue.search(text="a red dress", k=5)

    Raises StoreError when the model is not the one whose embeddings the store holds.
    """

    def __init__(self, folder: str | Path, model: DualEncoder) -> None:
        self.folder = Path(folder)
        self.model = model
        self.head, self.rows, stores = read_catalogue(folder)
        check_model(model, self.head["fingerprints"], str(folder), self.head["model"], "dalr embed")
        self._sides = {side: distinct_items(side, self.rows, store) for side, store in stores.items()}

    @staticmethod
    def model_source(folder: str | Path) -> str:
        """Where the model of the store at `folder` was loaded from."""
        return str(read_catalogue(folder)[0]["model"])

    def search(
        self,
        *,
        text: str | None = None,
        image: Any = None,
        image_weight: float = 0.5,
        against: str | None = None,
        k: int = 10,
    ) -> list[Hit]:
        """The `k` best results for a text, an image (path, PIL picture or array), or both.

        Args:
            image_weight: share of the image in a query of both, 0 to 1; each is a unit vector before.
            against: what is ranked: `image` (the default, where images are in the store: each product once) or
                `text` (each distinct caption once).
        """
        side = self.side(against)
        query = query_vector(self.model, text, image, image_weight)
        check_count(k)
        rows, counts, stored, places = self._sides[side]
        if stored.spec.width != len(query):
            raise UsageError(f"{self.folder}: a query {len(query)} wide cannot be compared with its {side} side")
        scores = np.concatenate(
            [stored.take(places[start : start + BLOCK]) @ query for start in range(0, len(places), BLOCK)]
        )
        best = np.argsort(-scores, kind="stable")[:k]
        return [self._hit(rank, float(scores[at]), rows[at], counts[at]) for rank, at in enumerate(best, start=1)]

    def side(self, against: str | None = None) -> Side:
        """Which side is ranked; UsageError when the store does not hold the one asked for."""
        for side in ("image", "text") if against is None else (against,):
            if side in self._sides:
                return "image" if side == "image" else "text"
        raise UsageError(f"{self.folder}: holds no {against} side; run dalr embed with --side {against}")

    def count(self, side: Side) -> int:
        """Distinct images or captions."""
        return len(self._sides[side][0])

    def _hit(self, rank: int, score: float, row: int, count: int) -> Hit:
        found = self.rows[row]
        return Hit(rank, score, found["key"], found["text"], self.image_path(row), count)

    def image_path(self, row: int) -> str | None:
        """Where a row's image lies: a path, a URL, or its name inside a shard."""
        return shown_image(self.head["data"]["root"], self.rows[row]["image"])


def query_vector(model: DualEncoder, text: str | None, image: Any = None, image_weight: float = 0.5) -> Vector:
    """The unit vector, (D,), that stands for a text, an image, or both, each a unit vector before they are added."""
    parts: list[tuple[float, Vector]] = []
    if not 0 <= image_weight <= 1:
        raise UsageError(f"the weight of the image is {image_weight}; expected 0 to 1")
    if text is not None:
        if not text.strip():
            raise UsageError("the query is empty; give a text, an image file, or both")
        parts.append((1 - image_weight, model.encode_text([text])[0]))
    if image is not None:
        parts.append((image_weight, model.encode_image([image])[0]))
    if not parts:
        raise UsageError("there is no query; give a text, an image file, or both")
    query = parts[0][1] if len(parts) == 1 else sum(weight * vector for weight, vector in parts)
    length = np.linalg.norm(query)
    unit: Vector = np.asarray(query / length if length > 0 else query, dtype=np.float32)
    return unit


def check_count(k: int) -> None:
    """UsageError unless there is at least one result to look for."""
    if k < 1:
        raise UsageError(f"k is {k}; expected at least 1")


def check_model(model: DualEncoder, fingerprints: dict[str, str], where: str, source: str, again: str) -> None:
    """StoreError unless this model made the embeddings with these fingerprints by side."""
    for side, recorded in fingerprints.items():
        if getattr(model, side) is None or model.fingerprint("text" if side == "text" else "image") != recorded:
            raise StoreError(
                f"{where}: its {side} embeddings were made by another model than the one at {source} is now; "
                f"run {again} again, or name the right one with --model"
            )


def shown_image(root: str | Path, written: str | None) -> str | None:
    """Where the picture that a manifest names can be looked at: a path, a URL, or its name inside a shard."""
    if not written or is_url(written):
        return written or None
    path = Path(root).resolve() / written
    return str(path) if path.exists() else written


def image_or_text(argument: str) -> tuple[str | None, str | None]:
    """(text, image path) of a query argument: an existing image file is an image, anything else a text.

    Raises DataError for a file that is named like an image and is not there, or cannot be read as one.
    """
    from dalr.data.images import EXTENSIONS, open_image

    path = Path(argument)
    try:
        if not path.is_file():
            if path.suffix.lower() in EXTENSIONS and (" " not in argument or len(path.parts) > 1):
                raise DataError(f"{path}: there is no such image file; name one that is there, or words to search by")
            return argument, None
    except (OSError, ValueError):
        return argument, None
    try:
        open_image(path)
    except DataError as error:
        if path.suffix.lower() in EXTENSIONS:
            raise DataError(f"{path}: {error}") from None
        return argument, None
    return None, argument


def distinct_items(
    side: str, rows: Sequence[dict[str, Any]], store: FeatureStore
) -> tuple[list[int], list[int], FeatureStore, npt.NDArray[np.int64]]:
    """(first row of each distinct item, rows that share it, its store, its places)."""
    first: dict[str, int] = {}
    counts: dict[str, int] = {}
    for number, row in enumerate(rows):
        key = row[f"{side}_key"]
        if key is not None:
            first.setdefault(key, number)
            counts[key] = counts.get(key, 0) + 1
    return list(first.values()), list(counts.values()), store, store.locate(list(first))
