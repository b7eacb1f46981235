"""Pairs to mine negatives for.

Invariants: pairs come from a table with their columns, from scores above a threshold, and from the captions of one
group, each with its place; a row that cannot be used costs itself and says why; what gives no pair is refused by name.
"""

from pathlib import Path

import pytest

from dalr.data.manifest import Manifest
from dalr.data.pairs import Pairs, caption_pairs, has_pairs, has_scored_pairs, read_pairs, scored_positives
from dalr.data.sources import read_source
from dalr.errors import DataError


def test_pairs_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("anchor,positive,group\na,b,g\n,d,\ne,f,\ng, ,h\n")
    table = read_source(str(path))
    assert has_pairs(table)
    pairs, bad = read_pairs(table, str(path))
    assert (pairs.anchors, pairs.positives, pairs.group) == (["a", "e"], ["b", "f"], ["g", None])
    assert pairs.where == ["pairs.csv:2", "pairs.csv:4"]
    assert [(row.row, row.reason) for row in bad] == [(3, "has no anchor"), (5, "has no positive")]
    with pytest.raises(DataError, match="lacks the columns product"):
        read_pairs(read_source(str(path)), str(path), "product")
    lines = tmp_path / "pairs.jsonl"
    lines.write_text('{"anchor": "a", "positive": "b"}\nno json\n{"anchor": "c", "positive": "\\u0000"}\n')
    pairs, bad = read_pairs(read_source(str(lines)), str(lines))
    assert (pairs.anchors, len(bad)) == (["a"], 2)
    lines.write_text('{"anchor": "", "positive": "b"}\n')
    with pytest.raises(DataError, match=r"holds no usable pair; pairs.jsonl:1: has no anchor"):
        read_pairs(read_source(str(lines)), str(lines))


def test_a_folder_with_a_table_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("anchor,positive\none,two\n")
    (tmp_path / "val.csv").write_text("text,label\nthree,1\nfour,0\n")
    pairs, bad = read_pairs(read_source(tmp_path), "folder")
    assert (pairs.anchors, pairs.positives) == (["one"], ["two"])
    assert len(bad) == 2


def test_pairs_of_scores(tmp_path: Path) -> None:
    path = tmp_path / "scored.tsv"
    path.write_text("sentence1\tsentence2\tscore\na\tb\t5\nc\td\t3.9\ne\tf\t4\ng\th\t\n")
    pairs, bad, below = scored_positives(path, 4)
    assert (pairs.anchors, pairs.positives, below, len(bad)) == (["a", "e"], ["b", "f"], 1, 1)
    with pytest.raises(DataError, match=r"none of 3 pairs has a score of 6 or more \(they go from 3.9 to 5\)"):
        scored_positives(path, 6)


def test_pairs_of_a_catalogue(tmp_path: Path) -> None:
    path = tmp_path / "products.csv"
    path.write_text("image,text\n1.jpg,a\n1.jpg,b\n1.jpg,A\n2.jpg,c\n1.jpg,d\n3.jpg,\n2.jpg,a\n")
    pairs, captions, lone = caption_pairs(Manifest.load(path))
    rows = list(zip(pairs.anchors, pairs.positives, strict=True))
    assert rows == [("a", "b"), ("b", "d"), ("d", "a"), ("c", "a"), ("a", "c")]
    assert pairs.where[0] == "products.csv:2"
    assert (captions.texts, lone) == (["a", "b", "A", "c", "d", "a"], 0)
    assert len(set(captions.group)) == 2
    path.write_text("image,text,group\n1.jpg,a,g\n1.jpg,b,\n2.jpg,c,g\n3.jpg,d,\n")
    pairs, _, lone = caption_pairs(Manifest.load(path))
    assert (pairs.anchors, pairs.positives, pairs.group, lone) == (["a", "c"], ["c", "a"], ["g", "g"], 2)
    path.write_text("image,text\n1.jpg,a\n2.jpg,b\n")
    with pytest.raises(DataError, match="no group has two different captions"):
        caption_pairs(Manifest.load(path))


def test_kinds_of_tables_and_sides(tmp_path: Path) -> None:
    path = tmp_path / "scored.csv"
    path.write_text("Sentence1,Sentence2,score\na,b,1\n")
    table = read_source(str(path))
    assert (has_pairs(table), has_scored_pairs(table)) == (False, True)
    pairs = Pairs(["a", "b"], ["c", "d"], ["g", None], ["1", "2"])
    assert pairs.candidates("both").texts == ["c", "d", "a", "b"]
    assert pairs.candidates("both").group == ["g", None, "g", None]
    assert (pairs.candidates().texts, pairs.candidates("anchors").texts) == (["c", "d"], ["a", "b"])
