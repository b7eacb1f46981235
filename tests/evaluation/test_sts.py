"""STS evaluation.

Invariants
- The SentEval layout is read as it is: blank scores leave their pair out and are counted, no quoting, a line ends at
  a newline alone, more columns than two are ignored, latin-1 is read.
- Spearman equals a twin written out with ranks, Pearson one written out with means; "all" joins a year's subsets
  before the correlation is taken, "mean" and "weighted" average it over them; a collapsed model scores 0; NaN and
  torn files are refused by name.
- Each distinct sentence is embedded once, whatever stands on both sides or in several sets.
- Truncation equals the first dimensions at length one; int8 codes equal those of sentence-transformers, and are
  fitted on the whole set, however many calls the encoder was given.
- MiniLM has the reference numbers on the real sets (data; the whole of it is slow).
"""

from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from dalr.data.scored_pairs import ScoredPairs, joined
from dalr.errors import DalrError, DataError, UsageError
from dalr.evaluation import sentences
from dalr.evaluation.compression import fit_int8, in_int8, truncated
from dalr.evaluation.sentences import StoredSentences, embed_sentences
from dalr.evaluation.sts import (
    DEV_TASKS,
    TASKS,
    evaluate_sts,
    pairs_dev,
    pearson,
    read_task,
    spearman,
    sts_dev,
)

# all-MiniLM-L6-v2, made outside the project in plain PyTorch.
REFERENCE = {
    "STS12": 72.37, "STS13": 80.60, "STS14": 75.59, "STS15": 85.39, "STS16": 78.99, "STSB": 82.03, "SICKR": 77.15,
    "avg": 78.87,
}  # fmt: skip


class Letters:
    """A sentence model that counts letters, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode_text(self, texts: list[str], *, space: str = "") -> np.ndarray:
        assert space == "sentence"
        self.asked += texts
        return np.array([[1.0, *(text.count(letter) for letter in "abcdefghij")] for text in texts])


def ranks(values: Sequence[float]) -> list[float]:
    """Mean rank of each value among all."""
    return [sum(other < value for other in values) + (values.count(value) + 1) / 2 for value in values]


def naive_spearman(cosines: Sequence[float], gold: Sequence[float]) -> float:
    a, b = (np.array(ranks([round(float(value), 7) for value in side])) for side in (cosines, gold))
    a, b = a - a.mean(), b - b.mean()
    return float(100 * (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def naive_pearson(cosines: Sequence[float], gold: Sequence[float]) -> float:
    a, b = (np.array([round(float(value), 7) for value in side]) for side in (cosines, gold))
    a, b = a - a.mean(), b - b.mean()
    return float(100 * (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def letter_cosines(pairs: ScoredPairs) -> np.ndarray:
    a, b = (Letters().encode_text(side, space="sentence") for side in (pairs.first, pairs.second))
    cosines: np.ndarray = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return cosines


def sentence(rng: np.random.Generator) -> str:
    return "".join(rng.choice(list("abcdefghij "), size=12)).strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every set in small, with each trap."""
    rng = np.random.default_rng(0)
    for year in ("STS12", "STS13", "STS14", "STS15", "STS16"):
        (tmp_path / f"{year}-en-test").mkdir()
        for subset, shift, count in (("one", 0.0, 20), ("two", 3.0, 26)):
            lines = [f"{sentence(rng)}\t{sentence(rng)}\tsource\tmore" for _ in range(count)]
            lines[3] = 'abc "quoted\tdef\x85ghi\u2028j'
            scores = [f"{shift + rng.uniform(0, 2):.3f}" for _ in range(count)]
            scores[5] = ""
            (tmp_path / f"{year}-en-test" / f"STS.input.{subset}.txt").write_text("\n".join(lines) + "\n")
            (tmp_path / f"{year}-en-test" / f"STS.gs.{subset}.txt").write_text("\n".join(scores) + "\n")
    (tmp_path / "STSBenchmark").mkdir()
    for part in ("dev", "test"):
        lines = [
            f"genre\tfile\tyear\t{n}\t{rng.uniform(0, 5):.3f}\t{sentence(rng)}\t{sentence(rng)}" for n in range(30)
        ]
        (tmp_path / "STSBenchmark" / f"sts-{part}.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "SICK").mkdir()
    lines = [f"{n}\t{sentence(rng)}\t{sentence(rng)}\t{rng.uniform(1, 5):.1f}\tNEUTRAL" for n in range(30)]
    heading = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment"
    for name, some in (("SICK_test_annotated", lines), ("SICK_trial", lines[:25])):
        (tmp_path / "SICK" / f"{name}.txt").write_text("\n".join([heading, *some]) + "\n")
    return tmp_path


def test_the_layout_is_read_as_it_is(folder: Path) -> None:
    subsets, bad = read_task(folder, "STS15")
    assert {name: len(pairs) for name, pairs in subsets.items()} == {"one": 19, "two": 25}
    assert [row.where for row in bad] == [f"STS15-en-test/STS.gs.{name}.txt:6" for name in ("one", "two")]
    pairs = joined(subsets.values())
    assert (pairs.first[3], pairs.second[3]) == ('abc "quoted', "def\x85ghi\u2028j")
    assert max(pairs.score[:19]) < 2 < 3 <= min(pairs.score[19:])
    assert [len(read_task(folder, task)[0][""]) for task in ("STSB", "SICKR", "SICKR-dev")] == [30, 30, 25]
    path = folder / "STS15-en-test" / "STS.input.one.txt"
    path.write_bytes(
        path.read_text().replace("abc", "café").replace("\x85", "").replace("\u2028", "").encode("latin-1")
    )
    assert joined(read_task(folder, "STS15")[0].values()).first[3] == 'café "quoted'


def test_scores_equal_the_twin_over_the_joined_subsets(folder: Path) -> None:
    model = Letters()
    steps: list[tuple[int, int]] = []
    found = evaluate_sts(model, folder, progress=lambda done, total: steps.append((done, total)))
    assert list(found) == [*TASKS, "avg", "pearson", "pairs", "dev", "files", "dropped", "aggregate"]
    assert len(model.asked) == len(set(model.asked)) == steps[-1][0] == steps[-1][1]
    for task in TASKS:
        pairs = joined(read_task(folder, task)[0].values())
        cosines = letter_cosines(pairs)
        assert found[task] == pytest.approx(naive_spearman(cosines.tolist(), pairs.score), abs=1e-3)
        assert found["pearson"][task] == pytest.approx(naive_pearson(cosines.tolist(), pairs.score), abs=1e-3)
        assert found["pairs"][task] == len(pairs)
    assert found["avg"] == pytest.approx(np.mean([found[task] for task in TASKS]), abs=1e-3)
    assert found["pearson"]["avg"] == pytest.approx(np.mean([found["pearson"][task] for task in TASKS]), abs=1e-3)
    assert (found["dev"], found["files"]) == ({}, {})
    assert found["dropped"] == {
        f"STS{year}-en-test/STS.gs.{name}.txt": 1 for year in range(12, 17) for name in ("one", "two")
    }
    assert sts_dev(Letters(), folder)["sts_dev"] != found["STSB"]


def test_subsets_are_averaged_plainly_or_by_their_pairs(folder: Path) -> None:
    subsets = read_task(folder, "STS12")[0]
    parts = [naive_spearman(letter_cosines(pairs).tolist(), pairs.score) for pairs in subsets.values()]
    expected = {"mean": np.mean(parts), "weighted": np.average(parts, weights=[19, 25])}
    for aggregate, value in expected.items():
        found = evaluate_sts(Letters(), folder, tasks=["STS12", "STSB"], aggregate=aggregate)  # type: ignore[arg-type]
        assert found["STS12"] == pytest.approx(value, abs=1e-3)
        assert found["aggregate"] == aggregate
        assert found["STSB"] == evaluate_sts(Letters(), folder, tasks=["STSB"])["STSB"]
    # Not vacuous: the three are three numbers.
    three = [*expected.values(), evaluate_sts(Letters(), folder, tasks=["STS12"])["STS12"]]
    assert min(abs(a - b) for n, a in enumerate(three) for b in three[:n]) > 0.1
    with pytest.raises(UsageError, match="aggregate 'median'; expected one of all, mean, weighted"):
        evaluate_sts(Letters(), folder, tasks=["STSB"], aggregate="median")  # type: ignore[arg-type]


def test_dev_parts_and_own_files_stand_beside_the_tests(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text("text1,text2,score\nabc,abd,1\naaa,aab,0.5\nbcd,jih,0\naa,bb,\n")
    found = evaluate_sts(Letters(), folder, tasks=["STSB", *DEV_TASKS], files=[own], high=1)
    assert list(found["dev"]) == ["STSB-dev", "SICKR-dev"]
    assert found["dev"]["STSB-dev"]["spearman"] == sts_dev(Letters(), folder)["sts_dev"]
    assert found["avg"] == found["STSB"]
    assert found["files"][str(own)]["pairs"] == 3
    assert found["dropped"] == {str(own): 1}
    pairs = ScoredPairs(["abc", "aaa", "bcd"], ["abd", "aab", "jih"], [1, 0.5, 0])
    expected = {kind: found["files"][str(own)][kind] for kind in ("spearman", "pearson")}
    assert pairs_dev(Letters(), pairs) == expected
    alone = evaluate_sts(Letters(), None, tasks=(), files=[own], high=1)
    assert (alone["avg"], alone["pearson"], alone["pairs"]) == (None, {"avg": None}, {})
    with pytest.raises(UsageError, match="no folder of the STS sets"):
        evaluate_sts(Letters(), None, tasks=["STSB"])
    with pytest.raises(UsageError, match="task 'STS-B' is not known; did you mean 'STSB'"):
        evaluate_sts(Letters(), folder, tasks=["STS-B"])


class Random:
    """A sentence model of random vectors, the same for the same sentence."""

    def __init__(self, width: int = 12) -> None:
        self.width = width
        self.calls = 0

    def encode_text(self, texts: Sequence[str], *, space: str = "") -> np.ndarray:
        assert space == "sentence"
        self.calls += 1
        rows = [np.random.default_rng(crc32(text.encode())).normal(size=self.width) for text in texts]
        unit = np.array(rows, dtype=np.float32)
        return unit / np.linalg.norm(unit, axis=1, keepdims=True)


def test_truncation_is_the_first_dimensions_at_length_one() -> None:
    texts = [f"sentence {n}" for n in range(9)]
    whole = Random().encode_text(texts, space="sentence")
    short = truncated(Random(), 5).encode_text(texts, space="sentence")
    assert short.shape == (9, 5)
    np.testing.assert_allclose(short, whole[:, :5] / np.linalg.norm(whole[:, :5], axis=1, keepdims=True), rtol=1e-6)
    assert np.abs(short - whole[:, :5]).max() > 0.01
    with pytest.raises(UsageError, match="truncate-dim 13: the model's sentence embeddings have 12 dimensions"):
        truncated(Random(), 13).encode_text(texts)
    with pytest.raises(UsageError, match="truncate-dim 0: expected at least one"):
        truncated(Random(), 0)


def test_int8_has_the_codes_of_sentence_transformers() -> None:
    from sentence_transformers.util import quantize_embeddings

    rows = Random().encode_text([f"sentence {n}" for n in range(300)], space="sentence")
    rows[:, 3] = 0.25  # a dimension that never varies
    calibration, rest = rows[:200], rows[200:]
    ranges = fit_int8(calibration)
    codes = ranges.encode(rest)
    assert codes.dtype == np.int8
    np.testing.assert_array_equal(codes, quantize_embeddings(rest, "int8", calibration_embeddings=calibration))
    inside = ((rest >= calibration.min(0)) & (rest <= calibration.max(0))).all(1)
    assert 0 < inside.sum() < len(inside)  # and some are clipped
    error = np.abs(ranges.decode(codes)[inside] - rest[inside])
    assert (error <= ranges.step_H * 0.51 + 1e-6).all()
    assert error.max() > 0
    np.testing.assert_array_equal(ranges.decode(codes)[:, 3], 0.25)


def test_int8_is_fitted_on_the_whole_set(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"sentence {n}" for n in range(50)]
    whole = Random().encode_text(texts, space="sentence")
    expected = fit_int8(whole).decode(fit_int8(whole).encode(whole))
    monkeypatch.setattr(sentences, "CALL", 7)
    model = Random()
    np.testing.assert_array_equal(embed_sentences(in_int8(model), texts)(texts), expected)
    assert model.calls == 8
    # Fitted beforehand, single calls agree with it.
    fixed = in_int8(Random(), calibration=texts)
    np.testing.assert_array_equal(fixed.encode_text(texts[:3], space="sentence"), expected[:3])
    nested = embed_sentences(in_int8(truncated(Random(), 4)), texts)(texts)
    short = truncated(Random(), 4).encode_text(texts)
    np.testing.assert_array_equal(nested, fit_int8(short).decode(fit_int8(short).encode(short)))


def test_a_collapsed_model_scores_nothing() -> None:
    rng = np.random.default_rng(1)
    point = rng.normal(size=(1, 64)).astype(np.float32)
    gold = list(range(200))
    for noise in (0.0, 1e-9):
        first, second = (point + noise * rng.normal(size=(200, 64)) for _ in range(2))
        assert spearman(first, second, gold) == 0.0
        assert pearson(first, second, gold) == 0.0
    assert spearman(np.zeros((200, 64)), second, gold) == 0.0
    assert spearman(rng.normal(size=(200, 64)), second, [3.0] * 200) == 0.0
    with pytest.raises(DalrError, match="not finite"):
        spearman(np.full((2, 3), np.nan), np.ones((2, 3)), [1, 2])


def test_a_broken_model_is_named() -> None:
    class Broken:
        def encode_text(self, texts: list[str], *, space: str = "") -> np.ndarray:
            return np.full((len(texts), 3), np.nan)

    with pytest.raises(DalrError, match="its weights are broken"):
        pairs_dev(Broken(), ScoredPairs(["a", "b"], ["c", "d"], [1, 2]))


def test_what_is_missing_or_torn_is_named(folder: Path) -> None:
    broken = folder / "STS14-en-test" / "STS.gs.two.txt"
    broken.write_text("1.0\n")
    with pytest.raises(DataError, match=r"STS.gs.two.txt: has 1 lines, STS.input.two.txt has 26"):
        evaluate_sts(Letters(), folder)
    benchmark = folder / "STSBenchmark" / "sts-dev.csv"
    benchmark.write_text("a\tb\tc\td\tfive\te\tf\n")
    with pytest.raises(DataError, match=r"sts-dev.csv:1: the score 'five'"):
        sts_dev(Letters(), folder)
    benchmark.write_text("no tabs\n")
    with pytest.raises(DataError, match=r"sts-dev.csv:1: expected tab-separated"):
        sts_dev(Letters(), folder)
    benchmark.unlink()
    with pytest.raises(DataError, match=r"sts-dev.csv: cannot be read"):
        sts_dev(Letters(), folder)
    with pytest.raises(DataError, match=r"STS12-en-test: has no STS.input"):
        read_task(folder / "SICK", "STS12")


@pytest.mark.data
def test_the_real_sets_have_the_published_sizes(data_dir: Path) -> None:
    read = {task: read_task(data_dir / "sts", task) for task in (*TASKS, *DEV_TASKS)}
    sizes = {task: sum(map(len, subsets.values())) for task, (subsets, _) in read.items()}
    assert sizes == {
        "STS12": 3108, "STS13": 1500, "STS14": 3750, "STS15": 3000, "STS16": 1186, "STSB": 1379, "SICKR": 4927,
        "STSB-dev": 1500, "SICKR-dev": 500,
    }  # fmt: skip
    bad = {task: len(rows) for task, (_, rows) in read.items() if rows}
    assert bad == {"STS15": 5500, "STS16": 7997}
    assert {row.reason for _, rows in read.values() for row in rows} == {"has no score"}


def test_the_dev_part_equals_the_twin(folder: Path) -> None:
    rows = [line.split("\t") for line in (folder / "STSBenchmark" / "sts-dev.csv").read_text().split("\n")[:-1]]
    a, b = (Letters().encode_text([row[column] for row in rows], space="sentence") for column in (5, 6))
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    expected = naive_spearman(cosines.tolist(), [float(row[4]) for row in rows])
    assert sts_dev(Letters(), folder) == {"sts_dev": pytest.approx(expected, abs=1e-3)}


@pytest.mark.data
@pytest.mark.parametrize("tasks", [("STS16",), pytest.param(TASKS, marks=pytest.mark.slow)], ids=["one", "all"])
def test_minilm_has_the_reference_numbers(data_dir: Path, minilm_dir: Path, tasks: tuple[str, ...]) -> None:
    from dalr.model import DualEncoder

    found = evaluate_sts(DualEncoder.from_pretrained(minilm_dir), data_dir / "sts", tasks=tasks)
    wanted = tasks if len(tasks) < len(TASKS) else (*tasks, "avg")
    assert {task: found[task] for task in wanted} == {task: pytest.approx(REFERENCE[task], abs=0.02) for task in wanted}


@pytest.mark.data
def test_minilm_on_the_minbert_dev_pairs(data_dir: Path, minilm_dir: Path, tmp_path: Path) -> None:
    from dalr.model import DualEncoder

    file = data_dir / "minbert" / "sts-dev.tsv"
    model = StoredSentences(DualEncoder.from_pretrained(minilm_dir), tmp_path / "cache")
    found = evaluate_sts(model, None, tasks=(), files=[file])["files"][str(file)]
    assert (found["pearson"], found["pairs"]) == (pytest.approx(83.8, abs=0.05), 863)
    # From the cache, in a smaller form: int8 costs next to nothing, a quarter of the dimensions some points.
    int8, quarter = (
        evaluate_sts(smaller, None, tasks=(), files=[file])["files"][str(file)]
        for smaller in (in_int8(model), truncated(model, 96))
    )
    assert int8["pearson"] == pytest.approx(found["pearson"], abs=0.2)
    assert found["pearson"] - 15 < quarter["pearson"] < found["pearson"] - 1
