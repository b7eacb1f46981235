"""Image networks of timm and torchvision without their classifier: pooled features, preprocessing of their own."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dalr.encoders.image_parts import ImageNetwork, ImageParts, ImageSpec
from dalr.encoders.names import EncoderName, read_json
from dalr.encoders.preprocessing import build_transform, torchvision_settings
from dalr.encoders.tower import load_weights, read_weights, save_weights
from dalr.errors import ConfigError, ModelError, one_line
from dalr.files import write_json

LOADING_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError)


class TimmImage(ImageNetwork):
    """A timm network with `num_classes=0`. Its saved folder is also a timm folder (`local-dir:`).

    With `stages` in `architecture`, their mean-pooled outputs stand behind the network's own features.
    """

    def __init__(self, model: nn.Module, architecture: dict[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.architecture = architecture
        self.stages = list(architecture.get("stages", ()))

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        if not self.stages:
            return self.model(pixels_BCHW)  # type: ignore[no-any-return]
        final, maps = self.model.forward_intermediates(pixels_BCHW, indices=self.stages)  # type: ignore[operator]
        own_BV = self.model.forward_head(final)  # type: ignore[operator]
        return torch.cat([own_BV, *(features.mean(dim=(2, 3)) for features in maps)], dim=1)

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        save_weights(
            folder / "model.safetensors", {name.removeprefix("model."): value for name, value in state.items()}
        )
        name, args, source = (self.architecture[key] for key in ("name", "args", "pretrained_cfg"))
        architecture, _, tag = name.partition(".")
        write_json(
            folder / "config.json",
            {
                "architecture": architecture,
                "num_classes": 0,
                "model_args": {**args, "num_classes": 0},
                "pretrained_cfg": {**source, "num_classes": 0, **({"tag": tag} if tag else {})},
            },
        )


class TorchvisionImage(ImageNetwork):
    """A torchvision network whose last linear layer passes its input through."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.model(pixels_BCHW)  # type: ignore[no-any-return]


def load_timm(
    name: EncoderName, pretrained: bool = True, image_size: int | None = None, stages: Sequence[int] = ()
) -> ImageParts:
    """A timm network by architecture (`mobilenetv2_100`, a tag after a dot) or folder.

    With weights given as a file they are loaded into the architecture. Raises ModelError when timm does not know
    the name, or its weights can be neither read nor fetched.
    """
    args: dict[str, Any] = {}
    architecture, source = name.architecture, None
    if name.folder is not None:
        config = read_json(name.folder / "config.json")
        if "architecture" not in config:
            raise ModelError(f"{name.folder}/config.json: has no 'architecture'; expected a timm folder")
        architecture = str(config["architecture"])
        args = {key: value for key, value in (config.get("model_args") or {}).items() if key != "num_classes"}
        source = config.get("pretrained_cfg")
    if image_size is not None:
        args["img_size"] = image_size
    where = f"local-dir:{name.folder}" if name.folder is not None and pretrained else architecture
    fetch = pretrained and name.weights is None
    model, args = _create_timm(where, fetch, args, None if where != architecture else source)
    if pretrained and name.weights is not None:
        _load_headless(model, Path(name.weights), f"timm:{architecture}/{name.weights}")
    source = {key: value for key, value in model.pretrained_cfg.items() if key not in ("file", "source", "url")}  # type: ignore[union-attr, operator]
    described: dict[str, Any] = {"name": architecture, "args": args, "pretrained_cfg": source}
    if stages:
        _check_stages(model, stages, architecture)
        described["stages"] = list(stages)
    return _timm_parts(model, described, image_size)


def load_torchvision(name: EncoderName, pretrained: bool = True, image_size: int | None = None) -> ImageParts:
    """A torchvision network: `resnet18`, `resnet18/IMAGENET1K_V1`, or `resnet18/` and the path of a state dict.

    Raises ModelError for an unknown architecture or weights that do not fit it.
    """
    from torchvision.models import get_model, get_model_weights

    architecture = name.architecture
    try:
        tags: Any = get_model_weights(architecture)
    except ValueError:
        raise ModelError(f"torchvision:{architecture}: torchvision has no classification model of this name") from None
    file = Path(name.weights) if name.weights and name.weights not in tags.__members__ else None
    if file is not None and not file.is_file():
        raise ModelError(
            f"torchvision:{architecture}/{name.weights}: neither a weights file nor one of the tags "
            f"{', '.join(str(tag) for tag in tags.__members__)}"
        )
    tag = tags[name.weights] if name.weights and file is None else tags.DEFAULT
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # inception and googlenet announce a change of their initial weights
            model = get_model(architecture, weights=tag if pretrained and file is None else None)
    except LOADING_ERRORS as error:
        raise ModelError(f"torchvision:{architecture}: its weights cannot be fetched ({one_line(error)})") from None
    width = _remove_classifier(model, architecture)
    if pretrained and file is not None:
        _load_headless(model, file, f"torchvision:{architecture}/{file}")
    settings = torchvision_settings(tag.transforms())
    if image_size is not None:
        settings["resize_size"] = [round(image_size * settings["resize_size"][0] / settings["crop_size"][0])]
        settings["crop_size"] = [image_size]
    described = {"name": architecture, "transform_input": bool(getattr(model, "transform_input", False))}
    spec = ImageSpec(library="torchvision", architecture=described, preprocessing=settings, width=width)
    return ImageParts(TorchvisionImage(model.eval()), spec, build_transform("torchvision", settings))


def load_saved_image_network(folder: Path, spec: ImageSpec) -> ImageParts:
    """A timm or torchvision tower that dalr saved."""
    if spec.library == "timm":
        described = spec.architecture
        model, _ = _create_timm(described["name"], False, described["args"], described["pretrained_cfg"])
        load_weights(model, folder / "model.safetensors")
        network: ImageNetwork = TimmImage(model.eval(), described)
    else:
        from torchvision.models import get_model

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = get_model(spec.architecture["name"], weights=None)
        _remove_classifier(model, spec.architecture["name"])
        if hasattr(model, "transform_input"):
            model.transform_input = spec.architecture["transform_input"]
        network = TorchvisionImage(model.eval())
        load_weights(network, folder / "model.safetensors")
    return ImageParts(network, spec, build_transform(spec.library, spec.preprocessing))


def _timm_parts(model: nn.Module, architecture: dict[str, Any], image_size: int | None) -> ImageParts:
    from timm.data import resolve_model_data_config

    settings = resolve_model_data_config(model)
    if image_size is not None:
        settings["input_size"] = (3, image_size, image_size)
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    network = TimmImage(model.eval(), architecture)
    with torch.inference_mode():
        width = network(torch.zeros(1, *settings["input_size"])).shape[-1]
    spec = ImageSpec(library="timm", architecture=architecture, preprocessing=settings, width=width)
    return ImageParts(network, spec, build_transform("timm", settings))


def _check_stages(model: nn.Module, stages: Sequence[int], architecture: str) -> None:
    """ConfigError unless the network gives the maps of these stages."""
    known = len(getattr(model, "feature_info", ()))
    if not hasattr(model, "forward_intermediates") or max(stages) >= known:
        raise ConfigError(f"image.stages: {architecture} has the stages 0 to {known - 1}, not {list(stages)}")


def _create_timm(name: str, pretrained: bool, args: dict[str, Any], source: Any) -> tuple[nn.Module, dict[str, Any]]:
    """The network, and the arguments that it took: only some architectures have an image size of their own."""
    import timm

    more = {"pretrained_cfg": source} if source is not None else {}
    try:
        try:
            return timm.create_model(name, pretrained=pretrained, num_classes=0, **more, **args), args
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            args = {key: value for key, value in args.items() if key != "img_size"}
            return timm.create_model(name, pretrained=pretrained, num_classes=0, **more, **args), args
    except LOADING_ERRORS as error:
        raise ModelError(f"timm:{name}: cannot be built or its weights cannot be read ({one_line(error)})") from None


def _remove_classifier(model: nn.Module, architecture: str) -> int:
    """Put an identity where the last linear layer is, and drop side classifiers; the number of features."""
    for extra in ("AuxLogits", "aux1", "aux2"):
        if hasattr(model, extra):
            setattr(model, extra, None)
    if hasattr(model, "aux_logits"):
        setattr(model, "aux_logits", False)  # noqa: B010 - a plain attribute, not a submodule
    last = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)][-1:]
    if not last:
        raise ConfigError(f"torchvision:{architecture}: has no final linear layer to take the features from")
    name, layer = last[0]
    model.set_submodule(name, nn.Identity())
    return layer.in_features


def _load_headless(model: nn.Module, path: Path, where: str) -> None:
    """Load a classifier's state dict, without the classifier, from a weights file."""
    try:
        missing, _ = model.load_state_dict(read_weights(path), strict=False)
    except RuntimeError as error:
        raise ModelError(f"{where}: does not fit the network ({one_line(error)})") from None
    if missing:
        raise ModelError(f"{where}: lacks {len(missing)} of the network's tensors, such as '{missing[0]}'")
