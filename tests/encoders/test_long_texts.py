"""Texts longer than the tower takes, embedded in pieces and averaged.

Invariants:
- a text that fits has exactly the features that it has without chunking; [] and "" work
- the pieces hold every word once, in order, and each fits with its prompt and special tokens, whatever the tokenizer
- the features are the mean of the pieces' features weighted by their tokens, at length one where the folder's are
- with an overlap neighbours share words, at most that many tokens, and every piece goes on
- a text without spaces is split between characters
- only `encode` chunks: training tokens are cut; the setting is saved and part of the fingerprint
"""

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dalr.encoders import TextConfig, TextEncoder, build_text_encoder, load_text_encoder
from dalr.encoders.long_texts import split_long, split_words
from dalr.errors import ConfigError

SENTENCE = "a red shirt with long sleeves and blue jeans for men slim fit shoes the quick brown fox jumps over"
WORDS = SENTENCE.split()
LONG = " ".join(WORDS[number * 7 % len(WORDS)] for number in range(157))


def built(folder: Path, **options: Any) -> TextEncoder:
    return build_text_encoder(TextConfig(name=str(folder), long_texts="chunk", **options))


def pieces_of(encoder: TextEncoder, text: str, prompt: str | None = None) -> list[str]:
    shape = encoder._prompt(prompt)
    return split_words(text, shape.room, encoder.spec.chunk_overlap, encoder.tokenizer)


def test_texts_that_fit_are_as_they_were(bert_dir: Path, texts: list[str]) -> None:
    chunked, plain = built(bert_dir), build_text_encoder(TextConfig(name=str(bert_dir)))
    short = [text for text in texts if plain.token_counts([text])[0] <= 32]
    assert len(short) >= 4
    np.testing.assert_array_equal(chunked.encode(short), plain.encode(short))
    assert chunked.encode([]).shape == (0, 32)
    mixed = chunked.encode([short[0], LONG, short[1]])
    np.testing.assert_allclose(mixed[[0, 2]], plain.encode(short[:2]), atol=1e-6)
    assert np.abs(mixed[1] - plain.encode([LONG])[0]).max() > 0.01


@pytest.mark.parametrize("kind", ["bert", "llama", "t5", "clip", "open_clip", "open_clip_siglip"])
@pytest.mark.parametrize("prompt", ["", "the river "])
def test_pieces_hold_every_word_and_fit(kind: str, prompt: str, request: pytest.FixtureRequest) -> None:
    options = {"max_length": 24} if kind in ("bert", "llama", "t5") else {}
    encoder = built(request.getfixturevalue(f"{kind}_dir"), prompt=prompt or None, **options)
    pieces = split_long([LONG, "shoes"], encoder._prompt(None), encoder.tokenizer, encoder.max_length, 0)
    assert pieces.text_P.tolist() == [0] * (len(pieces.ids) - 1) + [1]
    assert max(len(row) for row in pieces.ids) <= encoder.max_length
    found = pieces_of(encoder, LONG)
    assert " ".join(found).split() == LONG.split()
    assert max(encoder.token_counts(found)) <= encoder.max_length
    assert len(found) == len(pieces.ids) - 1
    least = -(-sum(pieces.tokens_P[:-1]) // encoder._prompt(None).room)
    assert len(found) <= 1.5 * least + 1, "pieces are nearly full"
    assert np.isfinite(encoder.encode([LONG])).all()


@pytest.mark.parametrize("prompt", [None, "the river {text} again", "the river {text} , {text}"])
def test_features_are_the_mean_weighted_by_tokens(bert_dir: Path, prompt: str | None) -> None:
    encoder = built(bert_dir, prompt=prompt)
    pieces = pieces_of(encoder, LONG)
    weights = [len(row) for row in encoder.tokenizer.pieces(pieces)]
    assert len(set(weights)) > 1, "else the weights would not show"
    expected = np.average(encoder.encode(pieces), axis=0, weights=weights)
    np.testing.assert_allclose(encoder.encode(["shoes", LONG])[1], expected, atol=1e-5)


def test_unit_features_stay_at_unit_length(minilm_dir: Path) -> None:
    encoder = built(minilm_dir, max_length=24)
    features = encoder.encode([LONG, "shoes"])
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    pieces = pieces_of(encoder, LONG)
    mean = np.average(encoder.encode(pieces), axis=0, weights=[len(row) for row in encoder.tokenizer.pieces(pieces)])
    assert np.linalg.norm(mean) < 0.99
    np.testing.assert_allclose(features[0], mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.parametrize("overlap", [1, 5, 12])
def test_overlap(bert_dir: Path, overlap: int) -> None:
    encoder = built(bert_dir, max_length=20, chunk_overlap=overlap)
    letters = "abdefhilmnorstu"
    text = " ".join(
        first + second * (number % 3 + 1) for number, (first, second) in enumerate(permutations(letters, 2))
    )
    pieces = pieces_of(encoder, text)
    place, before = 0, 0
    for number, piece in enumerate(pieces):
        start = text.index(piece, place)  # every word stands there once
        stop = start + len(piece)
        if number:
            assert start <= before + 1
            assert stop > before, "every piece goes on"
            assert len(encoder.tokenizer.pieces([text[start:before]])[0]) <= overlap
        place, before = start + 1, stop
    assert before == len(text)
    assert max(encoder.token_counts(pieces)) <= 20
    assert sum(map(len, pieces)) > len(text) or overlap == 1, "a word has more than one token"


@pytest.mark.parametrize("kind", ["bert", "llama", "open_clip"])
def test_a_text_without_spaces_is_split_between_characters(kind: str, request: pytest.FixtureRequest) -> None:
    encoder = built(request.getfixturevalue(f"{kind}_dir"))
    for text in ("紅色襯衫長袖藍色牛仔褲" * 20, "x" * 400, "🦊" * 90, " " * 400):
        pieces = pieces_of(encoder, text)
        assert "".join(pieces) == text.strip()
        assert all(length <= encoder.max_length for length in encoder.token_counts(pieces))
        assert np.isfinite(encoder.encode([text])).all()
    lines = "red\n\n\tshirt" + " " * 99 + "shoes  \n" * 60
    assert " ".join(pieces_of(encoder, lines)).split() == lines.split()
    assert max(encoder.token_counts(pieces_of(encoder, lines))) <= encoder.max_length
    words = "red " + "shirt" * 80 + " shoes"
    assert "".join(pieces_of(encoder, words)).replace(" ", "") == words.replace(" ", "")


class Fusing:
    """A tokenizer and prompt in one whose joined words have more tokens than the words alone: one more after three."""

    room, selects = 10, False

    def pieces(self, texts: list[str]) -> list[list[int]]:
        return [[1] * len(text.split()) for text in texts]

    def encode(self, texts: list[str]) -> tuple[list[list[int]], list[int]]:
        lengths = [len(text.split()) * 4 // 3 for text in texts]
        return [[1] * length for length in lengths], lengths


@pytest.mark.parametrize("overlap", [0, 4])
def test_words_that_have_more_tokens_together_than_alone(overlap: int) -> None:
    fusing: Any = Fusing()
    text = " ".join(map(str, range(40)))
    assert max(fusing.encode(split_words(text, 10, overlap, fusing))[1]) > 10, "else there is nothing to mend"
    pieces = split_long([text], fusing, fusing, 10, overlap)
    assert max(map(len, pieces.ids)) <= 10
    assert sum(pieces.tokens_P) == 40 if overlap == 0 else sum(pieces.tokens_P) > 40


def test_room_for_one_token_only_still_ends(llama_dir: Path) -> None:
    encoder = built(llama_dir, max_length=2)
    assert np.isfinite(encoder.encode(["🦊🦊 the quick brown fox", ""])).all()


def test_training_cuts_and_the_setting_is_saved(bert_dir: Path, tmp_path: Path) -> None:
    encoder = built(bert_dir, chunk_overlap=3)
    assert len(encoder.tokenize([LONG])[0]) == encoder.max_length
    plain = build_text_encoder(TextConfig(name=str(bert_dir)))
    assert encoder.fingerprint() not in (plain.fingerprint(), built(bert_dir).fingerprint())
    encoder.save(tmp_path)
    again = load_text_encoder(tmp_path)
    assert again.fingerprint() == encoder.fingerprint()
    np.testing.assert_array_equal(again.encode([LONG]), encoder.encode([LONG]))
    cut = build_text_encoder(TextConfig(name=str(tmp_path), long_texts="cut", chunk_overlap=0))
    np.testing.assert_allclose(cut.encode([LONG]), plain.encode([LONG]), atol=1e-6)


def test_an_overlap_that_leaves_no_room(bert_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"text\.chunk_overlap: 30 is not less than the 30 tokens of a text"):
        built(bert_dir, chunk_overlap=30)
    encoder = built(bert_dir, chunk_overlap=25)
    with pytest.raises(ConfigError, match=r"text\.chunk_overlap: 25 of the \d+ tokens"):
        encoder.encode([LONG], "the red shirt and the river {text} again")
