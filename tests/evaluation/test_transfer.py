"""Transfer evaluation.

Invariants
- The SentEval layout is read as it is: two files of a class each, a class after the tab or before the blank, TREC's
  coarse classes, MRPC's columns under a heading; latin-1 and UTF-8; a line that cannot be used costs itself.
- C is picked without a look at the test part: other labels there change no C, and it is the smallest of the best.
- Accuracy equals a twin (scikit-learn's own pipeline and grid search); features of a pair are |u − v| and u * v.
- Each distinct sentence is embedded once; the figures repeat by seed; the scale of the vectors does not matter.
- What is missing, has no tab, or lacks a class is one line that names it.
- MiniLM is where a sentence encoder should be on slices of the real sets (data).
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_catalogue import tiny_model

from dalr.data.transfer_sets import TRANSFER_TASKS, LabelledPart, TransferSet, read_transfer_set
from dalr.errors import DataError, UsageError
from dalr.evaluation.sentences import embed_sentences
from dalr.evaluation.transfer import (
    GRID,
    USUAL_SEVEN,
    answers,
    best_c,
    drawn,
    evaluate_transfer,
    features,
    read_sets,
    score_sets,
    sentences_of,
)

Run = Callable[..., tuple[int, str, str]]

PARTS = ("train", "dev", "test")
GOOD, BAD = ("good", "fine", "lovely", "great"), ("bad", "dull", "awful", "poor")
REST = ("film", "plot", "song", "the", "a", "of", "it", "was", "is", "very", "so", "not", "house", "dog")


class Words:
    """A sentence model that counts known words, and remembers what it was asked."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.asked: list[str] = []
        self.known = {word: place for place, word in enumerate((*GOOD, *BAD, *REST, "who", "where", "when"))}

    def encode_text(self, texts: list[str], *, space: str = "") -> np.ndarray:
        assert space == "sentence"
        self.asked += texts
        rows = np.zeros((len(texts), len(self.known)), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.split():
                rows[row, self.known.get(word, 0)] += self.scale
        return rows


def review(rng: np.random.Generator, label: int, sure: float = 0.85) -> str:
    """Words of which one or two lean to the class, mostly the right one."""
    lean = GOOD if (rng.random() < sure) == bool(label) else BAD
    return " ".join([*rng.choice(REST, 6), *rng.choice(lean, int(rng.integers(1, 3)))])


def write(path: Path, lines: list[str], encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All eight sets in small."""
    rng = np.random.default_rng(0)
    for names in (
        ("MR/rt-polarity.neg", "MR/rt-polarity.pos"),
        ("CR/custrev.neg", "CR/custrev.pos"),
        ("SUBJ/subj.objective", "SUBJ/subj.subjective"),
        ("MPQA/mpqa.neg", "MPQA/mpqa.pos"),
    ):
        for label, name in enumerate(names):
            write(tmp_path / name, [review(rng, label) for _ in range(60 + 10 * label)])
    for part, count in zip(PARTS, (120, 40, 60), strict=True):
        labels = [n % 2 for n in range(count)]
        write(tmp_path / f"SST/binary/sentiment-{part}", [f"{review(rng, label)} \t{label}" for label in labels])
        labels = [n % 5 for n in range(count)]
        write(tmp_path / f"SST/fine/sentiment-{part}", [f"{label} {review(rng, label > 2)}" for label in labels])
    kinds = ("ABBR:exp", "DESC:def", "ENTY:animal", "HUM:ind", "LOC:city", "NUM:date")
    asked = dict(zip(kinds, ("a", "is", "dog", "who", "where", "when"), strict=True))
    lines = [f"{kind} {asked[kind]} {review(rng, 1)}" for kind in kinds for _ in range(15)]
    lines[0] = "ABBR:exp caf\u00e9 means what"
    write(tmp_path / "TREC/train_5500.label", lines, "latin-1")
    write(tmp_path / "TREC/TREC_10.label", lines[::3], "latin-1")
    for part, count in (("train", 80), ("test", 40)):
        lines = ["\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
        for n in range(count):
            first = review(rng, 1)
            second = " ".join(rng.permutation(first.split())) if n % 3 else review(rng, n % 2)
            lines.append(f'{int(n % 3 > 0)}\t{n}\t{n}\t{first}\t"{second}')
        write(tmp_path / f"MRPC/msr_paraphrase_{part}.txt", lines)
    return tmp_path


def test_the_layout_is_read_as_it_is(folder: Path) -> None:
    sets = {task: read_transfer_set(folder, task) for task in TRANSFER_TASKS}
    sizes = {task: {name: len(part) for name, part in one.parts.items()} for task, one in sets.items()}
    assert sizes["MR"] == {"all": 130}
    assert sizes["SST2"] == sizes["SST5"] == {"train": 120, "dev": 40, "test": 60}
    assert (sizes["TREC"], sizes["MRPC"]) == ({"train": 90, "test": 30}, {"train": 80, "test": 40})
    assert [sum(sets[task].parts["all"].labels) for task in ("MR", "CR", "SUBJ", "MPQA")] == [70] * 4
    assert sets["SST5"].parts["dev"].labels == [n % 5 for n in range(40)]
    trec = sets["TREC"].parts["train"]
    assert (trec.first[0], trec.labels[::15]) == ("café means what", [0, 1, 2, 3, 4, 5])
    pairs = sets["MRPC"].parts["test"]
    assert len(pairs.second) == 40
    assert all(text.startswith('"') for text in pairs.second)
    assert not any(one.bad for one in sets.values())


def test_a_line_that_cannot_be_used_costs_itself(folder: Path) -> None:
    for name, line in (
        ("MR/rt-polarity.pos", ""),
        ("SST/binary/sentiment-dev", "good film 1"),
        ("SST/binary/sentiment-dev", "good film\t2"),
        ("SST/fine/sentiment-test", "7 good film"),
        ("SST/fine/sentiment-test", "3"),
        ("TREC/TREC_10.label", "WHO:ind who was it"),
        ("MRPC/msr_paraphrase_test.txt", "1\t2\t3\tonly one"),
        ("MRPC/msr_paraphrase_test.txt", "1\t2\t3\tone\t"),
    ):
        with open(folder / name, "a") as stream:
            stream.write(line + "\n")
    bad = [row for task in TRANSFER_TASKS for row in read_transfer_set(folder, task).bad]
    assert [(row.where, row.reason.split(";")[0]) for row in bad] == [
        ("MR/rt-polarity.pos:71", "has an empty sentence"),
        ("SST/binary/sentiment-dev:41", "has no tab"),
        ("SST/binary/sentiment-dev:42", "the class '2' is not one of 0 to 1"),
        ("SST/fine/sentiment-test:61", "the class '7' is not one of 0 to 4"),
        ("SST/fine/sentiment-test:62", "expected a class and a sentence"),
        ("TREC/TREC_10.label:31", bad[5].reason),
        ("MRPC/msr_paraphrase_test.txt:42", bad[6].reason),
        ("MRPC/msr_paraphrase_test.txt:43", "has an empty sentence"),
    ]
    found = evaluate_transfer(Words(), folder, tasks=["MR", "SST2"], folds=2)
    assert found["dropped"] == {"MR/rt-polarity.pos": 1, "SST/binary/sentiment-dev": 2}


def test_every_task_is_measured_and_each_sentence_embedded_once(folder: Path) -> None:
    model = Words()
    found = evaluate_transfer(model, folder, folds=3)
    keys = ["avg7", "avg8", "f1", "C", "counts", "dropped", "folds", "max_train", "seed"]
    assert list(found) == [*TRANSFER_TASKS, *keys]
    assert len(model.asked) == len(set(model.asked)) == len(set(sentences_of(read_sets(folder))))
    assert found["avg7"] == pytest.approx(np.mean([found[task] for task in USUAL_SEVEN]), abs=1e-3)
    assert found["avg8"] == pytest.approx(np.mean([found[task] for task in TRANSFER_TASKS]), abs=1e-3)
    # The right word stands in 85 % of the reviews; five classes are told apart by two kinds of words only.
    assert all(found[task] > 60 for task in ("MR", "CR", "SUBJ", "MPQA", "SST2", "TREC", "MRPC"))
    assert 20 < found["SST5"] < 60
    assert list(found["f1"]) == ["MRPC"]
    assert found["f1"]["MRPC"] > 70
    assert [len(found["C"][task]) for task in ("MR", "CR", "SUBJ", "MPQA")] == [3] * 4
    assert all(found["C"][task] in GRID for task in ("SST2", "SST5", "TREC", "MRPC"))
    assert found["counts"]["SST2"] == {"train": 120, "dev": 40, "test": 60}
    # It repeats, and vectors a thousand times as long give the same.
    assert evaluate_transfer(Words(), folder, folds=3) == found
    assert evaluate_transfer(Words(1000.0), folder, folds=3) == found
    assert evaluate_transfer(Words(), folder, folds=3, seed=1) != found
    some = evaluate_transfer(Words(), folder, tasks=["TREC"], folds=3)
    assert (some["TREC"], some["avg7"], some["avg8"]) == (found["TREC"], None, None)
    # Every row of a cross-validated set is answered once, and an accuracy is that of its answers.
    sets = read_sets(folder, ["MR", "TREC"], folds=3)
    told = answers(sets, embed_sentences(Words(), sentences_of(sets)), folds=3)
    assert len(told["MR"].right) == len(sets["MR"].parts["all"])
    assert sorted(set(told["MR"].fold_N.tolist())) == [0, 1, 2]
    assert 100 * told["TREC"].right.mean() == pytest.approx(found["TREC"], abs=1e-3)
    assert 100 * told["MR"].right.mean() == pytest.approx(found["MR"], abs=0.5)


def test_fixed_splits_equal_the_twin(folder: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, PredefinedSplit, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = evaluate_transfer(Words(), folder, tasks=["SST2", "TREC"], folds=3)

    def rows(task: str, part: str) -> tuple[np.ndarray, np.ndarray]:
        one = read_transfer_set(folder, task).parts[part]
        return Words().encode_text(one.first, space="sentence").astype(float), np.array(one.labels)

    grid = {"C": sorted(GRID)}
    for task in ("SST2", "TREC"):
        x, y = rows(task, "train")
        scaler = StandardScaler().fit(x)
        if task == "SST2":
            more, labels = rows(task, "dev")
            split = PredefinedSplit([-1] * len(x) + [0] * len(more))
            search = GridSearchCV(LogisticRegression(max_iter=1000), grid, cv=split, refit=False)
            search.fit(scaler.transform(np.concatenate([x, more])), np.concatenate([y, labels]))
        else:
            split = StratifiedKFold(3, shuffle=True, random_state=0)
            search = GridSearchCV(LogisticRegression(max_iter=1000), grid, cv=split, refit=False)
            search.fit(scaler.transform(x), y)
        assert found["C"][task] == search.best_params_["C"]
        model = make_pipeline(StandardScaler(), LogisticRegression(C=found["C"][task], max_iter=1000)).fit(x, y)
        assert found[task] == pytest.approx(100 * model.score(*rows(task, "test")), abs=1e-3)


def test_no_c_is_picked_by_the_test_part(folder: Path) -> None:
    sets = read_sets(folder, ["SST2", "TREC"], folds=3)
    embedded = embed_sentences(Words(), sentences_of(sets))
    rng = np.random.default_rng(1)
    turned = {}
    for task, one in sets.items():
        test = one.parts["test"]
        shuffled = LabelledPart(test.first, test.second, rng.permutation(test.labels).tolist())
        turned[task] = TransferSet(task, {**one.parts, "test": shuffled}, [])
    before, after = (score_sets(some, answers(some, embedded, folds=3), folds=3) for some in (sets, turned))
    assert before["C"] == after["C"]
    assert before["SST2"] > after["SST2"] + 10
    assert best_c(np.array([0.5, 0.7, 0.7, 0.6, 0.7, 0.1])) == GRID[1]
    assert list(GRID) == sorted(GRID)


def test_a_class_that_cannot_be_told_is_at_chance(folder: Path) -> None:
    # Not vacuous: the same words under both classes give what a coin gives.
    rng = np.random.default_rng(2)
    for name in ("neg", "pos"):
        write(folder / f"MR/rt-polarity.{name}", [review(rng, 1, 0.5) for _ in range(150)])
    assert 35 < evaluate_transfer(Words(), folder, tasks=["MR"], folds=5)["MR"] < 65


def test_a_pair_is_its_difference_beside_its_product() -> None:
    part = LabelledPart(["good film", "dog"], ["good song", "dog"], [0, 1])
    embedded = embed_sentences(Words(), [*part.first, *part.second])
    u, v = (Words().encode_text(side, space="sentence").astype(float) for side in (part.first, part.second))
    x = features(embedded, part)
    assert x.shape == (2, 2 * u.shape[1])
    np.testing.assert_array_equal(x[:, : u.shape[1]], np.abs(u - v))
    np.testing.assert_array_equal(x[:, u.shape[1] :], u * v)


def test_a_quick_look_takes_rows_of_every_class(folder: Path) -> None:
    part = LabelledPart([str(n) for n in range(100)], [], [int(n >= 90) for n in range(100)])
    few = drawn(part, 20, seed=0)
    assert (len(few), sum(few.labels)) == (20, 2)
    assert all(part.labels[int(text)] == label for text, label in zip(few.first, few.labels, strict=True))
    assert drawn(part, 20, seed=1) != few
    assert drawn(part, 100, seed=0) == part
    assert sum(drawn(part, 3, seed=0).labels) == 1
    pairs = drawn(LabelledPart(part.first, [f"second {n}" for n in range(100)], part.labels), 20, seed=0)
    assert pairs.second == [f"second {text}" for text in pairs.first]
    found = evaluate_transfer(Words(), folder, tasks=["MR", "SST2"], folds=2, max_train=40)
    assert found["counts"] == {"MR": {"all": 40}, "SST2": {"train": 40, "dev": 40, "test": 60}}


def test_what_is_missing_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"none: is no folder; expected the transfer sets"):
        evaluate_transfer(Words(), folder / "none")
    with pytest.raises(DataError, match=r"MR/rt-polarity.neg: cannot be read"):
        evaluate_transfer(Words(), folder / "SST", tasks=["MR"])
    with pytest.raises(UsageError, match="task 'SST-2' is not known; did you mean 'SST2'"):
        evaluate_transfer(Words(), folder, tasks=["SST-2"])
    with pytest.raises(DataError, match="MR has 60 rows of one class to train on, too few for 59 folds"):
        evaluate_transfer(Words(), folder, tasks=["MR"], folds=59)
    with pytest.raises(UsageError, match="folds 1: expected at least 2"):
        evaluate_transfer(Words(), folder, folds=1)
    write(folder / "SST/binary/sentiment-train", ["good film 1", "bad film 0"])
    with pytest.raises(
        DataError, match=r"sentiment-train: holds no usable .* 2 bad rows, .*sentiment-train:1: has no tab"
    ):
        evaluate_transfer(Words(), folder, tasks=["SST2"])
    write(folder / "SST/binary/sentiment-train", ["good film\t1", "fine film\t1"])
    with pytest.raises(DataError, match=r"sentiment-train: has no row of the class 0; expected 2 classes"):
        evaluate_transfer(Words(), folder, tasks=["SST2"])
    (folder / "CR/custrev.pos").write_text("")
    with pytest.raises(DataError, match=r"custrev.pos: is empty"):
        evaluate_transfer(Words(), folder, tasks=["CR"])
    (folder / "CR/custrev.pos").write_text("\n \n")
    with pytest.raises(DataError, match=r"custrev.pos: holds no usable labelled sentence"):
        evaluate_transfer(Words(), folder, tasks=["CR"])


def test_the_command_prints_one_object_or_a_table(folder: Path, tmp_path: Path, dalr: Run) -> None:
    model = tmp_path / "model"
    tiny_model().save_pretrained(model)
    call = (
        "eval",
        "transfer",
        "--model",
        model,
        "--data",
        folder,
        "--folds",
        2,
        "--tasks",
        "MR,SST2",
        "--tasks",
        "MRPC",
    )
    code, out, err = dalr(*call, "--cache", tmp_path / "cache", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert list(found)[:5] == ["MR", "SST2", "MRPC", "avg7", "avg8"]
    code, out, err = dalr(*call, "--cache", tmp_path / "cache")
    assert code == 0
    assert f"{found['MRPC']:.2f}" in out
    assert f"MRPC F1: {found['f1']['MRPC']:.2f}" in out
    smaller = json.loads(dalr(*call, "--truncate-dim", 4, "--int8", "--json")[1])
    assert smaller["counts"] == found["counts"]
    for more, message in (
        (("--data", tmp_path / "none"), "none: is no folder; expected the transfer sets"),
        (("--tasks", "SST3"), "task 'SST3' is not known; did you mean"),
        (("--truncate-dim", 5000), "truncate-dim 5000: the model's sentence embeddings have"),
        (("--max-train", 2), "MR has 1 rows of one class to train on, too few for 2 folds"),
    ):
        code, out, err = dalr(*call, *more, "--json")
        assert (code, out, len(err.splitlines())) == (2, "", 1), err
        assert message in err


def test_eval_sts_as_a_user_calls_it(tmp_path: Path, dalr: Run) -> None:
    model = tmp_path / "model"
    tiny_model().save_pretrained(model)
    own = tmp_path / "own.csv"
    own.write_text(
        "sentence1,sentence2,score\na red dress,a blue shoe,1\na bag,a green bag,4\na lamp,a shoe,\nb,a bag,0\n"
    )
    call = ("eval", "sts", "--model", model, "--pairs", own)
    code, out, err = dalr(*call, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert list(found) == ["avg", "pearson", "pairs", "dev", "files", "dropped", "aggregate"]
    assert (found["files"][str(own)]["pairs"], found["dropped"]) == (3, {str(own): 1})
    code, out, err = dalr(*call, "--truncate-dim", 4, "--int8")
    assert code == 0, err
    assert f"left out of {own}: 1 (" in out
    for arguments, message in (
        (call[:4], "nothing to measure on: give --data FOLDER"),
        ((*call, "--tasks", "STSB"), "--tasks STSB needs --data"),
        ((*call[:4], "--pairs", tmp_path / "none.tsv"), "none.tsv: cannot be read"),
        ((*call, "--high", 0, "--low", -1, "--data", tmp_path), "STS12-en-test: has no STS.input"),
        (
            (*call, "--low", 4.5),
            "own.csv: holds no usable scored pair; the first of 4 bad rows, own.csv:2: the score 1",
        ),
        ((*call, "--aggregate", "median"), "aggregate 'median'; expected one of all, mean, weighted"),
        ((*call, "--truncate-dim", 5000), "truncate-dim 5000: the model's sentence embeddings have"),
        ((*call, "--data", tmp_path, "--tasks", "STS17"), "task 'STS17' is not known; did you mean"),
    ):
        code, out, err = dalr(*arguments, "--json")
        assert (code, out, len(err.splitlines())) == (2, "", 1), err
        assert message in err


@pytest.mark.data
def test_the_real_sets_have_the_published_sizes(data_dir: Path) -> None:
    sets = {task: read_transfer_set(data_dir / "transfer", task) for task in TRANSFER_TASKS}
    sizes = {task: [len(part) for part in one.parts.values()] for task, one in sets.items()}
    assert sizes == {
        "MR": [10662], "CR": [3771], "SUBJ": [10000], "MPQA": [10603], "SST2": [67349, 872, 1821],
        "SST5": [8544, 1101, 2210], "TREC": [5452, 500], "MRPC": [4076, 1725],
    }  # fmt: skip
    assert {task: len(one.bad) for task, one in sets.items() if one.bad} == {"CR": 4, "MPQA": 3}
    assert {row.reason for one in sets.values() for row in one.bad} == {"has an empty sentence"}


@pytest.mark.data
def test_minilm_on_slices_of_the_real_sets(data_dir: Path, minilm_dir: Path) -> None:
    from dalr.model import DualEncoder

    model = DualEncoder.from_pretrained(minilm_dir)
    found = evaluate_transfer(model, data_dir / "transfer", tasks=["MPQA", "TREC"], folds=3, max_train=600)
    # With all rows: MPQA 87.5, TREC 89.2.
    assert found["MPQA"] > 78
    assert found["TREC"] > 70
