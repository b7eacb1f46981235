"""What trains and what does not: frozen, full and lora towers, layer-wise rates, heads.

Invariants:
- a frozen tower has no parameter with a gradient and stays in eval mode whatever `train()` says
- a tower in training has a gradient for every parameter that has `requires_grad` (DDP needs that), poolers and other
  unused parts included among the frozen
- LoRA starts as the base model, trains only adapters, keeps the base to the bit, and is saved merged: the saved
  folder needs no peft, and has the same features and fingerprint; without peft the error names the extra
- layer-wise decay: every trainable parameter is in exactly one group, rates fall towards the input, biases and norms
  have no weight decay
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dalr.encoders import (
    Head,
    HeadConfig,
    ImageConfig,
    LoraConfig,
    TextConfig,
    build_image_encoder,
    build_text_encoder,
    load_image_encoder,
    load_text_encoder,
    parameter_groups,
)
from dalr.encoders.layer_decay import layer_numbers
from dalr.errors import ConfigError

TEXT = ["bert", "llama", "t5", "clip", "siglip", "open_clip", "open_clip_siglip"]
IMAGE = ["timm", "torchvision", "vit", "resnet_hf", "clip", "siglip", "open_clip", "open_clip_siglip"]


def name_of(kind: str, request: pytest.FixtureRequest) -> str:
    if kind == "torchvision":
        return f"torchvision:shufflenet_v2_x0_5/{request.getfixturevalue('torchvision_file')}"
    return str(request.getfixturevalue(f"{kind}_dir"))


def text_output(encoder: Any) -> Tensor:
    return encoder(encoder.collate(encoder.tokenize(["a red shirt", "shoes"])))  # type: ignore[no-any-return]


def image_output(encoder: Any, pictures: list[Image.Image]) -> Tensor:
    return encoder(torch.stack([encoder.preprocess(picture) for picture in pictures]))  # type: ignore[no-any-return]


def check_gradients(encoder: nn.Module, output: Tensor) -> None:
    (output * torch.randn_like(output)).sum().backward()
    wanted = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    reached = {name for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    assert wanted == reached
    assert wanted


@pytest.mark.parametrize("kind", TEXT)
@pytest.mark.parametrize("train", ["full", "lora"])
def test_every_open_parameter_of_a_text_tower_gets_a_gradient(
    kind: str, train: str, request: pytest.FixtureRequest
) -> None:
    encoder = build_text_encoder(TextConfig(name=name_of(kind, request), train=train))
    encoder.train()
    assert encoder.training
    check_gradients(encoder, text_output(encoder))
    adapters = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad and "lora_" in name]
    count = sum(parameter.requires_grad for parameter in encoder.parameters())
    assert len(adapters) == (count if train == "lora" else 0)


@pytest.mark.parametrize("kind", IMAGE)
@pytest.mark.parametrize("train", ["full", "lora"])
def test_every_open_parameter_of_an_image_tower_gets_a_gradient(
    kind: str, train: str, request: pytest.FixtureRequest, pictures: list[Image.Image]
) -> None:
    encoder = build_image_encoder(ImageConfig(name=name_of(kind, request), train=train))
    encoder.train()
    statistics = {name: value.clone() for name, value in encoder.named_buffers() if "running" in name}
    check_gradients(encoder, image_output(encoder, pictures))
    moved = [
        name for name, value in encoder.named_buffers() if name in statistics and (value != statistics[name]).any()
    ]
    assert bool(moved) == (train == "full" and bool(statistics))


def test_the_pooler_that_nothing_reads_is_frozen(bert_dir: Path) -> None:
    encoder = build_text_encoder(TextConfig(name=str(bert_dir), train="full"))
    frozen = {name for name, parameter in encoder.named_parameters() if not parameter.requires_grad}
    assert frozen == {"backbone.model.pooler.dense.weight", "backbone.model.pooler.dense.bias"}


def test_a_frozen_tower_stays_in_eval_mode(bert_dir: Path, timm_dir: Path, pictures: list[Image.Image]) -> None:
    for encoder in (
        build_text_encoder(TextConfig(name=str(bert_dir), dropout=0.5)),
        build_image_encoder(ImageConfig(name=str(timm_dir))),
    ):
        before = encoder.fingerprint()
        nn.ModuleDict({"tower": encoder}).train()
        assert not any(module.training for module in encoder.modules())
        assert not any(parameter.requires_grad for parameter in encoder.parameters())
        output = text_output(encoder) if hasattr(encoder, "tokenizer") else image_output(encoder, pictures)
        assert not output.requires_grad
        assert encoder.fingerprint() == before


def test_pixels_are_not_channels_last_in_training_on_a_cpu(timm_dir: Path, pictures: list[Image.Image]) -> None:
    """There the backward pass of some convolutions writes past its buffer, and the process dies or worse."""
    encoder = build_image_encoder(ImageConfig(name=str(timm_dir), train="full"))
    layouts: list[bool] = []
    encoder.network.register_forward_pre_hook(
        lambda _, inputs: layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    pixels = torch.stack([encoder.preprocess(picture) for picture in pictures])
    encoder.train()(pixels)
    with torch.inference_mode():
        encoder(pixels)
    assert layouts == [False, True]


def test_encode_leaves_the_mode_as_it_was(bert_dir: Path, timm_dir: Path, pictures: list[Image.Image]) -> None:
    text = build_text_encoder(TextConfig(name=str(bert_dir), train="full", dropout=0.5)).train()
    image = build_image_encoder(ImageConfig(name=str(timm_dir), train="full")).train()
    np.testing.assert_array_equal(text.encode(["a red shirt"]), text.encode(["a red shirt"]))
    np.testing.assert_array_equal(image.encode(pictures), image.encode(pictures))
    assert text.training
    assert image.training


def disturb_adapters(encoder: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)


@pytest.mark.parametrize("kind", ["bert", "llama", "t5", "clip", "open_clip"])
def test_lora_text_towers(kind: str, request: pytest.FixtureRequest, texts: list[str], tmp_path: Path) -> None:
    name = name_of(kind, request)
    base = build_text_encoder(TextConfig(name=name))
    encoder = build_text_encoder(TextConfig(name=name, train="lora", lora=LoraConfig(rank=4)))
    np.testing.assert_array_equal(encoder.encode(texts), base.encode(texts))
    assert encoder.fingerprint() == base.fingerprint()
    disturb_adapters(encoder)
    assert np.abs(encoder.encode(texts) - base.encode(texts)).max() > 1e-3
    assert encoder.fingerprint() != base.fingerprint()
    encoder.save(tmp_path)
    merged = load_text_encoder(tmp_path)
    assert not any("lora" in key for key in merged.state_dict())
    np.testing.assert_allclose(merged.encode(texts), encoder.encode(texts), atol=1e-5)
    assert merged.fingerprint() == encoder.fingerprint()


@pytest.mark.parametrize("kind", ["timm", "vit", "open_clip"])
def test_lora_image_towers(
    kind: str, request: pytest.FixtureRequest, pictures: list[Image.Image], tmp_path: Path
) -> None:
    name = name_of(kind, request)
    base = build_image_encoder(ImageConfig(name=name))
    encoder = build_image_encoder(ImageConfig(name=name, train="lora"))
    np.testing.assert_allclose(encoder.encode(pictures), base.encode(pictures), atol=1e-5)
    disturb_adapters(encoder)
    assert np.abs(encoder.encode(pictures) - base.encode(pictures)).max() > 1e-3
    encoder.save(tmp_path)
    merged = load_image_encoder(tmp_path)
    expected = encoder.encode(pictures)
    np.testing.assert_allclose(merged.encode(pictures), expected, atol=3e-5 * np.abs(expected).max())
    assert merged.fingerprint() == encoder.fingerprint()


def test_a_training_step_moves_adapters_and_nothing_else(bert_dir: Path) -> None:
    encoder = build_text_encoder(TextConfig(name=str(bert_dir), train="lora"))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    optimizer = torch.optim.AdamW(parameter_groups(encoder, 1e-2, weight_decay=0.1))
    encoder.train()
    for _ in range(2):
        optimizer.zero_grad()
        text_output(encoder).square().sum().backward()
        optimizer.step()
    moved = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all("lora_" in name for name in moved)


def test_lora_targets(bert_dir: Path) -> None:
    chosen = TextConfig(name=str(bert_dir), train="lora", lora=LoraConfig(targets=["query", "value"]))
    encoder = build_text_encoder(chosen)
    adapted = {name.split(".lora_")[0].rpartition(".")[2] for name in encoder.state_dict() if "lora_" in name}
    assert adapted == {"query", "value"}
    with pytest.raises(ConfigError, match=r"lora\.targets"):
        build_text_encoder(TextConfig(name=str(bert_dir), train="lora", lora=LoraConfig(targets=["nowhere"])))


def test_lora_without_peft_names_the_extra(bert_dir: Path) -> None:
    code = (
        "import sys; sys.modules['peft'] = None\n"
        "from dalr.encoders import TextConfig, build_text_encoder\n"
        "from dalr.errors import MissingExtraError\n"
        f"build_text_encoder(TextConfig(name={str(bert_dir)!r}))\n"
        "try:\n"
        f"    build_text_encoder(TextConfig(name={str(bert_dir)!r}, train='lora'))\n"
        "except MissingExtraError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'dalr[peft]'" in run.stdout


def test_layer_numbers_of_known_networks(bert_dir: Path, vit_dir: Path, timm_dir: Path, open_clip_dir: Path) -> None:
    numbers, last = layer_numbers(build_text_encoder(TextConfig(name=str(bert_dir), pooling="cls")))
    assert last == 4
    assert numbers["backbone.model.embeddings.word_embeddings.weight"] == 0
    assert numbers["backbone.model.embeddings.LayerNorm.weight"] == 0
    assert [numbers[f"backbone.model.encoder.layer.{k}.output.dense.weight"] for k in range(3)] == [1, 2, 3]
    numbers, last = layer_numbers(build_text_encoder(TextConfig(name=str(open_clip_dir))))
    assert (numbers["backbone.model.text_projection"], numbers["backbone.model.positional_embedding"]) == (last, 0)
    assert numbers["backbone.model.ln_final.weight"] == last == 4
    numbers, last = layer_numbers(build_image_encoder(ImageConfig(name=str(vit_dir))))
    assert numbers["network.model.layernorm.weight"] == last == 4
    assert {numbers[name] for name in numbers if "patch_embeddings" in name or "cls_token" in name} == {0}
    numbers, last = layer_numbers(build_image_encoder(ImageConfig(name=str(timm_dir))))
    assert numbers["network.model.conv_stem.weight"] == 0
    assert numbers["network.model.conv_head.weight"] == last
    assert sorted(set(numbers.values())) == list(range(last + 1))


@pytest.mark.parametrize("kind", ["bert", "llama", "t5", "clip", "open_clip"])
def test_groups(kind: str, request: pytest.FixtureRequest) -> None:
    encoder = build_text_encoder(TextConfig(name=name_of(kind, request), train="full"))
    groups = parameter_groups(encoder, 1e-3, lr_decay=0.5, weight_decay=0.1)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(parameter) for parameter in encoder.parameters() if parameter.requires_grad}
    rates = [group["lr"] for group in groups]
    assert rates == sorted(rates)
    assert rates[-1] == 1e-3
    assert len(set(rates)) > 2
    for group in groups:
        small = {parameter.ndim <= 1 for parameter in group["params"]}
        assert small == {group["weight_decay"] == 0.0}
    assert len(parameter_groups(encoder, 1e-3, weight_decay=0.1)) == 2
    torch.optim.AdamW(groups)


def test_a_frozen_tower_has_no_groups(bert_dir: Path) -> None:
    assert parameter_groups(build_text_encoder(TextConfig(name=str(bert_dir))), 1e-3, 0.9, 0.1) == []


def test_heads() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 12)
    linear = Head(12, 4, HeadConfig(input_dropout=0.5)).eval()
    torch.testing.assert_close(linear(x), x @ linear.layers[1].weight.T + linear.layers[1].bias)  # type: ignore[operator, union-attr]
    mlp = Head(12, 4, HeadConfig(kind="mlp", hidden=7, dropout=0.5, input_dropout=0.5))
    assert mlp.eval()(x).shape == (5, 4)
    assert not torch.equal(mlp.train()(x), mlp(x)), "dropout is on in training"
    torch.testing.assert_close(Head(4, 4, HeadConfig(kind="none"))(x[:, :4]), x[:, :4])
    with pytest.raises(ConfigError, match="needs a tower of width 4"):
        Head(12, 4, HeadConfig(kind="none"))
    plain = Head(12, 4, HeadConfig(kind="mlp", hidden=7))
    plain.load_state_dict(mlp.state_dict())
    torch.testing.assert_close(plain(x), mlp.eval()(x))
