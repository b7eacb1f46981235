"""Invariants of manifests:

- columns are guessed by name, then by content; a named column that is missing is an error naming the nearest;
- good rows survive every bad neighbour: duplicate id, bad weight, path out of the root, empty row; each is recorded
  with file, row, key and reason, and the rows that stay keep their numbers;
- several text columns are joined, a list of captions becomes several rows;
- `select`, `part` and `pairs` keep all columns in step; the fingerprint follows what the rows say;
- a hundred thousand rows load in seconds of processor time.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_samples import encoded, picture

from dalr.data.columns import find_columns
from dalr.data.manifest import DataConfig, Manifest
from dalr.errors import DataError

Photos = Callable[[int], list[str]]


def load(tmp_path: Path, content: str, split: str | None = None, **config: object) -> Manifest:
    (tmp_path / "d.csv").write_text(content)
    return Manifest.load(tmp_path / "d.csv", DataConfig(**config), split)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        ("id,image,title,gender", "1,images/1.jpg,Red shirt,Men", ("image", ("title",), "id")),
        ("image,caption,split", "a.jpg,A dog runs .,train", ("image", ("caption",), None)),
        ("file_name,text", "a.jpg,a dog", ("file_name", ("text",), None)),
        ("Image Path,Product-Title,SKU", "a.jpg,a dog,X1", ("Image Path", ("Product-Title",), "SKU")),
        ("a,b,c", "x/1.png,a longer description here,7", ("a", ("b",), None)),
        ("image_url,alt_text", "https://example.com/p?id=1,a dog", ("image_url", ("alt_text",), None)),
        ("url,alt_text", "https://example.com/p/1.jpg?w=9,a dog", ("url", ("alt_text",), None)),
        ("url,title", "https://example.com/product?id=1,a dog", (None, ("title",), None)),
        ("title,description,photo", "Shirt,A fine red shirt,p.webp", ("photo", ("title",), None)),
        ("text", "only words here", (None, ("text",), None)),
        ("image", "a.jpg", ("image", (), None)),
        ("Foto,Produkt Titel", "1.jpg,Tasse", ("Foto", ("Produkt Titel",), None)),
        ("Foto,Artikelbezeichnung", "1.jpg,Tasse", ("Foto", (), None)),
        ("name,path", "Blue jeans,p/1.jpg", ("path", ("name",), None)),
    ],
)  # fmt: skip
def test_columns_are_guessed(header: str, row: str, expected: tuple[object, ...]) -> None:
    columns = {name: [cell] for name, cell in zip(header.split(","), row.split(","), strict=True)}
    roles = find_columns(columns, "d.csv")
    assert (roles.image, roles.text, roles.id) == expected


def test_no_text_column_is_told(tmp_path: Path) -> None:
    manifest = load(tmp_path, "Foto,Artikelbezeichnung\n1.jpg,Tasse\n")
    assert manifest.notes == [
        "none of the columns 'Artikelbezeichnung' is taken for the texts; name the one that is with data.text"
    ]
    # Blank cells make no column of titles shorter.
    dirty = load(tmp_path, 'Foto,Ware\n1.jpg,rote Tasse\n2.jpg," "\n3.jpg," "\n')
    assert dirty.roles.text == ("Ware",)


def test_what_stands_for_an_empty_cell(tmp_path: Path) -> None:
    rows = [{"text": "rote Tasse", "group": float("nan")}, {"text": "blaue Tasse", "group": float("nan")}]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert Manifest.load(tmp_path / "d.jsonl").group in (None, [None, None])
    written = load(tmp_path, "image,text\n1.jpg,nan\n2.jpg,N/A\n3.jpg,Nana\n")
    assert written.notes == ["2 captions are a placeholder such as 'nan' or 'n/a'; leave the cell empty instead"]
    objects = load(tmp_path, 'image,text\n1.jpg,"{""de"": ""Tasse""}"\n')
    assert "1 captions are JSON objects as they stand" in objects.notes[0]


def test_a_name_alone_does_not_make_a_role(tmp_path: Path) -> None:
    # A weight in grams, an age group and a manner of skirt: as pair weights, positives and splits they would do harm.
    header = "text,weight,group,split\n"
    rows = "".join(f"text {n},{200 + n} g,{'adults' if n % 2 else 'kids'},side {n}\n" for n in range(200))
    manifest = load(tmp_path, header + rows)
    assert (manifest.roles.weight, manifest.roles.group, manifest.roles.split) == (None, None, None)
    assert set(manifest.columns) == {"weight", "group", "split"}
    assert len(manifest.notes) == 3
    assert any("'weight' holds few numbers: not taken as the weight" in note for note in manifest.notes)
    assert load(tmp_path, header + rows, group="group").group == ["kids", "adults"] * 100
    grams = load(tmp_path, "text,weight\na b,250\nc d,1.5\n")
    assert (grams.roles.weight, grams.weight.tolist()) == (None, [1.0, 1.0])
    small = load(tmp_path, "text,weight,group,split\na b,0.5,x,train\nc d,1,x,val\ne f,-2,y,test\n")
    assert (small.roles.weight, small.roles.group, small.roles.split) == ("weight", "group", "split")
    assert small.bad[0].row == 4


def test_texts_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(
        '{"text": "good"}\n{"text": "half \\ud83d"}\n{"text": "nul \\u0000"}\n{"text": "\\ud83d\\ude00"}\n'
    )
    manifest = Manifest.load(tmp_path / "d.jsonl")
    assert manifest.texts == ["good", "😀"]
    assert [(bad.row, bad.reason.split(",")[0]) for bad in manifest.bad] == [
        (2, "holds half a surrogate pair"), (3, "holds a NUL character"),
    ]  # fmt: skip
    manifest.fingerprint()


def test_an_id_that_repeats_is_not_guessed(tmp_path: Path) -> None:
    manifest = load(tmp_path, "id,text\n1,first caption\n1,second caption\n2,third one\n")
    assert manifest.roles.id is None
    assert manifest.columns == {"id": ["1", "1", "2"]}
    assert manifest.keys == ["2", "3", "4"]
    assert manifest.notes == [
        "the column 'id' has empty or repeated values: not taken as the id; name it with data.id if it is"
    ]


def test_a_missing_column_names_the_nearest(tmp_path: Path) -> None:
    content = "image,title\na.jpg,red shirt\n"
    with pytest.raises(DataError, match=r"d.csv: there is no column 'titel' \(data.text\); did you mean 'title'"):
        load(tmp_path, content, text="titel")
    with pytest.raises(DataError, match=r"no column 'brand' \(data.group\); expected one of: image, title"):
        load(tmp_path, content, group="brand")
    with pytest.raises(DataError, match=r"found no column of images or texts among 'a', 'b'"):
        load(tmp_path, "a,b\n1,2\n")
    with pytest.raises(DataError, match="looks like a row, not like a header"):
        load(tmp_path, "1.jpg,3\n2.jpg,4\n")


HOSTILE = """id,image,text,weight,group
1,images/0.jpg,good one,0.5,g
2,images/0.jpg,good two,,
2,images/0.jpg,same id again,1,
,images/0.jpg,no id,1,
4,images/0.jpg,negative,-1,
5,images/0.jpg,not a number,NaN,
6,images/0.jpg,infinite,inf,
7,images/0.jpg,words,much,
8,../outside.jpg,climbs out,1,
9,/etc/passwd,absolute,1,
10,http://example.com/a.jpg,a url,1,
11,,,1,
12,,text alone,1,
13,images/0.jpg,,2,
14,images/none.jpg,missing file is for opening to find,0,
15,images/0.jpg
"""


def test_good_rows_survive_bad_neighbours(tmp_path: Path, photos: Photos) -> None:
    photos(1)
    manifest = load(tmp_path, HOSTILE, id="id")
    assert manifest.keys == ["1", "2", "12", "13", "14"]
    assert manifest.row_numbers.tolist() == [2, 3, 14, 15, 16]
    assert manifest.weight.tolist() == [0.5, 1.0, 1.0, 2.0, 0.0]
    assert manifest.texts == ["good one", "good two", "text alone", None, "missing file is for opening to find"]
    assert manifest.images[2] is None
    assert manifest.group == ["g", None, None, None, None]
    found = {bad.row: (bad.key, bad.reason) for bad in manifest.bad}
    assert sorted(found) == [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 17]
    for row, key, reason in [
        (4, "2", "has the same 'id' as d.csv:3"), (5, "5", "has no 'id'"), (6, "4", "weight '-1'"),
        (7, "5", "weight 'NaN'"), (8, "6", "weight 'inf'"), (9, "7", "weight 'much'"), (10, "8", "outside"),
        (11, "9", "outside"), (12, "10", "is a URL"), (13, "11", "neither an image nor a text"), (17, "17", "2 fields"),
    ]:  # fmt: skip
        assert found[row][0] == key
        assert reason in found[row][1], (row, found[row])
    assert manifest.pairs().tolist() == [0, 1, 4]
    assert any("1 rows have no 'weight'" in note for note in manifest.notes)
    with pytest.raises(DataError, match=r"d.csv:16: image 'images/none.jpg' is missing"):
        manifest.open_image(4)
    with pytest.raises(DataError, match=r"d.csv:14: has no image"):
        manifest.image_path(2)


def test_urls_are_rows_when_they_are_allowed(tmp_path: Path) -> None:
    content = "image,text\nhttps://example.com/a.jpg,one two\nftp://example.com/a.jpg,three\n"
    with pytest.raises(DataError, match="not one usable"):
        load(tmp_path, content)
    manifest = load(tmp_path, content, allow_urls=True)
    assert manifest.texts == ["one two"]
    assert "only http and https" in manifest.bad[0].reason


def test_links_out_of_the_root_are_bad_rows(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "a.jpg").write_bytes(encoded(picture()))
    (tmp_path / "link.jpg").symlink_to(outside / "a.jpg")
    (tmp_path / "folder").symlink_to(outside)
    (tmp_path / "in.jpg").write_bytes(encoded(picture()))
    content = "image,text\nlink.jpg,one\nfolder/a.jpg,two\nin.jpg,three\n"
    manifest = load(tmp_path, content)
    assert manifest.texts == ["three"]
    assert [bad.row for bad in manifest.bad] == [2, 3]
    (tmp_path / "d2.csv").write_text(f"image,text\n{outside}/a.jpg,one\n")
    wider = Manifest.load(tmp_path / "d2.csv", DataConfig(root=str(tmp_path_factory.getbasetemp())))
    assert wider.open_image(0).size == (40, 30)


@pytest.mark.parametrize(
    ("content", "reason"),
    [("", "is empty"), ("image,text\n", "has a header and no rows"), ("\n\n", "only blank lines"),
     ("image,text\na\nb\n", r"has 2 rows, not one usable \(d.csv:2: has 1 field")],
)  # fmt: skip
def test_nothing_usable(tmp_path: Path, content: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        load(tmp_path, content)


def test_text_columns_are_joined_and_lists_become_rows(tmp_path: Path) -> None:
    manifest = load(tmp_path, "a,b,c\nred,,shirt\n,,x\nblue,wide,jeans\n", text=["a", "b", "c"])
    assert manifest.texts == ["red, shirt", "x", "blue, wide, jeans"]
    rows = [{"id": 1, "image": "a.jpg", "captions": ["one", " two ", ""]}, {"id": 2, "image": "b.jpg", "captions": []}]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    manifest = Manifest.load(tmp_path / "d.jsonl")
    assert manifest.keys == ["1#1", "1#2", "2"]
    assert manifest.texts == ["one", "two", None]
    assert manifest.ids()[:, 0].tolist() == [0, 0, 1]
    manifest = Manifest.load(tmp_path / "d.jsonl", DataConfig(text=["captions", "id"]))
    assert manifest.texts == ["one, two, 1", "2"]


def test_splits(tmp_path: Path) -> None:
    content = "text,split\none a,train\ntwo b,val\nthree c,test\nfour d,\n"
    assert load(tmp_path, content, split="train").texts == ["one a"]
    assert load(tmp_path, content, split="validation").texts == ["two b"]
    assert len(load(tmp_path, content)) == 4
    with pytest.raises(DataError, match="no row has the split 'extra'; its splits are 'test', 'train', 'val'"):
        load(tmp_path, content, split="extra")
    with pytest.raises(DataError, match="has no split column"):
        load(tmp_path, "text\none a\n", split="train")


def test_select_keeps_everything_in_step(tmp_path: Path) -> None:
    content = "id,text,weight,group,split,colour\n" + "".join(
        f"k{n},text {n},{n},g{n % 3},{'train' if n % 2 else 'val'},c{n}\n" for n in range(8)
    )
    manifest = load(tmp_path, content)
    for chosen in (np.array([5, 1, 6]), [5, 1, 6], np.isin(np.arange(8), [5, 1, 6])):
        some = manifest.select(chosen)
        order = np.flatnonzero(chosen).tolist() if np.asarray(chosen).dtype == bool else [5, 1, 6]
        assert some.keys == [f"k{n}" for n in order]
        assert some.texts == [f"text {n}" for n in order]
        assert some.weight.tolist() == order
        assert some.group == [f"g{n % 3}" for n in order]
        assert some.split == ["train" if n % 2 else "val" for n in order]
        assert some.columns["colour"] == [f"c{n}" for n in order]
        assert [some.where(row) for row in range(3)] == [f"d.csv:{n + 2}" for n in order]
    assert len(manifest.select([])) == 0


def test_ids_read_groups_paths_and_content(tmp_path: Path) -> None:
    manifest = load(tmp_path, "image,text\n./a.jpg,one\na.jpg,two\nb.jpg,One \n")
    assert manifest.ids().tolist() == [[0, 0], [0, 1], [1, 0]]
    assert manifest.ids(["x", "y", "x"]).tolist() == [[0, 0], [1, 1], [0, 0]]
    assert manifest.ids([None, "y", "x"])[0, 0] == -1


def test_the_fingerprint_follows_what_the_rows_say(tmp_path: Path) -> None:
    content = "image,text\na.jpg,one\nb.jpg,two\n"
    base = load(tmp_path, content).fingerprint()
    assert load(tmp_path, content).fingerprint() == base
    (tmp_path / "elsewhere").mkdir()
    assert load(tmp_path / "elsewhere", content).fingerprint() == base
    assert load(tmp_path, content.replace("two", "three")).fingerprint() != base
    assert load(tmp_path, content.replace("b.jpg", "c.jpg")).fingerprint() != base
    assert load(tmp_path, "image,text,weight\na.jpg,one,1\nb.jpg,two,2\n").fingerprint() != base
    assert load(tmp_path, content).select([1, 0]).fingerprint() != base


def test_a_hundred_thousand_rows_load_quickly(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with open(tmp_path / "d.csv", "w") as stream:
        stream.write("id,image,title\n")
        stream.writelines(f"{n},images/{n}.jpg,title number {n}\n" for n in range(100_000))
    start = time.process_time()
    manifest = Manifest.load(tmp_path / "d.csv")
    assert len(manifest) == 100_000
    assert time.process_time() - start < 12
    start = time.process_time()
    manifest.ids()
    manifest.fingerprint()
    assert time.process_time() - start < 8


@pytest.mark.data
def test_the_real_catalogues(data_dir: Path) -> None:
    train = Manifest.load(data_dir / "fashion" / "train.csv")
    assert (len(train), len(train.bad), train.roles.image, train.roles.text) == (6928, 0, "image", ("title",))
    assert len(np.unique(train.ids()[:, 1])) <= 5131
    flickr = Manifest.load(data_dir / "flickr8k" / "captions.csv")
    assert [len(flickr.part(split)) for split in ("train", "val", "test")] == [3385, 610, 1005]
    assert len(np.unique(flickr.ids()[:, 0])) == 1000
    assert flickr.open_image(0).mode == "RGB"
    assert len(Manifest.load(data_dir / "flickr8k" / "captions_without_images.txt")) == 35455
