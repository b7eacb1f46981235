"""The pictures of a report: small files in a folder of their own, made as pages ask for them."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from dalr.catalogue.thumbnails import write_thumbnail
from dalr.data.manifest import Manifest
from dalr.errors import DataError

FOLDER = "pictures"


class Pictures:
    """Small pictures of a manifest's rows below `folder`, one for each distinct picture (`keys`, by row)."""

    def __init__(self, folder: Path, manifest: Manifest, keys: Sequence[str | None]) -> None:
        self._folder, self._manifest, self._keys = folder, manifest, keys
        self._made: dict[str, str | None] = {}

    def __call__(self, row: int) -> str | None:
        """Where a row's picture is, from the report's folder; None where it has none that can be read."""
        key = self._keys[row]
        if key is None:
            return None
        if key not in self._made:
            self._made[key] = None
            with contextlib.suppress(DataError):
                write_thumbnail(self._manifest.image_source(row), self._folder / FOLDER, key)
                self._made[key] = f"{FOLDER}/{key}.jpg"
        return self._made[key]
