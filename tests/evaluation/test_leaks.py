"""The leak check.

Invariants: a sentence is recognised through case, accents' form, punctuation and tokenisation, and no other sentence
is; a scored pair leaks if it stands there as a pair in either order, with `strict` if one sentence does; a triplet or
corpus line leaks by any of its texts; `drop: false` counts the same and drops nothing; counts are by test set and add
up; on the real data the minBERT training part holds known numbers of test pairs.
"""

from pathlib import Path

import numpy as np
import pytest

from dalr.data.scored_pairs import ScoredPairs, ScoresConfig, read_scored_pairs
from dalr.evaluation.leaks import LeakCheck, LeakConfig, held_out_sts, leak_key

HELD = {
    "one": ScoredPairs(["A man is running.", "Two dogs play."], ["A man runs.", "Dogs are playing."], [4.0, 3.0]),
    "two": ScoredPairs(["Café au lait"], ["A cup of coffee"], [2.5]),
}


def test_the_key_sees_letters_and_digits() -> None:
    assert leak_key("It 's 3 o'clock !") == leak_key("it's 3 o’clock")
    assert leak_key("CAFE\u0301 AU LAIT") == leak_key("café au lait")
    assert len({leak_key(text) for text in ("a man runs", "a man ran", "the man runs", "a man runs 2")}) == 4


def test_pairs_leak_in_either_order() -> None:
    first = ["a man runs", "two dogs play", "a man is running", "something else"]
    second = ["a man is running", "a man runs", "two dogs play", "altogether"]
    check = LeakCheck(HELD)
    assert check.kept_pairs(first, second).tolist() == [False, True, True, True]
    strict = LeakCheck(HELD, strict=True)
    assert strict.kept_pairs(first, second).tolist() == [False, False, False, True]
    for found, dropped in ((check.report, 1), (strict.report, 3)):
        assert (found.rows, found.leaking, found.dropped) == (4, dropped, dropped)
        assert found.pairs == {"one": 1, "two": 0}
        assert found.sentences == {"one": 3, "two": 0}


def test_texts_leak_by_any_column_and_can_be_only_counted() -> None:
    columns = (["CAFÉ, au lait!", "tea", "tea"], ["x", "y", "a cup of coffee"], ["1", "2", "3"])
    check = LeakCheck(HELD)
    assert check.kept_texts(*columns).tolist() == [False, True, False]
    counted = LeakCheck(HELD, drop=False)
    assert counted.kept_texts(*columns).all()
    assert (counted.report.leaking, counted.report.dropped) == (2, 0)
    assert counted.report.sentences == check.report.sentences == {"one": 0, "two": 2}


@pytest.mark.data
def test_transfer_sets_hold_out_all_but_train(data_dir: Path) -> None:
    check = LeakCheck.load(LeakConfig(transfer=str(data_dir / "transfer")))
    assert check is not None
    tested, trained = ((data_dir / f"transfer/SST/binary/sentiment-{part}").read_text() for part in ("test", "train"))
    first = [some.splitlines()[0].rpartition("\t")[0] for some in (tested, trained)]
    assert check.kept_texts([*first, "who", "a sentence that nobody has written"]).tolist()[0::3] == [False, True]
    assert check.report.sentences["SST2"] == 1


def test_nothing_named_is_no_check() -> None:
    assert LeakCheck.load(LeakConfig()) is None


@pytest.mark.data
def test_the_known_traps_of_the_real_data(data_dir: Path) -> None:
    train, _ = read_scored_pairs(data_dir / "minbert/sts-train.tsv")
    dev = str(data_dir / "minbert/sts-dev.tsv")
    check = LeakCheck.load(LeakConfig(sts=str(data_dir / "sts"), pairs={"minbert_dev": ScoresConfig(path=dev)}))
    assert check is not None
    kept = check.kept_pairs(train.first, train.second)
    assert check.report.pairs["STSB-test"] >= 951
    assert check.report.pairs["minbert_dev"] >= 17
    assert int((~kept).sum()) == check.report.dropped > 5000
    held = held_out_sts(data_dir / "sts")
    keys = [
        {frozenset(map(leak_key, pair)) for pair in zip(some.first, some.second, strict=True)} for some in held.values()
    ]
    left = [frozenset(map(leak_key, (train.first[row], train.second[row]))) for row in np.flatnonzero(kept)]
    assert not any(pair in known for pair in left for known in keys)
