"""Image towers of the transformers library: vision transformers, convolutional networks, the image half of a CLIP."""

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dalr.encoders import transformers_models as library
from dalr.encoders.image_parts import ImageNetwork, ImageParts, ImageSpec
from dalr.encoders.preprocessing import ProcessorTransform
from dalr.errors import ConfigError


class TransformersImage(ImageNetwork):
    """A transformers vision model: its projected or pooled output, or where it has none its class token."""

    def __init__(self, model: Any, transform: ProcessorTransform) -> None:
        super().__init__()
        self.model, self.transform = model, transform
        takes = inspect.signature(model.forward).parameters
        size = getattr(model.config, "image_size", None)
        # Other sizes than the trained one need the position table stretched, where the model can do that.
        self.stretch = "interpolate_pos_encoding" in takes and isinstance(size, int)
        self.size = size

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        other = self.stretch and tuple(pixels_BCHW.shape[-2:]) != (self.size, self.size)
        output = self.model(pixels_BCHW, return_dict=True, **({"interpolate_pos_encoding": True} if other else {}))
        features = output.get("image_embeds")
        if features is None:
            features = output.get("pooler_output")
        if features is None:
            states = output.last_hidden_state
            features = states[:, 0] if states.ndim == 3 else states.mean(dim=(-2, -1))
        return features.flatten(1)  # type: ignore[no-any-return]

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        with library.quiet():
            self.model.save_pretrained(folder, state_dict={k.removeprefix("model."): v for k, v in state.items()})
        self.transform.save(folder)


def load_transformers_image(folder: Path, pretrained: bool = True, image_size: int | None = None) -> ImageParts:
    """A transformers folder as image parts. Raises ModelError when it has no image side or no preprocessing."""
    config = library.load_config(folder)
    model = library.load_model(folder, config, "image", pretrained)
    transform = ProcessorTransform(folder, {})
    if image_size is not None:
        _resize(transform.processor, image_size, folder)
    network = TransformersImage(model, transform)
    crop = _probe_pixels(transform)
    with torch.inference_mode():
        width = network(crop).shape[-1]
    described = {"model": type(model).__name__, **library.describe_config(model.config)}
    spec = ImageSpec(library="transformers", architecture=described, preprocessing=transform.describe(), width=width)
    return ImageParts(network, spec, transform)


def _resize(processor: Any, image_size: int, folder: Path) -> None:
    changed = False
    for name in ("size", "crop_size"):
        value = getattr(processor, name, None)
        if value is not None and dict(value):
            setattr(processor, name, type(value)(**dict.fromkeys(_set_keys(value), image_size)))
            changed = True
    if not changed:
        raise ConfigError(f"image.image_size: the preprocessing of {folder} has no size to change")


def _set_keys(value: Any) -> list[str]:
    return [key for key, size in dict(value).items() if size is not None]


def _probe_pixels(transform: ProcessorTransform) -> Tensor:
    from PIL import Image

    return transform(Image.new("RGB", (64, 64))).unsqueeze(0)
