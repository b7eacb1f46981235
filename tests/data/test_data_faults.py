"""Faults planted for experiments.

Invariants: a share of 0.4 moves the captions of two rows in five and loses none; the seed decides which; what is
measured, the carved dev part among it, keeps its own captions; a part that a file of several has not is refused.
"""

from pathlib import Path

import numpy as np
import pytest

from dalr.data.faults import shuffle_captions, swap_captions
from dalr.data.manifest import DataConfig, Manifest
from dalr.errors import DataError
from dalr.run import DataSection
from dalr.run.assembly import load_parts


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "products.csv"
    path.write_text("text,kind\n" + "".join(f"product {row},{row}\n" for row in range(50)))
    return path


def moved(manifest: Manifest) -> list[str]:
    """The rows whose caption is not their own."""
    pairs = zip(manifest.texts, manifest.columns["kind"], strict=True)
    return [kind for text, kind in pairs if text != f"product {kind}"]


def test_two_rows_in_five_change_captions(manifest: Path) -> None:
    clean = Manifest.load(str(manifest), DataConfig())
    noisy = shuffle_captions(clean, 0.4, seed=0)
    assert len(moved(noisy)) == 20
    assert sorted(map(str, noisy.texts)) == sorted(map(str, clean.texts))
    assert noisy.texts == shuffle_captions(clean, 0.4, seed=0).texts != shuffle_captions(clean, 0.4, seed=1).texts
    assert moved(shuffle_captions(clean, 0.0, seed=0)) == moved(clean) == []


def test_what_is_measured_keeps_its_captions(manifest: Path) -> None:
    train, dev, _ = load_parts(DataSection(train=str(manifest), dev=0.2, shuffle_captions=0.5), seed=0)
    assert train is not None
    assert dev is not None
    assert (len(train), len(dev)) == (40, 10)
    assert len(moved(train)) == 20
    assert moved(dev) == []


def test_a_part_that_is_not_there(tmp_path: Path) -> None:
    path, other = tmp_path / "products.csv", tmp_path / "val.csv"
    path.write_text("text,split\n" + "".join(f"product {row},{('train', 'test')[row % 2]}\n" for row in range(8)))
    with pytest.raises(DataError, match=r"products.csv: no row has the split 'trian'; its splits are 'test', 'train'"):
        load_parts(DataSection(train=str(path), train_split="trian"), seed=0)
    other.write_text("text,split\n" + "".join(f"cup {row},held out\n" for row in range(4)))
    # A file of one part, whatever it calls it, is that part.
    train, val, _ = load_parts(DataSection(train=str(path), val=str(other)), seed=0)
    assert train is not None
    assert val is not None
    assert (len(train), len(val)) == (4, 4)


def test_swaps_within_and_across_kinds(tmp_path: Path) -> None:
    path = tmp_path / "products.csv"
    path.write_text("text,kind\n" + "".join(f"product {row // 2},{row % 7}\n" for row in range(400)))
    clean = Manifest.load(path, DataConfig(text="text"))
    kinds = clean.columns["kind"]
    first = {text: row for row, text in reversed(list(enumerate(clean.texts)))}
    for hard in (False, True):
        noisy, wrong = swap_captions(clean, 0.3, 0, kinds, hard)
        assert 100 <= wrong.sum() <= 120
        assert sorted(map(str, noisy.texts)) == sorted(map(str, clean.texts))
        assert [row for row in range(400) if noisy.texts[row] != clean.texts[row]] == np.flatnonzero(wrong).tolist()
        from_kind = [
            {kinds[first[noisy.texts[row]]], kinds[first[noisy.texts[row]] + 1]} for row in np.flatnonzero(wrong)
        ]
        same = np.mean([kinds[row] in kind for row, kind in zip(np.flatnonzero(wrong), from_kind, strict=True)])
        # A caption stands on two rows of different kinds: a plain swap may come from either.
        assert same == 1 if hard else same < 0.3
    assert swap_captions(clean, 0.3, 0, kinds, True)[0].texts != swap_captions(clean, 0.3, 1, kinds, True)[0].texts
    assert not swap_captions(clean, 0.3, 0, list(range(400)), True)[1].any(), "kinds of one row have nothing to swap"
