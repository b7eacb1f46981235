"""Faults planted for experiments.

Invariants: a share of 0.4 moves the captions of two rows in five and loses none; the seed decides which; what is
measured, the carved dev part among it, keeps its own captions.
"""

from pathlib import Path

import pytest

from dalr.data.faults import shuffle_captions
from dalr.data.manifest import DataConfig, Manifest
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
