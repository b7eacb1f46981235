"""Scored sentence pairs and labelled texts.

Invariants
- Every layout gives the same pairs: commas, tabs with the minBERT heading, JSON Lines, SICK, and the STS benchmark
  without a heading or quoting.
- A row that cannot be used (blank score, no number, out of range, empty sentence) costs itself and comes back with
  its file and line; a file without the columns, or without one usable row, is refused by name.
- Weights are read where there are some, and go with their pairs; Parquet is a table too.
- Text that is not UTF-8 is read as Windows-1252.
- Scores that end at 1 are refused for training where nobody said that the range does.
- The real files have the published counts (data).
"""

import json
from pathlib import Path

import pytest

from dalr.data.labelled_texts import read_labelled_texts
from dalr.data.scored_pairs import ScoredPairs, ScoresConfig, joined, read_scored_pairs, read_year
from dalr.errors import DataError
from dalr.run.texts import read_scaled

PAIRS = ScoredPairs(["A dog runs.", 'He said "no", twice', "über"], ["A cat sits.", "b", "c"], [1.0, 2.5, 5.0])
ROWS = list(zip(PAIRS.first, PAIRS.second, PAIRS.score, strict=True))


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


LAYOUTS = {
    "own.csv": "sentence1,sentence2,score\n" + "".join(f"{quoted(a)},{quoted(b)},{s}\n" for a, b, s in ROWS),
    "others.csv": "Score;Text1;Text2\n" + "".join(f"{s};{quoted(a)};{quoted(b)}\n" for a, b, s in ROWS),
    "minbert.tsv": "\tid\tsentence1\tsentence2\tsimilarity\n"
    + "".join(f"{n}\tx{n}\t{quoted(a)}\t{b}\t{s}\n" for n, (a, b, s) in enumerate(ROWS)),
    "unquoted.tsv": "first\tsecond\tlabel\n" + "".join(f"{a}\t{b}\t{s}\n" for a, b, s in ROWS),
    "rows.jsonl": "".join(json.dumps({"question1": a, "question2": b, "score": s}) + "\n" for a, b, s in ROWS),
    "SICK.txt": "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\r\n"
    + "".join(f"{n}\t{a}\t{b}\t{s}\tNEUTRAL\r\n" for n, (a, b, s) in enumerate(ROWS)),
    "sts-dev.csv": "".join(f"genre\tfile\t2012\t{n}\t{s}\t{a}\t{b}\tsource\n" for n, (a, b, s) in enumerate(ROWS)),
}


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-8-sig"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_same_pairs(tmp_path: Path, name: str, encoding: str) -> None:
    path = tmp_path / name
    path.write_bytes(LAYOUTS[name].encode(encoding if not name.endswith("jsonl") else "utf-8"))
    assert read_scored_pairs(path) == (PAIRS, [])
    assert len(PAIRS) == 3
    assert PAIRS.sentences()[:2] == ["A dog runs.", 'He said "no", twice']


def test_an_unquoted_benchmark_keeps_its_quotes_and_odd_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "sts-dev.csv"
    path.write_text('g\tf\ty\t0\t3\t"begins, never ends\tb\x85c\u2028d\ng\tf\ty\t1\t2\te\tf\n', newline="")
    assert read_scored_pairs(path)[0].first == ['"begins, never ends', "e"]
    assert read_scored_pairs(path)[0].second == ["b\x85c\u2028d", "f"]


def test_a_bad_row_costs_itself(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    rows = [
        "a\tb\t1",
        "a\tb\t",
        "a\tb\tfive",
        "a\tb\t5.01",
        "a\tb\t-1",
        "a\tb\tnan",
        " \tb\t2",
        "a\t\t2",
        "c",
        "d\te\t0",
    ]
    path.write_text("sentence1\tsentence2\tscore\n" + "\n".join(rows) + "\n")
    pairs, bad = read_scored_pairs(path)
    assert pairs == ScoredPairs(["a", "d"], ["b", "e"], [1.0, 0.0])
    assert [row.where for row in bad] == [f"pairs.tsv:{line}" for line in range(3, 11)]
    wanted = ["has no score", "'five' is not a number", "5.01 is outside the range 0 to 5", "-1 is outside",
              "'nan' is not a number", "has no first sentence", "has no second sentence", "1 field"]  # fmt: skip
    assert all(some in row.reason for some, row in zip(wanted, bad, strict=True))
    # The range is the caller's.
    assert [row.row for row in read_scored_pairs(path, high=None)[1]] == [3, 4, 6, 7, 8, 9, 10]
    assert read_scored_pairs(path, high=0.5)[0].first == ["d"]


def test_a_bad_row_of_the_benchmark_costs_itself(tmp_path: Path) -> None:
    path = tmp_path / "sts-dev.csv"
    path.write_text("g\tf\ty\t0\t\ta\tb\ng\tf\ty\t1\t2\tc\td\nno tabs\n")
    pairs, bad = read_scored_pairs(path)
    assert pairs == ScoredPairs(["c"], ["d"], [2.0])
    assert [(row.where, row.reason.split()[0]) for row in bad] == [
        ("sts-dev.csv:1", "has"),
        ("sts-dev.csv:3", "expected"),
    ]


def test_a_year_is_read_by_subset(tmp_path: Path) -> None:
    folder = tmp_path / "STS12-en-test"
    folder.mkdir()
    for name, scores in (("one", "1\n\n3\n"), ("two", "4\n5\n6\n"), ("void", "\n\n\n")):
        (folder / f"STS.input.{name}.txt").write_bytes("a\tb\tmore\nc\td\nür\te\n".encode("latin-1"))
        (folder / f"STS.gs.{name}.txt").write_text(scores)
    subsets, bad = read_year(folder)
    assert subsets == {
        "one": ScoredPairs(["a", "ür"], ["b", "e"], [1.0, 3.0]),
        "two": ScoredPairs(["a", "c"], ["b", "d"], [4.0, 5.0]),
    }
    assert [row.where for row in bad[:2]] == ["STS12-en-test/STS.gs.one.txt:2", "STS12-en-test/STS.gs.two.txt:3"]
    assert len(bad) == 5
    assert joined(subsets.values()).score == [1.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"pairs\.csv: cannot be read"),
        ("", r"pairs\.csv: is empty"),
        ("a,b,c\n1,2,3\n", r"found no columns of two sentences and a score among 'a', 'b', 'c'; expected sentence1/"),
        ("sentence1,sentence2,b\n1,2,3\n", r"no columns of a score among .*one of score, similarity"),
        ("sentence1,score\n1,3\n", r"no columns of two sentences among"),
        ("sentence1,sentence2,score\na,b,\n", r"no usable scored pair; .* 1 bad rows, pairs\.csv:2: has no score"),
        ("sentence1,sentence2,score\n", r"no usable scored pair$"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "pairs.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_scored_pairs(path)


def test_labelled_texts_keep_what_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "ids.tsv"
    path.write_bytes("\tid\tsentence\tsentiment\n0\ta\t Voilà .\t3\n1\tb\tx\t\n2\tc\t\t1\n3\td\ty\t1.5\n"
                     "4\te\ty\t-1\n5\tf\ty\tgood\n6\tg\tz\t0.0\n".encode("latin-1"))  # fmt: skip
    texts, labels, bad = read_labelled_texts(path)
    assert (texts, labels) == (["Voilà .", "z"], [3, 0])
    assert [row.row for row in bad] == [3, 4, 5, 6, 7]
    with pytest.raises(DataError, match=r"there is no column 'sentence1'.*sentence"):
        read_labelled_texts(path, text="sentence1")
    own = tmp_path / "own.jsonl"
    own.write_text('{"words": "a b", "kind": 1}\n{"words": "c", "kind": true}\n')
    assert read_labelled_texts(own, text="words", label="kind") == (["a b", "c"], [1, 1], [])
    with pytest.raises(DataError, match="found no column of texts and classes among 'words', 'kind'"):
        read_labelled_texts(own)
    own.write_text('{"text": "a b", "label": "one"}\n')
    with pytest.raises(
        DataError, match=r"no usable labelled text; the first of 1 bad rows, own\.jsonl:1: the class 'one'"
    ):
        read_labelled_texts(own)


@pytest.mark.data
def test_the_real_files_have_the_published_counts(data_dir: Path) -> None:
    expected = {
        "minbert/sts-dev.tsv": 863, "minbert/sts-train.tsv": 6040, "sts/STSBenchmark/sts-train.csv": 5749,
        "sts/STSBenchmark/sts-dev.csv": 1500, "sts/STSBenchmark/sts-test.csv": 1379, "sts/SICK/SICK_train.txt": 4500,
        "sts/SICK/SICK_trial.txt": 500, "sts/SICK/SICK_test_annotated.txt": 4927,
    }  # fmt: skip
    for name, count in expected.items():
        pairs, bad = read_scored_pairs(data_dir / name)
        assert (len(pairs), bad) == (count, []), name
    pairs, bad = read_scored_pairs(data_dir / "minbert/quora-dev.tsv", high=1)
    assert (len(pairs), [row.row for row in bad], set(pairs.score)) == (20212, [2577, 14222], {0.0, 1.0})
    assert any('Do I need ""the"" here?' in text for text in pairs.first)
    subsets, bad = read_year(data_dir / "sts" / "STS15-en-test")
    assert (sum(map(len, subsets.values())), len(bad), {row.reason for row in bad}) == (3000, 5500, {"has no score"})


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "count", "classes"),
    [("ids-sst-train", 8544, 5), ("ids-sst-dev", 1101, 5), ("ids-cfimdb-train", 1707, 2), ("ids-cfimdb-dev", 245, 2)],
)
def test_the_real_labels_have_the_published_counts(data_dir: Path, name: str, count: int, classes: int) -> None:
    texts, labels, bad = read_labelled_texts(data_dir / "minbert" / f"{name}.tsv")
    assert (len(texts), len(labels), bad, set(labels)) == (count, count, [], set(range(classes)))


def test_weights_go_with_their_pairs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("text1,text2,score,weight\na,b,1,0.5\nc,d,2,\ne,f,3,-1\ng,h,4,2\n")
    pairs, bad = read_scored_pairs(path)
    assert pairs == ScoredPairs(["a", "g"], ["b", "h"], [1.0, 4.0], [0.5, 2.0])
    assert [(row.row, row.reason) for row in bad] == [(3, "has no weight"), (4, "the weight -1 is below 0")]
    assert pairs.chosen([False, True]) == ScoredPairs(["g"], ["h"], [4.0], [2.0])
    assert joined([pairs, PAIRS]).weight == [0.5, 2.0, 1.0, 1.0, 1.0]
    assert joined([PAIRS]).weight == []
    assert PAIRS.weights() == [1.0, 1.0, 1.0]
    assert PAIRS.chosen([True, False, True]).score == [1.0, 5.0]


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "pairs.parquet"
    columns = {"sentence1": PAIRS.first, "sentence2": PAIRS.second, "score": PAIRS.score, "weight": [1.0, 0.0, 2.0]}
    pq.write_table(pa.table(columns), path)
    pairs, bad = read_scored_pairs(path)
    assert pairs == ScoredPairs(PAIRS.first, PAIRS.second, PAIRS.score, [1.0, 0.0, 2.0])
    assert bad == []


def test_scores_up_to_one_are_not_taken_for_scores_up_to_five(tmp_path: Path) -> None:
    """Labels of 0 to 1 over a range of 0 to 5 would call every pair unlike, and train to that."""
    path = tmp_path / "labels.tsv"
    path.write_text("sentence1\tsentence2\tscore\na b\tb a\t1\na b\tc d\t0.25\n")
    with pytest.raises(DataError, match=r"labels.tsv: no score is above 1, .* say `high: 1` in its entry"):
        read_scaled(ScoresConfig(path=str(path)))
    assert read_scaled(ScoresConfig(path=str(path), high=1))[0].score == [1, 0.25]
    assert read_scaled(ScoresConfig(path=str(path), high=5))[0].score == [0.2, 0.05]
    with pytest.raises(ValueError, match="low: 3 is to be less than high, 3"):
        ScoresConfig(path=str(path), low=3, high=3)


def test_what_is_no_character_costs_its_row(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        '{"sentence1": "half \\ud83d", "sentence2": "b", "score": 1}\n'
        '{"sentence1": "a", "sentence2": "nul \\u0000", "score": 1}\n'
        '{"sentence1": "whole \\ud83d\\ude00", "sentence2": "b", "score": 1}\n'
    )
    pairs, bad = read_scored_pairs(path)
    assert pairs.first == ["whole \U0001f600"]
    assert [row.reason for row in bad] == [
        "the first sentence holds half a surrogate pair, which is no character",
        "the second sentence holds a NUL character",
    ]
