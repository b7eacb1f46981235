"""Invariants of the other sources (JSON Lines, text, Parquet, class folders, saved and hub data sets):

- rows arrive with their values, captions lists as several texts, pictures inside the file as pictures;
- one broken line or row group costs itself, named by place and reason;
- pictures inside a source are packed once, again only when the source changed;
- what kind a source is follows from what is there; what is none is refused with what was expected.
"""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from data_samples import encoded, picture
from PIL import Image

from dalr.data.fetch import cache_root
from dalr.data.images import open_image
from dalr.data.jsonlines import read_jsonl, read_lines
from dalr.data.manifest import DataConfig, Manifest
from dalr.errors import DataError

Photos = Callable[[int], list[str]]


# -- lines ----------------------------------------------------------------------------------------------------


def test_jsonl_values_and_lists(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(
        '\ufeff{"id": 1, "caption": ["one", "two"], "price": 2.5}\n\n'
        '{"id": 2, "caption": ["three"], "price": 3, "when": "2020-01-01 10:00:00"}\n'
    )
    part = read_jsonl(tmp_path / "d.jsonl")
    assert part.rows == [1, 3]
    assert part.columns["caption"] == [["one", "two"], ["three"]]
    assert part.columns["id"] == [1, 2]
    assert part.columns["price"] == [2.5, 3.0]
    assert part.columns["when"] == [None, "2020-01-01 10:00:00"]


def test_a_jsonl_value_does_not_hang_on_other_rows(tmp_path: Path) -> None:
    written = ["2020-01-01", "2020-01-02T10:00:00Z", "2020"]
    for rows in (written, [*written, "a dress"]):
        (tmp_path / "d.jsonl").write_text("".join(json.dumps({"sku": value}) + "\n" for value in rows))
        assert read_jsonl(tmp_path / "d.jsonl").columns["sku"] == rows


def test_jsonl_broken_lines(tmp_path: Path) -> None:
    deep = b"[" * 100_000
    lines = [b'{"text": "good one"}', b'{"text": "cut', b"[1, 2]", b'"only a string"', b'{"text": "caf\xe9"}',
             b'{"text": ' + deep + b"}", b'{"text": 7, "other": {"a": 1}}', b'{"text": "good two"}']  # fmt: skip
    (tmp_path / "d.jsonl").write_bytes(b"\n".join(lines))
    part = read_jsonl(tmp_path / "d.jsonl")
    assert dict(zip(part.rows, part.columns["text"], strict=True)) == {1: "good one", 7: 7, 8: "good two"}
    assert part.columns["other"][1] == '{"a": 1}'
    reasons = {bad.row: bad.reason for bad in part.bad}
    assert set(reasons) == {2, 3, 4, 5, 6}
    assert "is not JSON (" in reasons[2]
    assert reasons[3] == "is a JSON list; expected an object"
    assert reasons[5] == "holds the byte 0xe9, which is not UTF-8"


def test_json_array_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text('[{"text": "a"}]')
    with pytest.raises(DataError, match="is a JSON array; expected JSON Lines"):
        read_jsonl(tmp_path / "d.json")


def test_text_lines(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_bytes(b"\xef\xbb\xbffirst, with comma\n\n  second \n")
    part = read_lines(tmp_path / "d.txt")
    assert (part.columns["text"], part.rows) == (["first, with comma", "second"], [1, 3])
    (tmp_path / "d.txt").write_bytes(b"first\ncaf\xe9\nnul \x00\nlast\n")
    part = read_lines(tmp_path / "d.txt")
    assert (part.columns["text"], part.rows) == (["first", "last"], [1, 4])
    assert [bad.row for bad in part.bad] == [2, 3]


# -- datasets -------------------------------------------------------------------------------------------------


def with_pictures(count: int, seed: int = 0) -> object:
    import datasets

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "caption": datasets.List(datasets.Value("string")),
            "price": datasets.Value("int32"),
        }
    )
    rows = {
        "image": [{"bytes": encoded(picture(seed + n)), "path": f"{n}.jpg"} for n in range(count)],
        "caption": [[f"first of {n}", f"second of {n}"] for n in range(count)],
        "price": list(range(count)),
    }
    return datasets.Dataset.from_dict(rows, features=features)


def check_pictures(manifest: Manifest, count: int) -> None:
    assert len(manifest) == 2 * count
    assert manifest.texts[:2] == ["first of 0", "second of 0"]
    for row in (0, 1, 2 * count - 1):
        with open_image(manifest.image_path(row)) as opened, open_image(encoded(picture(row // 2))) as wanted:
            assert opened.tobytes() == wanted.tobytes()
        assert manifest.open_image(row).tobytes() == wanted.tobytes()
    found = manifest.ids()
    assert found[0, 0] == found[1, 0] != found[2, 0], "captions of one picture share it"


def test_parquet_with_paths(tmp_path: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DALR_CACHE", str(tmp_path / "cache"))
    import datasets

    datasets.Dataset.from_dict({"image": photos(3), "title": ["x", "y", "z"], "n": [1, None, 3]}).to_parquet(
        tmp_path / "d.parquet"
    )
    manifest = Manifest.load(tmp_path / "d.parquet")
    assert [manifest.open_image(row).size for row in range(3)] == [(40, 30)] * 3
    assert manifest.columns == {"n": [1, None, 3]}
    assert manifest.where(1) == "d.parquet:2"
    assert not (cache_root() / "packed").exists()


def test_parquet_with_pictures_is_packed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DALR_CACHE", str(tmp_path / "cache"))
    with_pictures(4).to_parquet(tmp_path / "d.parquet")  # type: ignore[attr-defined]
    check_pictures(Manifest.load(tmp_path / "d.parquet"), 4)
    packed = [path for path in (tmp_path / "cache" / "packed").iterdir() if path.is_dir()]
    before = [path.stat().st_mtime_ns for path in packed]
    check_pictures(Manifest.load(tmp_path / "d.parquet"), 4)
    assert [path.stat().st_mtime_ns for path in packed] == before
    with_pictures(5).to_parquet(tmp_path / "d.parquet")  # type: ignore[attr-defined]
    check_pictures(Manifest.load(tmp_path / "d.parquet"), 5)
    assert len([path for path in (tmp_path / "cache" / "packed").iterdir() if path.is_dir()]) == 2


def test_broken_parquet(tmp_path: Path) -> None:
    (tmp_path / "d.parquet").write_bytes(b"PAR1 this is not one PAR1")
    with pytest.raises(DataError, match=r"d\.parquet: .*(cannot|can) be read"):
        Manifest.load(tmp_path / "d.parquet")


def test_a_damaged_row_group_costs_itself(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    texts = [f"caption number {n} of them all" for n in range(4_000)]
    path = tmp_path / "d.parquet"
    pyarrow.parquet.write_table(
        pyarrow.table({"text": texts}), path, row_group_size=1_000, compression="none", use_dictionary=False
    )
    content = bytearray(path.read_bytes())
    place = content.find(b"caption number 3500")
    content[place - 3_000 : place] = os.urandom(3_000)
    path.write_bytes(bytes(content))
    manifest = Manifest.load(tmp_path / "d.parquet")
    assert manifest.texts == texts[:3_000]
    assert (manifest.bad[0].where, manifest.bad[0].reason[:19]) == ("d.parquet:3001", "to 4000 are damaged")
    content[100:2_000] = os.urandom(1_900)
    path.write_bytes(bytes(content))
    manifest = Manifest.load(path)
    assert manifest.texts == texts[1_000:3_000]
    assert manifest.where(0) == "d.parquet:1001"
    assert [bad.row for bad in manifest.bad] == [1, 3001]


def test_saved_data_sets(tmp_path: Path) -> None:
    import datasets

    with_pictures(3).save_to_disk(tmp_path / "one")  # type: ignore[attr-defined]
    check_pictures(Manifest.load(tmp_path / "one"), 3)
    both = datasets.DatasetDict({"train": with_pictures(3), "validation": with_pictures(2, seed=50)})
    both.save_to_disk(tmp_path / "both")
    manifest = Manifest.load(tmp_path / "both")
    assert (manifest.split or []).count("train") == 6
    check_pictures(Manifest.load(tmp_path / "both", split="train"), 3)
    assert len(Manifest.load(tmp_path / "both", split="val")) == 4, "val and validation are one name"
    with pytest.raises(DataError, match="no row has the split 'test'; its splits are 'train', 'validation'"):
        Manifest.load(tmp_path / "both", split="test")


def test_a_folder_in_hub_layout(tmp_path: Path) -> None:
    (tmp_path / "hub" / "data").mkdir(parents=True)
    with_pictures(3).to_parquet(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet")  # type: ignore[attr-defined]
    with_pictures(2, seed=9).to_parquet(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet")  # type: ignore[attr-defined]
    (tmp_path / "hub" / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n"
        "  - split: test\n    path: data/test-*\n---\n# A data set\n"
    )
    check_pictures(Manifest.load(tmp_path / "hub", split="train"), 3)
    manifest = Manifest.load(tmp_path / "hub")
    assert len(manifest) == 10
    assert len(set(manifest.keys)) == 10


def test_a_hub_folder_of_tables_keeps_its_good_rows(tmp_path: Path) -> None:
    (tmp_path / "hub" / "data").mkdir(parents=True)
    (tmp_path / "hub" / "README.md").write_text("# A data set of tables\n")
    (tmp_path / "hub" / "data" / "train.csv").write_text("text,n\nfirst one,1\nbroken\nsecond one,2\n")
    (tmp_path / "hub" / "data" / "test.csv").write_text("text,n\nthird one,3\n")
    manifest = Manifest.load(tmp_path / "hub")
    assert dict(zip(manifest.texts, manifest.split or [], strict=True)) == {
        "first one": "train", "second one": "train", "third one": "test",
    }  # fmt: skip
    assert [bad.where for bad in manifest.bad] == ["train.csv:3"]


def test_files_of_one_name_in_several_folders(tmp_path: Path) -> None:
    for split, texts in (("train", 'first one\nsecond one\n""\n'), ("test", 'third one\n""\n')):
        (tmp_path / "set" / split).mkdir(parents=True)
        (tmp_path / "set" / split / "data.csv").write_text(f"text\n{texts}")
    manifest = Manifest.load(tmp_path / "set")
    assert dict(zip(manifest.texts, manifest.split or [], strict=True)) == {
        "first one": "train", "second one": "train", "third one": "test",
    }  # fmt: skip
    assert sorted(bad.where for bad in manifest.bad) == ["test/data.csv:3", "train/data.csv:4"]


def test_pictures_without_paths_in_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is itself, and one that stands in two files is one."""
    monkeypatch.setenv("DALR_CACHE", str(tmp_path / "cache"))
    import datasets

    def png(shade: int) -> bytes:
        stream = io.BytesIO()
        Image.new("RGB", (8, 8), (shade, 0, 0)).save(stream, "PNG")
        return stream.getvalue()

    (tmp_path / "set" / "data").mkdir(parents=True)
    for split, shades in (("train", [10, 20]), ("test", [30, 20])):
        rows = {"image": [{"bytes": png(shade), "path": None} for shade in shades], "text": ["a", "b"]}
        data = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
        data.to_parquet(tmp_path / "set" / "data" / f"{split}-00000-of-00001.parquet")
    manifest = Manifest.load(tmp_path / "set")
    by_shade: dict[int, set[str]] = {}
    for row in range(4):
        pixel = manifest.open_image(row).getpixel((0, 0))
        assert isinstance(pixel, tuple)
        by_shade.setdefault(int(pixel[0]), set()).add(str(manifest.images[row]))
    assert [len(names) for names in by_shade.values()] == [1, 1, 1]
    assert len(set.union(*by_shade.values())) == 3


@pytest.mark.parametrize(("name", "content"), [("data.pkl", b"x"), ("data.xml", b"<a/>"), ("script.py", b"1/0")])
def test_hub_folders_of_other_kinds_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "README.md").write_text("# A data set\n")
    (tmp_path / "hub" / name).write_bytes(content)
    with pytest.raises(DataError, match="hub: "):
        Manifest.load(tmp_path / "hub")


def test_a_hub_name_that_cannot_be_reached(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nobody/nothing: cannot be read as a data set on the hub"):
        Manifest.load("nobody/nothing")


def test_class_folders(tmp_path: Path) -> None:
    for number, name in enumerate(["ankle_boots/1.jpg", "ankle_boots/2.png", "hat/3.webp"]):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        kind = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[name[-4:].strip(".") if name[-4] == "." else "webp"]
        (tmp_path / "photos" / name).write_bytes(encoded(picture(number), kind))
    (tmp_path / "photos" / "hat" / "broken.jpg").write_bytes(b"not a picture")
    manifest = Manifest.load(tmp_path / "photos")
    found = dict(zip(manifest.images, manifest.texts, strict=True))
    assert found == {
        "ankle_boots/1.jpg": "ankle boots", "ankle_boots/2.png": "ankle boots", "hat/3.webp": "hat",
        "hat/broken.jpg": "hat",
    }  # fmt: skip
    assert manifest.open_image(manifest.images.index("hat/3.webp")).size == (40, 30)
    with pytest.raises(DataError, match=r"image 'hat/broken.jpg' is text"):
        manifest.open_image(manifest.images.index("hat/broken.jpg"))


def test_a_flat_folder_has_pictures_alone(tmp_path: Path, photos: Photos) -> None:
    photos(3)
    manifest = Manifest.load(tmp_path / "images")
    assert (len(manifest), set(manifest.texts)) == (3, {None})


def test_metadata_of_an_image_folder(tmp_path: Path, photos: Photos) -> None:
    photos(3)
    (tmp_path / "images" / "metadata.csv").write_text("file_name,text\n0.jpg,zero\n1.jpg,one\n2.jpg\n")
    manifest = Manifest.load(tmp_path / "images")
    assert manifest.texts == ["zero", "one"]
    assert manifest.bad[0].where == "metadata.csv:4"
    assert manifest.open_image(1).size == (40, 30)


def test_a_folder_of_split_tables(tmp_path: Path, photos: Photos) -> None:
    photos(3)
    (tmp_path / "train.csv").write_text("image,text\nimages/0.jpg,a\nimages/1.jpg,b\n")
    (tmp_path / "val.csv").write_text("image,text\nimages/2.jpg,c\n")
    manifest = Manifest.load(tmp_path)
    assert manifest.split == ["train", "train", "val"]
    assert manifest.where(2) == "val.csv:2"
    assert manifest.keys == ["train.csv:2", "train.csv:3", "val.csv:2"]
    (tmp_path / "other.csv").write_text("image,text\nimages/2.jpg,c\n")
    with pytest.raises(DataError, match=r"several tables \(other.csv, train.csv, val.csv\); name the one"):
        Manifest.load(tmp_path)


def test_what_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("image,text\na,b\n")
    (tmp_path / "notes.docx").write_text("x")
    (tmp_path / "photo.jpg").write_bytes(encoded(picture()))
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.md").write_text("x")
    for name, reason in [
        ("caption.csv", "no such file or folder; did you mean 'captions.csv'"), ("notes.docx", "'.docx' is not known"),
        ("photo.jpg", "single picture"), ("empty", "empty folder"), ("texts", "without pictures or tables"),
        ("shards-{000..003}.tar", "no such shard"),
    ]:  # fmt: skip
        with pytest.raises(DataError, match=reason):
            Manifest.load(tmp_path / name)
    with pytest.raises(DataError, match=r"data.root .* is no folder"):
        Manifest.load(tmp_path / "captions.csv", DataConfig(root=str(tmp_path / "nowhere")))
