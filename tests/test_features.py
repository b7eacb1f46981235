"""FeatureStore: embeddings on disk.

Invariants
- What was embedded comes back equal, in any order asked for, also from a new object; only missing rows are computed.
- A process killed with SIGKILL at any point of a write loses no committed row, shows no torn one, and the next run
  goes on from there; the same holds at random moments.
- Two processes that embed the same keys side by side both end with all rows, share the work, and no row is twice.
- Rows of two specs are never mixed: refused by name in one folder, apart in the cache.
- A bad item is left out, recorded with its reason and tried again; an error of the encoder itself is raised.
- A damaged row is found by its hash and made anew; a store cut short is refused.
- Keys follow content: a moved image keeps its key, a changed one (same size, same time stamp) does not.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dalr.errors import DataError, StoreError
from dalr.features import FeatureSpec, FeatureStore, image_keys, text_keys
from dalr.features import keys as keys_module
from dalr.features.shards import RECORD
from dalr.files import hash_file

WIDTH = 32
SPEC = FeatureSpec(fingerprint="model-1", side="text", width=WIDTH)

# What every child process starts with: `encode` computes a row from its text alone, so that a torn row shows.
CHILD = f"""
import os, signal, sys, time
import numpy as np
from dalr.features import FeatureSpec, FeatureStore, text_keys
SPEC = FeatureSpec(fingerprint="model-1", side="text", width={WIDTH})
def encode(texts):
    return np.stack([np.random.default_rng(int(text)).normal(size={WIDTH}) for text in texts])
texts = [str(number) for number in range(int(sys.argv[2]))]
"""


def encode(texts: Sequence[str]) -> np.ndarray:
    return np.stack([np.random.default_rng(int(text)).normal(size=WIDTH) for text in texts])


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def embed_all(folder: Path, count: int, **options: Any) -> FeatureStore:
    store = FeatureStore.open(folder, SPEC)
    assert store.embed(text_keys(numbers(count)), numbers(count), encode, **options) == []
    return store


def check_rows(folder: Path, count: int) -> int:
    """Every row that the store shows is the right one; returns how many it shows."""
    store = FeatureStore.open(folder)
    texts = [text for text, key in zip(numbers(count), text_keys(numbers(count)), strict=True) if key in store]
    if texts:
        assert np.array_equal(store.rows(text_keys(texts)), encode(texts).astype(np.float32))
    assert len(store) == len(texts)
    return len(texts)


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD + code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_rows_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    embed_all(tmp_path / "s", 100, chunk=7)
    store = FeatureStore.open(tmp_path / "s")
    texts = [str(number) for number in (99, 0, 42, 42, 7)]
    rows = store.rows(text_keys(texts))
    assert rows.dtype == np.float32
    assert np.array_equal(rows, encode(texts).astype(np.float32))
    assert store.keys() == text_keys(numbers(100))
    assert text_keys(["100"])[0] not in store
    assert store.rows([]).shape == (0, WIDTH)


def test_only_missing_rows_are_computed(tmp_path: Path) -> None:
    embed_all(tmp_path / "s", 50)
    seen: list[str] = []

    def watched(texts: Sequence[str]) -> np.ndarray:
        seen.extend(texts)
        return encode(texts)

    steps: list[tuple[int, int]] = []
    store = FeatureStore.open(tmp_path / "s", SPEC)
    texts = [*numbers(60), "55"]
    assert store.embed(text_keys(texts), texts, watched, chunk=4, progress=lambda *step: steps.append(step)) == []
    assert seen == [str(number) for number in range(50, 60)]
    assert steps == [(4, 10), (8, 10), (10, 10)]
    assert len(store) == 60


def test_float16_halves_the_file_and_keeps_three_digits(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"dtype": "float16"})
    store = FeatureStore.open(tmp_path / "s", spec)
    store.embed(text_keys(numbers(20)), numbers(20), encode)
    rows = FeatureStore.open(tmp_path / "s", spec).rows(text_keys(numbers(20)))
    assert rows.dtype == np.float32
    assert np.allclose(rows, encode(numbers(20)), rtol=1e-3, atol=1e-4)
    assert (tmp_path / "s" / "rows-00000.bin").stat().st_size == 20 * WIDTH * 2
    with pytest.raises(StoreError, match="float16"):
        store.embed(text_keys(["big"]), ["big"], lambda items: np.full((1, WIDTH), 1e6))


# Each is a point at which the child kills itself: after the first half of the bytes of its nth write, or before its
# nth flush. A chunk makes two of each: its rows, then their index records.
@pytest.mark.parametrize("call", ["pwrite", "fsync"])
@pytest.mark.parametrize("nth", [3, 4])
def test_a_writer_killed_inside_a_write(tmp_path: Path, call: str, nth: int) -> None:
    code = """
real, calls = getattr(os, sys.argv[3]), 0
def deadly(stream, *arguments):
    global calls
    calls += 1
    if calls == int(sys.argv[4]):
        if arguments:
            data, offset = arguments
            real(stream, data[: len(data) // 2 + 5], offset)
        os.kill(os.getpid(), signal.SIGKILL)
    return real(stream, *arguments)
setattr(os, sys.argv[3], deadly)
FeatureStore.open(sys.argv[1], SPEC).embed(text_keys(texts), texts, encode, chunk=10)
"""
    FeatureStore.open(tmp_path, SPEC)
    child = start(code, tmp_path, 100, call, nth)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    shown = check_rows(tmp_path, 100)
    # The first chunk was complete. Of the second one a part of the records may have been, or, at the last flush, all.
    assert 10 <= shown <= 20
    if nth == 3:
        assert shown == 10
    embed_all(tmp_path, 100, chunk=10)
    assert check_rows(tmp_path, 100) == 100
    assert (tmp_path / "index.bin").stat().st_size == 100 * RECORD.itemsize


def test_killed_at_random_moments(tmp_path: Path) -> None:
    code = """
store = FeatureStore.open(sys.argv[1], SPEC)
print("started", flush=True)
store.embed(text_keys(texts), texts, encode, chunk=3, progress=lambda done, total: print(len(store), flush=True))
"""
    generator = np.random.default_rng(0)
    count, before = 3000, 0
    for _ in range(5):
        child = start(code, tmp_path, count)
        assert child.stdout is not None
        reported = 0
        for _ in range(int(generator.integers(1, 40))):
            line = child.stdout.readline()
            reported = int(line) if line.strip().isdigit() else reported
        child.kill()
        child.communicate()
        shown = check_rows(tmp_path, count)
        assert shown >= max(reported, before)
        before = shown
    assert 0 < before < count
    embed_all(tmp_path, count, chunk=500)
    assert check_rows(tmp_path, count) == count


def test_two_processes_write_side_by_side(tmp_path: Path) -> None:
    code = """
encoded = 0
def slow(some):
    global encoded
    encoded += len(some)
    time.sleep(0.005)
    return encode(some)
store = FeatureStore.open(sys.argv[1], SPEC)
print("ready", flush=True)
sys.stdin.readline()
assert store.embed(text_keys(texts), texts, slow, chunk=10) == []
assert np.array_equal(store.rows(text_keys(texts)), encode(texts).astype(np.float32))
print(encoded)
"""
    count = 2000
    children = [start(code, tmp_path, count) for _ in range(2)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    encoded = [int(child.communicate()[0]) for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert check_rows(tmp_path, count) == count
    assert (tmp_path / "index.bin").stat().st_size == count * RECORD.itemsize  # no key twice
    assert (tmp_path / "rows-00001.bin").stat().st_size > 0
    assert min(encoded) > 0.1 * count
    assert sum(encoded) < 1.3 * count


def test_a_reader_sees_the_rows_of_another_after_refresh(tmp_path: Path) -> None:
    reader = embed_all(tmp_path, 5)
    embed_all(tmp_path, 9)
    assert len(reader) == 5
    reader.refresh()
    assert np.array_equal(reader.rows(text_keys(numbers(9))), encode(numbers(9)).astype(np.float32))


def test_rows_of_two_specs_are_never_mixed(tmp_path: Path) -> None:
    embed_all(tmp_path / "s", 3)
    other = SPEC.model_copy(update={"fingerprint": "model-2"})
    with pytest.raises(StoreError, match=r"fingerprint 'model-1', not 'model-2'"):
        FeatureStore.open(tmp_path / "s", other)
    first, second = (FeatureStore.in_cache(spec, tmp_path / "cache") for spec in (SPEC, other))
    first.embed(text_keys(["1"]), ["1"], encode)
    assert len(second) == 0
    assert first.folder != second.folder
    assert len(FeatureStore.in_cache(SPEC, tmp_path / "cache")) == 1


def test_what_is_not_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a feature store"):
        FeatureStore.open(tmp_path / "nothing")
    store = embed_all(tmp_path / "s", 3)
    with pytest.raises(StoreError, match="1 of 2 rows are not in the store"):
        store.rows(text_keys(["1", "77"]))
    with pytest.raises(StoreError, match="not a content key"):
        store.rows(["row 7"])
    head = tmp_path / "s" / "store.json"
    head.write_text(head.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(StoreError, match="format 2"):
        FeatureStore.open(tmp_path / "s")
    head.write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        FeatureStore.open(tmp_path / "s")


def test_bad_items_are_left_out_recorded_and_tried_again(tmp_path: Path) -> None:
    calls = 0

    def fragile(texts: Sequence[str]) -> np.ndarray:
        nonlocal calls
        calls += 1
        if "13" in texts or "lost" in texts:
            raise DataError("thirteen is torn" if "13" in texts else "no such text")
        rows = encode(texts)
        rows[[text == "40" for text in texts]] = np.nan
        return rows

    store = FeatureStore.open(tmp_path, SPEC)
    texts = [*numbers(64), "13", "lost"]
    keys: list[str | None] = [*text_keys(texts[:-1]), None]
    bad = store.embed(keys, texts, fragile)
    assert [(item.position, item.reason) for item in bad] == [
        (13, "thirteen is torn"),
        (40, "its embedding is not finite"),
        (64, "thirteen is torn"),
        (65, "no such text"),
    ]
    assert len(store) == 62
    assert calls <= 2 * np.log2(64) + 2  # halved, not one by one
    again = FeatureStore.open(tmp_path)
    assert again.bad() == {bad[0].key: "thirteen is torn", bad[1].key: "its embedding is not finite"}
    assert again.embed(text_keys(numbers(64)), numbers(64), encode) == []
    assert again.bad() == {}


def test_an_error_of_the_encoder_is_raised(tmp_path: Path) -> None:
    store = FeatureStore.open(tmp_path, SPEC)

    def broken(texts: Sequence[str]) -> np.ndarray:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        store.embed(text_keys(numbers(4)), numbers(4), broken)
    with pytest.raises(StoreError, match=r"shape \(4, 31\)"):
        store.embed(text_keys(numbers(4)), numbers(4), lambda texts: encode(texts)[:, 1:])
    assert len(store) == 0
    embed_all(tmp_path, 4)  # the lock of the failed runs is free


def test_a_damaged_row_is_found_and_made_anew(tmp_path: Path) -> None:
    embed_all(tmp_path, 10)
    with open(tmp_path / "rows-00000.bin", "r+b") as stream:
        stream.seek(3 * WIDTH * 4 + 1)
        stream.write(b"\xff")
    store = FeatureStore.open(tmp_path)
    assert store.verify() == text_keys(["3"])
    assert len(store) == len(FeatureStore.open(tmp_path)) == 9
    embed_all(tmp_path, 10)
    assert FeatureStore.open(tmp_path).verify() == []
    assert check_rows(tmp_path, 10) == 10
    os.truncate(tmp_path / "rows-00000.bin", 100)
    with pytest.raises(StoreError, match="shorter than"):
        FeatureStore.open(tmp_path)


def test_the_content_hash_follows_values_and_order(tmp_path: Path) -> None:
    first, second = embed_all(tmp_path / "a", 10, chunk=3), embed_all(tmp_path / "b", 10)
    keys = text_keys(numbers(10))
    assert first.content_hash(keys) == second.content_hash(keys)
    assert first.content_hash(keys) != first.content_hash(keys[::-1])
    third = FeatureStore.open(tmp_path / "c", SPEC)
    third.embed(keys, numbers(10), lambda texts: encode(texts) * 1.001)
    assert third.content_hash(keys) != first.content_hash(keys)


def test_text_keys_see_case_and_odd_characters() -> None:
    keys = text_keys(["a dog", "A dog", "", "\ud800", "狗"])
    assert len(set(keys)) == 5
    assert all(len(key) == 32 for key in keys)


class Member:
    """A picture inside a shard."""

    def read_bytes(self) -> bytes:
        return b"same"


def test_image_keys_follow_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    monkeypatch.setattr(keys_module, "SETTLED_NS", 0)  # else nothing this young is remembered
    monkeypatch.setattr(keys_module, "hash_file", lambda path: hashed.append(path) or hash_file(path))
    photo, copy, changed = tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "c.jpg"
    for path, data in ((photo, b"same"), (copy, b"same"), (changed, b"diff")):
        path.write_bytes(data)
        os.utime(path, (1_000_000_000, 1_000_000_000))
    cache = tmp_path / "keys.sqlite"
    paths = [photo, copy, changed, tmp_path / "missing.jpg", tmp_path, "nul\0name", None, Member()]
    for _ in range(2):
        keys = image_keys(paths, cache=cache)
        same = hash_file(photo)
        assert keys == [same, same, hash_file(changed), None, None, None, None, same]
        assert hashed == [photo, copy, changed]  # the second time from the cache
    # The same size and modification time, other bytes: only the time of change tells.
    photo.write_bytes(b"SAME")
    os.utime(photo, (1_000_000_000, 1_000_000_000))
    assert image_keys([photo], cache=cache) == [hash_file(photo)] != keys[:1]
    cache.write_bytes(b"not a database" * 100)
    assert image_keys([photo], cache=cache) == [hash_file(photo)]
