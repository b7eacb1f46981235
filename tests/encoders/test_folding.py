"""Folding batch norms for inference, and the other parts of fast CPU embedding.

Invariants:
- the folded copy gives the network's own features, has no batch norm left where each follows a convolution, and the
  network itself is untouched
- a norm whose convolution has a second reader is not folded wrongly: the copy is then not used
- a frozen tower folds once; loading other weights into it folds again
- `ahead` keeps the order, runs ahead by at most `depth`, and raises an item's error at its place
"""

import copy
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dalr.encoders import ImageConfig, build_image_encoder
from dalr.encoders.fast_cpu import ahead, keep_pages
from dalr.encoders.folding import inference_copy


def norms_in(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("kind", ["timm", "torchvision"])
def test_the_folded_copy_equals_the_network(kind: str, request: pytest.FixtureRequest) -> None:
    name = {"timm": "timm_dir", "torchvision": "torchvision_file"}[kind]
    path = request.getfixturevalue(name)
    encoder = build_image_encoder(
        ImageConfig(name=f"torchvision:shufflenet_v2_x0_5/{path}" if kind == "torchvision" else str(path))
    )
    before = encoder.fingerprint()
    pixels = torch.rand(3, 3, 96, 96) * 2 - 1
    folded = inference_copy(encoder.network, pixels)
    assert folded is not None
    assert norms_in(encoder.network) > 5
    assert norms_in(folded) == 0
    with torch.inference_mode():
        torch.testing.assert_close(folded(pixels), encoder.network(pixels), atol=1e-5, rtol=1e-5)
    assert encoder.fingerprint() == before


class TwoReaders(nn.Module):
    """The convolution's output goes through the norm and around it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        nn.init.uniform_(self.norm.running_mean, -1, 1)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        made = self.conv(x)
        return (self.norm(made) + made).mean(dim=(2, 3))


class NormFirst(TwoReaders):
    """Registered as convolution, norm – but run the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x)).mean(dim=(2, 3))


@pytest.mark.parametrize("kind", [TwoReaders, NormFirst])
def test_what_cannot_be_folded_is_left_alone(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    assert inference_copy(kind().eval(), torch.rand(2, 3, 16, 16)) is None


def test_a_frozen_tower_folds_once_and_again_after_new_weights(timm_dir: Path, pictures: list[Image.Image]) -> None:
    encoder = build_image_encoder(ImageConfig(name=str(timm_dir)))
    first = encoder.encode(pictures)
    kept = encoder._folded
    assert kept is not None
    assert kept[1] is not None
    encoder.encode(pictures)
    assert encoder._folded is kept
    other = copy.deepcopy(encoder.state_dict())
    key = next(key for key in other if key.endswith("conv_stem.weight"))
    other[key] = other[key] * 2
    encoder.load_state_dict(other)
    assert np.abs(encoder.encode(pictures) - first).max() > 1e-3


def test_a_trained_tower_never_uses_stale_weights(timm_dir: Path, pictures: list[Image.Image]) -> None:
    encoder = build_image_encoder(ImageConfig(name=str(timm_dir), train="full"))
    first = encoder.encode(pictures)
    for parameter in encoder.parameters():
        parameter.data.mul_(1.01)  # an average of weights writes like this, unseen by version counters
    second = encoder.encode(pictures)
    assert np.abs(second - first).max() > 1e-3
    with torch.inference_mode():
        expected = torch.cat([encoder(encoder.preprocess(picture)[None]) for picture in pictures]).numpy()
    np.testing.assert_allclose(second, expected, atol=1e-5, rtol=1e-5)


def test_ahead_keeps_order_and_does_not_run_far_ahead() -> None:
    started: list[int] = []
    lock = threading.Lock()

    def work(item: int) -> int:
        with lock:
            started.append(item)
        return item * item

    for workers in (0, 3):
        assert list(ahead(work, list(range(50)), workers, depth=4)) == [n * n for n in range(50)]
        assert list(ahead(work, [], workers, depth=4)) == []
    started.clear()
    running = ahead(work, list(range(50)), 3, depth=4)
    assert [next(running), next(running)] == [0, 1]
    running.close()
    assert len(started) <= 2 + 4


@pytest.mark.parametrize("workers", [0, 2])
def test_ahead_raises_at_the_item_that_failed(workers: int) -> None:
    def work(item: int) -> int:
        if item == 3:
            raise ValueError("the fourth")
        return item

    values = ahead(work, list(range(9)), workers, depth=4)
    assert [next(values) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the fourth"):
        next(values)


def test_keep_pages_can_be_asked_again() -> None:
    assert keep_pages() == keep_pages()
