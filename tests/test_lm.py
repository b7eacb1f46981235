"""Language models whose attention switches.

Invariants, for encoders and decoders: with the causal mask no earlier output moves when a later token does, without it
each does; texts packed into a row come out as each alone; padding changes nothing; what the mask says of one row holds
for that row alone; the head on chosen states is the network's own; saved and loaded it is the same; a network that does
not follow masks, one without a head and one that is no language model are refused by name.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from dalr.antlm.presets import NetworkConfig, Preset, build_network
from dalr.encoders import TextConfig, build_text_encoder
from dalr.encoders.new_tokenizer import TokenizerConfig, train_tokenizer
from dalr.errors import ConfigError, ModelError
from dalr.lm import LanguageModel, load_language_model, positions, special_edges, with_head

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
ENDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
KINDS = ["bert", "roberta", "modernbert", "electra", "llama", "gpt2", "qwen2"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    texts = [f"the river number {n} crosses the old bridge" for n in range(30)]
    return train_tokenizer(texts, TokenizerConfig(vocab_size=120), 64)


def network(kind: str, size: int) -> Any:
    torch.manual_seed(7)
    common = {"vocab_size": size, "max_position_embeddings": 66, **ENDS}
    if kind in ("bert", "roberta", "electra"):
        config = transformers.AutoConfig.for_model(kind, **SMALL, **common)
        return transformers.AutoModelForMaskedLM.from_config(config).eval()
    if kind == "modernbert":
        config = transformers.ModernBertConfig(**SMALL, **common, cls_token_id=2, sep_token_id=3, local_attention=4)
        return transformers.AutoModelForMaskedLM.from_config(config).eval()
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=4, n_positions=66, **ENDS)
        return transformers.AutoModelForCausalLM.from_config(config).eval()
    config = transformers.AutoConfig.for_model(kind, **SMALL, **common, num_key_value_heads=2)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, tokenizer: Any) -> LanguageModel:
    return LanguageModel(network(request.param, len(tokenizer)), tokenizer).eval()


def rows(*lengths: int, size: int = 60) -> torch.Tensor:
    return torch.randint(5, size, (1, sum(lengths)), generator=torch.Generator().manual_seed(3))


def test_who_sees_the_future(model: LanguageModel) -> None:
    ids = rows(9)
    other = ids.clone()
    other[0, 6] = 5 if int(ids[0, 6]) != 5 else 6
    ones = torch.ones_like(ids)
    with torch.inference_mode():
        for causal in (True, False):
            moved = (model.states(ids, ones, causal) - model.states(other, ones, causal)).abs().amax(dim=-1)[0]
            assert (moved[6:] > 1e-4).all()
            if causal:
                assert moved[:6].max() == 0.0
            else:
                assert (moved[:6] > 1e-6).all()
        flags = torch.tensor([True, False])
        both = model.states(ids.repeat(2, 1), ones.repeat(2, 1), flags)
        for row, causal in enumerate((True, False)):
            torch.testing.assert_close(both[row : row + 1], model.states(ids, ones, causal), atol=1e-5, rtol=1e-4)
        assert (both[0] - both[1]).abs().max() > 1e-3


def test_packed_texts_are_as_each_alone(model: LanguageModel) -> None:
    ids = rows(5, 7, 3)
    segments = torch.tensor([[1] * 5 + [2] * 7 + [0] * 3])
    with torch.inference_mode():
        for causal in (True, False):
            packed = model.states(ids, segments, causal)
            for part in (slice(0, 5), slice(5, 12)):
                alone = model.states(ids[:, part], torch.ones_like(ids[:, part]), causal)
                torch.testing.assert_close(packed[:, part], alone, atol=1e-5, rtol=1e-4)
    assert positions(segments).tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6, 0, 1, 2]]


def test_the_mask_is_the_librarys_own(model: LanguageModel) -> None:
    """Without packing the states are what transformers computes from a plain mask."""
    ids = rows(8)
    decoder = model.trained_for == ("causal",)
    with torch.inference_mode():
        own = model.network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        h = model.states(ids, torch.ones_like(ids), causal=decoder)
        # The library's ModernBERT looks through a window; the mask that is given lets every layer see all.
        if model.kind != "modernbert":
            torch.testing.assert_close(model.logits(h), own, atol=1e-4, rtol=1e-4)
        chosen = torch.tensor([[False, True, False, True, True, False, False, False]])
        torch.testing.assert_close(model.logits(h[chosen]), model.logits(h)[chosen], atol=1e-5, rtol=1e-4)


def test_save_and_load(model: LanguageModel, tmp_path: Path) -> None:
    model.predicts_next, model.trained_for = True, ("causal", "masked")
    model.save(tmp_path / "lm", {"steps": 3})
    loaded = load_language_model(str(tmp_path / "lm"))
    assert loaded.predicts_next
    assert loaded.trained_for == ("causal", "masked")
    ids = rows(6)
    with torch.inference_mode():
        h = model.states(ids, torch.ones_like(ids), True)
        torch.testing.assert_close(loaded.states(ids, torch.ones_like(ids), True), h)
        torch.testing.assert_close(loaded.logits(h), model.logits(h))
    # Going on from it, it predicts as it has learnt to.
    assert with_head(build_text_encoder(TextConfig(name=str(tmp_path / "lm"))), str(tmp_path / "lm")).predicts_next
    body = transformers.AutoModel.from_pretrained(tmp_path / "lm")
    assert type(body) is type(model.body)


def test_an_encoder_without_a_head_gets_one(minilm_dir: Path) -> None:
    name = str(minilm_dir)
    encoder = build_text_encoder(TextConfig(name=name, train="full"))
    model = with_head(encoder, name)
    assert model.body is encoder.backbone.model
    assert model.network.get_output_embeddings().weight is model.body.get_input_embeddings().weight
    with pytest.raises(ModelError, match=r"has no language-model head .it lacks 'cls.predictions"):
        load_language_model(name)


def test_special_tokens_around_a_text(tokenizer: Any) -> None:
    assert special_edges(tokenizer) == ([2], [3])
    bare = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="[SEP]")
    bare.backend_tokenizer.post_processor = None  # as GPT-2, which adds nothing
    assert special_edges(bare) == ([], [3])


def test_the_attention_of_another_machine(tokenizer: Any, tmp_path: Path) -> None:
    """A folder that names a kernel which this machine may not have is read with one that every machine has."""
    bert = transformers.BertConfig(vocab_size=len(tokenizer), **SMALL)
    transformers.AutoModelForMaskedLM.from_config(bert).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "attn_implementation": "flash_attention_2"}))
    assert load_language_model(str(tmp_path)).network.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("preset", ["ltg-bert", "babyllama"])
def test_the_papers_size(tokenizer: Any, preset: Preset) -> None:
    with torch.device("meta"):
        network = build_network(NetworkConfig(preset=preset, size="paper"), tokenizer, 512)
    found = network.config
    assert (found.num_hidden_layers, found.hidden_size, found.num_attention_heads) == (12, 768, 12)
    assert 80e6 < network.base_model.num_parameters() < 100e6


def test_networks_that_cannot(tokenizer: Any) -> None:
    config = transformers.DebertaV2Config(vocab_size=len(tokenizer), **SMALL, max_position_embeddings=64)
    with pytest.raises(ConfigError, match=r"the architecture 'deberta-v2' cannot switch between"):
        LanguageModel(transformers.AutoModelForMaskedLM.from_config(config), tokenizer)
    distil = transformers.DistilBertConfig(vocab_size=len(tokenizer), dim=32, n_layers=1, n_heads=4, hidden_dim=48)
    with pytest.raises(ConfigError, match=r"'distilbert' cannot switch"):
        LanguageModel(transformers.AutoModelForMaskedLM.from_config(distil), tokenizer)
    bert = transformers.BertConfig(vocab_size=len(tokenizer), **SMALL)
    flex = transformers.AutoModelForMaskedLM.from_config(bert, attn_implementation="flex_attention")
    with pytest.raises(ConfigError, match=r"the attention 'flex_attention' of this bert does not follow a mask"):
        LanguageModel(flex, tokenizer)
    with pytest.raises(ModelError, match=r"not a language model"):
        load_language_model("torchvision:resnet18")
