"""Text from files to packed rows.

Invariants: markup, empty, short and repeated lines go, and are counted; a line that is not UTF-8 or not JSON costs
itself; a file of which most cannot be read, one without text and one without the column are refused by name; held-out
documents and sentences of test sets are not in the training part; sentences are packed whole, documents run on, every
token once, special tokens around each; a second call reads the cache; other files or rules do not.
"""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dalr.antlm import documents
from dalr.antlm.documents import CorpusConfig, clean_line, prepare_documents, sentences
from dalr.antlm.packing import pack_text
from dalr.encoders.new_tokenizer import TokenizerConfig, train_tokenizer
from dalr.errors import ConfigError, DataError
from dalr.evaluation.leaks import LeakConfig
from tests.antlm.conftest import story


def corpus(path: Path, **values: Any) -> CorpusConfig:
    return CorpusConfig(paths=[str(path)], **{"dev": 0.0, **values})


@pytest.mark.parametrize(
    ("line", "plain"),
    [
        ("A [[city|big town]] in [[France]] , near &amp; far", "A big town in France, near & far"),
        ("see [http://example.org the page] or https://example.org/x now", "see the page or now"),
        ("* '''Bold''' and ''slanted''", "Bold and slanted"),
        ("== A heading ==", ""),
        ("{| class=wikitable", ""),
        ("half a {{template", ""),
    ],
)
def test_markup(line: str, plain: str) -> None:
    assert clean_line(line) == plain


def test_sentences() -> None:
    assert sentences('He came. "It was late." She left!\nA new line') == [
        "He came.", '"It was late.', "She left!", "A new line",
    ]  # fmt: skip


def test_cleaning_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "pages.txt"
    own = [f"<p>This is page {n} of the book</p>" for n in range(30)]
    path.write_text("\n".join([*own, *["Click here to subscribe today"] * 25, "too short", "", "| a | table"]))
    found = prepare_documents(corpus(path))
    assert list(found) == [f"This is page {n} of the book" for n in range(30)]
    assert {name: found.counts[name] for name in ("documents", "lines", "repeated_lines", "short_lines")} == {
        "documents": 30, "lines": 30, "repeated_lines": 25, "short_lines": 1,
    }  # fmt: skip
    assert found.counts["markup_lines"] == 1
    assert len(list(prepare_documents(corpus(path, most_repeats=None)))) == 55
    kept = list(prepare_documents(corpus(path, markup=False, min_words=1)))
    assert kept[0] == "<p>This is page 0 of the book</p>"
    assert "| a | table" in kept


def test_lines_of_a_large_text_are_not_taken_for_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many distinct lines to each counter: none is dropped, and a line that does repeat still is."""
    monkeypatch.setattr(documents, "COUNTERS", 1 << 9)
    monkeypatch.setattr(documents, "BYTES_PER_COUNTER", 1 << 10)
    path = tmp_path / "many.txt"
    lines = [f"This is line {n} of a long text" for n in range(26 << 9)]
    path.write_text("\n".join([*lines, *["Click here to subscribe today"] * 30]))
    found = prepare_documents(corpus(path))
    assert found.counts["repeated_lines"] == 30
    assert found.counts["lines"] == len(lines)


def test_kinds_of_files(tmp_path: Path) -> None:
    texts = [story(n) for n in range(4)]
    lines = tmp_path / "a.txt.gz"
    lines.write_bytes(gzip.compress("\n".join(texts).encode()))
    blocks = tmp_path / "b.txt"
    blocks.write_text("\n\n".join(text.replace(". ", ".\n") for text in texts))
    rows = tmp_path / "c.jsonl.gz"
    rows.write_bytes(gzip.compress("".join(json.dumps({"body": text}) + "\n" for text in texts).encode()))
    table = tmp_path / "d.csv"
    table.write_text("id,body\n" + "".join(f'{n},"{text}"\n' for n, text in enumerate(texts)))
    assert list(prepare_documents(corpus(lines))) == texts
    assert [text.replace("\n", " ") for text in prepare_documents(corpus(blocks, paragraphs=True))] == texts
    for path in (rows, table):
        assert list(prepare_documents(corpus(path, column="body"))) == texts
    two = CorpusConfig(paths=[str(rows), str(table)], column="body", dev=0)
    assert list(prepare_documents(two)) == texts * 2


def test_lines_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    good = [json.dumps({"text": story(n)}).encode() for n in range(3)]
    path.write_bytes(b"\n".join([good[0], b'{"text": "caf\xe9 noir"}', good[1], b"{oops", b'{"other": 1}', good[2]]))
    found = prepare_documents(corpus(path))
    assert len(list(found)) == 3
    assert [(row.row, row.reason.split(" (")[0]) for row in found.bad] == [
        (2, "holds the byte 0xe9, which is not UTF-8"), (4, "is not JSON"), (5, "has no 'text' but 'other'"),
    ]  # fmt: skip
    assert found.counts["bad_rows"] == 3


def test_files_that_are_refused(tmp_path: Path) -> None:
    latin = tmp_path / "latin.txt"
    latin.write_bytes("\n".join(f"Déjà vu à la carte {n}" for n in range(9)).encode("latin-1"))
    with pytest.raises(DataError, match=r"latin.txt: most of it cannot be read \(latin.txt:\d+: holds the byte 0xe"):
        prepare_documents(corpus(latin))
    markup = tmp_path / "markup.txt"
    markup.write_text("{| a\n|-\n== b ==\n")
    with pytest.raises(DataError, match=r"markup.txt: no text is left after cleaning .*3 lines markup or empty"):
        prepare_documents(corpus(markup))
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    with pytest.raises(DataError, match=r"empty.txt: is empty"):
        prepare_documents(corpus(empty))
    with pytest.raises(DataError, match=r"gone.txt: cannot be read"):
        prepare_documents(corpus(tmp_path / "gone.txt"))
    broken = tmp_path / "broken.txt.gz"
    broken.write_bytes(gzip.compress(b"some text that is long enough\n" * 400)[:40])
    with pytest.raises(DataError, match=r"broken.txt.gz: cannot be read"):
        prepare_documents(corpus(broken))
    wide = tmp_path / "wide.txt"
    wide.write_text("some text that is long enough\n" * 9, encoding="utf-16")
    with pytest.raises(DataError, match=r"wide.txt: is UTF-16; expected UTF-8"):
        prepare_documents(corpus(wide))
    wide.write_text("some text that is long enough\n" * 9, encoding="utf-16-le")  # without the mark at its head
    with pytest.raises(DataError, match=r"wide.txt: .*holds a NUL byte; expected UTF-8"):
        prepare_documents(corpus(wide))
    table = tmp_path / "table.csv"
    table.write_text("id,body\n1,some text here\n")
    with pytest.raises(DataError, match=r"has no column 'text'; it has 'id', 'body'"):
        prepare_documents(corpus(table))
    few = tmp_path / "few.txt"
    few.write_text("only one document here\n")
    with pytest.raises(DataError, match=r"data.dev=0.01: none of 1 documents"):
        prepare_documents(corpus(few, dev=0.01))


def test_held_out_and_leaks(stories: Path, tmp_path: Path) -> None:
    found = prepare_documents(corpus(stories, dev=0.2))
    train, dev = list(found), list(found.part("dev"))
    assert not set(train) & set(dev)
    assert len(train) + len(dev) == 120
    assert 10 < len(dev) < 40
    grown = tmp_path / "grown.jsonl"
    grown.write_text(stories.read_text() + json.dumps({"text": "One more document than before."}) + "\n")
    assert set(dev) <= set(prepare_documents(corpus(grown, dev=0.2)).part("dev"))  # a document keeps its part

    held = tmp_path / "held.csv"
    held.write_text("sentence1,sentence2,score\nNOBODY follows a valley in chapter 1,another one,3\n")
    checked = prepare_documents(corpus(stories), LeakConfig(pairs={"test": {"path": str(held)}}))
    assert checked.counts["leaking_sentences"] == 1
    assert any("in chapter 1." in text for text in prepare_documents(corpus(stories)))
    assert not any("in chapter 1." in text for text in checked)
    assert sum("in chapter" in text for text in checked) == 119
    assert checked.leaks is not None
    assert checked.leaks["dropped"] == 1
    counted = prepare_documents(corpus(stories), LeakConfig(pairs={"test": {"path": str(held)}}, drop=False))
    assert counted.counts["leaking_sentences"] == 1
    assert sum("in chapter" in text for text in counted) == 120
    second = next(text for text in checked if "in chapter 2." in text).split(". ")[1]
    held.write_text(f"{held.read_text()}{second},another one,3\n")
    more = prepare_documents(corpus(stories), LeakConfig(pairs={"test": {"path": str(held)}}))
    assert more.counts["leaking_sentences"] == 2


@pytest.fixture
def tokenizer(stories: Path) -> Any:
    return train_tokenizer([story(n) for n in range(120)], TokenizerConfig(vocab_size=300), 64)


def units(text: Any, tokenizer: Any) -> list[str]:
    """What stands in the rows, text by text, as words."""
    found = []
    for ids, segments in zip(text.ids_NL, text.segments_NL, strict=True):
        for number in range(1, int(segments.max()) + 1):
            inside = ids[segments == number].tolist()
            assert inside[0] == tokenizer.cls_token_id
            assert inside[-1] == tokenizer.sep_token_id
            found.append(tokenizer.decode(inside[1:-1]))
        assert (ids[segments == 0] == tokenizer.pad_token_id).all()
    return found


def test_sentences_are_packed_whole(stories: Path, tokenizer: Any) -> None:
    documents = prepare_documents(corpus(stories))
    text = pack_text(documents, "train", tokenizer, 48, "sentence")
    wanted = [sentence for document in documents for sentence in sentences(document)]
    as_tokens = [tokenizer.decode(tokenizer(one, add_special_tokens=False)["input_ids"]) for one in wanted]
    assert sorted(units(text, tokenizer)) == sorted(as_tokens)
    assert text.tokens == (text.segments_NL != 0).sum()
    assert text.tokens > 0.9 * text.ids_NL.size  # little padding


def test_documents_run_on(stories: Path, tokenizer: Any) -> None:
    documents = prepare_documents(corpus(stories))
    text = pack_text(documents, "train", tokenizer, 40, "document")
    pieces = [
        token for one in units(text, tokenizer) for token in tokenizer(one, add_special_tokens=False)["input_ids"]
    ]
    whole = [token for document in documents for token in tokenizer(document, add_special_tokens=False)["input_ids"]]
    assert pieces == whole
    assert (text.segments_NL != 0).mean() > 0.9
    assert len(units(text, tokenizer)) > 120  # some documents were cut


def test_a_sentence_longer_than_a_row(tmp_path: Path, tokenizer: Any) -> None:
    path = tmp_path / "long.txt"
    path.write_text("the river " * 40 + "\nthe bridge ends here\n")
    text = pack_text(prepare_documents(corpus(path)), "train", tokenizer, 20, "sentence")
    assert " ".join(units(text, tokenizer)).count("river") == 40
    with pytest.raises(ConfigError, match=r"data.length: 3 tokens leave no room beside 2 special ones"):
        pack_text(prepare_documents(corpus(path)), "train", tokenizer, 3, "sentence")


@pytest.mark.parametrize("packing", ["sentence", "document"])
@pytest.mark.parametrize("length", [4, 8, 9])
def test_short_rows_hold_every_token(tmp_path: Path, tokenizer: Any, length: int, packing: Any) -> None:
    path = tmp_path / "text.txt"
    path.write_text("the river " * 40 + "\nthe bridge ends here\n")
    text = pack_text(prepare_documents(corpus(path)), "train", tokenizer, length, packing)
    assert " ".join(units(text, tokenizer)).count("river") == 40


def test_the_cache(stories: Path, tokenizer: Any) -> None:
    first = prepare_documents(corpus(stories))
    text = pack_text(first, "train", tokenizer, 32, "document")
    made = (first.folder / "train.jsonl").stat().st_mtime_ns
    again = prepare_documents(corpus(stories))
    assert (again.folder / "train.jsonl").stat().st_mtime_ns == made
    assert pack_text(again, "train", tokenizer, 32, "document").fingerprint == text.fingerprint
    assert pack_text(again, "train", tokenizer, 33, "document").fingerprint != text.fingerprint
    assert prepare_documents(corpus(stories, min_words=4)).folder != first.folder
    stories.write_text(stories.read_text() + json.dumps({"text": "A new line at the end."}) + "\n")
    changed = prepare_documents(corpus(stories))
    assert changed.folder != first.folder
    assert changed.counts["documents"] == first.counts["documents"] + 1
    # What orders the batches is what a text says, not where it lies or since when.
    moved = stories.rename(stories.with_name("moved.jsonl"))
    assert prepare_documents(corpus(moved)).folder != changed.folder
    assert prepare_documents(corpus(moved)).fingerprint == changed.fingerprint
    assert changed.fingerprint != first.fingerprint
    assert np.array_equal(text.ids_NL, pack_text(first, "train", tokenizer, 32, "document").ids_NL)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    """Cleaned, tokenised and packed in another process: four times the text, hardly more memory."""
    code = """
import resource, sys
from pathlib import Path
from dalr.antlm import documents
from dalr.antlm.documents import CorpusConfig, prepare_documents
from dalr.antlm.packing import pack_text
from dalr.encoders.new_tokenizer import TokenizerConfig, train_tokenizer
import sklearn.linear_model, transformers
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
documents = prepare_documents(CorpusConfig(paths=[sys.argv[1]]))
tokenizer = train_tokenizer(documents, TokenizerConfig(vocab_size=2000), 128)
print(len(pack_text(documents, "train", tokenizer, 128, "document")), peak() - before)
"""
    found = []
    for lines in (20_000, 80_000):
        path = tmp_path / f"{lines}.txt"
        path.write_text("".join(f"{story(n % 500)} {n % 1000} and {n % 997}\n" for n in range(lines)))
        ran = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
        found.append([int(number) for number in ran.stdout.split()])
    (rows, megabytes), (more_rows, more_megabytes) = found
    assert more_rows > 3.9 * rows
    assert more_megabytes < megabytes + 20
