"""Retrieval between texts: the sets, the ranking, and BM25 in it.

Invariants
- Metrics equal a naive twin (plain Python, one query at a time) on graded random sets with ties, and, where there are
  no ties, pytrec_eval; whatever the tile.
- Ties count against the model, also between two right documents of different grade: a collapsed model earns nothing.
- A pair file becomes a set as documented: texts are distinct after normalisation, a query's own text is left out,
  `all` answers both ways; a BEIR folder too, and rows that cannot be used are named.
- `sum` with weight 0 ranks as the model, with weight 1 as BM25; rrf lies between; each side gets its own prompt.
- MiniLM beats BM25 on real question pairs, and with all questions as documents it has the known nDCG@10 (slow).
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.metrics import average_precision_score

from dalr.data.scored_pairs import ScoredPairs
from dalr.data.text_retrieval_sets import (
    LabelledPairs,
    TextRetrievalSet,
    label_pairs,
    pairs_as_retrieval,
    read_beir,
    read_text_retrieval_set,
)
from dalr.errors import ConfigError, DalrError, DataError
from dalr.evaluation.retrieval import TIE, rank_tile
from dalr.evaluation.text_retrieval import Prompted, evaluate_text_retrieval
from dalr.lexical import BM25Index

METRICS = ["ndcg@10", "map@10", "recall@1", "recall@5", "recall@10", "mrr", "mrr@10"]


class Table:
    """A sentence model that looks its vectors up, and remembers with which prompt it was asked for what."""

    def __init__(self, vectors: dict[str, np.ndarray]) -> None:
        self.vectors = vectors
        self.asked: list[tuple[str | None, str]] = []

    def encode_text(self, texts: list[str], *, space: str = "", prompt: str | None = None) -> np.ndarray:
        assert space == "sentence"
        self.asked += [(prompt, text) for text in texts]
        return np.stack([self.vectors[text] for text in texts]).astype(np.float32)


def table(rng: np.random.Generator, texts: list[str], width: int, whole: bool) -> Table:
    """Random vectors; `whole` numbers make many equal cosines."""
    draw = (lambda: rng.integers(-1, 2, width)) if whole else (lambda: rng.normal(size=width))
    return Table({text: draw() for text in texts})


def random_set(rng: np.random.Generator, queries: int = 30, documents: int = 60) -> TextRetrievalSet:
    grades = rng.choice([0, 0, 0, 0, 0, 0, 1, 2, 3], size=(queries, documents))
    grades[np.arange(queries), rng.integers(documents, size=queries)] = 1
    left_out = (rng.random((queries, documents)) < 0.05) & (grades == 0)
    return TextRetrievalSet(
        [f"query {number} {' '.join(rng.choice(['red', 'blue', 'bag', 'shoe'], 2))}" for number in range(queries)],
        [f"document {number} {' '.join(rng.choice(['red', 'blue', 'bag', 'shoe'], 3))}" for number in range(documents)],
        csr_array(grades.astype(np.float32)),
        csr_array(left_out),
        "Made up.",
    )


def naive(data: TextRetrievalSet, scores: np.ndarray) -> dict[str, float]:
    """Every metric, one query at a time; a document is a tuple (score, grade)."""
    grades, left_out = data.grades.toarray(), data.left_out.toarray()
    found: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for row in range(len(data.queries)):
        documents = [
            (float(scores[row, at]), float(grades[row, at])) for at in range(scores.shape[1]) if not left_out[row, at]
        ]
        # Lower grades first wherever scores tie.
        documents.sort(key=lambda one: (-round(one[0], 5), one[1]))
        gains = [grade for _, grade in documents]
        hits = [rank for rank, gain in enumerate(gains, start=1) if gain]
        ideal = sorted(gains, reverse=True)
        dcg, best = (
            sum(gain / math.log2(rank + 1) for rank, gain in enumerate(some[:10], 1)) for some in (gains, ideal)
        )
        found["ndcg@10"].append(dcg / best)
        found["map@10"].append(sum((n + 1) / rank for n, rank in enumerate(hits) if rank <= 10) / min(10, len(hits)))
        for k in (1, 5, 10):
            found[f"recall@{k}"].append(sum(rank <= k for rank in hits) / len(hits))
        found["mrr"].append(1 / hits[0])
        found["mrr@10"].append(1 / hits[0] if hits[0] <= 10 else 0.0)
    return {metric: 100 * float(np.mean(values)) for metric, values in found.items()}


def cosine_table(model: Table, data: TextRetrievalSet) -> np.ndarray:
    sides = (np.stack([model.vectors[text] for text in side]).astype(float) for side in (data.queries, data.documents))
    a, b = (side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12) for side in sides)
    return a @ b.T


def metrics(found: dict[str, Any]) -> dict[str, float]:
    return {metric: found[metric] for metric in METRICS}


@pytest.mark.parametrize("whole", [False, True], ids=["no ties", "ties"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_the_naive_twin_whatever_the_tile(seed: int, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    data = random_set(rng)
    model = table(rng, [*data.queries, *data.documents], 5, whole)
    expected = naive(data, cosine_table(model, data))
    found = evaluate_text_retrieval(model, data, resamples=20)
    assert metrics(found) == pytest.approx(expected, abs=1e-3)
    assert "recall@100" not in found
    assert (found["queries"], found["documents"]) == (30, 60)
    for metric in METRICS:
        low, high = found["ci95"][metric]
        assert low <= found[metric] <= high
    monkeypatch.setattr("dalr.evaluation.text_retrieval.TILE_ELEMENTS", {"none": 7 * 60})
    assert evaluate_text_retrieval(model, data, resamples=20) == found


def test_equals_pytrec_eval() -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    rng = np.random.default_rng(3)
    data = random_set(rng, 25, 150)
    model = table(rng, [*data.queries, *data.documents], 8, False)
    scores, grades, left_out = cosine_table(model, data), data.grades.toarray(), data.left_out.toarray()
    run = {
        str(q): {str(d): float(scores[q, d]) for d in range(150) if not left_out[q, d]} for q in range(25)
    }  # fmt: skip
    judged = {str(q): {str(d): int(grades[q, d]) for d in np.flatnonzero(grades[q])} for q in range(25)}
    measured = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.10", "recall.1,5,10,100", "recip_rank"}).evaluate(run)
    mean = {name: 100 * np.mean([each[name] for each in measured.values()]) for name in measured["0"]}
    found = evaluate_text_retrieval(model, data, resamples=10)
    assert found["ndcg@10"] == pytest.approx(mean["ndcg_cut_10"], abs=1e-3)
    assert found["mrr"] == pytest.approx(mean["recip_rank"], abs=1e-3)
    for k in (1, 5, 10, 100):
        assert found[f"recall@{k}"] == pytest.approx(mean[f"recall_{k}"], abs=1e-3)


@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_a_collapsed_model_earns_nothing(noise: float) -> None:
    rng = np.random.default_rng(4)
    data = random_set(rng, 40, 300)
    point = rng.normal(size=16)
    model = Table({text: point + noise * rng.normal(size=16) for text in [*data.queries, *data.documents]})
    found = evaluate_text_retrieval(model, data, resamples=10)
    assert found["ndcg@10"] == found["recall@100"] == 0.0
    # Its cosines add nothing to BM25 either, and take nothing away.
    both, lexical = (
        evaluate_text_retrieval(m, data, hybrid=h, resamples=10) for m, h in ((model, "sum"), (None, "none"))
    )
    assert metrics(both) == metrics(lexical)


def test_of_two_right_documents_that_tie_the_lower_grade_is_first() -> None:
    grades = csr_array(np.array([[3.0, 1.0, 0.0]]))
    discounts = 1 / np.log2([2, 3])
    for shift, order in ((0.0, (1, 3)), (TIE / 4, (1, 3)), (10 * TIE, (3, 1))):
        scores = torch.tensor([[0.5 + shift, 0.5, 0.1]], dtype=torch.float64)
        _, ndcg, _, _ = rank_tile(scores, grades)
        assert ndcg[0] == pytest.approx((order * discounts).sum() / ((3, 1) * discounts).sum())


def test_a_pair_file_becomes_a_set(tmp_path: Path) -> None:
    pairs = LabelledPairs(
        ["How old are you?", "how OLD are you? ", "a dress", "Age?", "no duplicate", "Same"],
        ["What is your age?", "Age?", "A  dress", "what is your age?", "Age?", "same"],
        np.array([True, True, True, True, False, True]),
    )
    data = pairs_as_retrieval(pairs, "pairs.tsv")
    # 'a dress' and 'Same' have no right document but themselves; 'no duplicate' has none at all.
    assert data.queries == ["How old are you?", "Age?"]
    assert (data.without_answer, data.first(1).without_answer) == (3, 3)
    assert data.documents == ["What is your age?", "Age?", "A  dress", "same"]
    assert data.grades.toarray().tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]
    assert data.left_out.toarray().tolist() == [[False] * 4, [False, True, False, False]]
    assert data.pair_documents is not None
    assert data.pair_documents.tolist() == [0, 1, 2, 0, 1, 3]
    both = pairs_as_retrieval(pairs, "pairs.tsv", corpus="all")
    assert both.without_answer == 3
    assert both.queries == ["How old are you?", "Age?", "What is your age?"]
    assert both.documents == ["What is your age?", "Age?", "A  dress", "same", "How old are you?", "no duplicate"]
    assert both.grades.toarray()[:, [0, 1, 4]].tolist() == [[1, 1, 0], [1, 0, 1], [0, 1, 1]]
    assert both.left_out.toarray().nonzero()[1].tolist() == [4, 1, 0]
    assert both.pair_documents is not None
    assert [both.documents[at].casefold() for at in both.pair_documents[[0, 4]]] == ["what is your age?", "age?"]
    first = both.first(1)
    assert (first.queries, first.grades.shape, both.first(9)) == (["How old are you?"], (1, 6), both)
    with pytest.raises(DataError, match=r"pairs.tsv: no query has a relevant document other than its own text"):
        pairs_as_retrieval(LabelledPairs(["a", "b"], ["A", "c"], np.array([True, False])), "pairs.tsv")


def test_which_pairs_are_relevant() -> None:
    graded = ScoredPairs(["a", "b", "c"], ["d", "e", "f"], [0.0, 3.0, 5.0])
    assert label_pairs(graded, 3.0, "x").relevant.tolist() == [False, True, True]
    assert label_pairs(ScoredPairs(["a", "b"], ["c", "d"], [0, 1]), None, "x").relevant.tolist() == [False, True]
    with pytest.raises(DataError, match="scores from 0 to 5, not labels 0 and 1; say with --threshold"):
        label_pairs(graded, None, "x")
    with pytest.raises(DataError, match="none of 3 pairs are relevant at the threshold 6"):
        label_pairs(graded, 6.0, "x")
    with pytest.raises(DataError, match="all of 3 pairs"):
        label_pairs(graded, 0.0, "x")


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    def lines(name: str, rows: list[object]) -> None:
        text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
        (tmp_path / name).write_text(text + "\n", encoding="utf-8")

    corpus: list[object] = [
        {"_id": "d1", "title": "Silk", "text": "a red dress", "metadata": {"url": "x"}},
        {"_id": "d2", "title": "", "text": "blue shoe"},
        {"_id": "q2", "text": "a bag"},
        {"_id": "d1", "title": "again", "text": "again"},
        {"_id": "d4", "title": "", "text": " "},
        {"title": "no id", "text": "no id"},
        "{broken",
    ]
    lines("corpus.jsonl", corpus)
    asked = [{"_id": f"q{n}", "text": text} for n, text in enumerate(["dress", "shoe", "bag", "lamp"])]
    lines("queries.jsonl", list(reversed(asked)))
    (tmp_path / "qrels").mkdir()
    rows = ["q0\td1\t2", "q0\td2\t1", "q1\td2\t0", "q2\td1\t1", "q9\td1\t1", "q0\td9\t1", "q0\td1\t1", "q3\td1\tmuch"]
    lines("qrels/test.tsv", ["query-id\tcorpus-id\tscore", *rows])
    return tmp_path


def test_a_beir_folder_is_read(beir: Path) -> None:
    data = read_text_retrieval_set(beir)
    # q1 has no grade above 0, q3 no grade at all; a document with the query's id is left out.
    assert data.queries == ["bag", "dress"]
    assert data.without_answer == 1, "of the queries that this split judges"
    assert data.documents == ["Silk a red dress", "blue shoe", "a bag"]
    assert data.grades.toarray().tolist() == [[1, 0, 0], [2, 1, 0]]
    assert data.left_out.toarray().tolist() == [[False, False, True], [False, False, False]]
    assert data.pairs is None
    reasons = {(bad.file, bad.row): bad.reason for bad in data.bad}
    assert reasons.pop(("corpus.jsonl", 7)).startswith("is not JSON")
    assert reasons == {
        ("corpus.jsonl", 4): "has the _id d1 a second time",
        ("corpus.jsonl", 5): "has no text",
        ("corpus.jsonl", 6): "has no _id",
        ("test.tsv", 6): "the query q9 is not in queries.jsonl",
        ("test.tsv", 7): "the document d9 is not in corpus.jsonl",
        ("test.tsv", 8): "judges document d1 for query q0 a second time",
        ("test.tsv", 9): "the score 'much' is not a number",
    }
    found = evaluate_text_retrieval(None, data, resamples=10)
    assert (found["bad"], found["scored_by"], found["recall@1"]) == (8, "BM25", 25.0)
    assert found["queries_without_answer"] == 1
    assert "auprc" not in found


def test_what_cannot_be_read_is_named(beir: Path) -> None:
    (beir / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td2\t0\n")
    with pytest.raises(DataError, match=r"train.tsv: no such file; qrels has dev, test; name one with --split"):
        read_beir(beir, "train")
    with pytest.raises(DataError, match=r"dev.tsv: no query has a document with a grade above 0"):
        read_beir(beir, "dev")
    (beir / "qrels" / "dev.tsv").write_text("query-id,corpus-id,score\nq1,d2,1\n")
    with pytest.raises(DataError, match=r"dev.tsv: lacks the column query-id, corpus-id, score; expected a first line"):
        read_beir(beir, "dev")
    (beir / "queries.jsonl").write_text('{"id": "q1", "text": "dress"}\n')
    with pytest.raises(DataError, match=r"queries.jsonl: expected the keys _id and text on every line"):
        read_beir(beir)
    (beir / "corpus.jsonl").unlink()
    with pytest.raises(DataError, match=r"corpus.jsonl: cannot be read"):
        read_beir(beir)


def test_hybrid_scores_lie_between_the_model_and_bm25() -> None:
    rng = np.random.default_rng(6)
    data = random_set(rng, 40, 80)
    model = table(rng, [*data.queries, *data.documents], 6, False)

    def run(**options: Any) -> dict[str, float]:
        return metrics(evaluate_text_retrieval(model, data, resamples=10, **options))

    lexical = evaluate_text_retrieval(None, data, resamples=10)
    assert run(hybrid="sum", lexical_weight=0.0) == run()
    assert run(hybrid="sum", lexical_weight=1.0) == metrics(lexical)
    bm25 = BM25Index(data.documents).scores(data.queries)
    assert metrics(lexical) == pytest.approx(naive(data, bm25 / bm25.max(axis=1, keepdims=True)), abs=1e-3)
    assert run(hybrid="rrf") not in (run(), metrics(lexical))
    # By way of ranks counted by hand, one query at a time.
    dense, allowed = cosine_table(model, data), ~data.left_out.toarray()
    fused = np.zeros(dense.shape)
    for row in range(len(dense)):
        for scores in (dense[row].astype(np.float32), bm25[row]):
            others = scores[allowed[row]]
            fused[row] += [1 / (60 + int((others >= score).sum())) for score in scores]
    assert run(hybrid="rrf") == pytest.approx(naive(data, 1e4 * fused), abs=0.05)
    with pytest.raises(ConfigError, match="hybrid 'rrf' joins a model with BM25"):
        evaluate_text_retrieval(None, data, hybrid="rrf")


def test_each_side_has_its_own_prompt() -> None:
    pairs = LabelledPairs(["a", "b"], ["b", "c"], np.array([True, False]))
    data = pairs_as_retrieval(pairs, "x")
    model = Table({text: np.eye(3)[at] for at, text in enumerate("abc")})
    evaluate_text_retrieval(Prompted(model, "query: "), data, passage_model=model, resamples=10)
    assert sorted(model.asked, key=str) == [("query: ", "a"), ("query: ", "b"), (None, "b"), (None, "c")]
    model.asked.clear()
    evaluate_text_retrieval(model, data, resamples=10)
    assert sorted(model.asked, key=str) == [(None, "a"), (None, "b"), (None, "c")]


def test_auprc_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(7)
    first, second = [f"a {n % 40}" for n in range(80)], [f"b {n % 50}" for n in range(80)]
    pairs = LabelledPairs(first, second, rng.random(80) < 0.4)
    model = table(rng, [*first, *second], 4, True)
    found = evaluate_text_retrieval(model, pairs_as_retrieval(pairs, "x"), resamples=50)
    unit = {text: vector / max(np.linalg.norm(vector), 1e-9) for text, vector in model.vectors.items()}
    cosines = np.array([unit[a] @ unit[b] for a, b in zip(first, second, strict=True)]).round(6)
    assert found["auprc"] == pytest.approx(100 * average_precision_score(pairs.relevant, cosines), abs=1e-3)
    low, high = found["ci95"]["auprc"]
    assert low < found["auprc"] < high
    assert (found["pairs"], found["positive_pairs"]) == (80, int(pairs.relevant.sum()))


def test_broken_weights_are_told() -> None:
    data = random_set(np.random.default_rng(0), 3, 5)
    with pytest.raises(DalrError, match="not finite"):
        evaluate_text_retrieval(Table(dict.fromkeys([*data.queries, *data.documents], np.full(4, np.nan))), data)


@pytest.mark.data
def test_minilm_beats_bm25_on_questions(data_dir: Path, minilm_dir: Path, tmp_path: Path) -> None:
    from dalr.model import DualEncoder

    lines = (data_dir / "minbert" / "quora-dev.tsv").read_text(encoding="utf-8").split("\n")[:151]
    (tmp_path / "some.tsv").write_text("\n".join(lines), encoding="utf-8")
    data = read_text_retrieval_set(tmp_path / "some.tsv", low=0, high=1)
    model = DualEncoder.from_pretrained(minilm_dir)
    dense = evaluate_text_retrieval(model, data, resamples=100)
    lexical = evaluate_text_retrieval(None, data, resamples=100)
    assert dense["ndcg@10"] > lexical["ndcg@10"] > 90
    share = 100 * dense["positive_pairs"] / dense["pairs"]
    assert dense["auprc"] > lexical["auprc"] + 10 > share + 10


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_minilm_has_the_known_figure_on_four_thousand_questions(data_dir: Path, minilm_dir: Path) -> None:
    from dalr.model import DualEncoder

    data = read_text_retrieval_set(data_dir / "minbert" / "quora-dev.tsv", low=0, high=1, corpus="all")
    found = evaluate_text_retrieval(DualEncoder.from_pretrained(minilm_dir), data.first(4000))
    assert found["documents"] == 38077
    assert found["ndcg@10"] == pytest.approx(79.2, abs=0.2)
