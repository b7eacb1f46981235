"""Tokenizers trained from a corpus.

Invariants, for each kind: the same corpus gives the same ids in another process (not unigram); texts come back; special
tokens have the first ids and stand around a text; a byte-level one knows every character; saved and loaded it is the
same; a corpus without text is refused.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from dalr.encoders.new_tokenizer import SPECIAL, TokenizerConfig, train_tokenizer
from dalr.errors import ConfigError
from dalr.files import hash_json

THINGS = ("mug", "bag", "umbrella", "wardrobe", "lampshade", "bookshelf")
CORPUS = [f"a {colour} {thing} number {n}" for n in range(9) for colour in ("red", "blue") for thing in THINGS]
KINDS = ("wordpiece", "bpe", "unigram")


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_the_same_corpus_gives_the_same_vocabulary_in_another_process(kind: str) -> None:
    code = (
        "from dalr.encoders.new_tokenizer import TokenizerConfig, train_tokenizer; from dalr.files import hash_json; "
        f"t = train_tokenizer({CORPUS!r}, TokenizerConfig(kind={kind!r}, vocab_size=300), 16); "
        "print(hash_json(t.get_vocab()))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own = train_tokenizer(CORPUS, TokenizerConfig(kind=kind, vocab_size=300), 16)
    assert other.stdout.strip() == hash_json(own.get_vocab())


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(kind: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(CORPUS, TokenizerConfig(kind=kind, vocab_size=300), 16)
    assert tokenizer.convert_ids_to_tokens(list(range(5))) == list(SPECIAL)
    ids = tokenizer("A Red MUG")["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "a red mug"
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("A Red MUG")["input_ids"] == ids
    unseen = tokenizer("漢", add_special_tokens=False)["input_ids"]
    assert (tokenizer.unk_token_id in unseen) == (kind != "bpe")
    assert len(tokenizer) <= 300
    cased = train_tokenizer([*CORPUS, "A Red Mug"], TokenizerConfig(kind=kind, vocab_size=300, lowercase=False), 16)
    assert cased.decode(cased("A Red Mug")["input_ids"], skip_special_tokens=True).strip() == "A Red Mug"


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_learn_from(kind: str) -> None:
    for corpus in ([], ["", "  "]):
        with pytest.raises(ConfigError, match="built from the training text, and there is none"):
            train_tokenizer(corpus, TokenizerConfig(kind=kind), 16)
