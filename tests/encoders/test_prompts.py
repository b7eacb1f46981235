"""Prompts: prefixes, templates, mask-token prompts and echo.

Invariants:
- a prefix is tokenised together with the text, as before; a name stands for its prompt, None for the default one
- a template's tokens are those of the filled-in sentence where no token spans a boundary (WordPiece; byte-level with
  the space at the word), its special tokens stand once around it, and a long text is cut inside it
- pooled are: the mask token with `mask`; the last occurrence of the text with echo; the text alone without
  `include_prompt`; everything else as attended
- named prompts are saved, belong to the fingerprint, and rows of two prompts are never mixed in the feature cache
- what trains is what encodes: a column with a prompt gives the features of `encode` with that prompt
- each prompt that cannot be used is refused in one line
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dalr import DualEncoder, ModelConfig
from dalr.config import apply_overrides, parse_config
from dalr.encoders import TextConfig, TextEncoder, build_text_encoder, load_text_encoder
from dalr.encoders.pooling import Pooling
from dalr.encoders.tokens import TransformersTokenizer
from dalr.errors import ConfigError
from dalr.features import embed_texts
from dalr.training_data import text_column

BERT_PROMPT = "the shirt : {text} , blue {mask} ."
ECHO = "the river : {text} , again : {text}"


def built(folder: Path, **options: Any) -> TextEncoder:
    return build_text_encoder(TextConfig(name=str(folder), **options))


def states_of(folder: Path, ids: list[int]) -> torch.Tensor:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).last_hidden_state[0]  # type: ignore[no-any-return]


def test_names_and_texts(bert_dir: Path) -> None:
    plain = built(bert_dir)
    encoder = built(bert_dir, prompts={"query": "the river ", "passage": "shoes "}, prompt="query")
    assert encoder.prompts == {"query": "the river ", "passage": "shoes "}
    assert encoder.tokenize(["fox"]) == encoder.tokenize(["fox"], "query") == plain.tokenize(["the river fox"])
    assert encoder.tokenize(["fox"], "passage") == encoder.tokenize(["fox"], "shoes ") == plain.tokenize(["shoes fox"])
    assert encoder.tokenize(["fox"], "") == plain.tokenize(["fox"])
    assert encoder.token_counts(["fox"], "passage") == [len(row) for row in encoder.tokenize(["fox"], "passage")]
    np.testing.assert_allclose(encoder.encode(["fox"], "passage"), plain.encode(["shoes fox"]), atol=1e-6)
    with pytest.raises(ConfigError, match="no prompt 'qurey'; did you mean 'query'"):
        encoder.encode(["fox"], "qurey")
    with pytest.raises(ConfigError, match=r"text\.prompt: this encoder has no prompt 'pasage'; did you mean 'passage'"):
        built(bert_dir, prompts={"passage": "shoes "}, prompt="pasage")
    assert plain.tokenize(["fox"], "shoes") == plain.tokenize(["shoesfox"]), "where there are no names it is a text"


def test_a_template_gives_the_tokens_of_the_sentence(bert_dir: Path, texts: list[str]) -> None:
    plain, encoder = built(bert_dir), built(bert_dir, prompt=BERT_PROMPT)
    short = [text for text in texts if len(text) < 30]
    filled = [BERT_PROMPT.replace("{text}", text).replace("{mask}", "[MASK]") for text in short]
    assert encoder.tokenize(short) == plain.tokenize(filled)
    assert encoder.token_counts(short) == plain.token_counts(filled)
    assert "pooling_mask" not in encoder.collate(encoder.tokenize(short))
    np.testing.assert_allclose(encoder.encode(short), plain.encode(filled), atol=1e-6)


def test_a_long_text_is_cut_inside_the_template(bert_dir: Path) -> None:
    encoder = built(bert_dir, prompt="the river {text} again .", max_length=12)
    before, inner, after = encoder.tokenizer.pieces(["the river", "red shirt blue jeans " * 9, "again ."])
    room = 12 - 2 - len(before) - len(after)
    assert encoder.tokenize(["red shirt blue jeans " * 9]) == [[2, *before, *inner[:room], *after, 3]]
    assert encoder.token_counts(["red shirt blue jeans " * 9]) == [2 + len(before) + len(inner) + len(after)]
    twice = built(bert_dir, prompt="the river {text} again {text}", max_length=16)
    before, after = twice.tokenizer.pieces(["the river", "again"])
    cut = inner[: (16 - 2 - len(before) - len(after)) // 2]
    (row,) = twice.tokenize(["red shirt blue jeans " * 9])
    assert row == [2, *before, *cut, *after, *cut, 3]
    mask = twice.collate([row])["pooling_mask"][0]
    assert mask.nonzero().flatten().tolist() == list(range(len(row) - 1 - len(cut), len(row) - 1))


def test_byte_level_tokens_keep_the_space_with_the_word(llama_dir: Path, byte_tokenizer: Any) -> None:
    encoder = built(llama_dir)
    for template in ("the river: {text} again", "{text} again", 'say "{text}" or {text}', "a\n{text}", ECHO):
        for text in ("fox", "red shirt", "Ünïcode – 100 %"):
            joint = byte_tokenizer(template.replace("{text}", text))["input_ids"]
            expected = (
                joint
                if template != 'say "{text}" or {text}'
                else byte_tokenizer(
                    template.replace('"{text}', '" {text}').replace(
                        "{text}", text
                    )  # both as the last one: with a space
                )["input_ids"]
            )
            assert encoder.tokenize([text], template) == [expected], template


def with_edges(tokenizer: Any) -> Any:
    """A copy that puts <s> before and </s> behind a text, as Llama-like and RoBERTa-like tokenizers do."""
    import copy

    from tokenizers import processors

    edged = copy.deepcopy(tokenizer)
    edged.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return edged


def test_special_tokens_stand_once_around_the_template(llama_dir: Path, byte_tokenizer: Any, tmp_path: Path) -> None:
    import shutil

    edged = with_edges(byte_tokenizer)
    assert TransformersTokenizer(edged).edges() == ([0], [1])
    assert TransformersTokenizer(byte_tokenizer).edges() == ([], [])
    shutil.copytree(llama_dir, tmp_path / "edged")
    edged.save_pretrained(tmp_path / "edged")
    encoder = built(tmp_path / "edged", max_length=24)
    assert encoder.tokenize(["fox"], ECHO) == [edged(ECHO.replace("{text}", "fox"))["input_ids"]]
    (row,) = encoder.tokenize(["river " * 90], "a: {text} b")
    assert (row[0], row[-1], len(row), row.count(0), row.count(1)) == (0, 1, 24, 1, 1)


def sentencepiece_like(prepend: bool) -> Any:
    """Words begin with ▁, put before a text by a normaliser (older Llama) or by the pre-tokeniser (T5)."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "▁", "▁fox", "▁the", "▁red", "fox", "the", ":", "▁:", "red"]
    tokenizer = Tokenizer(models.Unigram([(word, -1.0 - len(words) / 9 * (len(word) < 2)) for word in words], unk_id=0))
    if prepend:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@pytest.mark.parametrize("prepend", [True, False])
def test_sentencepiece_marks_a_words_beginning_once(prepend: bool) -> None:
    tokenizer = sentencepiece_like(prepend)
    pieces = TransformersTokenizer(tokenizer).pieces([" fox", "fox", "the red", " the red", ""])
    named = [tokenizer.convert_ids_to_tokens(row) for row in pieces]
    assert named == [["▁fox"], ["▁fox"], ["▁the", "▁red"], ["▁the", "▁red"], []]


def test_pooling_at_the_mask_token(bert_dir: Path, word_tokenizer: Any, tmp_path: Path) -> None:
    encoder = built(bert_dir, prompt=BERT_PROMPT, pooling="mask")
    for text in ("shoes", "", "a red shirt with [MASK] in it"):
        ids = word_tokenizer(BERT_PROMPT.replace("{text}", text).replace("{mask}", "[MASK]"))["input_ids"]
        place = len(ids) - 1 - ids[::-1].index(word_tokenizer.mask_token_id)
        batch = encoder.collate(encoder.tokenize([text]))
        assert batch["pooling_mask"].nonzero().tolist() == [[0, place]]
        np.testing.assert_allclose(encoder.encode([text])[0], states_of(bert_dir, ids)[place].numpy(), atol=1e-5)
    together = encoder.encode(["shoes", "", "the quick brown fox jumps over the lazy dog"])
    np.testing.assert_allclose(together[1:2], encoder.encode([""]), atol=1e-6)
    encoder.save(tmp_path)
    np.testing.assert_array_equal(load_text_encoder(tmp_path).encode(["shoes"]), encoder.encode(["shoes"]))
    first = built(bert_dir, prompt="{mask} is {text}", pooling="mask")
    assert first.collate(first.tokenize(["shoes"]))["pooling_mask"][0].argmax() == 1
    with pytest.raises(ConfigError, match=r"pooling 'mask' needs a template with \{mask\}"):
        encoder.encode(["shoes"], "the river ")


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_echo_pools_the_last_occurrence(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(f"{kind}_dir")
    texts = ["red shirt", "fox", "the quick brown fox"]
    encoder = built(folder, prompt=ECHO)
    features = encoder.encode(texts)
    for text, row, feature in zip(texts, encoder.tokenize(texts), features, strict=True):
        count = len(encoder.tokenizer.pieces([" " + text])[0])
        stop = len(row) - (kind == "bert")
        expected = states_of(folder, row)[stop - count : stop].mean(0)
        np.testing.assert_allclose(feature, expected.numpy(), atol=1e-5)
    encoder.pooling = Pooling(("last",), encoder.backbone.width)
    row = encoder.tokenize(["fox"])[0]
    expected = states_of(folder, row)[len(row) - 1 - (kind == "bert")]
    np.testing.assert_allclose(encoder.encode(["fox"])[0], expected.numpy(), atol=1e-5)
    assert np.isfinite(encoder.encode([""])).all()
    assert np.abs(encoder.encode([""])).max() > 0, "without any token of a text, the template itself is pooled"


def test_without_include_prompt_the_text_alone_is_pooled(bert_dir: Path) -> None:
    encoder = built(bert_dir)
    encoder.spec = encoder.spec.model_copy(update={"include_prompt": False})
    prefix = encoder.collate(encoder.tokenize(["fox"], "the river "), "the river ")
    assert prefix["pooling_mask"].tolist() == [[0, 0, 0, *[1] * (prefix["input_ids"].shape[1] - 3)]]
    template = "the river {text} again ."
    count = len(encoder.tokenizer.pieces(["fox"])[0])
    mask = encoder.collate(encoder.tokenize(["fox"], template), template)["pooling_mask"][0]
    assert mask.nonzero().flatten().tolist() == list(range(3, 3 + count))
    assert "pooling_mask" not in encoder.collate(encoder.tokenize(["fox"]))


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("the {txt} is", {}, r"text\.prompt: prompt 'the \{txt\} is': \{txt\} is not known; expected \{text\} and"),
        ("the { text } is", {}, "is not known"),
        ("means {mask}", {}, r"has \{mask\} but no \{text\}"),
        ("{text} {text} {text}", {}, r"\{text\} once or twice"),
        ("{text} {mask} {mask}", {}, r"\{mask\} at most once"),
        ("the red shirt {text} the river", {"max_length": 6}, "leaves no room for a text in max_length = 6"),
        ("the river ", {"pooling": "mask"}, "needs a template with"),
        (None, {"pooling": "mask"}, "needs a template with"),
        ("so {text}", {"pooling": "mask"}, r"needs \{mask\} in the template once"),
        ("so {text} {mask}", {"pooling": ["mask", "mean"]}, "mask stands alone"),
        (None, {"prompts": {"query": "{oops}"}}, r"text\.prompts\.query: prompt '\{oops\}'"),
    ],
)
def test_prompts_that_cannot_be_used(bert_dir: Path, prompt: str | None, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        built(bert_dir, prompt=prompt, **options)
    assert "\n" not in str(caught.value)


def test_a_prompt_that_yaml_takes_for_something_else() -> None:
    for prompt in ("query: ", "{text}"):
        values = apply_overrides({"name": "x"}, [f"prompt={prompt}"])
        with pytest.raises(ConfigError, match="prompt: expected a text; put one with a colon or braces into quotes"):
            parse_config(TextConfig, values)
        assert parse_config(TextConfig, apply_overrides({"name": "x"}, [f'prompt="{prompt}"'])).prompt == prompt


def test_towers_that_do_not_take_a_template(llama_dir: Path, clip_dir: Path, open_clip_dir: Path) -> None:
    with pytest.raises(ConfigError, match="no mask token"):
        built(llama_dir, prompt="{text} means {mask}")
    with pytest.raises(ConfigError, match="own pooling cannot leave tokens out"):
        built(clip_dir, prompt=ECHO)
    np.testing.assert_allclose(
        built(clip_dir, prompt="a photo of {text} .").encode(["shoes"]),
        built(clip_dir).encode(["a photo of shoes ."]), atol=1e-6,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="open_clip tower takes a prefix only"):
        built(open_clip_dir, prompt="a photo of {text}.")
    prefixed, plain = built(open_clip_dir, prompt="a photo of "), built(open_clip_dir)
    np.testing.assert_allclose(prefixed.encode(["shoes"]), plain.encode(["a photo of shoes"]), atol=1e-6)


def test_prompts_are_saved_and_tell_towers_apart(bert_dir: Path, tmp_path: Path) -> None:
    plain = built(bert_dir)
    encoder = built(bert_dir, prompts={"query": "the river ", "own": BERT_PROMPT})
    prints = {plain.fingerprint(), encoder.fingerprint(), built(bert_dir, prompts={"query": "shoes "}).fingerprint()}
    assert len(prints) == 3
    encoder.save(tmp_path)
    again = load_text_encoder(tmp_path)
    assert again.prompts == encoder.prompts
    assert again.fingerprint() == encoder.fingerprint()
    np.testing.assert_array_equal(again.encode(["shoes"], "own"), encoder.encode(["shoes"], "own"))
    more = build_text_encoder(TextConfig(name=str(tmp_path), prompts={"passage": "shoes "}, prompt="passage"))
    assert set(more.prompts) == {"query", "own", "passage"}


def test_a_tower_saved_before_there_were_named_prompts(bert_dir: Path, tmp_path: Path) -> None:
    encoder = built(bert_dir)
    encoder.save(tmp_path)
    saved = json.loads((tmp_path / "tower.json").read_text())
    newer = {name: saved.pop(name) for name in ("prompts", "long_texts", "chunk_overlap", "attention")}
    assert newer == {"prompts": {}, "long_texts": "cut", "chunk_overlap": 0, "attention": "own"}
    (tmp_path / "tower.json").write_text(json.dumps(saved))
    assert load_text_encoder(tmp_path).fingerprint() == encoder.fingerprint()
    assert not set(newer) & set(encoder.description())


def test_a_sentence_folders_named_prompts_are_kept(bert_dir: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling as TheirPooling

    prompts = {"query": "the river: ", "document": ""}
    modules = [Transformer(str(bert_dir), max_seq_length=20), TheirPooling(32, "mean", include_prompt=False)]
    theirs = SentenceTransformer(modules=modules, prompts=prompts, device="cpu")
    theirs.save(str(tmp_path))
    model = DualEncoder.from_pretrained(tmp_path)
    assert model.text is not None
    assert model.text.prompts == prompts
    for name in prompts:
        expected = theirs.encode(["red shirt", "fox"], prompt_name=name, normalize_embeddings=True)
        np.testing.assert_allclose(model.encode_text(["red shirt", "fox"], prompt=name), expected, atol=1e-5)
    with pytest.raises(ConfigError, match="expected one of: document, query"):
        model.encode_text(["fox"], prompt="xyz")


def test_rows_of_two_prompts_are_never_mixed(bert_dir: Path, tmp_path: Path) -> None:
    encoder = built(bert_dir, prompts={"query": "the river "})
    plain = embed_texts(["fox"], encoder, tmp_path)
    named = embed_texts(["fox"], encoder, tmp_path, prompt="query")
    assert plain.store.folder != named.store.folder
    np.testing.assert_allclose(named[:], encoder.encode(["fox"], "query"), atol=1e-6)
    np.testing.assert_allclose(plain[:], encoder.encode(["fox"]), atol=1e-6)
    assert np.abs(plain[:] - named[:]).max() > 0.01
    assert embed_texts(["fox"], encoder, tmp_path, prompt="the river ").store.folder == named.store.folder
    assert embed_texts(["fox"], encoder, tmp_path, prompt="").store.folder == plain.store.folder


@pytest.mark.parametrize("train", ["frozen", "full"])
@pytest.mark.parametrize("prompt", [None, "own", "echo"])
def test_a_training_column_with_a_prompt(bert_dir: Path, train: Any, prompt: str | None, tmp_path: Path) -> None:
    prompts = {"own": "the river {text} again", "echo": ECHO}
    model = DualEncoder.build(ModelConfig(text=TextConfig(name=str(bert_dir), train=train, prompts=prompts)))
    assert model.text is not None
    texts = ["red shirt", "fox", "", "the lazy dog"]
    column = text_column(texts, model, tmp_path, None, prompt)
    taken = column.take(np.array([3, 0, 2]), np.zeros(3, np.int64))
    with torch.inference_mode():
        features = model.text(taken) if isinstance(taken, dict) else taken
    np.testing.assert_allclose(
        features.numpy(), model.text.encode(["the lazy dog", "red shirt", ""], prompt), atol=1e-6
    )
    if train == "full":
        assert isinstance(taken, dict)
        assert ("pooling_mask" in taken) == (prompt == "echo")
        model.text.train()
        loss = model.text(taken).square().sum()
        loss.backward()
        assert sum(float(p.grad.abs().sum()) for p in model.text.parameters() if p.grad is not None) > 0


def test_encode_text_of_a_model_with_heads_takes_a_prompt(clip_dir: Path) -> None:
    model = DualEncoder.from_pretrained(clip_dir)
    named = model.encode_text(["shoes"], prompt="a photo of {text}")
    np.testing.assert_allclose(named, model.encode_text(["a photo of shoes"]), atol=1e-6)
    assert np.abs(named - model.encode_text(["shoes"])).max() > 1e-3
