"""`dalr mine`, as a user calls it.

Invariants
- Pairs, scored pairs with a threshold, and a catalogue each give a triplet file that training reads, and one JSON
  object with the keys that the help names, whose counts add up; a table for a person names the same numbers.
- Bad rows cost themselves and are listed; a pair without a negative is named with the reason.
- What cannot be asked for exits 2 with one line that names the option or the file.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_catalogue import COLOURS, IMAGE, KINDS, tiny_model

from dalr.data.texts import read_triplets
from dalr.model import DualEncoder, ModelConfig

Run = Callable[..., tuple[int, str, str]]
KEYS = [
    "out", "model", "teacher", "pairs", "with_negatives", "without", "candidates", "known_positives", "outside_ranks",
    "refused_by_margin", "refused_by_teacher", "spare", "negatives", "without_rows", "below_threshold",
    "lone_captions", "bad", "bad_rows",
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_model(image=False).save_pretrained(folder)
    return folder


@pytest.fixture
def run(dalr: Run, model: Path, tmp_path: Path) -> Run:
    """Call `dalr mine` with the tiny model: (exit code, stdout, stderr)."""

    def call(*arguments: object, out: str = "triplets.csv") -> tuple[int, str, str]:
        return dalr("mine", "--model", model, "--out", tmp_path / out, *arguments)

    return call


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.csv"
    rows = [f"a {colour} {kind},{kind} in {colour},{kind}" for colour in COLOURS for kind in KINDS]
    path.write_text("\n".join(["anchor,positive,group", *rows, ",lonely,"]) + "\n")
    return path


def test_pairs(run: Run, pairs: Path, tmp_path: Path, model: Path) -> None:
    arguments = ("--data", pairs, "--share", 0, "--negatives", 2, "--ranks", "1:10")
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert list(found) == KEYS
    assert (found["pairs"], found["candidates"], found["negatives"], found["without"]) == (24, 24, 48, 0)
    # A kind is one group: its six are never negatives of each other.
    assert found["known_positives"] == 24 * 6
    assert found["outside_ranks"] == 24 * (24 - 6 - 9)
    assert found["spare"] == 24 * 9 - 48
    assert (found["bad"], found["bad_rows"][0]["row"], found["bad_rows"][0]["reason"]) == (1, 26, "has no anchor")
    triplets, bad = read_triplets(str(tmp_path / "triplets.csv"))
    assert bad == []
    assert len(triplets) == 48
    # What the groups are for is not lost on the way to training.
    assert triplets.group == [anchor.split()[-1] for anchor in triplets.anchors]
    assert all(anchor.split()[-1] != negative.split()[0] for anchor, _, negative in zip(*triplets.sides, strict=True))
    code, out, err = run(*arguments, "--teacher", model, "--scores", out="scored.csv")
    assert code == 0, err
    assert "24 pairs x 24 candidates" in out
    assert "skipped: pairs.csv:26: has no anchor" in out
    heading = (tmp_path / "scored.csv").read_text().splitlines()[0]
    assert heading.endswith("positive_teacher_cosine,negative_teacher_cosine")


def test_scored_pairs_and_a_corpus(run: Run, tmp_path: Path) -> None:
    data, corpus = tmp_path / "scored.tsv", tmp_path / "corpus.txt"
    data.write_text("sentence1\tsentence2\tis_duplicate\na red dress\tred dress\t1\na bag\ta lamp\t0\nx\ty\t\n")
    corpus.write_text("a blue shoe\nRED  dress\na green lamp\n")
    code, out, err = run("--data", data, "--threshold", 1, "--corpus", corpus, "--share", 0, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["pairs"], found["candidates"], found["known_positives"], found["below_threshold"]) == (1, 3, 1, 1)
    assert (found["bad"], found["lone_captions"]) == (1, None)
    assert read_triplets(str(tmp_path / "triplets.csv"))[0].negatives[0] in ("a blue shoe", "a green lamp")
    code, _, err = run("--data", data)
    assert code == 2
    assert "say with --threshold" in err


def test_a_catalogue(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "products.csv"
    rows = [f"{number}.jpg,{text} {colour}" for number, colour in enumerate(COLOURS) for text in ("a dress", "shoes")]
    data.write_text("\n".join(["image,text", *rows, "9.jpg,a lonely lamp"]) + "\n")
    code, out, err = run("--data", data, "--share", 0, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["pairs"], found["candidates"], found["lone_captions"]) == (12, 13, 1)
    assert found["known_positives"] == 24
    code, out, err = run("--data", data, "--share", 0)
    assert code == 0, err
    assert "captions alone in their group, so without a pair: 1" in out


def test_pairs_without_a_negative_are_named(run: Run, pairs: Path) -> None:
    code, out, err = run("--data", pairs, "--ranks", "17:99", "--share", 0, "--json")
    assert code == 0, err
    assert json.loads(out)["without_rows"] == []
    code, out, err = run("--data", pairs, "--ranks", "18:99", "--share", 0, "--json")
    assert (code, out) == (2, "")
    assert "not one of 24 pairs has a negative left (the first: has 18 candidates, none from rank 19 on)" in err
    lines = pairs.read_text().splitlines()
    pairs.write_text("\n".join([*lines[:-1], "one,two,"]) + "\n")
    code, out, err = run("--data", pairs, "--ranks", "19:99", "--share", 0, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["with_negatives"], found["without"]) == (1, 24)
    reason = "has 19 candidates, none from rank 20 on"
    assert found["without_rows"][0] == {"where": "pairs.csv:2", "anchor": "a red dress", "reason": reason}
    out = run("--data", pairs, "--ranks", "19:99", "--share", 0)[1]
    assert f"none: pairs.csv:2: {reason}" in out
    assert "and 19 more" in out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--ranks", "10"], "--ranks 10: expected FIRST:LAST"),
        (["--ranks", "20:10"], "20:10 is no window"),
        (["--share", "1.5"], "share"),
        (["--choice", "best"], "choice"),
        (["--negatives", "0"], "negatives"),
        (["--candidates", "all"], "expected positives, anchors or both"),
        (["--candidates", "both", "--corpus", "x.txt"], "exclude each other"),
        (["--corpus", "none.txt"], "none.txt: no such file"),
        (["--teacher-ceiling", "0.5"], "need --teacher"),
        (["--teacher", "nowhere/at/all"], "nowhere/at/all"),
        (["--split", "val"], "--split"),
        (["--group-column", "product"], "lacks the columns product"),
        (["--threshold", "1"], "found no columns of two sentences"),
    ],
)
def test_what_cannot_be_asked_for(run: Run, pairs: Path, arguments: list[str], named: str) -> None:
    code, out, err = run("--data", pairs, *arguments)
    assert (code, out) == (2, ""), err
    assert len(err.strip().splitlines()) == 1, err
    assert named in err


def test_a_model_without_texts_is_refused(run: Run, pairs: Path, tmp_path: Path) -> None:
    DualEncoder.build(ModelConfig(image=IMAGE)).save_pretrained(tmp_path / "images")
    code, _, err = run("--data", pairs, "--teacher", tmp_path / "images")
    assert code == 2
    assert "images: has no text tower, and negatives are mined among texts" in err


def test_a_place_that_cannot_be_written_is_named(run: Run, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for out, reason in (("folder", "is a folder"), ("file/triplets.csv", "cannot be written")):
        code, _, err = run("--data", pairs, "--share", 0, out=out)
        assert code == 2
        assert f"{out}: {reason}" in err


def test_a_missing_file_is_named(run: Run, tmp_path: Path) -> None:
    code, _, err = run("--data", tmp_path / "none.csv")
    assert code == 2
    assert "none.csv: no such file" in err
