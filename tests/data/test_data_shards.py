"""Invariants of memory-mapped shards:

- any record comes back byte for byte, in any order, over several shard files, also an empty one;
- a folder is whole or not there: an error while building leaves nothing; a damaged one is refused;
- it travels to other processes, and its pictures are read like files.
"""

import multiprocessing
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from data_samples import encoded, picture

from dalr.data.images import open_image
from dalr.data.shards import MemoryShards, PackedImage, ShardWriter
from dalr.errors import DataError
from dalr.files import new_folder


def records() -> list[bytes]:
    generator = np.random.default_rng(0)
    return [generator.bytes(int(n)) for n in generator.integers(0, 300, 200)] + [b"", b"x"]


def build(folder: Path, records: Iterable[bytes], shard_bytes: int = 1 << 30) -> MemoryShards:
    with new_folder(folder) as temporary:
        writer = ShardWriter(temporary, shard_bytes)
        for record in records:
            writer.append(record)
        writer.finish()
    return MemoryShards(folder)


def test_records_come_back_in_any_order(tmp_path: Path) -> None:
    wanted = records()
    shards = build(tmp_path / "s", iter(wanted), shard_bytes=4_000)
    assert len(list((tmp_path / "s").glob("shard-*.bin"))) > 3, "vacuous unless several files are written"
    assert len(shards) == len(wanted)
    for number in np.random.default_rng(1).permutation(len(wanted)):
        assert shards[int(number)] == wanted[number]
    assert shards[-1] == wanted[-1]
    with pytest.raises(IndexError):
        shards[len(wanted)]


def test_packed_tokens_are_a_view_away(tmp_path: Path) -> None:
    rows = [np.arange(n, dtype=np.int32) for n in (5, 0, 9)]
    shards = build(tmp_path / "s", (row.tobytes() for row in rows))
    for number, row in enumerate(rows):
        assert (np.frombuffer(shards[number], dtype=np.int32) == row).all()


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[bytes]:
        yield b"one"
        raise OSError("the source went away")

    with pytest.raises(OSError, match="went away"):
        build(tmp_path / "s", failing())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="not a folder of memory-mapped shards"):
        MemoryShards(tmp_path / "s")


def test_damage_is_refused(tmp_path: Path) -> None:
    shards = build(tmp_path / "s", records())
    (tmp_path / "s" / "shard-00000.bin").write_bytes(b"short")
    with pytest.raises(DataError, match="cut short"):
        MemoryShards(shards.folder)[150]
    np.save(tmp_path / "s" / "index.npy", np.zeros((3, 3), np.int64))
    with pytest.raises(DataError, match="does not fit"):
        MemoryShards(shards.folder)


def _read(shards: MemoryShards, number: int) -> bytes:
    return shards[number]


def test_other_processes_and_pictures(tmp_path: Path) -> None:
    wanted = [encoded(picture(seed)) for seed in range(3)]
    shards = build(tmp_path / "s", wanted)
    shards[0]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.starmap(_read, [(shards, 2), (shards, 0)]) == [wanted[2], wanted[0]]
    image = pickle.loads(pickle.dumps(PackedImage(str(tmp_path / "s"), 1, "a.tar/1.jpg")))
    assert open_image(image).size == (40, 30)
    assert str(image) == "a.tar/1.jpg"
