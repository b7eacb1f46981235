"""Draw the demo catalogue: pictures, captions, splits and the list of captions that are wrong on purpose.

    python scripts/make_demo_catalogue.py --out assets/demo --sheet assets/demo_contact_sheet.jpg --each 2 --columns 14

The result is a function of the seed in `demo_catalogue/plan.py` alone. It is kept in the repository, so there is
no need to run this before the quickstart; run it to change the catalogue or to make a larger one of your own.
"""

import argparse
import csv
import io
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from demo_catalogue.painter import Colour, Look, Painter
from demo_catalogue.plan import KINDS, PAINTS, Product, Row, products, rows
from demo_catalogue.scenery import finished
from demo_catalogue.surfaces import Pose
from PIL import Image

PIXELS = 128
OVERSAMPLE = 4
QUALITY = 84
COLUMNS = ("id", "image", "text", "product", "type", "colour", "pattern", "material", "split")
DARK_ACCENTS: tuple[Colour, ...] = ((0.17, 0.17, 0.22), (0.15, 0.27, 0.5), (0.5, 0.17, 0.18))
PALE_ACCENT: Colour = (0.96, 0.94, 0.88)


def draw(product: Product, pixels: int = PIXELS) -> Image.Image:
    """The picture of one product, a function of the product alone."""
    rng = np.random.default_rng(product.seed)
    kind = KINDS[product.kind]
    turn = rng.uniform(-5, 5) if kind.stands else rng.uniform(-22, 22)
    flip = bool(rng.random() < 0.5)
    side = float(rng.choice([-1.0, 1.0]))
    light = np.array([side * rng.uniform(0.35, 0.8), -rng.uniform(0.4, 0.9), rng.uniform(0.8, 1.3)])
    look = _look(product, rng)
    parts = int(rng.integers(2**31))
    # A first, rough drawing tells how much room the product takes; the second fills the picture with it.
    rough = Painter(Pose(96, turn, 0.5, flip, (0.0, 0.0)), light, np.random.default_rng(parts))
    kind.draw(rough, look)
    pose = _fitted(rough, turn, flip, rng, pixels * OVERSAMPLE)
    painter = Painter(pose, light, np.random.default_rng(parts))
    kind.draw(painter, look)
    return finished(painter, kind.stands, rng, pixels)


def _look(product: Product, rng: np.random.Generator) -> Look:
    base = np.asarray(PAINTS[product.colour]) * rng.uniform(0.93, 1.07) + rng.uniform(-0.025, 0.025, size=3)
    r, g, b = (float(channel) for channel in np.clip(base, 0.04, 0.97))
    pale = 0.3 * r + 0.59 * g + 0.11 * b > 0.6
    accent = DARK_ACCENTS[int(rng.integers(len(DARK_ACCENTS)))] if pale else PALE_ACCENT
    return Look(product.material, (r, g, b), accent, product.pattern, float(rng.uniform(0.85, 1.15)))


def _fitted(rough: Painter, turn: float, flip: bool, rng: np.random.Generator, size: int) -> Pose:
    covered = rough.alpha > 0.2
    low = np.array([np.flatnonzero(covered.any(axis=axis))[0] for axis in (0, 1)])
    high = np.array([np.flatnonzero(covered.any(axis=axis))[-1] + 1 for axis in (0, 1)])
    low, high = low / (rough.pose.size / 2) - 1.0, high / (rough.pose.size / 2) - 1.0
    grow = rng.uniform(0.7, 0.9) * 2 / float((high - low).max())
    room = np.clip(0.97 - (high - low) / 2 * grow, 0.0, 0.12)
    shift = -(low + high) / 2 * grow + rng.uniform(-1, 1, size=2) * room
    return Pose(size, turn, rough.pose.scale * grow, flip, (float(shift[0]), float(shift[1])))


def encoded(picture: Image.Image) -> bytes:
    """The picture as the bytes of a small JPEG."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=QUALITY, optimize=True, progressive=False, subsampling="4:2:0")
    return stream.getvalue()


def _drawn(product: Product) -> bytes:
    return encoded(draw(product))


def write_tables(lines: Sequence[Row], folder: Path) -> None:
    """products.csv, the manifest, and truth.csv, which says which of its captions are wrong."""
    with open(folder / "products.csv", "w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(COLUMNS)
        for line in lines:
            p = line.product
            table.writerow((line.id, f"images/{p.name}.jpg", line.text, p.name, *p.combination, p.split))
    with open(folder / "truth.csv", "w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(("id", "wrong_text", "right_text", "text_of"))
        for line in lines:
            if line.wrong:
                table.writerow((line.id, line.text, line.own, line.text_of.name))


def contact_sheet(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """The pictures side by side."""
    w, h = pictures[0].size
    sheet = Image.new("RGB", (columns * w, -(-len(pictures) // columns) * h), "white")
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % columns * w, number // columns * h))
    return sheet


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("assets/demo"), help="folder to write into")
    parser.add_argument("--sheet", type=Path, help="also write a contact sheet of some products to this file")
    parser.add_argument("--each", type=int, default=8, help="products of each type on the contact sheet")
    parser.add_argument("--columns", type=int, default=16, help="columns of the contact sheet")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw")
    options = parser.parse_args()
    catalogue = products()
    images = options.out / "images"
    images.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(options.workers) as pool:
        for number, (product, data) in enumerate(zip(catalogue, pool.map(_drawn, catalogue, chunksize=8), strict=True)):
            (images / f"{product.name}.jpg").write_bytes(data)
            if number % 100 == 99:
                print(f"{number + 1} of {len(catalogue)} drawn", flush=True)
    write_tables(rows(catalogue), options.out)
    if options.sheet:
        shown = [product for kind in KINDS for product in [p for p in catalogue if p.kind == kind][: options.each]]
        pictures = [Image.open(images / f"{product.name}.jpg") for product in shown]
        contact_sheet(pictures, options.columns).save(options.sheet, quality=88)
    size = sum(file.stat().st_size for file in options.out.rglob("*") if file.is_file())
    print(f"{len(catalogue)} products, {size / 1e6:.2f} MB in {options.out}")


if __name__ == "__main__":
    main()
