"""Scores of pairs as a teacher.

Invariants
- Every entry is the weighted mean of the teachers that know the pair, counted here one by one: 1 for a text with
  itself, the score either way round, the mean of a pair that comes twice, 0 where nobody knows anything.
- A block of some rows is that part of the whole; the columns' view is the transposed matrix.
- The objective is taught exactly as by the same similarities as a matrix, also in chunks, and of pairs and texts alike.
- What `dalr label` writes is read; scores that cannot be used are told by file and row before training.

Not vacuous: the pairs that are scored move the loss.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_catalogue import tiny_catalogue, tiny_model
from torch import Tensor

from dalr.config import parse_config
from dalr.data.manifest import DataConfig, Manifest
from dalr.errors import ConfigError, DataError
from dalr.losses import DenseSimilarity, PairScores, ScoredSimilarity, TeacherRows
from dalr.objectives import AlignmentObjective, Kind, ObjectiveConfig, Rows, Step, build_objective
from dalr.teachers import TeacherConfig, read_pair_scores
from dalr.training_data import add_teachers, pair_rows, taught_objective, teacher_fingerprints, text_rows
from dalr.training_log import read_log

Run = Callable[..., tuple[int, str, str]]

TEXTS = ["a red dress", "a blue shoe", "an old lamp", "A  red dress", "a green hat", "a white bag"]
# Of texts by their place in TEXTS; one pair stands there twice, the other way round, and one has a text of no row.
SCORED = [(0, 1, 0.9), (1, 0, 0.5), (2, 4, 0.25), (3, 5, 0.0)]


def write_scores(path: Path, rows: Sequence[tuple[str, str, Any]]) -> Path:
    path.write_text("".join(f"{a},{b},{c}\n" for a, b, c in [("sentence1", "sentence2", "expert"), *rows]))
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [(TEXTS[one], TEXTS[other], score) for one, other, score in SCORED]
    return write_scores(tmp_path / "scores.csv", [*rows, ("a red dress", "a text of nobody", 0.7)])


def slow(
    known: dict[tuple[int, int], float], number: list[int], base: Tensor | None, shares: tuple[float, float]
) -> Any:
    """Entry by entry; shares of the base and of the scores."""
    found = np.zeros((len(number), len(number)))
    for i, one in enumerate(number):
        for j, other in enumerate(number):
            said = [] if base is None else [(float(base[i, j]), shares[0])]
            score = 1.0 if one == other else known.get((min(one, other), max(one, other)))
            said += [] if score is None else [(score, shares[1])]
            found[i, j] = sum(s * w for s, w in said) / sum(w for _, w in said) if said else 0.0
    return found


@pytest.mark.parametrize("with_encoder", [False, True])
def test_every_entry_by_hand(table: Path, with_encoder: bool) -> None:
    number_N, scores = read_pair_scores(str(table), "expert", TEXTS)
    assert number_N.tolist() == [0, 1, 2, 0, 3, 4]
    known = {(0, 1): 0.7, (2, 3): 0.25, (0, 4): 0.0}
    rows = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    encoder = TeacherRows([rows]) if with_encoder else None
    base = encoder.block(slice(0, 6)) if encoder is not None else None
    found = ScoredSimilarity(encoder, 3.0, [(scores, torch.from_numpy(number_N), 1.0)])
    whole = found.block(slice(0, 6))
    np.testing.assert_allclose(whole, slow(known, number_N.tolist(), base, (3.0, 1.0)), atol=1e-6)
    assert torch.equal(found.block(slice(2, 5)), whole[2:5])
    assert torch.equal(found.block(slice(0, 6)), whole)
    torch.testing.assert_close(found.transposed().block(slice(0, 6)), whole.T)
    two = ScoredSimilarity(encoder, 3.0, [(scores, torch.from_numpy(number_N), weight) for weight in (0.25, 0.75)])
    torch.testing.assert_close(two.block(slice(0, 6)), whole)


def test_a_row_of_many_pairs() -> None:
    """Against a matrix, with more texts than the tests above look at."""
    generator = torch.Generator().manual_seed(1)
    pairs = torch.randint(0, 40, (300, 2), generator=generator)
    score = torch.rand(300, generator=generator)
    total, times = torch.zeros(40, 40), torch.zeros(40, 40)
    for (one, other), value in zip(pairs.tolist(), score.tolist(), strict=True):
        for i, j in {(one, other), (other, one)}:
            total[i, j] += value
            times[i, j] += 1
    wanted = (total / times.clamp_min(1)).fill_diagonal_(1.0)
    number = torch.randperm(40, generator=generator)[:25]
    found = ScoredSimilarity(None, 0.0, [(PairScores(pairs, score, 40), number, 2.0)]).block(slice(0, 25))
    torch.testing.assert_close(found, wanted[number][:, number])


class ByMatrix(AlignmentObjective):
    """Taught by a matrix of text similarities, wherever it came from."""

    matrix_BB: Tensor

    def _similarities(self, teachers: Sequence[Tensor], side: str) -> Any:
        return DenseSimilarity(self.matrix_BB) if side == "text" else super()._similarities(teachers, side)


@pytest.mark.parametrize("tile", [None, 3])
def test_the_objective_is_taught_by_them(tmp_path: Path, tile: int | None) -> None:
    model = tiny_model()
    manifest, rows = pair_rows(Manifest.load(str(tiny_catalogue(tmp_path)), DataConfig()), model)
    texts, size = [text or "" for text in manifest.texts], len(rows)
    known = {(n, n + 3): n / size for n in range(0, size - 3, 2)}
    scored = [(texts[one], texts[other], score) for (one, other), score in known.items()]
    name = f"scores:{write_scores(tmp_path / 'scores.csv', scored)}#expert"
    teachers = [TeacherConfig(name=name, weight=2), TeacherConfig(name="lexical:words")]
    sets = add_teachers(teachers, {"pairs": rows}, {"pairs": texts}, manifest, None)
    batch = sets["pairs"].batch("pairs", np.arange(size), np.arange(size))
    terms = {"soft_cross": 1, "soft_intra": 1, "rank": 1, "cross": 1, "margin": 0.2}
    values = {"name": "dalr", "pair_weights": False, "consistency": 0, "tile": tile, **terms}
    config = parse_config(ObjectiveConfig, values)
    cosine = TeacherRows([batch.text_teachers[1]]).block(slice(0, size))
    slow_BB = slow(known, list(range(size)), cosine, (1.0, 2.0))

    step = Step(model, taught_objective(config, model, sets, teachers, None)).eval()
    found, by_matrix = step(batch)[0], ByMatrix(config, model)
    for matrix_BB, same in ((torch.from_numpy(slow_BB).float(), True), (cosine, False)):
        by_matrix.matrix_BB = matrix_BB
        wanted = Step(model, by_matrix).eval()(batch)[0]
        for term in ("soft_cross", "soft_intra", "rank"):
            assert (abs(wanted.parts[term] - found.parts[term]) < 1e-5) == same, term
    torch.testing.assert_close(step.cached_backward(batch, 4).total, found.total)


def test_a_text_is_one_in_pairs_and_texts(tmp_path: Path) -> None:
    manifest, rows = pair_rows(Manifest.load(str(tiny_catalogue(tmp_path)), DataConfig()), tiny_model())
    captions = [text or "" for text in manifest.texts]
    name = f"scores:{write_scores(tmp_path / 'scores.csv', [(captions[0], captions[1], 0.5)])}#expert"
    sets: dict[Kind, Rows] = {"text": text_rows(captions[::-1], tiny_model()), "pairs": rows}
    teachers = [TeacherConfig(name=name)]
    found = add_teachers(teachers, sets, {"text": captions[::-1], "pairs": captions}, manifest, None)
    every = np.arange(len(rows))
    one, other = (found[kind].text_teachers[0].take(every, every) for kind in ("text", "pairs"))
    assert torch.equal(one, other.flip(0))
    (key,) = teacher_fingerprints(teachers, found)
    assert key == f"teachers.{name}"
    write_scores(tmp_path / "scores.csv", [(captions[0], captions[1], 0.6)])
    again = add_teachers(teachers, sets, {"text": captions[::-1], "pairs": captions}, manifest, None)
    assert teacher_fingerprints(teachers, again) != teacher_fingerprints(teachers, found)


def test_what_cannot_teach_is_refused(table: Path, tmp_path: Path) -> None:
    def read(column: str = "expert", texts: Sequence[str] = TEXTS, path: Path = table) -> None:
        read_pair_scores(str(path), column, texts)

    with pytest.raises(DataError, match=r"none\.parquet"):
        read(path=tmp_path / "none.parquet")
    with pytest.raises(DataError, match=r"scores.csv: there is no column 'exprt'; did you mean 'expert'\?"):
        read("exprt")
    with pytest.raises(DataError, match="of no pair among 5 are both texts trained on"):
        read(texts=["a red dress", "something else"])
    write_scores(table, [("a red dress", "a blue shoe", 0.2), ("a red dress", "an old lamp", 1.2), ("a", "b", "")])
    with pytest.raises(DataError, match=r"scores.csv:3: the score 1.2 is outside the range 0 to 1; .*\(2 such rows\)"):
        read()
    for name in ("scores:labels.parquet", "scores:#score", "scores:labels.parquet#"):
        with pytest.raises(ConfigError, match="lacks a file or a column; expected scores:FILE#COLUMN"):
            parse_config(TeacherConfig, {"name": name})
    for more in ({"side": "image"}, {"pooling": "cls"}):
        with pytest.raises(ConfigError, match=r"judges texts|pooling: is for text encoders"):
            parse_config(TeacherConfig, {"name": "scores:labels.parquet#score", **more})
    model, scores = tiny_model(), PairScores(torch.tensor([[0, 1]]), torch.tensor([0.5]), 2)
    for term in ("embedding", "cross_text"):
        config = parse_config(ObjectiveConfig, {"name": "dalr", "sentence_head": "none", "cross": 1, term: 1})
        with pytest.raises(ConfigError, match=f"objective.{term}: learns the embeddings of text teachers"):
            build_objective(config, model, teacher_scores={0: scores})


def test_labels_teach_a_run(tmp_path: Path, dalr: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dalr label` and `dalr train` as a user types them: the experts' table is the teacher of the titles it judged."""
    monkeypatch.chdir(tmp_path)
    catalogue = tiny_catalogue(tmp_path / "catalogue")
    titles = [text or "" for text in Manifest.load(str(catalogue), DataConfig()).texts]
    pairs = [f"{one}\t{other}" for n, one in enumerate(titles) for other in titles[n + 1 :]]
    Path("pairs.tsv").write_text("\n".join(["sentence1\tsentence2", *pairs]))
    Path("experts.yaml").write_text(json.dumps({"experts": {"words": {"kind": "tfidf"}, "bm25": {"kind": "bm25"}}}))
    assert dalr("label", "pairs.tsv", "--config", "experts.yaml", "--out", "labels.parquet")[0] == 0
    tiny_model().save_pretrained("model")
    run = {
        "data": {"train": str(catalogue)},
        "model": {"text": {"name": "model", "train": "full"}, "image": {"name": "model"}, "dim": 8},
        "teachers": [{"name": "scores:labels.parquet#calibrated_words"}],
        "objective": {"name": "dalr", "profile": "paper"},
        "train": {"steps": 3, "batch_size": 8, "log_every": 1},
        "evaluation": {"retrieval": False},
    }
    Path("run.yaml").write_text(json.dumps(run))
    code, _, error = dalr("train", "run.yaml", "--out", "run")
    assert code == 0, error
    steps = [event for event in read_log(Path("run/log.jsonl")) if event["event"] == "step"]
    assert len(steps) == 3
    assert all(np.isfinite(step["soft_intra"]) for step in steps)
    code, _, error = dalr("train", "run.yaml", "teachers=[{name: 'scores:labels.parquet#words'}]", "--out", "other")
    assert (code, "teachers: labels.parquet: there is no column 'words'" in error) == (2, True)
