"""Small pictures for pages: JPEGs of at most 224 pixels a side."""

import base64
import io
from pathlib import Path

from PIL import Image

from dalr.data.images import StoredImage, open_image
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


def write_thumbnail(source: str | Path | StoredImage, folder: Path, name: str) -> Path:
    """The small picture `folder/name.jpg`, made where it is not there. Raises DataError when it cannot be read."""
    path = folder / f"{name}.jpg"
    if not path.is_file():
        write_atomically(path, thumbnail(open_image(source, at_least=SIDE)))
    return path
