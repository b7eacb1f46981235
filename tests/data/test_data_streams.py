"""Invariants of streams:

- a batch is a pure function of (seed, t, fingerprint, batch size): any order of asking, any process, another run;
- every row is seen equally often: after any number of whole passes each row exactly that often, never off by two;
- no batch holds a row twice while the set is three batches large; a set smaller than a batch still works;
- mixed streams keep the ratio exactly and evenly, and each kind's own order unbroken;
- the slices of all processes together are the global batch;
- the random bits of two batches have nothing in common, though their numbers differ by one;
- a million rows cost little.
"""

import subprocess
import sys
import time

import numpy as np
import pytest

from dalr.data.streams import MixedStreams, Stream, bits_for, process_slice
from dalr.errors import DataError


@pytest.mark.parametrize(
    ("size", "batch"), [(10, 3), (97, 16), (64, 16), (1000, 7), (5, 8), (1, 4), (48, 16), (47, 16)]
)
def test_every_row_is_seen_equally_often(size: int, batch: int) -> None:
    stream = Stream(size, batch, seed=3, fingerprint="f")
    counts = np.zeros(size, dtype=int)
    for t in range(6 * size):
        counts += np.bincount(stream.rows(t), minlength=size)
        assert counts.max() - counts.min() <= 1 + batch // size + (batch < size < 3 * batch), t
    assert (counts == 6 * batch).all(), "6 × size batches are exactly 6 × batch passes"


@pytest.mark.parametrize(("size", "batch"), [(48, 16), (97, 16), (1000, 7), (33, 11), (50, 16), (301, 100)])
def test_no_batch_holds_a_row_twice(size: int, batch: int) -> None:
    for seed in range(20):
        stream = Stream(size, batch, seed=seed, fingerprint="f")
        assert all(len(np.unique(stream.rows(t))) == batch for t in range(5 * stream.steps_per_epoch))


def test_the_epoch_boundary_would_repeat_rows_without_care() -> None:
    # What the test above is worth: the raw orders do clash.
    clashes = 0
    for seed in range(20):
        stream = Stream(97, 16, seed=seed, fingerprint="f")
        tail = 97 % 16
        clashes += len(np.intersect1d(stream._draw(0)[-tail:], stream._draw(1)[: 16 - tail]))
    assert clashes > 0


def test_pure_in_t_whatever_was_asked_before() -> None:
    stream = Stream(1000, 64, seed=5, fingerprint="abc")
    forward = [stream.rows(t) for t in range(80)]
    for t in np.random.default_rng(0).permutation(80):
        fresh = Stream(1000, 64, seed=5, fingerprint="abc")
        assert (fresh.rows(int(t)) == forward[t]).all()
        assert (stream.rows(int(t)) == forward[t]).all()


def test_pure_across_processes_and_versions() -> None:
    # The stored rows are part of the contract: a change of them breaks the exact resume of every older run.
    code = "from dalr.data.streams import Stream; print(Stream(50, 8, 17, 'data').rows(12).tolist())"
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    here = Stream(50, 8, 17, "data").rows(12).tolist()
    assert elsewhere.strip() == str(here) == "[1, 24, 19, 2, 13, 32, 12, 38]"


def test_seed_fingerprint_and_epoch_change_the_order() -> None:
    base = Stream(500, 100, 1, "a").rows(0)
    for other in (Stream(500, 100, 2, "a").rows(0), Stream(500, 100, 1, "b").rows(0), Stream(500, 100, 1, "a").rows(5)):
        assert (base != other).any()
    assert (np.concatenate([Stream(500, 50, 1, "a").rows(t) for t in (0, 1)]) == base).all()


def test_the_bits_of_following_numbers_have_nothing_in_common() -> None:
    drawn = [word for seed in (0, 1) for t in range(100) for word in bits_for("rows", seed, t).random_raw(64)]
    assert len(set(drawn)) == 2 * 100 * 64
    assert list(bits_for("rows", 1, 2).random_raw(3)) == list(bits_for("rows", 1, 2).random_raw(3))
    assert bits_for("rows", 1, 2).random_raw() != bits_for("masks", 1, 2).random_raw()


def test_orders_are_uniform() -> None:
    # Where row 0 falls in the first epoch of 4,000 seeds: chi-square over 10 places, 99.9 % quantile of 9 df.
    places = [int(np.flatnonzero(Stream(10, 10, seed, "u").rows(0) == 0)[0]) for seed in range(4_000)]
    counts = np.bincount(places, minlength=10)
    assert ((counts - 400) ** 2 / 400).sum() < 27.9


def test_a_million_rows() -> None:
    stream = Stream(1_000_000, 1_024, 1, "big")
    start = time.process_time()
    for t in range(0, 3 * stream.steps_per_epoch, 5):
        stream.rows(t)
    assert time.process_time() - start < 10


@pytest.mark.parametrize("ratio", [{"pairs": 1, "text": 1}, {"pairs": 1, "text": 3}, {"pairs": 4, "text": 6}])
def test_mixed_streams_keep_the_ratio_and_each_order(ratio: dict[str, int]) -> None:
    streams = {"pairs": Stream(30, 4, 1, "p"), "text": Stream(70, 4, 1, "t")}
    mixed = MixedStreams(streams, ratio)
    number = {"pairs": 0, "text": 0}
    share = ratio["pairs"] / sum(ratio.values())
    for t in range(200):
        kind = mixed.kind(t)
        assert (mixed.rows(t) == streams[kind].rows(number[kind])).all()
        number[kind] += 1
        assert abs(number["pairs"] - share * (t + 1)) <= 1, "the kinds are spread, not bunched"
    assert number["pairs"] == round(200 * share)


def test_more_pairs_than_text_still_mixes() -> None:
    # The ratio of sizes, rounded down, would be zero here and the text stream never drawn.
    mixed = MixedStreams({"pairs": Stream(1000, 4, 1, "p"), "text": Stream(10, 4, 1, "t")}, {"pairs": 2, "text": 1})
    assert sum(mixed.kind(t) == "text" for t in range(300)) == 100
    only = MixedStreams({"pairs": Stream(9, 4, 1, "p"), "text": Stream(9, 4, 1, "t")}, {"pairs": 1, "text": 0})
    assert {only.kind(t) for t in range(50)} == {"pairs"}


def test_slices_of_all_processes_are_the_batch() -> None:
    rows = Stream(100, 24, 1, "x").rows(3)
    for world in (1, 2, 3, 8):
        parts = [process_slice(rows, rank, world) for rank in range(world)]
        assert {len(part) for part in parts} == {24 // world}
        assert (np.concatenate(parts) == rows).all()


def test_refusals() -> None:
    with pytest.raises(DataError, match="at least one row"):
        Stream(0, 4, 1, "x")
    with pytest.raises(DataError, match="batch_size is 0"):
        Stream(4, 0, 1, "x")
    with pytest.raises(DataError, match="multiple of 5"):
        process_slice(Stream(100, 24, 1, "x").rows(0), 0, 5)
    streams = {"pairs": Stream(9, 4, 1, "p"), "text": Stream(9, 4, 1, "t")}
    for ratio in ({"pairs": 0, "text": 0}, {"pairs": -1, "text": 2}, {"pairs": 0.5, "text": 0.5}, {"pairs": 1}):
        with pytest.raises(DataError, match="ratio"):
            MixedStreams(streams, ratio)  # type: ignore[arg-type]
