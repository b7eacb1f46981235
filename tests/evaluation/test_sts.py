"""STS evaluation.

Invariants
- The SentEval layout is read as it is: blank scores leave their pair out, subsets are joined before the correlation
  ("all"), no quoting, a line ends at a newline alone, more columns than two are ignored.
- Spearman equals a twin written out with ranks; a collapsed model scores 0; NaN and torn files are refused by name.
- Each distinct sentence is embedded once.
- MiniLM has the reference numbers on the real sets (data; the whole of it is slow).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from dalr.errors import DalrError, DataError
from dalr.evaluation.sts import TASKS, evaluate_sts, read_task, spearman, sts_dev

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


def sentence(rng: np.random.Generator) -> str:
    return "".join(rng.choice(list("abcdefghij "), size=12)).strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every set in small, with each trap."""
    rng = np.random.default_rng(0)
    for year in ("STS12", "STS13", "STS14", "STS15", "STS16"):
        (tmp_path / f"{year}-en-test").mkdir()
        for subset, shift in (("one", 0.0), ("two", 3.0)):
            lines = [f"{sentence(rng)}\t{sentence(rng)}\tsource\tmore" for _ in range(20)]
            lines[3] = 'abc "quoted\tdef\x85ghi\u2028j'
            scores = [f"{shift + rng.uniform(0, 2):.3f}" for _ in range(20)]
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
    (tmp_path / "SICK" / "SICK_test_annotated.txt").write_text("\n".join([heading, *lines]) + "\n")
    return tmp_path


def test_the_layout_is_read_as_it_is(folder: Path) -> None:
    pairs = read_task(folder, "STS15")
    assert len(pairs.gold) == len(pairs.first) == len(pairs.second) == 2 * 19
    assert (pairs.first[3], pairs.second[3]) == ('abc "quoted', "def\x85ghi\u2028j")
    assert max(pairs.gold[:19]) < 2 < 3 <= min(pairs.gold[19:])
    assert len(read_task(folder, "STSB").gold) == len(read_task(folder, "SICKR").gold) == 30


def test_scores_equal_the_twin_over_the_joined_subsets(folder: Path) -> None:
    model = Letters()
    steps: list[tuple[int, int]] = []
    found = evaluate_sts(model, folder, progress=lambda done, total: steps.append((done, total)))
    assert list(found) == [*TASKS, "avg"]
    assert len(model.asked) == len(set(model.asked)) == steps[-1][0] == steps[-1][1]
    for task in TASKS:
        pairs = read_task(folder, task)
        a, b = (Letters().encode_text(side, space="sentence") for side in (pairs.first, pairs.second))
        cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert found[task] == pytest.approx(naive_spearman(cosines.tolist(), pairs.gold), abs=1e-3)
        if task == "STS12":
            # Not vacuous: the mean over the two subsets is another number.
            halves = [naive_spearman(cosines[part].tolist(), pairs.gold[part]) for part in (slice(19), slice(19, 38))]
            assert abs(found[task] - np.mean(halves)) > 1
    assert found["avg"] == pytest.approx(np.mean([found[task] for task in TASKS]), abs=1e-3)
    assert sts_dev(Letters(), folder)["sts_dev"] != found["STSB"]


def test_a_collapsed_model_scores_nothing() -> None:
    rng = np.random.default_rng(1)
    point = rng.normal(size=(1, 64)).astype(np.float32)
    gold = list(range(200))
    for noise in (0.0, 1e-9):
        first, second = (point + noise * rng.normal(size=(200, 64)) for _ in range(2))
        assert spearman(first, second, gold) == 0.0
    assert spearman(np.zeros((200, 64)), second, gold) == 0.0
    with pytest.raises(DalrError, match="not finite"):
        spearman(np.full((2, 3), np.nan), np.ones((2, 3)), [1, 2])


def test_what_is_missing_or_torn_is_named(folder: Path) -> None:
    broken = folder / "STS14-en-test" / "STS.gs.two.txt"
    broken.write_text("1.0\n")
    with pytest.raises(DataError, match=r"STS.gs.two.txt: has 1 lines, STS.input.two.txt has 20"):
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
    sizes = {task: len(read_task(data_dir / "sts", task).gold) for task in TASKS}
    expected = {"STS12": 3108, "STS13": 1500, "STS14": 3750, "STS15": 3000, "STS16": 1186, "STSB": 1379, "SICKR": 4927}
    assert sizes == expected


def test_the_dev_part_equals_the_twin(folder: Path) -> None:
    rows = [line.split("\t") for line in (folder / "STSBenchmark" / "sts-dev.csv").read_text().split("\n")[:-1]]
    a, b = (Letters().encode_text([row[column] for row in rows], space="sentence") for column in (5, 6))
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    expected = naive_spearman(cosines.tolist(), [float(row[4]) for row in rows])
    assert sts_dev(Letters(), folder) == {"sts_dev": pytest.approx(expected, abs=1e-3)}


@pytest.mark.data
@pytest.mark.parametrize("tasks", [("STS16", "STSB"), pytest.param(TASKS, marks=pytest.mark.slow)], ids=["two", "all"])
def test_minilm_has_the_reference_numbers(data_dir: Path, minilm_dir: Path, tasks: tuple[str, ...]) -> None:
    from dalr.model import DualEncoder

    found = evaluate_sts(DualEncoder.from_pretrained(minilm_dir), data_dir / "sts", tasks=tasks)
    if len(tasks) < len(TASKS):
        found.pop("avg")
    assert found == {task: pytest.approx(REFERENCE[task], abs=0.02) for task in found}
