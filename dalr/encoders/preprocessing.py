"""Each image tower's own preprocessing, done by the library that it is from, and recorded as JSON.

A picture becomes a (3, height, width) float32 tensor exactly as the tower's library would make it for evaluation.
`augment` changes the picture before that, so that every library has the same augmentations.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from dalr.encoders.transformers_models import quiet
from dalr.errors import ModelError, one_line

Transform = Callable[[Image.Image], Tensor]
Augment = Literal["none", "light", "strong"]


def build_transform(library: str, settings: dict[str, Any], folder: Path | None = None) -> Transform:
    """The evaluation transform of a recorded preprocessing; a transformers processor is read from `folder`."""
    if library == "timm":
        from timm.data import create_transform

        return create_transform(**settings, is_training=False)  # type: ignore[no-any-return]
    if library == "open_clip":
        from open_clip.transform import PreprocessCfg, image_transform_v2

        return image_transform_v2(PreprocessCfg(**settings), is_train=False)  # type: ignore[no-any-return]
    if library == "torchvision":
        return _torchvision_transform(settings)
    assert folder is not None
    return ProcessorTransform(folder, settings)


def split_transform(transform: Transform) -> tuple[Callable[[Image.Image], Any], Tensor, Tensor] | None:
    """A transform that ends in (to tensor, normalise) as what comes before, and mean and std of shape (3, 1, 1).

    The part before works on pictures; the rest can then be done for a whole batch at once, with the same result
    to the bit. None for transforms of another form.
    """
    from torchvision import transforms

    steps = getattr(transform, "transforms", None)
    if not isinstance(steps, list) or len(steps) < 2 or not isinstance(steps[-1], transforms.Normalize):
        return None
    if type(steps[-2]).__name__ not in ("ToTensor", "MaybeToTensor"):
        return None
    mean_C, std_C = (torch.as_tensor(value, dtype=torch.float32) for value in (steps[-1].mean, steps[-1].std))
    return transforms.Compose(steps[:-2]), mean_C.reshape(-1, 1, 1), std_C.reshape(-1, 1, 1)


class ProcessorTransform:
    """A transformers image processor as a transform of one picture."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        from transformers import AutoImageProcessor

        try:
            with quiet():
                self.processor = AutoImageProcessor.from_pretrained(folder, **settings)
        except (OSError, ValueError, KeyError, ImportError) as error:
            reason = one_line(error)
            raise ModelError(f"{folder}: no image preprocessing that transformers can read ({reason})") from None

    def __call__(self, image: Image.Image) -> Tensor:
        return self.processor(images=[image], return_tensors="pt")["pixel_values"][0]  # type: ignore[no-any-return]

    def describe(self) -> dict[str, Any]:
        """The processor's settings, without those that say where it runs or is from."""
        volatile = ("_processor_class", "processor_class", "device", "image_processor_type", "feature_extractor_type")
        values = self.processor.to_dict()
        return {key: value for key, value in values.items() if key not in volatile and value is not None}

    def save(self, folder: Path) -> None:
        with quiet():
            self.processor.save_pretrained(folder)


def augment(image: Image.Image, kind: Augment, seed: int) -> Image.Image:
    """A changed copy of a picture; the same seed gives the same change.

    `light`: a crop of 70–100 % of the area near its own aspect ratio, and a left–right flip half of the time.
    `strong`: a crop of 35–100 %, the flip, and brightness and contrast within ±30 %. Hue is never changed, since
    captions name colours.
    """
    if kind == "none":
        return image
    from PIL import ImageEnhance

    draw = random.Random(seed)
    smallest, spread = (0.7, 1.15) if kind == "light" else (0.35, 4 / 3)
    share, ratio = draw.uniform(smallest, 1.0), spread ** draw.uniform(-1, 1)
    width = min(image.width, max(1, round(image.width * (share * ratio) ** 0.5)))
    height = min(image.height, max(1, round(image.height * (share / ratio) ** 0.5)))
    left, top = draw.randint(0, image.width - width), draw.randint(0, image.height - height)
    image = image.crop((left, top, left + width, top + height))
    if draw.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if kind == "strong":
        image = ImageEnhance.Brightness(image).enhance(draw.uniform(0.7, 1.3))
        image = ImageEnhance.Contrast(image).enhance(draw.uniform(0.7, 1.3))
    return image


def torchvision_settings(preset: Any) -> dict[str, Any]:
    """A torchvision classification preset as JSON values."""
    return {
        "crop_size": list(preset.crop_size),
        "resize_size": list(preset.resize_size),
        "mean": list(preset.mean),
        "std": list(preset.std),
        "interpolation": preset.interpolation.value,
        "antialias": bool(preset.antialias),
    }


def _torchvision_transform(settings: dict[str, Any]) -> Transform:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms._presets import ImageClassification

    values = {**settings, "interpolation": InterpolationMode(settings["interpolation"])}
    sizes = {key: values[key] if len(values[key]) > 1 else values[key][0] for key in ("crop_size", "resize_size")}
    return ImageClassification(**{**values, **sizes})  # type: ignore[no-any-return]
