"""The demo catalogue, as it lies in the repository and as its script draws it.

Invariants: the tables in the repository are what the plan says; a product is drawn bit for bit the same in another
process, and as the repository has it; the catalogue is small, complete and various; no two products share a
combination, test and val hold combinations that train does not, and train shows each value, and each type in each
material, that they use; exactly the rows of truth.csv have a wrong caption, 6 % of train, and each differs in type
and colour; no single pixel gives a product away.
Not vacuous: the pixel test is shown to find a planted pixel; the truth test compares with the captions themselves.
"""

import csv
import io
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "assets/demo"
sys.path.insert(0, str(ROOT / "scripts"))

from demo_catalogue.plan import KINDS, Row, products, rows  # noqa: E402
from demo_catalogue.words import COLOURS, MATERIALS, PATTERNS, TYPES  # noqa: E402
from make_demo_catalogue import draw, encoded, write_tables  # noqa: E402

ATTRIBUTES = ("type", "colour", "pattern", "material")
Table = list[dict[str, str]]


def read(name: str) -> Table:
    with open(DEMO / name, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def manifest() -> Table:
    return read("products.csv")


@pytest.fixture(scope="module")
def lines() -> list[Row]:
    return rows(products())


@pytest.fixture(scope="module")
def pictures(manifest: Table) -> dict[str, np.ndarray]:
    names = dict.fromkeys(row["image"] for row in manifest)
    return {name: np.asarray(Image.open(DEMO / name).convert("RGB")) for name in names}


def combination(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in ATTRIBUTES)


def test_tables_are_what_the_plan_says(lines: list[Row], tmp_path: Path) -> None:
    write_tables(lines, tmp_path)
    for name in ("products.csv", "truth.csv"):
        assert (tmp_path / name).read_bytes() == (DEMO / name).read_bytes()


def test_products_are_redrawn_bit_for_bit() -> None:
    # Another process, another hash seed, another number of threads: nothing but the plan may decide.
    numbers = (4, 300, 777)
    code = (
        "import sys; sys.path.insert(0, 'scripts')\n"
        "from demo_catalogue.plan import products\n"
        "from make_demo_catalogue import draw, encoded\n"
        "import hashlib\n"
        f"all = products()\nfor n in {numbers}: print(hashlib.sha256(encoded(draw(all[n]))).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    catalogue = products()
    here = [encoded(draw(catalogue[number])) for number in numbers]
    import hashlib

    assert done.stdout.split() == [hashlib.sha256(data).hexdigest() for data in here]
    for number, data in zip(numbers, here, strict=True):
        stored = (DEMO / f"images/{catalogue[number].name}.jpg").read_bytes()
        # Another processor may round a last bit otherwise; nobody may see it.
        drawn, kept = (np.asarray(Image.open(io.BytesIO(part)), dtype=float) for part in (data, stored))
        assert drawn.shape == kept.shape
        assert np.abs(drawn - kept).mean() < 0.5


def test_size_and_variety(manifest: Table, pictures: dict[str, np.ndarray]) -> None:
    files = [file for file in DEMO.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 6e6
    assert {file.relative_to(DEMO).as_posix() for file in files} == {"products.csv", "truth.csv", *pictures}
    assert len({row["product"] for row in manifest}) == len(pictures) >= 600
    assert len({row["type"] for row in manifest}) == len(TYPES) == len(KINDS) >= 15
    for name, values in (("colour", COLOURS), ("pattern", PATTERNS), ("material", MATERIALS)):
        assert {row[name] for row in manifest} == set(values)
    assert {picture.shape for picture in pictures.values()} == {(128, 128, 3)}
    assert len({picture.tobytes() for picture in pictures.values()}) == len(pictures)
    counts = Counter(row["product"] for row in manifest)
    assert set(counts.values()) == {1, 2, 3}
    assert len({row["id"] for row in manifest}) == len(manifest)
    assert all(8 <= len(row["text"]) <= 90 and row["text"][0].isupper() for row in manifest)


def test_splits_hold_unseen_combinations(manifest: Table) -> None:
    owners = defaultdict(set)
    for row in manifest:
        owners[combination(row)].add(row["product"])
    assert all(len(names) == 1 for names in owners.values()), "two products cannot be told apart by a caption"
    split_of = {row["product"]: row["split"] for row in manifest}
    counts = Counter(split_of.values())
    assert counts["test"] >= 100
    assert counts["val"] >= 50
    assert counts["train"] >= 600
    train = [row for row in manifest if row["split"] == "train"]
    held_out = [row for row in manifest if row["split"] != "train"]
    assert not {combination(row) for row in train} & {combination(row) for row in held_out}
    for name in ATTRIBUTES:
        assert {row[name] for row in held_out} <= {row[name] for row in train}
    pairs = {(row["type"], row["material"]) for row in train}
    assert {(row["type"], row["material"]) for row in held_out} <= pairs


def test_captions_name_what_is_seen(lines: list[Row]) -> None:
    for line in lines:
        product, text = line.text_of, line.text.lower()
        assert any(word.lower() in text for word in TYPES[product.kind])
        assert any(word in text for word in COLOURS[product.colour])
        assert any(word in text for part in MATERIALS[product.material] for word in part)
        if product.pattern != "plain":
            assert any(word in text for part in PATTERNS[product.pattern] for word in part)


def test_truth_lists_the_wrong_captions(manifest: Table, lines: list[Row]) -> None:
    truth = {row["id"]: row for row in read("truth.csv")}
    train = [row for row in manifest if row["split"] == "train"]
    assert set(truth) <= {row["id"] for row in train}
    assert len(truth) == round(0.06 * len(train))
    attributes = {row["product"]: row for row in manifest}
    given = {row["id"]: row for row in manifest}
    for line in lines:
        own = line.text == line.own
        assert own == (line.id not in truth)
        if own:
            continue
        row = truth[line.id]
        assert given[line.id]["text"] == row["wrong_text"] == line.text
        assert row["right_text"] == line.own
        picture, source = attributes[given[line.id]["product"]], attributes[row["text_of"]]
        assert picture["type"] != source["type"]
        assert picture["colour"] != source["colour"]
    # The captions have only changed places: no caption is lost or invented.
    assert Counter(line.text for line in lines) == Counter(line.own for line in lines)


def one_pixel_accuracy(pixels_ND: np.ndarray, labels: np.ndarray) -> float:
    """How often the class with the nearest mean colour at one pixel is right, halves of the data changing roles."""
    right = 0
    halves = (np.arange(len(labels)) % 2 == 0, np.arange(len(labels)) % 2 == 1)
    for learn, judge in (halves, halves[::-1]):
        names = np.unique(labels)
        means = np.stack([pixels_ND[learn & (labels == name)].mean(axis=0) for name in names])
        nearest = ((pixels_ND[judge, None] - means) ** 2).sum(axis=-1).argmin(axis=1)
        right += int((names[nearest] == labels[judge]).sum())
    return right / len(labels)


def test_no_pixel_gives_a_product_away(manifest: Table, pictures: dict[str, np.ndarray]) -> None:
    by_image = {row["image"]: row for row in manifest}
    stack = np.stack(list(pictures.values())).astype(np.float32)
    kinds = np.array([by_image[name]["type"] for name in pictures])
    colours = np.array([by_image[name]["colour"] for name in pictures])
    places = range(3, 128, 11)
    types_known = max(one_pixel_accuracy(stack[:, y, x], kinds) for y in places for x in places)
    assert types_known < 0.15, "28 types; chance is 0.04"
    corners = [(2, 2), (2, 125), (125, 2), (125, 125)]
    assert max(one_pixel_accuracy(stack[:, y, x], colours) for y, x in corners) < 0.2, "12 colours; chance is 0.08"
    # The measure finds a pixel that does give them away.
    shades = {name: float(number * 9) for number, name in enumerate(np.unique(kinds))}
    marked = np.array([[shades[kind]] * 3 for kind in kinds])
    assert one_pixel_accuracy(marked, kinds) > 0.9
