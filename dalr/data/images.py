"""Opening a picture from a stranger: bounded, whole, upright, on white, in RGB.

Only the six formats below are ever tried, whatever the file is called. The size is read from the header and
checked before a pixel is decoded. A picture that is cut short is an error, not a grey half.
"""

import io
import os
import stat
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO, Protocol, runtime_checkable

import numpy as np

# Importing the plugins registers them; PIL would otherwise load all of its fifty to find one that is not basic.
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from dalr.errors import DataError, one_line, shortened

MAX_PIXELS = 64_000_000
_PLUGINS = (JpegImagePlugin, PngImagePlugin, WebPImagePlugin, GifImagePlugin, BmpImagePlugin, TiffImagePlugin)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
_EXPECTED = "expected JPEG, PNG, WebP, GIF, BMP or TIFF"
_ORIENTATION = 0x0112

# What the first bytes say about a file that is no picture of ours, for the message only.
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "XML, perhaps an SVG drawing"),
    (b"<!doctype html", "a web page (HTML)"),
    (b"<html", "a web page (HTML)"),
    (b"%pdf", "a PDF"),
    (b"%!ps", "PostScript (EPS)"),
    (b"8bps", "a Photoshop file"),
    (b"pk\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
)


@runtime_checkable
class StoredImage(Protocol):
    """An image that lies inside another file, such as a shard; a Path is read in the same way."""

    def read_bytes(self) -> bytes: ...


def open_image(
    image: str | Path | bytes | StoredImage, *, max_pixels: int = MAX_PIXELS, at_least: int | None = None
) -> Image.Image:
    """Decode one picture to RGB, 8 bits a channel.

    EXIF rotation is applied; CMYK, grey, palette and 16-bit pictures are converted; transparent pixels lie on
    white; of a GIF or a multi-page TIFF the first frame is taken.

    Args:
        image: a path, the file's bytes, or an image inside a shard.
        max_pixels: bound on width × height by the file's header, checked before anything is decoded.
        at_least: lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its size while both sides keep at least this many
            pixels; several times faster, for hashes and thumbnails. None decodes at full size.

    Raises:
        DataError: with the reason alone (no path): missing, empty, a folder, not one of the formats, too many
            pixels, cut short, damaged.
    """
    content = _open_regular(image)
    try:
        with content:
            return _decode(content, max_pixels, at_least)
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"has more than the {max_pixels:,} pixels that data.max_pixels allows") from None
    except MemoryError:
        raise DataError("needs more memory to decode than there is") from None
    except Exception as error:
        # PIL's decoders raise whatever they stumble over (OSError, SyntaxError, struct.error, EOFError, ...);
        # for the person it is one thing: this file is damaged.
        detail = one_line(error)
        if "truncated" in detail.lower() or isinstance(error, EOFError):
            raise DataError(f"is cut short ({detail})") from None
        raise DataError(f"is damaged ({detail})") from None


def image_size(image: str | Path | bytes | StoredImage) -> tuple[int, int]:
    """(width, height) as a viewer shows the picture, from the head of its file; DataError where that cannot be read."""
    try:
        with _open_regular(image) as content, Image.open(content, formats=FORMATS) as picture:
            width, height = picture.size
            turned = picture.getexif().get(_ORIENTATION, 1) >= 5
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"is damaged ({one_line(error)})") from None
    return (height, width) if turned else (width, height)


def resolve_image(root: str | Path, written: str, allow_urls: bool = False) -> Path:
    """The local file that a manifest's image field means, never outside `root`.

    `written` is relative to `root` (either kind of slash), or an absolute path below it. Symbolic links are
    followed before the check, so a link that leads out is refused too. A URL is refused unless `allow_urls`;
    then it is fetched once (see `dalr.data.fetch`) and the local copy returned. Whether the file exists is not
    checked here: `open_image` says so.

    Raises DataError for an empty field, a NUL byte, a URL that is not allowed, or a path outside `root`.
    """
    if not written or not written.strip():
        raise DataError("has no image path")
    if "\0" in written:
        raise DataError("the image path holds a NUL byte")
    if is_url(written):
        if not allow_urls:
            raise DataError(f"'{shortened(written)}' is a URL; download it, or set data.allow_urls=true")
        from dalr.data.fetch import fetched_file

        return fetched_file(written)
    top = Path(os.path.realpath(root))
    target = Path(os.path.realpath(top / written))
    if "\\" in written and not target.exists():
        target = Path(os.path.realpath(top / PurePosixPath(*PureWindowsPath(written).parts)))
    if not target.is_relative_to(top):
        raise DataError(
            f"'{shortened(written)}' leads outside the data's root {top}; move the file below it, "
            "or set data.root to a folder that holds both"
        )
    return target


def is_url(written: str) -> bool:
    """True for anything with a scheme, also one that will be refused (`ftp://`, `file://`, `data:`)."""
    head = written.lstrip()[:256].lower()
    return "://" in head or head.startswith("data:")


def _open_regular(image: str | Path | bytes | StoredImage) -> BinaryIO:
    if isinstance(image, bytes):
        data = image
    elif isinstance(image, str | Path):
        return _open_file(Path(image))
    else:
        data = image.read_bytes()
    if not data:
        raise DataError("is empty (0 bytes)")
    return io.BytesIO(data)


def _open_file(path: Path) -> BinaryIO:
    try:
        # Non-blocking, so that a named pipe called photo.jpg cannot hang the reader.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise DataError("is missing") from None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        os.close(descriptor)
        if stat.S_ISREG(status.st_mode):
            raise DataError("is empty (0 bytes)")
        raise DataError("is a folder" if stat.S_ISDIR(status.st_mode) else "is not a regular file")
    return os.fdopen(descriptor, "rb")


def _decode(content: BinaryIO, max_pixels: int, at_least: int | None) -> Image.Image:
    try:
        picture = Image.open(content, formats=FORMATS)
    except UnidentifiedImageError:
        content.seek(0)
        raise DataError(f"is {_what(content.read(512))}; {_EXPECTED}") from None
    with picture:
        width, height = picture.size
        if width * height > max_pixels:
            raise DataError(f"has {width:,} × {height:,} pixels; data.max_pixels allows {max_pixels:,}")
        if at_least is not None and min(width, height) > at_least:
            picture.draft("RGB", (at_least, at_least))
        picture.load()
        upright = _upright(picture)
        return _to_rgb(upright)


def _upright(picture: Image.Image) -> Image.Image:
    try:
        if picture.getexif().get(_ORIENTATION, 1) == 1:
            return picture
        return ImageOps.exif_transpose(picture)
    except Exception:
        # A broken EXIF block says nothing about the pixels, which have been decoded by now.
        return picture


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        return _from_deep_grey(picture)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    # `convert` may return the same object, which its file would then outlive.
    return picture.copy() if picture.mode == "RGB" else picture.convert("RGB")


def _from_deep_grey(picture: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float grey to 8 bits: by 65535 where the values fit it, else by their own range."""
    values = np.nan_to_num(np.asarray(picture).astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if picture.mode == "F" and low >= 0.0 and high <= 1.0:
        low, high = 0.0, 1.0
    elif low >= 0.0 and high <= 65535.0:
        low, high = 0.0, 65535.0 if picture.mode.startswith("I") else 255.0 if high <= 255.0 else 65535.0
    scaled = (values - low) * (255.0 / (high - low if high > low else 1.0))
    return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")


def _what(head: bytes) -> str:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for signature, name in _SIGNATURES:
        if start.startswith(signature):
            return name
    if head[4:8] == b"ftyp":
        return "a HEIC, AVIF or video file"
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError:
        return "not a picture of a known format"
    return "text" if text.isprintable() or (any(c in text for c in "\n\t ") and "\0" not in text) else "not a picture"
