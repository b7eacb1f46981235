"""Image towers against the libraries that they are from, on the same weights and through their own preprocessing.

Invariants:
- timm, torchvision, open_clip and transformers: our features of pictures (any size and shape) equal those of the
  library's own transform and network, also in other batch sizes and with other numbers of decoding threads
- a saved tower gives the same features and fingerprint; a timm or transformers tower also loads with its library
- weights that are missing are refused, never made up
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dalr.encoders import ImageConfig, build_image_encoder, load_image_encoder
from dalr.errors import ModelError

TOLERANCE = 1e-5


def with_timm(folder: Path) -> Callable[[Image.Image], torch.Tensor]:
    import timm
    from timm.data import create_transform, resolve_model_data_config

    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    return lambda image: model(transform(image).unsqueeze(0))


def with_torchvision(path: Path) -> Callable[[Image.Image], torch.Tensor]:
    from torchvision.models import ShuffleNet_V2_X0_5_Weights, shufflenet_v2_x0_5

    model = shufflenet_v2_x0_5(weights=None).eval()
    model.load_state_dict(torch.load(path, weights_only=True))
    model.fc = torch.nn.Identity()
    return lambda image: model(ShuffleNet_V2_X0_5_Weights.DEFAULT.transforms()(image).unsqueeze(0))


def with_open_clip(folder: Path) -> Callable[[Image.Image], torch.Tensor]:
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    return lambda image: model.encode_image(transform(image).unsqueeze(0))


def with_pair(folder: Path) -> Callable[[Image.Image], torch.Tensor]:
    from transformers import AutoImageProcessor, AutoModel

    model, processor = (
        AutoModel.from_pretrained(folder, dtype=torch.float32).eval(),
        AutoImageProcessor.from_pretrained(folder),
    )
    return lambda image: model.get_image_features(**processor(images=[image], return_tensors="pt")).pooler_output


def with_vit(folder: Path) -> Callable[[Image.Image], torch.Tensor]:
    from transformers import AutoImageProcessor, AutoModel

    model = AutoModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    return lambda image: model(**processor(images=[image], return_tensors="pt")).last_hidden_state[:, 0]


def with_resnet(folder: Path) -> Callable[[Image.Image], torch.Tensor]:
    from transformers import AutoImageProcessor, AutoModel

    model, processor = (
        AutoModel.from_pretrained(folder, dtype=torch.float32).eval(),
        AutoImageProcessor.from_pretrained(folder),
    )
    return lambda image: model(**processor(images=[image], return_tensors="pt")).pooler_output.flatten(1)


KINDS: dict[str, tuple[str, str, Callable[[Path], Callable[[Image.Image], torch.Tensor]]]] = {
    "timm": ("timm_dir", "{}", with_timm),
    "torchvision": ("torchvision_file", "torchvision:shufflenet_v2_x0_5/{}", with_torchvision),
    "open_clip": ("open_clip_dir", "{}", with_open_clip),
    "open_clip_timm": ("open_clip_siglip_dir", "{}", with_open_clip),
    "clip": ("clip_dir", "{}", with_pair),
    "siglip": ("siglip_dir", "hf:{}", with_pair),
    "vit": ("vit_dir", "{}", with_vit),
    "resnet": ("resnet_hf_dir", "{}", with_resnet),
}


@pytest.mark.parametrize("kind", KINDS)
def test_towers(kind: str, request: pytest.FixtureRequest, pictures: list[Image.Image], tmp_path: Path) -> None:
    fixture, form, library = KINDS[kind]
    path = request.getfixturevalue(fixture)
    features_of = library(path)
    with torch.no_grad():
        expected = torch.cat([features_of(picture) for picture in pictures]).numpy()
    assert expected.std(axis=0).max() > 1e-3
    encoder = build_image_encoder(ImageConfig(name=form.format(path)))
    assert encoder.width == expected.shape[1]
    features = encoder.encode(pictures)
    np.testing.assert_allclose(features, expected, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(encoder.encode(pictures, batch_size=3, workers=0), expected, atol=TOLERANCE, rtol=0)

    encoder.save(tmp_path)
    again = load_image_encoder(tmp_path)
    assert again.fingerprint() == encoder.fingerprint()
    np.testing.assert_array_equal(again.encode(pictures), features)
    assert not list(tmp_path.glob("*.bin"))
    if kind in ("timm", "vit", "resnet"):
        features_of = library(tmp_path)
        with torch.no_grad():
            expected = torch.cat([features_of(picture) for picture in pictures]).numpy()
        np.testing.assert_allclose(features, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.data
def test_mobilenet_of_the_data_folder(data_dir: Path) -> None:
    folder = data_dir / "models" / "mobilenetv2_100"
    photos = sorted((data_dir / "fashion" / "images").iterdir())[:6]
    features_of = with_timm(folder)
    images = [Image.open(path).convert("RGB") for path in photos]
    with torch.no_grad():
        expected = torch.cat([features_of(image) for image in images]).numpy()
    encoder = build_image_encoder(ImageConfig(name=str(folder)))
    np.testing.assert_allclose(encoder.encode(images), expected, atol=TOLERANCE, rtol=0)


def test_image_size_changes_what_the_network_sees(request: pytest.FixtureRequest, pictures: list[Image.Image]) -> None:
    for kind in ("timm", "torchvision", "open_clip_timm", "vit", "clip"):
        fixture, form, _ = KINDS[kind]
        name = form.format(request.getfixturevalue(fixture))
        encoder = build_image_encoder(ImageConfig(name=name, image_size=96))
        assert encoder.preprocess(pictures[0]).shape == (3, 96, 96), kind
        assert encoder.encode(pictures[:1]).shape == (1, encoder.width)
        assert encoder.fingerprint() != build_image_encoder(ImageConfig(name=name)).fingerprint()


def test_a_network_from_scratch(pictures: list[Image.Image], tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ImageConfig(name="timm:test_efficientnet", pretrained=False, image_size=64, train="full")
    encoder = build_image_encoder(config)
    assert encoder.preprocess(pictures[0]).shape == (3, 64, 64)
    features = encoder.encode(pictures)
    encoder.save(tmp_path)
    np.testing.assert_array_equal(load_image_encoder(tmp_path).encode(pictures), features)
    assert build_image_encoder(config).fingerprint() != encoder.fingerprint()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:no_such_network", "timm:no_such_network"),
        ("torchvision:no_such_network", "no classification model of this name"),
        ("torchvision:resnet18/NO_SUCH_TAG", "IMAGENET1K_V1"),
        ("torchvision:resnet18//no/such/file.pth", "neither a weights file"),
        ("open_clip:ViT-B-32", "laion2b_s34b_b79k"),
        ("open_clip:ViT-B-32/no_such_tag", "open_clip:ViT-B-32"),
    ],
)
def test_names_that_cannot_be_loaded(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_image_encoder(ImageConfig(name=name))


def test_weights_that_do_not_cover_the_network_are_refused(
    torchvision_file: Path, vit_dir: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    state = torch.load(torchvision_file, weights_only=True)
    del state["stage3.0.branch1.0.weight"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(ModelError, match=r"stage3\.0\.branch1\.0\.weight"):
        build_image_encoder(ImageConfig(name=f"torchvision:shufflenet_v2_x0_5/{tmp_path / 'short.pth'}"))
    tensors = load_file(vit_dir / "model.safetensors")
    lost = next(name for name in tensors if "layer.1" in name or "layers.1" in name)
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((vit_dir / name).read_bytes())
    save_file({k: v for k, v in tensors.items() if k != lost}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="lack 1 of the model's tensors"):
        build_image_encoder(ImageConfig(name=str(tmp_path)))
