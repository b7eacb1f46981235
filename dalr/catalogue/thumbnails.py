"""Small pictures for pages: JPEGs of at most 224 pixels a side."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from dalr.data.images import StoredImage, open_image
from dalr.data.manifest import Manifest
from dalr.errors import DataError
from dalr.files import write_atomically

SIDE = 224
SMALL_FILE = 24_000
WEB_TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png"}


def picture_uri(source: str | Path | StoredImage) -> str:
    """A picture as a data URI: a small JPEG or PNG file as it is, anything else as a thumbnail.

    Raises DataError when it cannot be read.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_file() and path.stat().st_size <= SMALL_FILE:
            data = path.read_bytes()
            for start, kind in WEB_TYPES.items():
                if data.startswith(start):
                    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
        source = path
    return f"data:image/jpeg;base64,{base64.b64encode(thumbnail(open_image(source, at_least=SIDE))).decode()}"


def thumbnail(image: Image.Image) -> bytes:
    """A picture as a small JPEG."""
    image.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=82)
    return stream.getvalue()


class Thumbnails:
    """Small pictures of a manifest's rows in `folder`, one for each distinct picture (`keys`, by row), made when asked.

    `bad` says, with file:row, which pictures cannot be read.
    """

    def __init__(self, folder: Path, manifest: Manifest, keys: Sequence[str | None]) -> None:
        self._folder, self._manifest, self._keys = folder, manifest, keys
        self._made: dict[str, Path | None] = {}
        self.bad: list[str] = []

    def __call__(self, row: int) -> Path | None:
        """The small picture of a row; None where it has none that can be read."""
        key = self._keys[row]
        if key is not None and key not in self._made:
            self._made[key] = self._write(row, self._folder / f"{key}.jpg")
        return None if key is None else self._made[key]

    def _write(self, row: int, path: Path) -> Path | None:
        try:
            if not path.is_file():
                write_atomically(path, thumbnail(open_image(self._manifest.image_source(row), at_least=SIDE)))
        except DataError as error:
            self.bad.append(f"{self._manifest.where(row)}: {error}")
            return None
        return path
