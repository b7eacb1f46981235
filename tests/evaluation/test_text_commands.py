"""`dalr eval retrieval-text`, `eval pairs`, `eval clustering` and `eval geometry`, as a user calls them.

Invariants
- --json puts exactly one object on stdout, with the keys that the help names; without it a table names the same numbers
  and the definition; rows left out are told on stderr.
- Options reach what they name: prompts, truncated dimensions, hybrid scoring, the first queries, the corpus.
- Bad usage and bad input exit with 2 and one line that says what is wrong and what to do.
"""

import csv
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tiny_catalogue import COLOURS, KINDS, tiny_catalogue, tiny_model

Run = Callable[..., tuple[int, str, str]]
SPREAD = [
    "uniformity", "mean_cosine", "partition_ratio", "isoscore", "top_component", "hub_skewness", "anti_hubs", "rows",
    "rows_used",
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(folder)
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """24 scored pairs of 0 to 5, and one without a score."""
    path = tmp_path / "pairs.csv"
    texts = [f"a {colour} {kind}" for kind in KINDS for colour in COLOURS]
    with open(path, "w", newline="", encoding="utf-8") as stream:
        rows = [(text, f"{text} again", 4.5) for text in texts[:12]]
        rows += [(text, f"something else, number {at}", 1.0) for at, text in enumerate(texts[12:])]
        csv.writer(stream).writerows([("sentence1", "sentence2", "score"), *rows, ("lost", "lost too", "")])
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.csv"
    rows = "".join(f"a {colour} {kind},{kind}\n" for kind in KINDS for colour in COLOURS)
    path.write_text(f"text,label\n{rows},lamp\n")
    return path


@pytest.fixture
def run(dalr: Run) -> Run:
    """Call `dalr eval` in this process: (exit code, stdout, stderr)."""
    return partial(dalr, "eval")


def test_retrieval_between_texts(run: Run, model: Path, pairs: Path) -> None:
    call = ("retrieval-text", "--model", model, "--data", pairs, "--threshold", 4, "--resamples", 20)
    code, out, err = run(*call, "--json")
    assert code == 0, err
    found = json.loads(out)
    metrics = ["ndcg@10", "map@10", "recall@1", "recall@5", "recall@10", "mrr", "mrr@10"]
    rest = ["auprc", "pairs", "positive_pairs", "queries", "queries_without_answer", "documents"]
    rest += ["ci95", "scored_by", "bad", "definition"]
    assert list(found) == [*metrics, *rest]
    assert list(found["ci95"]) == [*metrics, "auprc"]
    assert [found[key] for key in ("pairs", "positive_pairs", "queries", "documents", "bad")] == [24, 12, 12, 24, 1]
    code, out, err = run(*call)
    assert (code, "ndcg@10" in out, f"{found['map@10']:.2f}" in out, found["definition"] in out) == (
        0,
        True,
        True,
        True,
    )
    assert "left out: pairs.csv:26: has no score" in err
    assert found["queries_without_answer"] == 12
    assert "12 queries have no right document, and are not asked" in " ".join(out.split())

    def figures(*more: object) -> dict[str, object]:
        code, out, err = run(*call, *more, "--json")
        assert code == 0, err
        return json.loads(out)  # type: ignore[no-any-return]

    lexical = json.loads(run("retrieval-text", "--model", "bm25", *call[3:], "--json")[1])
    assert lexical["scored_by"] == "BM25"
    assert lexical["recall@1"] == 100
    whole = figures("--hybrid", "sum", "--lexical-weight", 1)
    assert [whole[key] for key in metrics] == [lexical[key] for key in metrics]
    assert "reciprocal rank" in str(figures("--hybrid", "rrf")["scored_by"])
    assert figures("--queries", 3)["queries"] == 3
    assert figures("--corpus", "all")["documents"] == 48
    before = (found["map@10"], found["auprc"])
    prompt = "a green lamp, a white bag, a black shoe: "
    for option in (("--query-prompt", prompt), ("--passage-prompt", prompt), ("--truncate-dim", 2)):
        after = figures(*option)
        assert (after["map@10"], after["auprc"]) != before, option
    cached = [figures("--cache", pairs.parent / "cache") for _ in range(2)]
    assert cached[0] == cached[1]
    assert cached[0]["auprc"] == pytest.approx(found["auprc"], abs=0.01)
    assert figures("--int8")["auprc"] == pytest.approx(found["auprc"], abs=20)


def test_a_beir_folder_by_its_split(run: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "title": "a", "text": "red dress"}\n' * 2)
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "dress"}\n')
    (tmp_path / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    code, out, err = run("retrieval-text", "--model", model, "--data", tmp_path, "--split", "dev", "--json")
    assert code == 0, err
    assert (json.loads(out)["ndcg@10"], json.loads(out)["bad"]) == (100, 1)
    code, out, err = run("retrieval-text", "--model", model, "--data", tmp_path, "--json")
    assert (code, out) == (2, "")
    assert "test.tsv: no such file; qrels has dev; name one with --split" in err


def test_pairs_as_classes(run: Run, model: Path, pairs: Path, tmp_path: Path) -> None:
    call = ("pairs", "--model", model, "--data", pairs, "--threshold", 4, "--resamples", 20)
    code, out, err = run(*call, "--json")
    assert code == 0, err
    found = json.loads(out)
    keys = ["ap", "f1", "f1_threshold", "precision", "recall", "accuracy", "accuracy_threshold"]
    assert list(found) == [*keys, "pairs", "positive_pairs", "ci95", "definition", "bad"]
    assert (found["pairs"], found["positive_pairs"], found["bad"]) == (24, 12, 1)
    code, out, err = run(*call, "--cache", tmp_path / "cache", "--truncate-dim", 8)
    assert code == 0, err
    assert f"{found['f1_threshold']:.4f}" not in out
    assert "left out: 1 pairs; the first, pairs.csv:26: has no score" in err


def test_clusters(run: Run, model: Path, labels: Path) -> None:
    call = ("clustering", "--model", model, "--data", labels, "--seeds", 3)
    code, out, err = run(*call, "--json")
    assert code == 0, err
    found = json.loads(out)
    keys = ["v_measure", "sd", "v_measures", "homogeneity", "completeness", "texts", "classes", "largest_class"]
    assert list(found) == [*keys, "definition", "bad"]
    assert (found["texts"], found["classes"], len(found["v_measures"]), found["bad"]) == (24, 4, 3, 1)
    code, out, err = run(*call, "--text-column", "text", "--label-column", "label")
    assert code == 0, err
    assert f"{found['v_measure']:.2f} ± {found['sd']:.2f}" in out
    assert "left out: 1 rows; the first, labels.csv:26: has no text" in err


def test_geometry_of_both_spaces(run: Run, model: Path, pairs: Path, tmp_path: Path) -> None:
    data = tiny_catalogue(tmp_path / "data")
    call = ("geometry", "--model", model, "--pairs", pairs, "--threshold", 4, "--data", data)
    code, out, err = run(*call, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert list(found) == ["sentence", "text", "image", "cross", "bad", "definition"]
    assert list(found["sentence"]) == ["alignment", "positive_pairs", *SPREAD]
    assert list(found["text"]) == list(found["image"]) == SPREAD
    assert list(found["cross"]) == ["modality_gap", "alignment", "pairs", "hub_skewness", "anti_hubs"]
    assert (found["sentence"]["rows"], found["image"]["rows"], found["bad"]) == (48, 12, 1)
    code, out, err = run(*call, "--max-rows", 5)
    assert (code, "modality_gap" in out, found["definition"] in out) == (0, True, True)
    only = json.loads(run("geometry", "--model", model, "--data", data, "--json")[1])
    assert list(only) == ["text", "image", "cross", "bad", "definition"]


def test_what_a_hurried_user_types(run: Run, model: Path, pairs: Path, labels: Path, tmp_path: Path) -> None:
    text_only = tmp_path / "text-only"
    tiny_model(image=False).save_pretrained(text_only)
    catalogue = tiny_catalogue(tmp_path / "data", 3)

    def on(command: str, data: Path, *more: object, model: object = model) -> tuple[object, ...]:
        return command, "--model", model, "--data", data, *more

    cases = {
        on("retrieval-text", pairs): "has scores from 1 to 4.5, not labels 0 and 1; say with --threshold",
        on(
            "retrieval-text", pairs, "--threshold", 4, "--hybrid", "rrf", model="bm25"
        ): "bm25 ranks by words alone; leave out",
        on("retrieval-text", tmp_path / "none"): "none: cannot be read",
        on("retrieval-text", labels): "found no columns of two sentences",
        on("retrieval-text", tmp_path): "corpus.jsonl: cannot be read",
        on("retrieval-text", pairs, "--threshold", 4, "--truncate-dim", 99): "truncate-dim 99",
        on("retrieval-text", pairs, "--cache", tmp_path, "--query-prompt", "x"): "leave out one of the two",
        on(
            "retrieval-text", pairs, "--hybrid", "rrf", "--lexical-weight", 0.5
        ): "--lexical-weight: is for --hybrid sum",
        on("retrieval-text", pairs, "--split", "dev"): "--split: ",
        on("retrieval-text", tmp_path, "--corpus", "all"): "--corpus: ",
        on("retrieval-text", pairs, "--high", 1): "all of 12 pairs are relevant at the threshold 0.5",
        on("pairs", pairs, "--threshold", 9): "none of 24 pairs are relevant",
        on("pairs", pairs, "--threshold", 4, model="no-such-model"): "no-such-model",
        on("clustering", labels, "--label-column", "lable"): "did you mean 'label'",
        on("clustering", pairs): "found no column of texts",
        ("geometry", "--model", model): "give --pairs FILE, --data CATALOGUE, or both",
        ("geometry", "--model", model, "--pairs", pairs): "say with --threshold",
        ("geometry", "--model", model, "--pairs", pairs, "--threshold", 5): "set a lower --threshold",
        on("geometry", catalogue, "--truncate-dim", 4): "it needs --pairs",
        on("geometry", catalogue, model=text_only): "both towers",
    }
    for arguments, reason in cases.items():
        code, out, err = run(*arguments, "--json")
        assert (code, out) == (2, ""), (arguments, code, err)
        assert len(err.splitlines()) == 1, err
        assert reason in err, (arguments, err)
