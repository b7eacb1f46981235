"""Invariants of opening pictures:

- every format of the list opens to 8-bit RGB of the right size, whatever its mode: grey, 16-bit, CMYK, palette, alpha;
- pixels are right: EXIF rotation applied, transparency on white, 16-bit scaled, GIF's first frame;
- the pixel bound is checked from the header: an over-sized file is refused without being decoded;
- a cut, empty, wrong or unsupported file is refused with a reason that says which, whatever its name;
- formats outside the list are refused even though PIL knows them;
- a path never leaves the root: `..`, absolute, symbolic link, NUL; URLs are refused unless allowed.
"""

import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from data_samples import encoded, picture
from PIL import Image

from dalr.data.images import open_image, resolve_image
from dalr.data.roots import Roots
from dalr.errors import DataError


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_format_opens_as_rgb(kind: str, tmp_path: Path) -> None:
    original = picture(1)
    path = tmp_path / "photo.anything"
    path.write_bytes(encoded(original, kind))
    opened = open_image(path)
    assert (opened.mode, opened.size) == ("RGB", original.size)
    difference = np.abs(np.asarray(opened, int) - np.asarray(original, int)).mean()
    assert difference < 6, "lossy formats and palettes may change a pixel a little, not the picture"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation: int) -> None:
    # A red corner on top left of the upright picture; stored as each orientation would store it.
    upright = Image.new("RGB", (48, 32), "white")
    upright.paste((255, 0, 0), (0, 0, 16, 16))
    undo = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    stored = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = open_image(encoded(stored, "JPEG", exif=exif, quality=95))
    assert opened.size == (48, 32)
    assert opened.getpixel((4, 4))[1] < 60
    assert all(opened.getpixel(corner)[1] > 200 for corner in [(44, 4), (4, 28), (44, 28)])


def test_transparency_lies_on_white() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.putpixel((3, 3), (0, 0, 255, 255))
    clear.putpixel((4, 4), (0, 0, 0, 128))
    for kind in ("PNG", "WEBP", "TIFF"):
        opened = open_image(encoded(clear, kind, **({"lossless": True} if kind == "WEBP" else {})))
        assert opened.getpixel((0, 0)) == (255, 255, 255), kind
        assert opened.getpixel((3, 3)) == (0, 0, 255), kind
        assert opened.getpixel((4, 4))[0] in (127, 128), kind
    grey = Image.new("LA", (4, 4), (0, 0))
    assert open_image(encoded(grey, "PNG")).getpixel((1, 1)) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 1), 1)
    opened = open_image(encoded(palette, "PNG", transparency=0))
    assert (opened.getpixel((0, 0)), opened.getpixel((1, 1))) == ((255, 255, 255), (0, 255, 0))


def test_cmyk_and_grey() -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red, green, blue = open_image(encoded(cmyk, "JPEG")).getpixel((8, 8))
    assert red > 200
    assert max(green, blue) < 60
    assert open_image(encoded(Image.new("1", (4, 4), 1), "PNG")).getpixel((0, 0)) == (255, 255, 255)
    assert open_image(encoded(Image.new("L", (4, 4), 77), "PNG")).getpixel((0, 0)) == (77, 77, 77)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    opened = np.asarray(open_image(encoded(Image.fromarray(ramp), kind)))[..., 0].astype(int)
    assert np.abs(opened - np.arange(256).reshape(16, 16)).max() <= 1


def test_float_tiff() -> None:
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    values[0, 0] = np.nan
    opened = np.asarray(open_image(encoded(Image.fromarray(values), "TIFF")))[..., 0]
    assert opened[0, 0] == 0
    assert opened[-1, -1] == 255


def test_gif_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=10)
    assert open_image(data).getpixel((0, 0)) == (255, 0, 0)


def test_pixel_bound_is_checked_from_the_header() -> None:
    # 50,000 × 40,000 pixels in a few hundred bytes: decoding it would need 6 GB.
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 50_000, 40_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )
    start = time.perf_counter()
    with pytest.raises(DataError, match="pixel"):
        open_image(bomb)
    assert time.perf_counter() - start < 1
    photo = encoded(picture(size=(100, 100)))
    with pytest.raises(DataError, match=r"100 × 100 pixels; data\.max_pixels allows 9,999"):
        open_image(photo, max_pixels=9_999)
    assert open_image(photo, max_pixels=10_000).size == (100, 100)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_cut_file_is_refused(kind: str) -> None:
    whole = encoded(picture(size=(200, 150)), kind)
    open_image(whole)
    with pytest.raises(DataError, match=r"cut short|damaged"):
        open_image(whole[: len(whole) * 2 // 3])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"This is the caption, not the photo.\n", "is text"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"\xef\xbb\xbf<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "PostScript"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"\x00\x00\x00\x1cftypheic\x00\x00\x00\x00", "HEIC"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (bytes(range(256)), "not a picture"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "damaged|cut short|not a picture"),
    ],
)
def test_what_is_no_picture_is_named(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        open_image(path)


@pytest.mark.parametrize("kind", ["PPM", "ICO", "TGA", "PCX", "SGI", "EPS", "ICNS", "DDS"])
def test_other_formats_of_pil_stay_shut(kind: str) -> None:
    content = encoded(picture(size=(64, 64)), kind)
    Image.init()
    assert kind in Image.OPEN, "vacuous unless PIL could open it"
    with pytest.raises(DataError, match="expected JPEG, PNG, WebP, GIF, BMP or TIFF"):
        open_image(content)


def test_places_that_hold_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path, reason in [
        (tmp_path / "no.jpg", "is missing"), (tmp_path, "is a folder"), (tmp_path / "pipe.jpg", "not a regular file"),
        (tmp_path / ("x" * 300), "cannot be read"), (Path("/dev/zero"), "not a regular file"),
    ]:  # fmt: skip
        with pytest.raises(DataError, match=reason):
            open_image(path)


def test_fuzzed_files_raise_nothing_else() -> None:
    generator = np.random.default_rng(5)
    opened = 0
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        whole = np.frombuffer(encoded(picture(size=(64, 48)), kind), np.uint8)
        for _ in range(60):
            broken = whole.copy()
            places = generator.integers(0, len(broken), generator.integers(1, 12))
            broken[places] = generator.integers(0, 256, len(places))
            try:
                assert open_image(broken.tobytes(), max_pixels=10_000).mode == "RGB"
                opened += 1
            except DataError:
                pass
    assert 0 < opened < 360, "vacuous unless some of them break"


def test_reduced_decoding_keeps_the_picture() -> None:
    large = encoded(picture(3, (1600, 1200)), quality=92)
    small = open_image(large, at_least=128)
    assert 128 <= min(small.size) < 400
    whole = open_image(large).resize(small.size)
    assert np.abs(np.asarray(small, int) - np.asarray(whole, int)).mean() < 3
    with pytest.raises(DataError, match="cut short"):
        open_image(large[: len(large) // 2], at_least=128)


def test_paths_stay_below_the_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "images").mkdir(parents=True)
    outside.mkdir()
    for folder in (root / "images", outside):
        (folder / "a.jpg").write_bytes(encoded(picture()))
    (root / "link.jpg").symlink_to(outside / "a.jpg")
    (root / "folder").symlink_to(outside)
    (root / "inside.jpg").symlink_to(root / "images" / "a.jpg")
    good = ["images/a.jpg", "./images/../images/a.jpg", str(root / "images" / "a.jpg"), "inside.jpg", "images\\a.jpg"]
    bad = {
        "../outside/a.jpg": "outside", "images/../../outside/a.jpg": "outside", str(outside / "a.jpg"): "outside",
        "/etc/passwd": "outside", "link.jpg": "outside", "folder/a.jpg": "outside", "..\\outside\\a.jpg": "outside",
        "a\0.jpg": "NUL", "": "no image path", " ": "no image path", "http://example.com/a.jpg": "URL",
        "file:///etc/passwd": "URL", "ftp://example.com/a.jpg": "URL", "data:image/png;base64,AA": "URL",
    }  # fmt: skip
    roots = Roots(root, allow_urls=False)
    for written in good:
        assert resolve_image(root, written) == (root / "images" / "a.jpg").resolve(), written
        assert roots.refusal(written) == "", written
    for written, reason in bad.items():
        with pytest.raises(DataError, match=reason):
            resolve_image(root, written)
        assert roots.refusal(written), written
    assert roots.refusal("images/not-there.jpg") == "", "a missing file is for open_image to say"


def test_a_root_that_is_itself_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").write_bytes(encoded(picture()))
    (tmp_path / "root").symlink_to(tmp_path / "real")
    assert open_image(resolve_image(tmp_path / "root", "a.jpg")).size == (40, 30)
    assert Roots(tmp_path / "root", False).refusal("a.jpg") == ""
