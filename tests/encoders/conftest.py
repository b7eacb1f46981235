"""Small encoder folders with random weights, one of each kind that is read: made once a session, by their libraries."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

TEXTS = [
    "a red shirt with long sleeves",
    "shoes",
    "",
    "blue jeans for men , slim fit",
    "the quick brown fox jumps over the lazy dog near the river bank today",
    "Ünïcode café – 100 % cotton!",
]
VOCABULARY_TEXTS = [
    "a red shirt with long sleeves and blue jeans for men slim fit shoes",
    "the quick brown fox jumps over the lazy dog near the river bank today unicode cafe cotton 100 % , ! .",
] * 3


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return list(TEXTS)


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Pictures of several sizes and shapes, none of them square or of a tower's own size."""
    draw = np.random.default_rng(0)
    shapes = [(40, 56), (97, 61), (64, 130), (33, 33)]
    return [Image.fromarray(draw.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]


@pytest.fixture(scope="session")
def word_tokenizer() -> Any:
    """A WordPiece tokenizer with [CLS] and [SEP], made without dalr."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        VOCABULARY_TEXTS, trainers.WordPieceTrainer(vocab_size=150, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=32, **dict(zip(names, special, strict=True))
    )


@pytest.fixture(scope="session")
def byte_tokenizer() -> Any:
    """A byte-level BPE tokenizer without any special token around a text, as decoders have: "" gives no token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        VOCABULARY_TEXTS,
        trainers.BpeTrainer(
            vocab_size=330,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")


SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}


def save_transformers(folder: Path, model: Any, *more: Any) -> Path:
    """Save a model and its tokenizer or processor; biases and norms are moved off their initial 0 and 1 first."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim <= 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    for part in (model, *more):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bert_dir(tmp_path_factory: pytest.TempPathFactory, word_tokenizer: Any) -> Path:
    from transformers import BertConfig, BertModel

    torch.manual_seed(1)
    config = BertConfig(vocab_size=len(word_tokenizer), max_position_embeddings=32, **SMALL)
    return save_transformers(tmp_path_factory.mktemp("bert"), BertModel(config), word_tokenizer)


@pytest.fixture(scope="session")
def llama_dir(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: Any) -> Path:
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(2)
    config = LlamaConfig(vocab_size=len(byte_tokenizer), max_position_embeddings=64, num_key_value_heads=2, **SMALL)
    return save_transformers(tmp_path_factory.mktemp("llama"), LlamaModel(config), byte_tokenizer)


@pytest.fixture(scope="session")
def t5_dir(tmp_path_factory: pytest.TempPathFactory, word_tokenizer: Any) -> Path:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(3)
    config = T5Config(vocab_size=len(word_tokenizer), d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    return save_transformers(tmp_path_factory.mktemp("t5"), T5ForConditionalGeneration(config), word_tokenizer)


@pytest.fixture(scope="session")
def clip_dir(tmp_path_factory: pytest.TempPathFactory, word_tokenizer: Any) -> Path:
    """A CLIP pair whose projection width stands in the pair's config only, as in the published ones."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.manual_seed(4)
    text = {"vocab_size": len(word_tokenizer), "max_position_embeddings": 24, "bos_token_id": 2, "eos_token_id": 3}
    vision = {"image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config={**SMALL, **text, "pad_token_id": 0}, vision_config={**SMALL, **vision})
    config.projection_dim = 20
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return save_transformers(tmp_path_factory.mktemp("clip"), CLIPModel(config), word_tokenizer, processor)


@pytest.fixture(scope="session")
def siglip_dir(tmp_path_factory: pytest.TempPathFactory, word_tokenizer: Any) -> Path:
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    torch.manual_seed(5)
    text = {"vocab_size": len(word_tokenizer), "max_position_embeddings": 16, "bos_token_id": 2, "eos_token_id": 3}
    vision = {"image_size": 32, "patch_size": 8}
    config = SiglipConfig(
        text_config={**SMALL, **text, "pad_token_id": 0, "projection_size": 32}, vision_config={**SMALL, **vision}
    )
    processor = SiglipImageProcessor(size={"height": 32, "width": 32})
    return save_transformers(tmp_path_factory.mktemp("siglip"), SiglipModel(config), word_tokenizer, processor)


@pytest.fixture(scope="session")
def vit_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier's folder: it has no pooler, which must not be made up."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(6)
    config = ViTConfig(image_size=32, patch_size=8, num_labels=5, **SMALL)
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    return save_transformers(tmp_path_factory.mktemp("vit"), ViTForImageClassification(config), processor)


@pytest.fixture(scope="session")
def resnet_hf_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetModel

    torch.manual_seed(7)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic")
    processor = ConvNextImageProcessor(size={"shortest_edge": 48}, crop_pct=0.8)
    return save_transformers(tmp_path_factory.mktemp("resnet"), ResNetModel(config), processor)


def settle_norms(model: torch.nn.Module, size: int = 128) -> torch.nn.Module:
    """Give batch norms the statistics of one random batch: features then vary, and forgetting them would show."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.uniform_(norm.bias, -0.3, 0.3)
    with torch.no_grad():
        smooth = torch.nn.functional.interpolate(torch.randn(8, 3, 6, 6), size=size, mode="bilinear")
        model.train()(smooth)
        norms[-1].weight *= 0.02  # features of the order of 1, as trained networks have them
        norms[-1].bias *= 0.02
    return model.eval()


@pytest.fixture(scope="session")
def timm_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import timm
    from timm.models import save_for_hf

    torch.manual_seed(8)
    folder = tmp_path_factory.mktemp("timm")
    model = timm.create_model("test_efficientnet", pretrained=False, num_classes=7)
    settle_norms(model)
    model.pretrained_cfg.update(mean=(0.4, 0.5, 0.6), crop_pct=0.8, input_size=(3, 64, 64), num_classes=7)
    save_for_hf(model, folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def torchvision_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from torchvision.models import shufflenet_v2_x0_5

    torch.manual_seed(9)
    path = tmp_path_factory.mktemp("torchvision") / "shufflenet.pth"
    torch.save(settle_norms(shufflenet_v2_x0_5(weights=None)).state_dict(), path)
    return path


def open_clip_folder(folder: Path, model_config: dict[str, Any], tokenizer: Any = None) -> Path:
    import open_clip
    from open_clip.model import CustomTextCLIP
    from safetensors.torch import save_file

    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
        model_config["text_cfg"]["hf_tokenizer_name"] = str(folder)
    custom = model_config.get("custom_text", False)
    kind = CustomTextCLIP if custom else open_clip.CLIP
    model = kind(**{key: value for key, value in model_config.items() if key != "custom_text"})
    preprocess = {
        "mean": [0.3, 0.4, 0.5],
        "std": [0.2, 0.2, 0.2],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    config = {"model_cfg": model_config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return folder


VISION = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}


@pytest.fixture(scope="session")
def open_clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The usual CLIP: causal text transformer, pooled at the end token."""
    torch.manual_seed(10)
    text = {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 3}
    config = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": text}
    return open_clip_folder(tmp_path_factory.mktemp("open_clip"), config)


@pytest.fixture(scope="session")
def open_clip_siglip_dir(tmp_path_factory: pytest.TempPathFactory, word_tokenizer: Any) -> Path:
    """A bidirectional text tower that sees its padding, with a tokenizer of transformers and a timm image tower."""
    torch.manual_seed(11)
    text = {
        "context_length": 16, "vocab_size": len(word_tokenizer), "width": 32, "heads": 4, "layers": 2,
        "no_causal_mask": True, "pool_type": "last", "proj_type": "linear", "proj_bias": True,
        "tokenizer_kwargs": {"clean": "canonicalize"},
    }  # fmt: skip
    vision = {
        "image_size": 64, "timm_model_name": "test_resnet", "timm_model_pretrained": False, "timm_pool": "",
        "timm_proj": "linear",
    }  # fmt: skip
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text, "custom_text": True}
    return open_clip_folder(tmp_path_factory.mktemp("open_clip_siglip"), config, word_tokenizer)
