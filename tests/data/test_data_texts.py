"""Texts without pictures.

Invariants: a line or row that cannot be used costs itself, and comes back with its line and the reason; a file that
holds nothing to train on is refused by name.
"""

from pathlib import Path

import pytest

from dalr.data.texts import read_corpus, read_triplets
from dalr.errors import DataError


def test_a_corpus_keeps_what_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_bytes("A first one.\n\n  Überall \n".encode() + b"a \xff byte\n" + b"the last")
    sentences, bad = read_corpus(str(path))
    assert sentences == ["A first one.", "Überall", "the last"]
    assert [(row.file, row.row) for row in bad] == [("corpus.txt", 4)]
    assert "0xff" in bad[0].reason


def test_triplets_keep_what_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "triplets.csv"
    path.write_text('anchor,positive,negative,group\na,b,c,1\nd, ,f,2\n"g, h",i,j,\nk,l\nm,n,o,4\n')
    found, bad = read_triplets(str(path))
    assert found.sides == (["a", "g, h", "m"], ["b", "i", "n"], ["c", "j", "o"])
    assert found.group == ["1", None, "4"]
    assert sorted(row.row for row in bad) == [3, 5]
    assert "has no positive" in {row.reason for row in bad}


@pytest.mark.parametrize("content", ["", "\n\n", " \n"])
def test_nothing_to_train_on_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "empty.txt"
    path.write_text(content)
    with pytest.raises(DataError, match=r"empty\.txt"):
        read_corpus(str(path))
    with pytest.raises(DataError, match=r"empty\.txt"):
        read_triplets(str(path))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "triplets.csv"
    path.write_text("anchor,positive\na,b\n")
    with pytest.raises(DataError, match="lacks the columns negative"):
        read_triplets(str(path))
