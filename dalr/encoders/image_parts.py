"""What an image tower is made of: a network from pixels to features, its preprocessing, and a record of both."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from dalr.config import Config
from dalr.encoders.preprocessing import Transform


class ImageSpec(Config):
    """What rebuilds an image tower without its weights; saved as `tower.json`.

    `architecture` is what the library needs to build the network, `preprocessing` the settings of its evaluation
    transform, `width` the number of features.
    """

    library: Literal["timm", "torchvision", "open_clip", "transformers"]
    architecture: dict[str, Any]
    preprocessing: dict[str, Any]
    width: int


class ImageNetwork(nn.Module):
    """A network of some library: pixels_BCHW → f_BV, and how it is described and saved."""

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        raise NotImplementedError

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Write the network into `folder` with these weights (adapters merged)."""
        from dalr.encoders.tower import save_weights

        save_weights(folder / "model.safetensors", state)


@dataclass
class ImageParts:
    """A loaded image tower before it is put together."""

    network: ImageNetwork
    spec: ImageSpec
    transform: Transform
