"""Invariants of looking a catalogue over:

- every row is usable or named once with its reasons; nothing else is counted as bad;
- copies are found byte for byte, look-alikes after re-encoding and resizing; recoloured and other pictures are not;
- the near-neighbour search finds exactly what comparing all pairs finds;
- what stands in several splits is found by image, look-alike, caption and group, and a clean split is clean;
- manifests in different folders are joined with their pictures still found;
- an estimate is measured: it scales with the rows, and says on what it was measured.
"""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dalr.catalogue.check import check_catalogue
from dalr.catalogue.joined import join_manifests
from dalr.catalogue.lookalikes import COARSE_BITS, differing_bits, lookalikes, near_pairs
from dalr.catalogue.photos import look_at, survey_photos
from dalr.data.manifest import DataConfig, Manifest


def scene(seed: int, size: tuple[int, int] = (320, 240), tint: tuple[int, int, int] = (0, 0, 0)) -> Image.Image:
    """A picture with edges and surfaces; equal seeds differ by `tint` alone, in what is not background."""
    generator = np.random.default_rng(seed)
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    for _ in range(25):
        x, y = generator.integers(0, size[0]), generator.integers(0, size[1])
        w, h = generator.integers(10, 90, 2)
        colour = tuple(int(min(255, c + t)) for c, t in zip(generator.integers(0, 150, 3), tint, strict=True))
        (pen.ellipse if generator.random() < 0.5 else pen.rectangle)((x, y, x + w, y + h), fill=colour)
    return picture


def save(picture: Image.Image, path: Path, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)


def manifest(folder: Path, rows: list[tuple[str, ...]], header: str = "image,text") -> Manifest:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "d.csv").write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return Manifest.read(folder / "d.csv", DataConfig())


@pytest.mark.parametrize("distance", [0, 1, 4, 6])
def test_near_pairs_are_all_pairs_within_the_distance(distance: int) -> None:
    generator = np.random.default_rng(distance)
    hashes = generator.integers(0, 2**64, 500, dtype=np.uint64)
    flips = np.array(
        [sum(1 << int(b) for b in generator.choice(64, n, replace=False)) for n in range(9)], dtype=np.uint64
    )
    hashes = np.concatenate([hashes, hashes[:200] ^ generator.choice(flips, 200), np.zeros(5, np.uint64)])
    generator.shuffle(hashes)
    near = np.triu(differing_bits(hashes[:, None], hashes[None]) <= distance, 1)
    assert np.array_equal(near_pairs(hashes, distance), np.argwhere(near))
    assert near.sum() > 10


def test_differing_bits() -> None:
    a = np.array([0, 1, 2**64 - 1, 0b1011], dtype=np.uint64)
    assert differing_bits(a, np.array([0, 0, 0, 0b0110], dtype=np.uint64)).tolist() == [0, 1, 64, 3]


def test_copies_and_lookalikes(tmp_path: Path) -> None:
    for seed in range(12):
        save(scene(seed), tmp_path / f"{seed}.jpg", quality=90)
    (tmp_path / "copy.jpg").write_bytes((tmp_path / "0.jpg").read_bytes())
    save(scene(1), tmp_path / "1-low.jpg", quality=30)
    save(scene(2).resize((160, 120)), tmp_path / "2-half.jpg")
    save(scene(3), tmp_path / "3.png")
    save(scene(4, tint=(105, 0, 0)), tmp_path / "4-red.jpg")
    names = sorted(path.name for path in tmp_path.iterdir())
    rows = manifest(tmp_path, [(name, f"text of {name}") for name in names])
    survey = survey_photos(rows)
    found = sorted(sorted(rows.images[n] or "" for n in group) for group in lookalikes(rows, survey))
    assert found == [["1-low.jpg", "1.jpg"], ["2-half.jpg", "2.jpg"], ["3.jpg", "3.png"]]
    coarse = np.array([photo.coarse for photo in survey.photos], dtype=np.uint64)
    red, plain = names.index("4-red.jpg"), names.index("4.jpg")
    assert differing_bits(coarse[red], coarse[plain]) <= COARSE_BITS, "vacuous unless the hash alone would join them"
    report = check_catalogue(rows)
    assert report.images is not None
    assert (report.images.copies.groups, report.images.copies.members) == (1, 2)
    assert (report.images.alike.groups, report.images.alike.members) == (3, 6)


def test_a_picture_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(4):
        save(scene(seed), tmp_path / f"{seed}.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    rows = manifest(tmp_path, [(f"{name}.jpg", "text") for name in (0, 1, 2, 3, "broken", "missing")])
    first = survey_photos(rows)
    assert [photo.reason[:10] for photo in first.photos] == ["", "", "", "", "is text; e", "is missing"]
    opened: list[int] = []
    monkeypatch.setattr("dalr.catalogue.photos.look_at", lambda own, row: opened.append(row) or look_at(own, row))
    assert survey_photos(rows).photos == first.photos
    assert sorted(set(opened)) == [4, 5], "only what could not be read is tried again"
    opened.clear()
    save(scene(9), tmp_path / "2.jpg")
    again = survey_photos(rows)
    assert sorted(set(opened)) == [2, 4, 5]
    assert again.photos[2].key != first.photos[2].key
    assert again.photos[2].coarse != first.photos[2].coarse


def test_flat_pictures_are_told_apart_by_colour(tmp_path: Path) -> None:
    for name, colour in {"white": "white", "black": "black", "red": "red", "white2": (254, 255, 255)}.items():
        save(Image.new("RGB", (100, 100), colour), tmp_path / f"{name}.png")
    rows = manifest(tmp_path, [(f"{name}.png", name) for name in ("white", "black", "red", "white2")])
    assert [[rows.images[n] for n in group] for group in lookalikes(rows, survey_photos(rows))] == [
        ["white.png", "white2.png"]
    ]


def test_every_row_is_usable_or_named_once(tmp_path: Path) -> None:
    for seed in range(3):
        save(scene(seed), tmp_path / "i" / f"{seed}.jpg")
    whole = (tmp_path / "i" / "0.jpg").read_bytes()
    (tmp_path / "i" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "i" / "text.jpg").write_text("not a photo")
    report = check_catalogue(
        manifest(
            tmp_path,
            [
                ("i/0.jpg", "good one"), ("i/1.jpg", ""), ("", "text alone"), ("i/none.jpg", ""), ("i/cut.jpg", "cut"),
                ("i/text.jpg", "a text"), ("../x.jpg", "outside"), ("i/2.jpg",), ("i/2.jpg", "good two"),
                ("i/2.jpg", "Good  TWO"),
            ],
        )
    )  # fmt: skip
    assert (report.rows, report.usable) == (10, 3)
    reasons = {row.row: row.reason for row in report.bad_rows}
    assert list(reasons) == [3, 4, 5, 6, 7, 8, 9]
    assert reasons[3] == "has no caption"
    assert reasons[4] == "has no image"
    assert reasons[5] == "image 'i/none.jpg' is missing; has no caption"
    assert "cut short" in reasons[6]
    assert "is text" in reasons[7]
    assert "outside" in reasons[8]
    assert reasons[9] == "has 1 field, the header has 2"
    assert report.images is not None
    assert (report.images.different, report.images.missing, report.images.unreadable) == (6, 1, 2)
    assert report.images.rows_without == 1
    assert report.captions is not None
    assert (report.captions.empty, report.captions.different) == (2, 5)
    assert report.captions.shared.examples == [["d.csv:10", "d.csv:11"]]
    assert report.duplicate_rows.examples == [["d.csv:10", "d.csv:11"]]
    closed = check_catalogue(manifest(tmp_path, [("i/cut.jpg", "not opened")]), open_images=False)
    assert (closed.usable, closed.images) == (1, None)
    json.dumps(report.as_json(), allow_nan=False)


def test_what_stands_in_several_splits(tmp_path: Path) -> None:
    for seed in range(6):
        save(scene(seed), tmp_path / f"{seed}.jpg")
    (tmp_path / "copy.jpg").write_bytes((tmp_path / "0.jpg").read_bytes())
    save(scene(1), tmp_path / "1-low.jpg", quality=30)
    header = "image,text,split,group"
    clean = [("2.jpg", "two", "train", "a"), ("3.jpg", "three", "val", "b"), ("2.jpg", "two again", "train", "a")]
    report = check_catalogue(manifest(tmp_path, clean, header))
    assert report.splits is not None
    assert report.splits.rows == {"train": 2, "val": 1}
    assert {kind: found.groups for kind, found in report.splits.shared.items()} == {
        "image": 0, "look-alike": 0, "caption": 0, "group": 0,
    }  # fmt: skip
    leaky = [
        ("0.jpg", "zero", "train", "c"), ("copy.jpg", "copy", "val", "d"), ("1.jpg", "one", "train", "e"),
        ("1-low.jpg", "low", "test", "f"), ("4.jpg", "A shirt", "train", "g"), ("5.jpg", "a  SHIRT", "test", "g"),
    ]  # fmt: skip
    report = check_catalogue(manifest(tmp_path, clean + leaky, header))
    assert report.splits is not None
    found = {
        kind: (repeats.groups, repeats.members, repeats.examples) for kind, repeats in report.splits.shared.items()
    }
    assert found == {
        "image": (1, 2, [["d.csv:5", "d.csv:6"]]), "look-alike": (1, 2, [["d.csv:7", "d.csv:8"]]),
        "caption": (1, 2, [["d.csv:9", "d.csv:10"]]), "group": (1, 2, [["d.csv:9", "d.csv:10"]]),
    }  # fmt: skip


def test_manifests_of_different_folders_are_joined(tmp_path: Path) -> None:
    save(scene(0), tmp_path / "a" / "0.jpg")
    save(scene(0), tmp_path / "b" / "0.jpg")
    save(scene(1), tmp_path / "b" / "1.jpg")
    train = manifest(tmp_path / "a", [("0.jpg", "zero")])
    val = manifest(tmp_path / "b", [("0.jpg", "null"), ("1.jpg",), ("1.jpg", "one", "red")], "image,text,colour")
    assert len(val) == 1
    val = manifest(
        tmp_path / "b", [("0.jpg", "null", "blue"), ("1.jpg",), ("1.jpg", "one", "red")], "image,text,colour"
    )
    both = join_manifests({"train": train, "val": val})
    assert both.split == ["train", "val", "val"]
    assert both.columns == {"colour": [None, "blue", "red"]}
    assert both.texts == ["zero", "null", "one"]
    report = check_catalogue(both)
    assert (report.rows, report.usable, len(report.bad_rows)) == (4, 3, 1)
    assert report.splits is not None
    assert report.splits.shared["image"].groups == 1
    save(scene(2), tmp_path / "c" / "deep" / "2.jpg")
    windows = manifest(tmp_path / "c", [("deep\\2.jpg", "two")])
    assert check_catalogue(join_manifests({"train": train, "val": windows})).bad_rows == []


def test_pictures_inside_shards_are_looked_at(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for number, seed in enumerate([0, 1, 0]):
            buffer = io.BytesIO()
            scene(seed).save(buffer, "JPEG")
            for ending, content in (("jpg", buffer.getvalue()), ("txt", f"text {number}".encode())):
                member = tarfile.TarInfo(f"{number}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    report = check_catalogue(Manifest.load(tmp_path / "s.tar"))
    assert (report.usable, report.images and report.images.copies.groups) == (3, 1)
    assert report.images is not None
    assert report.images.copies.examples == [["s.tar:1", "s.tar:3"]]


def test_token_lengths(tmp_path: Path) -> None:
    rows = manifest(tmp_path, [("one two",), ("one two three four",), ("one",), ("",)], "text")
    report = check_catalogue(rows, token_counts=lambda texts: [len(text.split()) for text in texts], token_limit=3)
    assert report.tokens is not None
    assert (report.tokens.longest, report.tokens.over, report.tokens.examples) == (4, 1, ["d.csv:3"])


@pytest.mark.data
def test_the_real_catalogues_are_known(data_dir: Path) -> None:
    report = check_catalogue(Manifest.load(data_dir / "fashion"))
    assert (report.rows, report.usable) == (7660, 7660)
    assert report.images is not None
    assert report.images.copies.groups == 93
    assert 5 <= report.images.alike.groups <= 20
    assert report.splits is not None
    assert report.splits.shared["image"].groups == 4, "the same photo under two titles, one in train and one in val"
    assert report.splits.shared["caption"].groups == 0
