"""Invariants of WebDataset shards:

- samples arrive with image, text, JSON fields and label, from one file, a range, a glob or a folder;
- nothing pickled is read: a sample with a pickled member is refused by name and its code never runs;
- a broken sample costs itself, a cut shard keeps its good part;
- `datasets` reads a sound shard, our own survey the rest.
"""

import io
import json
import pickle
import tarfile
from pathlib import Path

import pytest
from data_samples import encoded, picture

from dalr.data.images import open_image
from dalr.data.manifest import Manifest
from dalr.data.webdataset import expand_shards
from dalr.errors import DataError


class Trap:
    """Unpickling this creates a file: the proof that it was unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def sample(number: int, **more: bytes) -> list[tuple[str, bytes]]:
    key = f"{number:04d}"
    return [
        (f"{key}.jpg", encoded(picture(number))),
        (f"{key}.txt", f"caption {number}".encode()),
        *((f"{key}.{ending}", content) for ending, content in more.items()),
    ]


def test_shards_as_they_should_be(tmp_path: Path) -> None:
    for shard in range(3):
        rows = [
            member for n in range(4)
            for member in sample(4 * shard + n, json=json.dumps({"colour": "red", "n": n}).encode(), cls=b"7")
        ]  # fmt: skip
        write_tar(tmp_path / f"s-{shard:03d}.tar", rows)
    for source in (tmp_path, tmp_path / "s-{000..002}.tar", tmp_path / "s-*.tar"):
        manifest = Manifest.load(source)
        assert manifest.texts == [f"caption {n}" for n in range(12)]
        assert manifest.columns["colour"] == ["red"] * 12
        assert manifest.images[5] == "s-001.tar/0005.jpg"
        assert manifest.where(5) == "s-001.tar:2"
        assert manifest.open_image(5).tobytes() == open_image(encoded(picture(5))).tobytes()
        assert open_image(manifest.image_path(11)).tobytes() == open_image(encoded(picture(11))).tobytes()
    assert [path.name for path in expand_shards(str(tmp_path / "s-{001..002}.tar"))] == ["s-001.tar", "s-002.tar"]


def test_datasets_reads_sound_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dalr.data import webdataset

    monkeypatch.setattr(webdataset, "_read", lambda *args: pytest.fail("the other reader was to do it"))
    write_tar(tmp_path / "s.tar", [member for n in range(7) for member in sample(n, json=b'{"colour": "red"}')])
    manifest = Manifest.load(tmp_path / "s.tar")
    assert manifest.texts == [f"caption {n}" for n in range(7)]
    assert manifest.columns["colour"] == ["red"] * 7


def test_shards_of_one_name_in_several_folders(tmp_path: Path) -> None:
    for number, split in enumerate(("a", "b")):
        (tmp_path / split).mkdir()
        content = encoded(picture(number), "PNG")
        write_tar(tmp_path / split / "0.tar", [("x.png", content), ("x.txt", f"caption {split}".encode())])
    manifest = Manifest.load(str(tmp_path / "*" / "0.tar"))
    assert sorted(text or "" for text in manifest.texts) == ["caption a", "caption b"]
    assert len(set(manifest.images)) == 2
    assert not manifest.bad


@pytest.mark.parametrize("ending", ["pkl", "pickle", "pyd", "pt", "pth", "npy", "npz", "PKL", "meta.pkl", "pkl.gz"])
def test_pickled_members_are_refused_by_name(tmp_path: Path, ending: str) -> None:
    trap = pickle.dumps(Trap(tmp_path / "ran"))
    write_tar(tmp_path / "s.tar", [*sample(0), *sample(1, **{ending: trap}), *sample(2)])
    manifest = Manifest.load(tmp_path / "s.tar")
    assert manifest.texts == ["caption 0", "caption 2"]
    assert f"member '0001.{ending}' is refused" in manifest.bad[0].reason
    assert "pickle" in manifest.bad[0].reason
    assert (manifest.bad[0].row, manifest.bad[0].key) == (2, "0001")
    assert not (tmp_path / "ran").exists()
    write_tar(tmp_path / "all.tar", sample(1, **{ending: trap}))
    with pytest.raises(DataError, match="not one usable"):
        Manifest.load(tmp_path / "all.tar")
    pickle.loads(trap)
    assert (tmp_path / "ran").exists(), "vacuous unless the trap works"


def test_broken_samples_cost_themselves(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:

        def add(name: str, content: bytes = b"", **how: object) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in how.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))

        add("a.jpg", encoded(picture(0))), add("a.txt", b"good")
        add("b.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"), add("b.txt", b"linked")
        add("c.jpg", encoded(picture(1))), add("c.txt", b"caf\xe9")
        add("d.jpg", encoded(picture(1))), add("d.json", b"{broken")
        add("e.jpg", encoded(picture(1))), add("e.jpg", encoded(picture(2)))
        add("f.jpg.gz", b"\x1f\x8b"), add("f.txt", b"packed")
        add("noending", b"x")
        add("../../g.jpg", encoded(picture(3))), add("../../g.txt", b"name climbs, nothing is extracted")
        add("h.mp4", b"video")
        add("i.txt", b"x" * 2_000_000)
        add("j.txt", b"text alone")
    manifest = Manifest.load(tmp_path / "s.tar")
    assert manifest.texts == ["good", "name climbs, nothing is extracted", "text alone"]
    reasons = {bad.key: bad.reason for bad in manifest.bad}
    for key, part in {"b": "link", "c": "not UTF-8", "d": "not JSON", "e": "twice", "f": "compressed",
                      "noending": "no ending", "h": "neither", "i": "2,000,000 bytes"}.items():  # fmt: skip
        assert part in reasons[key], (key, reasons[key])


def test_a_cut_shard_keeps_its_good_part(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "w.tar", [member for n in range(6) for member in sample(n)]).read_bytes()
    (tmp_path / "s.tar").write_bytes(whole[: len(whole) // 2])
    manifest = Manifest.load(tmp_path / "s.tar")
    assert 1 <= len(manifest) < 6
    assert manifest.texts == [f"caption {n}" for n in range(len(manifest))]
    assert any("cut short" in bad.reason for bad in manifest.bad)
    (tmp_path / "n.tar").write_bytes(b"this is no tar file" * 100)
    with pytest.raises(DataError, match="is not a tar file"):
        Manifest.load(tmp_path / "n.tar")
