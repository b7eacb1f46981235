"""Weights that come as a pickle: read as tensors alone, whoever's folder they are in.

Invariants: a file that would run code when it is unpickled is refused as a ModelError and does not run, in every kind
of folder; the same file does run without the protection (or the test would show nothing); an honest pickle is read.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dalr.encoders import ImageConfig, TextConfig, build_image_encoder, build_text_encoder
from dalr.errors import ModelError


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def without_safetensors(source: Path, folder: Path) -> dict[str, torch.Tensor]:
    """A copy of an encoder folder without its weights, which are returned."""
    from safetensors.torch import load_file

    shutil.copytree(source, folder)
    path = next(folder.glob("*.safetensors"))
    tensors = load_file(path)
    path.unlink()
    return tensors


def build(kind: str, folder: Path) -> Any:
    if kind == "torchvision":
        name = f"torchvision:shufflenet_v2_x0_5/{folder / 'weights.pth'}"
        return build_image_encoder(ImageConfig(name=name))
    if kind == "timm":
        return build_image_encoder(ImageConfig(name=str(folder)))
    return build_text_encoder(TextConfig(name=f"open_clip:{folder}" if kind == "open_clip" else str(folder)))


FILES = {
    "transformers": "pytorch_model.bin",
    "open_clip": "open_clip_pytorch_model.bin",
    "timm": "pytorch_model.bin",
    "torchvision": "weights.pth",
    "sentence_transformers": "2_Dense/pytorch_model.bin",
}


@pytest.fixture(params=FILES)
def pickled(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, dict[str, torch.Tensor]]:
    """An encoder folder whose weights (those of its last layer, for sentence-transformers) are missing, and they."""
    kind, folder = request.param, tmp_path / "folder"
    if kind == "torchvision":
        folder.mkdir()
        return kind, folder, torch.load(request.getfixturevalue("torchvision_file"), weights_only=True)
    if kind == "sentence_transformers":
        shutil.copytree(request.getfixturevalue("bert_dir"), folder)
        modules = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"))
        for _, name in modules[1:]:
            (folder / name).mkdir()
        entries = [
            {"idx": n, "path": path, "type": f"sentence_transformers.models.{kind}"}
            for n, (kind, path) in enumerate(modules)
        ]
        (folder / "modules.json").write_text(json.dumps(entries))
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
        (folder / "2_Dense" / "config.json").write_text(json.dumps({"in_features": 32, "out_features": 4}))
        return kind, folder, {"linear.weight": torch.randn(4, 32), "linear.bias": torch.randn(4)}
    fixture = {"transformers": "bert_dir"}.get(kind, f"{kind}_dir")
    return kind, folder, without_safetensors(request.getfixturevalue(fixture), folder)


def test_code_in_a_pickle_does_not_run(pickled: tuple[str, Path, dict[str, torch.Tensor]]) -> None:
    kind, folder, tensors = pickled
    marker = folder / "ran"
    torch.save({**tensors, next(iter(tensors)): Evil(marker)}, folder / FILES[kind])
    with pytest.raises(ModelError):
        build(kind, folder)
    assert not marker.exists()
    torch.load(folder / FILES[kind], weights_only=False)
    assert marker.exists()


def test_an_honest_pickle_is_read(pickled: tuple[str, Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    kind, folder, tensors = pickled
    torch.save(tensors, folder / FILES[kind])
    encoder = build(kind, folder)
    if kind == "sentence_transformers":
        np.testing.assert_array_equal(encoder.after[0].linear.weight.numpy(), tensors["linear.weight"].numpy())
    (tmp_path / "saved").mkdir()
    encoder.save(tmp_path / "saved")
    assert not [path for path in (tmp_path / "saved").iterdir() if path.suffix in (".bin", ".pth")]
