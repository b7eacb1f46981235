"""The text tower's own behaviour: order, length, emptiness, prompts, identity, and a tower from scratch.

Invariants:
- results are in input order and do not depend on the token budget or on what else is in the list
- [] gives (0, H); "" and a 10,000-word text give finite vectors; a cut is reported once, with its numbers
- `token_counts` are lengths before the cut; tokens are tokenised text with the prompt in front
- a fingerprint survives save and load, and changes with any weight, pooling, prompt, length or tokenizer
- `new`: the same corpus gives the same vocabulary in another process, and its folder is an ordinary BERT folder
- batches hold every row once and keep to the budget
"""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from dalr.encoders import NewTextConfig, TextConfig, TextEncoder, build_text_encoder, load_text_encoder
from dalr.encoders.batching import packed_batches
from dalr.encoders.pooling import Pooling, TokenStates
from dalr.errors import ConfigError, ModelError


@pytest.fixture(scope="module")
def encoder(bert_dir: Path) -> TextEncoder:
    return build_text_encoder(TextConfig(name=str(bert_dir)))


def test_order_and_company_do_not_matter(encoder: TextEncoder, texts: list[str]) -> None:
    many = [*texts, *reversed(texts), "red " * 40, "a"]
    together = encoder.encode(many, token_budget=64)
    alone = np.concatenate([encoder.encode([text]) for text in many])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(encoder.encode(many, token_budget=1), alone, atol=1e-6)
    assert np.abs(alone[0] - alone[1]).max() > 0.01
    shuffled = np.random.default_rng(0).permutation(len(many))
    np.testing.assert_allclose(encoder.encode([many[row] for row in shuffled]), alone[shuffled], atol=1e-6)


@pytest.mark.parametrize("kind", ["bert", "llama", "t5", "clip", "open_clip", "open_clip_siglip"])
def test_no_text_empty_text_and_a_very_long_one(
    kind: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = build_text_encoder(TextConfig(name=str(request.getfixturevalue(f"{kind}_dir"))))
    assert encoder.encode([]).shape == (0, encoder.width)
    assert encoder.encode([]).dtype == np.float32
    assert encoder.tokenize([]) == []
    long = " ".join(f"river{number}" for number in range(10_000))
    with caplog.at_level(logging.WARNING):
        features = encoder.encode(["", "   ", long, "shoes"])
        encoder.encode([long])
    assert np.isfinite(features).all()
    assert len(encoder.tokenize([long])[0]) == encoder.max_length
    cuts = [record.getMessage() for record in caplog.records if "were cut" in record.getMessage()]
    assert len(cuts) == 1
    count = encoder.token_counts([long])[0]
    assert count > 10_000
    assert cuts[0].startswith(f"1 of 4 texts are longer than max_length = {encoder.max_length} tokens")
    assert cuts[0].endswith(f"(the longest has {count})")


def test_tokens(encoder: TextEncoder, word_tokenizer: object) -> None:
    assert encoder.tokenize(["shoes", ""]) == [word_tokenizer(text)["input_ids"] for text in ("shoes", "")]  # type: ignore[operator]
    assert encoder.token_counts(["shoes", ""]) == [len(row) for row in encoder.tokenize(["shoes", ""])]
    batch = encoder.collate(encoder.tokenize(["shoes", "a red shirt", ""]))
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert batch["attention_mask"].sum(dim=1).tolist() == encoder.token_counts(["shoes", "a red shirt", ""])
    assert (batch["input_ids"][batch["attention_mask"] == 0] == 0).all()


def test_prompt_and_max_length(bert_dir: Path, encoder: TextEncoder) -> None:
    prompted = build_text_encoder(TextConfig(name=str(bert_dir), prompt="the river ", max_length=6))
    np.testing.assert_allclose(prompted.encode(["shoes"]), encoder.encode(["the river shoes"]), atol=1e-6)
    cut = prompted.tokenize(["shoes for men and more"])[0]
    assert len(cut) == 6
    assert cut[-1] == 3, "the closing special token survives the cut"
    with pytest.raises(ConfigError, match="more than the 32 tokens"):
        build_text_encoder(TextConfig(name=str(bert_dir), max_length=33))


def test_positions_of_the_roberta_family_start_behind_the_padding(word_tokenizer: object, tmp_path: Path) -> None:
    from transformers import RobertaConfig, RobertaModel

    config = RobertaConfig(
        vocab_size=200, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=20, pad_token_id=0,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(tmp_path)
    word_tokenizer.save_pretrained(tmp_path)  # type: ignore[attr-defined]
    encoder = build_text_encoder(TextConfig(name=str(tmp_path)))
    assert encoder.max_length == 19
    assert np.isfinite(encoder.encode(["river " * 100])).all()


def test_progress_counts_every_text(encoder: TextEncoder, texts: list[str]) -> None:
    seen: list[tuple[int, int]] = []
    encoder.encode(texts, token_budget=30, progress=lambda done, total: seen.append((done, total)))
    assert len(seen) > 1
    assert seen == sorted(seen)
    assert seen[-1] == (len(texts), len(texts))


def test_fingerprint(bert_dir: Path, encoder: TextEncoder, word_tokenizer: object, tmp_path: Path) -> None:
    name = str(bert_dir)
    original = encoder.fingerprint()
    assert build_text_encoder(TextConfig(name=name)).fingerprint() == original
    encoder.encode(["using the tower", "changes nothing"])
    assert encoder.fingerprint() == original
    others = [
        TextConfig(name=name, pooling="cls"),
        TextConfig(name=name, prompt="x"),
        TextConfig(name=name, max_length=9),
    ]
    found = {build_text_encoder(config).fingerprint() for config in others}
    assert len(found | {original}) == 4
    changed = build_text_encoder(TextConfig(name=name))
    with torch.no_grad():
        next(changed.backbone.parameters())[0, 0] += 1e-3
    assert changed.fingerprint() != original
    encoder.save(tmp_path)
    assert load_text_encoder(tmp_path).fingerprint() == original
    text = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text.replace('"lowercase": true', '"lowercase": false'))
    assert load_text_encoder(tmp_path).fingerprint() != original


def test_fresh_weights_of_an_architecture(bert_dir: Path, encoder: TextEncoder) -> None:
    torch.manual_seed(0)
    fresh = build_text_encoder(TextConfig(name=str(bert_dir), pretrained=False, train="full"))
    assert fresh.width == encoder.width
    assert fresh.fingerprint() != encoder.fingerprint()


def test_dropout_is_set_where_there_is_one_and_refused_where_there_is_none(bert_dir: Path, open_clip_dir: Path) -> None:
    rated = build_text_encoder(TextConfig(name=str(bert_dir), dropout=0.37, train="full"))
    rates = {module.p for module in rated.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.37}
    with pytest.raises(ConfigError, match=r"text\.dropout"):
        build_text_encoder(TextConfig(name=str(open_clip_dir), dropout=0.1))


def test_poolings_mask_what_does_not_count() -> None:
    states = TokenStates(torch.randn(3, 5, 4), torch.randn(3, 5, 4), None, torch.randn(3, 5, 4))
    mask = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]])
    disturbed = TokenStates(*(part + 9 * (1 - mask).unsqueeze(-1) if part is not None else None for part in states))
    modes = ("cls", "mean", "max", "mean_sqrt_len", "weighted_mean", "last", "first_last_avg", "attention")
    for mode in (*modes, "embeddings_mean"):
        pooling = Pooling((mode,), 4)
        torch.testing.assert_close(pooling(states, mask), pooling(disturbed, mask), msg=mode)
        assert (pooling(states, mask)[2] == 0).all(), mode
    torch.testing.assert_close(Pooling(("cls",), 4)(states, mask)[1], states.last_BLH[1, 1])
    torch.testing.assert_close(Pooling(("last",), 4)(states, mask)[1], states.last_BLH[1, 3])
    both = Pooling(("max", "mean"), 4)
    assert both(states, mask).shape == (3, 8)


def test_attention_pooling_follows_its_query() -> None:
    pooling = Pooling(("attention",), 2)
    states = TokenStates(torch.tensor([[[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]]))
    mask = torch.tensor([[1, 1, 0]])
    assert pooling.query_H is not None
    pooling.query_H.data = torch.tensor([2.0**0.5, 0.0])
    weight = torch.e / (torch.e + 1)
    torch.testing.assert_close(pooling(states, mask), torch.tensor([[weight, 1 - weight]]))


def test_a_frozen_tower_cannot_learn_attention_but_can_keep_it(bert_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="attention is learned"):
        build_text_encoder(TextConfig(name=str(bert_dir), pooling="attention"))
    trained = build_text_encoder(TextConfig(name=str(bert_dir), pooling="attention", train="full"))
    trained.pooling.query_H.data.normal_()  # type: ignore[union-attr]
    trained.save(tmp_path)
    kept = load_text_encoder(tmp_path)
    np.testing.assert_array_equal(kept.encode(["a red shirt"]), trained.encode(["a red shirt"]))
    assert kept.fingerprint() == trained.fingerprint()


@pytest.mark.parametrize("lengths", [[], [3], [5, 1, 4, 4, 9, 2, 2], [100, 1, 1], list(range(1, 60))])
@pytest.mark.parametrize("budget", [1, 8, 20, 10_000])
def test_batches(lengths: list[int], budget: int) -> None:
    batches = packed_batches(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget
    firsts = [lengths[batch[0]] for batch in batches]
    assert firsts == sorted(firsts, reverse=True), "the longest texts come first"
    if budget == 10_000 and lengths:
        assert len(batches) == 1


CORPUS = ["a red striped mug", "the blue bowl with dots", "green woollen scarf", "mugs and bowls, scarves"] * 5
SMALL_NEW = NewTextConfig(layers=2, width=32, heads=2, vocab_size=120, max_length=16)


def test_a_tower_from_scratch(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    torch.manual_seed(0)
    encoder = build_text_encoder(TextConfig(name="new", new=SMALL_NEW, train="full"), CORPUS)
    features = encoder.encode(["a red bowl", "", "ζ unseen 漢字", "mug " * 100])
    assert features.shape == (4, 32)
    assert np.isfinite(features).all()
    encoder.save(tmp_path)
    np.testing.assert_array_equal(
        load_text_encoder(tmp_path).encode(["a red bowl", "", "ζ unseen 漢字", "mug " * 100]), features
    )
    tokens = AutoTokenizer.from_pretrained(tmp_path)(["a red bowl"], return_tensors="pt")
    model = AutoModel.from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        states = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
    np.testing.assert_allclose(states.mean(dim=1).numpy()[0], features[0], atol=1e-6)
    with pytest.raises(ConfigError, match="training captions"):
        build_text_encoder(TextConfig(name="new"))


def test_names_that_are_no_text_encoder(timm_dir: Path, vit_dir: Path, tmp_path: Path) -> None:
    for name in (str(timm_dir), "torchvision:resnet18"):
        with pytest.raises(ModelError, match="has no text encoders"):
            build_text_encoder(TextConfig(name=name))
    with pytest.raises(ModelError, match="is an image encoder; it cannot be the text tower"):
        build_text_encoder(TextConfig(name=str(vit_dir)))
    with pytest.raises(ModelError, match="not an encoder folder that dalr knows"):
        build_text_encoder(TextConfig(name=str(tmp_path)))


def test_a_folder_that_is_not_whole(bert_dir: Path, minilm_dir: Path, tmp_path: Path) -> None:
    def copy(name: str, *without: str) -> Path:
        return Path(shutil.copytree(bert_dir, tmp_path / name, ignore=shutil.ignore_patterns(*without)))

    with pytest.raises(ModelError, match=r"no tokenizer .*its files are missing"):
        build_text_encoder(TextConfig(name=str(copy("wordless", "*token*", "vocab*"))))
    torn = copy("torn")
    weights = next(torn.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="its weights cannot be loaded"):
        build_text_encoder(TextConfig(name=str(torn)))
    other = copy("other")
    AutoTokenizer.from_pretrained(minilm_dir).save_pretrained(other)
    with pytest.raises(ModelError, match=r"its tokenizer has 30522 words and its model \d+; they are not of one model"):
        build_text_encoder(TextConfig(name=str(other)))


def test_a_padded_training_batch_is_run_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and gradient as in one call, fewer places computed; in evaluation and with little padding one call."""
    from dalr.encoders import text_encoder
    from tests.tiny_catalogue import TEXT

    settings = TEXT.model_copy(update={"dropout": 0.0})
    encoder = build_text_encoder(settings, ["a red dress", "a blue lamp"])
    texts = ["a " * (2 + 2 * (row % 3)) + "lamp" for row in range(30)] + ["a " * 60]
    tokens = encoder.collate(encoder.tokenize(texts))
    places: list[int] = []
    plain = encoder.backbone.states

    def counted(inputs: dict[str, torch.Tensor], *wanted: bool) -> object:
        places.append(inputs["input_ids"].numel())
        return plain(inputs, *wanted)

    monkeypatch.setattr(encoder.backbone, "states", counted)
    found = []
    for limit in (1.5, 1e9):
        monkeypatch.setattr(text_encoder, "PADDING_LIMIT", limit)
        monkeypatch.setattr(text_encoder, "TRAINING_TOKENS", 128)
        encoder.train().zero_grad()
        output = encoder(tokens)
        (output * torch.arange(len(texts))[:, None]).sum().backward()
        found.append(
            (output.detach(), {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None})
        )
    assert len(places) > 2
    assert sum(places[:-1]) < places[-1] / 2
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-4)
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name], atol=1e-3, rtol=1e-3)
    monkeypatch.setattr(text_encoder, "PADDING_LIMIT", 1.5)
    places.clear()
    encoder.eval()(tokens)
    encoder.train()(encoder.collate(encoder.tokenize(texts[:30:3])))
    assert len(places) == 2
