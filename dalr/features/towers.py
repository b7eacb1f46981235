"""Texts and images through an encoder into the cache, each distinct one once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from dalr.errors import DataError
from dalr.features.keys import image_keys, text_keys
from dalr.features.store import BadItem, FeatureSpec, FeatureStore, Floats, Places
from dalr.progress import ProgressSink

# Texts of one chunk: enough to sort by length and pack well, little to lose when killed.
TEXT_CHUNK = 2048


class Encoder(Protocol):
    """What is asked of a text or image tower here."""

    @property
    def width(self) -> int: ...

    def fingerprint(self) -> str: ...

    def encode(self, items: Any) -> npt.NDArray[Any]: ...


class PromptedEncoder(Encoder, Protocol):
    """A text tower that takes a prompt."""

    def prompt_text(self, prompt: str | None = ...) -> str: ...

    def encode(self, items: Any, prompt: str | None = ...) -> npt.NDArray[Any]: ...


class ImageTower(Protocol):
    """An image tower that takes the function which opens its items."""

    @property
    def width(self) -> int: ...

    def fingerprint(self) -> str: ...

    def encode(self, items: Any, *, open_image: Any = ...) -> npt.NDArray[Any]: ...


@dataclass(frozen=True)
class StoredRows:
    """Rows of a feature store by number, read from its memory map when they are asked for."""

    store: FeatureStore
    places: Places

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, width)"""
        return len(self.places), self.store.spec.width

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows: npt.NDArray[Any] | slice) -> Floats:
        return self.store.take(self.places[rows])

    def select(self, rows: npt.NDArray[Any]) -> "StoredRows":
        """Some of the rows, still on disk."""
        return StoredRows(self.store, self.places[rows])


def embed_texts(
    texts: Sequence[str],
    encoder: Encoder,
    cache: str | Path | None = None,
    progress: ProgressSink | None = None,
    prompt: str | None = None,
) -> StoredRows:
    """The encoder's features of N texts, from the cache; only texts that it does not hold are run.

    `prompt` is a name or a text, as the encoder's `encode` takes it: each prompt has rows of its own. None is the
    encoder's default. Raises DataError for a text whose features are not finite.
    """
    details: dict[str, Any] = {}
    encode = encoder.encode
    if prompt is not None:
        prompted = cast(PromptedEncoder, encoder)
        text = prompted.prompt_text(prompt)
        if text != prompted.prompt_text():
            details = {"prompt": text}
            encode = partial(prompted.encode, prompt=prompt)
    spec = FeatureSpec(fingerprint=encoder.fingerprint(), side="text", width=encoder.width, details=details)
    store = FeatureStore.in_cache(spec, cache)
    keys = text_keys(texts)
    bad = store.embed(keys, texts, encode, chunk=TEXT_CHUNK, progress=progress)
    if bad:
        raise DataError(f"text {texts[bad[0].position][:60]!r}: {bad[0].reason}; clean it or drop the row")
    return StoredRows(store, store.locate(keys))


def embed_images(
    images: Sequence[Any],
    encoder: ImageTower,
    open_image: Callable[[Any], Any],
    cache: str | Path | None = None,
    progress: ProgressSink | None = None,
    keys: Sequence[str | None] | None = None,
) -> tuple[StoredRows, list[BadItem]]:
    """The encoder's features of N images, from the cache, and those that have none, with the reason.

    Args:
        images: paths, or objects with `read_bytes` (an image inside a shard); with `keys`, anything.
        open_image: makes an RGB picture of an item; DataError, OSError and ValueError mark it bad.
        keys: content keys, if known already.

    Returns:
        Rows by position (asking for a bad one is an error), and the bad items.
    """
    spec = FeatureSpec(fingerprint=encoder.fingerprint(), side="image", width=encoder.width)
    store = FeatureStore.in_cache(spec, cache)
    keys = image_keys(images) if keys is None else keys

    def encode(items: Sequence[Any]) -> npt.NDArray[Any]:
        return encoder.encode(items, open_image=open_image)

    bad = store.embed(keys, images, encode, progress=progress)
    lost = {item.position for item in bad}
    good = [(at, key) for at, key in enumerate(keys) if at not in lost and key is not None]
    places = np.full(len(keys), -1, np.int64)
    places[[at for at, _ in good]] = store.locate([key for _, key in good])
    return StoredRows(store, places), bad
