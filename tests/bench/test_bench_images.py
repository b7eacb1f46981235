"""The image bench.

Invariants
- The plain loop, every variant of it and ours give the same features for the same files: what is timed is one task.
- The plain loop is the plain one: usual memory layout, batches of 64, nothing decoded ahead, whatever ours does.
- Files that cannot be read are not measured.
"""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_catalogue import tiny_catalogue, tiny_model

from dalr.bench.images import PARTS, ours, readable_paths, simple_loop
from dalr.data.manifest import Manifest
from dalr.errors import DataError


def test_every_loop_gives_the_same_features(tmp_path: Path) -> None:
    paths = readable_paths(Manifest.load(tiny_catalogue(tmp_path)), 100)
    encoder = tiny_model().image
    assert encoder is not None
    plain = simple_loop(encoder, paths)
    assert plain.shape == (14, encoder.width)
    for options in PARTS.values():
        assert np.allclose(simple_loop(encoder, paths, **options), plain, atol=1e-5)
    assert np.allclose(ours(encoder, paths), plain, atol=1e-5)


def test_the_plain_loop_is_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = readable_paths(Manifest.load(tiny_catalogue(tmp_path)), 14) * 5
    encoder = tiny_model().image
    assert encoder is not None
    seen: list[tuple[int, bool]] = []
    encoder.network.register_forward_pre_hook(
        lambda module, inputs: seen.append((len(inputs[0]), inputs[0].is_contiguous()))
    )
    threads: set[int] = set()
    opened = Image.open
    monkeypatch.setattr(Image, "open", lambda path: threads.add(threading.get_ident()) or opened(path))
    simple_loop(encoder, paths)
    assert seen == [(64, True), (6, True)]
    assert threads == {threading.get_ident()}
    seen.clear()
    simple_loop(encoder, paths, **PARTS["all four"])
    assert [size for size, _ in seen] == [16, 16, 16, 16, 6]
    assert not any(plain for _, plain in seen)
    assert len(threads) == 3
    assert torch.is_grad_enabled()


def test_only_readable_files_are_measured(tmp_path: Path) -> None:
    manifest = Manifest.load(tiny_catalogue(tmp_path, 4))
    (tmp_path / "images" / "1.png").write_bytes(b"no image")
    assert [path.name for path in readable_paths(manifest, 3)] == ["0.png", "2.png", "3.png"]
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="no image can be read"):
        readable_paths(manifest, 3)
