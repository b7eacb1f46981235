"""Which tokens are hidden.

Invariants: exactly round(share · n) of a row's n ordinary tokens are chosen, and of them round(.8 ·), round(.1 ·)
become the mask token and others; special tokens and padding never are, and are never drawn; whole words are chosen
whole, spans are runs of words; the share moves in a line; the same generator gives the same choice; a tokenizer
without a mask token is refused.
"""

import numpy as np
import pytest
from transformers import AutoTokenizer

from dalr.antlm.masking import MaskingConfig, Vocabulary, mask_rows
from dalr.encoders.new_tokenizer import TokenizerConfig, train_tokenizer
from dalr.errors import ConfigError
from tests.antlm.conftest import story

MASK, SPECIAL = 4, 5


def plain(size: int = 200) -> Vocabulary:
    """Ids 0 to 4 special; every third ordinary token goes on with a word."""
    special = np.arange(size) < SPECIAL
    return Vocabulary(MASK, special, (np.arange(size) % 3 == 0) & ~special, np.arange(SPECIAL, size))


def rows(count: int = 16, length: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Rows with special tokens at both ends and padding behind, of different lengths."""
    generator = np.random.default_rng(0)
    ids = generator.integers(SPECIAL, 200, (count, length))
    real = np.zeros(ids.shape, dtype=bool)
    for row, ends in enumerate(generator.integers(10, length, count)):
        ids[row, 0], ids[row, ends - 1], ids[row, ends:] = 2, 3, 0
        real[row, :ends] = True
    return ids, real


@pytest.mark.parametrize("share", [0.15, 0.3])
def test_exact_counts(share: float) -> None:
    ids, real = rows()
    words = plain()
    hidden, chosen = mask_rows(ids, real, words, MaskingConfig(), share, np.random.default_rng(1))
    ordinary = real & ~words.special_V[ids]
    for row in range(len(ids)):
        count = round(share * ordinary[row].sum())
        assert chosen[row].sum() == count > 0
        assert (hidden[row] == MASK).sum() == round(0.8 * count)
        changed = (hidden[row] != ids[row]) & (hidden[row] != MASK)
        assert changed.sum() <= round(0.9 * count) - round(0.8 * count)
    assert not (chosen & ~ordinary).any()
    assert np.array_equal(hidden[~chosen], ids[~chosen])
    assert not words.special_V[hidden[chosen & (hidden != MASK)]].any()
    assert ((hidden != ids) & (hidden != MASK)).any()  # some were drawn at random


def test_all_replaced_or_none() -> None:
    ids, real = rows()
    generator = np.random.default_rng(1)
    hidden, chosen = mask_rows(ids, real, plain(), MaskingConfig(mask=1, random=0), 0.2, generator)
    assert (hidden[chosen] == MASK).all()
    hidden, chosen = mask_rows(ids, real, plain(), MaskingConfig(mask=0, random=0), 0.2, generator)
    assert chosen.any()
    assert np.array_equal(hidden, ids)


def whole_words(ids: np.ndarray, words: Vocabulary) -> list[list[int]]:
    found: list[list[int]] = []
    for place in np.flatnonzero(~words.special_V[ids]).tolist():
        if words.continues_V[ids[place]] and found and found[-1][-1] == place - 1:
            found[-1].append(place)
        else:
            found.append([place])
    return found


@pytest.mark.parametrize("form", ["word", "span"])
def test_words_are_hidden_whole(form: str) -> None:
    ids, real = rows()
    words = plain()
    _, chosen = mask_rows(ids, real, words, MaskingConfig(form=form), 0.3, np.random.default_rng(2))
    several = 0
    for row in range(len(ids)):
        target = round(0.3 * (real[row] & ~words.special_V[ids[row]]).sum())
        assert 0 < chosen[row].sum() <= target
        for word in whole_words(ids[row], words):
            assert chosen[row, word].all() or not chosen[row, word].any()
            several += len(word) > 1 and bool(chosen[row, word].all())
    assert several  # words of several pieces were among them


def test_spans_are_longer_runs_than_words() -> None:
    ids = np.random.default_rng(0).integers(SPECIAL, 200, (64, 60))
    real = np.ones_like(ids, dtype=bool)
    runs = {}
    for form in ("token", "word", "span"):
        _, chosen = mask_rows(ids, real, plain(), MaskingConfig(form=form), 0.15, np.random.default_rng(3))
        starts = chosen & ~np.pad(chosen, ((0, 0), (1, 0)))[:, :-1]
        runs[form] = chosen.sum() / starts.sum()
    assert runs["token"] < runs["word"] < runs["span"] / 1.5


def test_short_rows_and_rows_of_nothing() -> None:
    ids = np.array([[2, 9, 3, 0], [2, 3, 0, 0]])
    _, chosen = mask_rows(ids, ids != 0, plain(), MaskingConfig(), 0.15, np.random.default_rng(0))
    assert chosen.tolist() == [[False, True, False, False], [False] * 4]
    long_word = np.array([[2, 7, 9, 12, 15, 3]])  # one word of four pieces
    _, chosen = mask_rows(long_word, long_word > 0, plain(), MaskingConfig(form="word"), 0.15, np.random.default_rng(0))
    assert chosen.sum() == 4


def test_the_share_moves() -> None:
    config = MaskingConfig(share=0.4, final_share=0.1)
    assert [config.share_at(done) for done in (0, 0.5, 1)] == pytest.approx([0.4, 0.25, 0.1])
    assert MaskingConfig().share_at(0.7) == 0.15
    with pytest.raises(ValueError, match="more than 1 together"):
        MaskingConfig(mask=0.9, random=0.2)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_word_pieces_of_trained_tokenizers(kind: str) -> None:
    # As in other people's vocabularies, a few tokens look like another kind's mark.
    corpus = [*(story(n) for n in range(60)), *["## heading of the Ġiven ▁"] * 20]
    tokenizer = train_tokenizer(corpus, TokenizerConfig(kind=kind, vocab_size=320), 64)
    words = Vocabulary.of(tokenizer)
    ids = tokenizer("riverward crosses", add_special_tokens=False)["input_ids"]
    begins = [number for number, token in enumerate(ids) if not words.continues_V[token]]
    assert len(begins) == 2
    assert begins[1] > 1  # riverward was never seen and comes in pieces
    assert tokenizer.decode(ids[: begins[1]]).replace(" ", "") == "riverward"
    assert words.special_V.sum() == 5


def test_a_tokenizer_without_a_mask_token(minilm_dir: object) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(minilm_dir))
    assert Vocabulary.of(tokenizer).mask_id == tokenizer.mask_token_id
    tokenizer.mask_token = None
    with pytest.raises(ConfigError, match="no mask token, which a phase of MLM needs"):
        Vocabulary.of(tokenizer)
