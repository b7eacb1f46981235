"""Decoders as text encoders: pooling with right padding, attention in both directions, adapters, templates.

Invariants:
- `additive_mask` is 0 where a key counts (and is not later, if causal) and the lowest number elsewhere; a BERT that
  is given the causal one no longer sees the future, neither with sdpa nor with eager attention
- with `own` attention no earlier output moves when a later token does; with `bidirectional` each does; padding
  never matters in either; an even weight on each key is what a hand-made mask gives (against the library's own call)
- last-token and weighted-mean pooling of Llama and GPT-2 equal the formula on each text without padding
- bidirectional attention is saved, part of the fingerprint, and nothing to do for encoders; a network that does not
  follow the mask is refused by name
- a decoder with adapters starts as itself, trains under a template, and saves merged
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dalr.encoders import LoraConfig, TextConfig, TextEncoder, build_text_encoder, load_text_encoder
from dalr.encoders.attention import additive_mask
from dalr.errors import ConfigError

TEMPLATE = "the river: {text}, again: {text}"


def saved(folder: Path, model: Any, tokenizer: Any) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def gpt2_dir(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: Any) -> Path:
    from transformers import GPT2Config, GPT2Model

    torch.manual_seed(30)
    config = GPT2Config(vocab_size=len(byte_tokenizer), n_positions=64, n_embd=32, n_layer=2, n_head=4)
    return saved(tmp_path_factory.mktemp("gpt2"), GPT2Model(config), byte_tokenizer)


@pytest.fixture(scope="module")
def qwen2_dir(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: Any) -> Path:
    from transformers import Qwen2Config, Qwen2Model

    torch.manual_seed(31)
    config = Qwen2Config(
        vocab_size=len(byte_tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=48, max_position_embeddings=64,
    )  # fmt: skip
    return saved(tmp_path_factory.mktemp("qwen2"), Qwen2Model(config), byte_tokenizer)


@pytest.fixture(scope="module")
def mistral_dir(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: Any) -> Path:
    """With a sliding window that is shorter than a text."""
    from transformers import MistralConfig, MistralModel

    torch.manual_seed(32)
    config = MistralConfig(
        vocab_size=len(byte_tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=48, max_position_embeddings=64, sliding_window=4,
    )  # fmt: skip
    return saved(tmp_path_factory.mktemp("mistral"), MistralModel(config), byte_tokenizer)


DECODERS = ["llama", "gpt2", "qwen2", "mistral"]


def built(folder: Path, **options: Any) -> TextEncoder:
    return build_text_encoder(TextConfig(name=str(folder), **options))


def states(encoder: TextEncoder, rows: list[list[int]]) -> torch.Tensor:
    with torch.inference_mode():
        return encoder.backbone.states(encoder.collate(rows), False, False).last_BLH


def test_the_mask() -> None:
    attended = torch.tensor([[1, 1, 0], [1, 1, 1]])
    for dtype in (torch.float32, torch.bfloat16):
        low = torch.finfo(dtype).min
        both, causal = (additive_mask(attended, causal, dtype) for causal in (False, True))
        assert both.shape == causal.shape == (2, 1, 3, 3)
        assert both.dtype == dtype
        assert both[0, 0].tolist() == [[0, 0, low]] * 3
        assert causal[1, 0].tolist() == [[0, low, low], [0, 0, low], [0, 0, 0]]
        assert causal[0, 0].tolist() == [[0, low, low], [0, 0, low], [0, 0, low]]
    left = additive_mask(torch.tensor([[0, 1]]), True, torch.float32)
    assert torch.isfinite(left.softmax(dim=-1)).all(), "a padded query that sees nothing gives no NaN"


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_an_encoder_under_the_causal_mask_sees_no_future(bert_dir: Path, implementation: str) -> None:
    encoder = built(bert_dir)
    model = encoder.backbone.model
    model.set_attn_implementation(implementation)
    ids = torch.tensor([[2, 40, 50, 60, 3], [2, 40, 50, 61, 3]])
    mask = torch.ones_like(ids)

    def moved(causal: bool) -> list[bool]:
        with torch.inference_mode():
            given = additive_mask(mask, causal, torch.float32)
            h = model(input_ids=ids, attention_mask=given).last_hidden_state
        return [bool(step > 1e-6) for step in (h[0] - h[1]).abs().amax(dim=-1)]

    assert moved(causal=True) == [False, False, False, True, True]
    assert moved(causal=False) == [True] * 5


@pytest.mark.parametrize("kind", DECODERS)
def test_who_sees_the_future(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(f"{kind}_dir")
    row, changed, company = [40, 50, 60, 70], [40, 50, 60, 71], list(range(20, 32))
    for attention, sees in (("own", False), ("bidirectional", True)):
        encoder = built(folder, attention=attention)
        h = states(encoder, [row, changed])
        steps = (h[0] - h[1]).abs().amax(dim=-1)
        assert [bool(step > 1e-6) for step in steps] == [sees] * 3 + [True]
        alone, padded = states(encoder, [row])[0], states(encoder, [row, company])[0]
        torch.testing.assert_close(padded[:4], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("attention", ["own", "bidirectional"])
def test_poolings_of_decoders_without_padding(
    kind: str, attention: str, request: pytest.FixtureRequest, texts: list[str]
) -> None:
    folder = request.getfixturevalue(f"{kind}_dir")
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    last, weighted = [], []
    for text in texts:
        ids = torch.tensor([(tokenizer(text)["input_ids"] or [tokenizer.eos_token_id])[:20]])
        mask = torch.zeros(1, 1, ids.shape[1], ids.shape[1]) if attention == "bidirectional" else None
        with torch.no_grad():
            h_LH = model(input_ids=ids, attention_mask=mask).last_hidden_state[0]
        weights = torch.arange(1, len(h_LH) + 1).unsqueeze(1)
        last.append(h_LH[-1])
        weighted.append((weights * h_LH).sum(0) / weights.sum())
    encoder = built(folder, attention=attention, pooling=["last", "weighted_mean"], max_length=20)
    expected = torch.cat([torch.stack(last), torch.stack(weighted)], dim=1)
    np.testing.assert_allclose(encoder.encode(texts, token_budget=60), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", DECODERS)
def test_bidirectional_attention_is_saved(
    kind: str, request: pytest.FixtureRequest, texts: list[str], tmp_path: Path
) -> None:
    folder = request.getfixturevalue(f"{kind}_dir")
    own, both = built(folder), built(folder, attention="bidirectional")
    assert own.fingerprint() != both.fingerprint()
    features = both.encode(texts)
    assert np.abs(features - own.encode(texts)).max() > 1e-3
    both.save(tmp_path)
    again = load_text_encoder(tmp_path)
    assert again.fingerprint() == both.fingerprint()
    np.testing.assert_array_equal(again.encode(texts), features)
    np.testing.assert_allclose(
        build_text_encoder(TextConfig(name=str(tmp_path), attention="own")).encode(texts), own.encode(texts), atol=1e-6
    )


def test_bidirectional_attention_in_half_precision(llama_dir: Path, texts: list[str]) -> None:
    encoder = built(llama_dir, attention="bidirectional")
    expected = encoder.encode(texts)
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder.encode(texts)
    np.testing.assert_allclose(half, expected, atol=0.1)
    assert np.abs(half - expected).max() > 0


@pytest.mark.parametrize("kind", ["bert", "t5", "siglip", "open_clip_siglip"])
def test_nothing_to_do_for_encoders(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(f"{kind}_dir")
    encoder = built(folder, attention="bidirectional")
    assert encoder.spec.attention == "own"
    assert encoder.fingerprint() == built(folder).fingerprint()


def test_networks_that_cannot_switch_are_refused_by_name(
    open_clip_dir: Path, byte_tokenizer: Any, tmp_path: Path
) -> None:
    from transformers import MambaConfig, MambaModel

    with pytest.raises(ConfigError, match=r"architecture 'open_clip' cannot be made bidirectional.* text\.attention"):
        built(open_clip_dir, attention="bidirectional")
    config = MambaConfig(
        vocab_size=len(byte_tokenizer), hidden_size=16, num_hidden_layers=1, state_size=4, time_step_rank=2
    )
    folder = saved(tmp_path, MambaModel(config), byte_tokenizer)
    with pytest.raises(ConfigError, match="the architecture 'mamba'"):
        built(folder, attention="bidirectional")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("attention", ["own", "bidirectional"])
def test_adapters_and_a_template(kind: str, attention: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = request.getfixturevalue(f"{kind}_dir")
    options = {"attention": attention, "prompt": TEMPLATE, "pooling": "last"}
    texts = ["red shirt", "fox", "the lazy dog"]
    frozen = built(folder, **options)
    encoder = built(folder, train="lora", lora=LoraConfig(rank=2), **options)
    np.testing.assert_allclose(encoder.encode(texts), frozen.encode(texts), atol=1e-6)
    wanted = frozen.encode(["shoes", "blue jeans", "a river"])
    optimizer = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], lr=0.01)
    encoder.train()
    for _ in range(8):
        h_BH = encoder(encoder.collate(encoder.tokenize(texts)))
        optimizer.zero_grad()
        (h_BH - torch.from_numpy(wanted)).square().mean().backward()
        optimizer.step()
    encoder.eval()
    features = encoder.encode(texts)
    assert np.square(features - wanted).mean() < 0.9 * np.square(frozen.encode(texts) - wanted).mean()
    encoder.save(tmp_path)
    again = load_text_encoder(tmp_path)
    np.testing.assert_allclose(again.encode(texts), features, atol=1e-5)
    assert again.spec.prompt == TEMPLATE
