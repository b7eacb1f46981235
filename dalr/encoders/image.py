"""The image tower: pictures → pixels → features, whatever library the network is from.

B pictures in a batch, N in all, C channels, V features.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from dalr.config import Config
from dalr.encoders import preprocessing
from dalr.encoders.fast_cpu import ahead, keep_pages
from dalr.encoders.folding import inference_copy
from dalr.encoders.image_networks import load_saved_image_network, load_timm, load_torchvision
from dalr.encoders.image_parts import ImageParts, ImageSpec
from dalr.encoders.lora import LoraConfig, merged_state
from dalr.encoders.names import TOWER_FILE, EncoderName, read_json, resolve_name
from dalr.encoders.tower import Tower, Train, set_training
from dalr.errors import ConfigError, DataError, ModelError
from dalr.files import write_json
from dalr.progress import ProgressSink


class ImageConfig(Config):
    """Which image encoder, and how it is used and trained.

    `pretrained: false` keeps the architecture and draws fresh weights (a small timm network from scratch).
    `image_size` at None is the encoder's own. `augment` applies to training pictures of a trained tower.
    `stages` (timm) puts the mean-pooled outputs of these feature stages, numbered from 0 as timm's `feature_info`
    does, behind the network's own features: texture and colour that the last layer has forgotten.
    `lr_decay` < 1 lowers the learning rate from block to block towards the input.
    """

    name: str
    train: Train = "frozen"
    pretrained: bool = True
    image_size: int | None = Field(default=None, ge=8)
    augment: preprocessing.Augment = "none"
    stages: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list)
    lr_decay: float = Field(default=1.0, gt=0, le=1)
    lora: LoraConfig = LoraConfig()


class ImageEncoder(Tower):
    """An image tower; `width` is V. Features are not normalised."""

    def __init__(self, parts: ImageParts, augment: preprocessing.Augment = "none") -> None:
        super().__init__()
        self.spec = parts.spec
        self.network = parts.network
        self.transform = parts.transform
        self.augmentation = augment
        self.width = parts.spec.width
        self._split = preprocessing.split_transform(parts.transform)
        self._folded: tuple[Any, nn.Module | None] | None = None

    def preprocess(self, image: Image.Image) -> Tensor:
        """One picture → pixels (3, height, width) float32, as the tower's own library does for evaluation."""
        return self.transform(image)

    def augment(self, image: Image.Image, seed: int) -> Tensor:
        """One picture → pixels, changed at random by `seed` as the config's `augment` says, then preprocessed."""
        return self.transform(preprocessing.augment(image, self.augmentation, seed))

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Preprocessed pixels on the tower's device → f_BV."""
        # Not on a CPU in training: there oneDNN's backward pass of a strided 1×1 convolution over 3 channels-last
        # channels writes past its buffer (torch 2.14; the stem of FastViT ends in "double free or corruption").
        if pixels_BCHW.is_cuda or not torch.is_grad_enabled():
            pixels_BCHW = pixels_BCHW.contiguous(memory_format=torch.channels_last)
        return self.network(pixels_BCHW)  # type: ignore[no-any-return]

    def encode(
        self,
        items: Sequence[Any],
        *,
        open_image: Callable[[Any], Image.Image] | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
        progress: ProgressSink | None = None,
    ) -> np.ndarray:
        """(N, V) float32 features in input order, in eval mode and without gradients; no items give (0, V).

        `open_image` makes an RGB picture of an item; without it items are PIL pictures or arrays. `workers`
        threads decode ahead while the network computes (0: none; None: 2 on a CPU, 8 beside a GPU). `batch_size`
        None is 16 on a CPU, where a small batch stays in the cache, and 64 on a GPU. `progress(done, total)` is
        called after each batch. Raises what `open_image` raises, DataError for an item that is no picture.
        """
        items = list(items)
        result_NV = np.zeros((len(items), self.width), dtype=np.float32)
        if not items:
            return result_NV
        decode, geometry = open_image or as_picture, self._split[0] if self._split else self.transform
        was_training, device = self.training, self.device
        on_cpu = device.type == "cpu"
        size = batch_size or (16 if on_cpu else 64)
        if on_cpu:
            keep_pages()
        self.eval()
        try:
            with torch.inference_mode():
                pictures = ahead(
                    lambda item: geometry(decode(item)),
                    items,
                    (2 if on_cpu else 8) if workers is None else workers,
                    2 * size,
                )
                network = self._inference_network() if on_cpu else self.network
                for start in range(0, len(items), size):
                    pixels_BCHW = self._stack([next(pictures) for _ in items[start : start + size]], device)
                    result_NV[start : start + len(pixels_BCHW)] = network(pixels_BCHW).float().cpu().numpy()
                    if progress:
                        progress(start + len(pixels_BCHW), len(items))
        finally:
            self.train(was_training)
        return result_NV

    def _stack(self, pictures: Sequence[Any], device: torch.device) -> Tensor:
        """What the workers made, as channels-last pixels: bytes are scaled and normalised for the whole batch."""
        if self._split is None:
            return torch.stack(list(pictures)).to(device).contiguous(memory_format=torch.channels_last)
        _, mean_C11, std_C11 = self._split
        pixels_BCHW = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
        # The same operations in the same order as torchvision's ToTensor and Normalize: equal to the bit.
        return pixels_BCHW.to(device).float().div_(255).sub_(mean_C11.to(device)).div_(std_C11.to(device))

    def _inference_network(self) -> nn.Module:
        """The network with its batch norms folded; kept while a frozen tower's weights are the same tensors."""
        key = [_version(value) for value in self.network.state_dict(keep_vars=True).values()]
        if self._folded is None or self._folded[0] != key or self.train_mode != "frozen":
            pixels = self.preprocess(Image.new("RGB", (64, 64), (120, 80, 40)))
            noise = torch.rand(2, *pixels.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
            self._folded = key, inference_copy(self.network, noise)
        return self._folded[1] or self.network

    def description(self) -> dict[str, Any]:
        """Everything but the weights that decides the features, as JSON values."""
        return self.spec.model_dump(mode="json")

    def save(self, folder: str | Path) -> None:
        """Write the tower into an existing folder: weights with adapters merged, preprocessing, `tower.json`.

        The folder of a timm or transformers network also loads with that library.
        """
        folder = Path(folder)
        state = {name.removeprefix("network."): value for name, value in merged_state(self).items()}
        self.network.save(folder, state)
        write_json(folder / TOWER_FILE, {"format": 1, "side": "image", **self.spec.model_dump(mode="json")})


def as_picture(item: Any) -> Image.Image:
    """A PIL picture or an array (height, width[, 3 or 4]) of bytes, or of floats in 0–1, as an RGB picture.

    Raises DataError for anything else.
    """
    if isinstance(item, Image.Image):
        return item.convert("RGB")
    if isinstance(item, np.ndarray):
        array = item
        if array.dtype != np.uint8 and np.issubdtype(array.dtype, np.floating):
            if not np.isfinite(array).all() or array.min(initial=0) < 0 or array.max(initial=0) > 1:
                raise DataError("a picture given as an array of floats needs values between 0 and 1")
            array = (array * 255).round().astype(np.uint8)
        if (
            array.dtype == np.uint8
            and array.size
            and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4)))
        ):
            return Image.fromarray(array).convert("RGB")
        raise DataError(
            f"an array of shape {item.shape} and type {item.dtype} is no picture; expected (height, width) or "
            "(height, width, 3 or 4) of uint8, or of floats in 0–1"
        )
    raise DataError(f"cannot read a picture from {type(item).__name__}; expected a PIL picture or a numpy array")


def build_image_encoder(config: ImageConfig) -> ImageEncoder:
    """The tower that `config` describes.

    Raises ModelError for a name that cannot be loaded as an image encoder, ConfigError for options that do not
    fit it, MissingExtraError for LoRA without peft.
    """
    name = resolve_name(config.name)
    if config.stages and name.library != "timm":
        raise ConfigError(f"image.stages: only timm networks have numbered stages; {config.name} is not one")
    encoder = ImageEncoder(_load(name, config), config.augment)
    set_training(encoder, encoder.network, config.train, config.lora, lambda: _probe(encoder))
    return encoder


def load_image_encoder(
    folder: str | Path,
    train: Train = "frozen",
    lora: LoraConfig = LoraConfig(),  # noqa: B008 - frozen
    augment: preprocessing.Augment = "none",
) -> ImageEncoder:
    """A tower that `ImageEncoder.save` wrote. Raises ModelError when the folder is not one."""
    name = str(Path(folder).resolve())
    return build_image_encoder(ImageConfig(name=name, train=train, lora=lora, augment=augment))


def _load(name: EncoderName, config: ImageConfig) -> ImageParts:
    if name.library == "dual":
        assert name.folder is not None
        name = EncoderName("tower", name.folder / "image")
    if name.library == "tower":
        assert name.folder is not None
        return _load_tower(name.folder)
    if name.library == "timm":
        return load_timm(name, config.pretrained, config.image_size, config.stages)
    if name.library == "torchvision":
        return load_torchvision(name, config.pretrained, config.image_size)
    if name.library == "open_clip":
        from dalr.encoders.open_clip_towers import load_open_clip, open_clip_image

        return open_clip_image(*load_open_clip(name, config.pretrained, config.image_size), config.image_size)
    if name.library == "transformers":
        from dalr.encoders.transformers_image import load_transformers_image

        assert name.folder is not None
        return load_transformers_image(name.folder, config.pretrained, config.image_size)
    raise ModelError(
        f"{config.name}: {name.library} has no image encoders; "
        "expected timm:, torchvision:, open_clip:, hf: or a folder"
    )


def _load_tower(folder: Path) -> ImageParts:
    saved = read_json(folder / TOWER_FILE)
    if saved.pop("side", None) != "image" or saved.pop("format", None) != 1:
        raise ModelError(f"{folder}: not the folder of an image tower of this version of dalr")
    spec = ImageSpec(**saved)
    if spec.library == "open_clip":
        from dalr.encoders.open_clip_towers import load_saved_open_clip_image

        return load_saved_open_clip_image(folder, spec)
    if spec.library == "transformers":
        from dalr.encoders.transformers_image import load_transformers_image

        return load_transformers_image(folder)
    return load_saved_image_network(folder, spec)


def _version(value: Tensor) -> tuple[int, int]:
    """Where a tensor lies and how often it was written: changes when its values do."""
    return value.data_ptr(), 0 if value.is_inference() else value._version


def _probe(encoder: ImageEncoder) -> Tensor:
    pixels = encoder.preprocess(Image.new("RGB", (64, 64), (120, 80, 40)))
    return encoder(pixels.unsqueeze(0).to(encoder.device))  # type: ignore[no-any-return]
