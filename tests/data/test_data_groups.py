"""Invariants of groups:

- rows match iff they share an image, a normalised caption, or a group; the group overrides both; no closure;
- -1 never matches; empty captions and missing images are nobody's positives;
- carved dev parts share no id with train, have about the wanted size, and depend on the seed alone.
"""

import numpy as np
import pytest

from dalr.data.groups import carve_dev, connected_components, group_ids, normalise_caption, pair_ids
from dalr.errors import DataError


def positives(ids: np.ndarray) -> np.ndarray:
    same = (ids[:, None] == ids[None]) & (ids[:, None] >= 0)
    return same.any(-1) & ~np.eye(len(ids), dtype=bool)


def test_captions_that_are_the_same_caption() -> None:
    assert normalise_caption("  Ａ\u00a0Red\t\nSHIRT  ") == normalise_caption("a red shirt") == "a red shirt"
    assert normalise_caption("Straße") == normalise_caption("STRASSE")
    assert normalise_caption("ﬁne") == "fine"
    assert normalise_caption("red shirt.") != normalise_caption("red shirt")
    assert normalise_caption(" \u3000 ") == ""


def test_image_or_caption_without_closure() -> None:
    ids = group_ids(["a", "a", "b", "c"], ["one", "TWO", "two ", "three"])
    expected = np.zeros((4, 4), bool)
    expected[0, 1] = expected[1, 0] = True  # one image
    expected[1, 2] = expected[2, 1] = True  # one caption; 0 and 2 stay apart
    assert (positives(ids) == expected).all()


def test_group_overrides_both() -> None:
    ids = group_ids(["a", "a", "b", "b", "c"], ["x", "x", "x", "y", "z"], ["g1", "g2", "g1", None, ""])
    found = positives(ids)
    assert found[0, 2], "one group"
    assert not found[0, 1], "one image and one caption, but different groups"
    assert not found[2, 3], "a row with a group matches its group alone"
    assert found.sum() == 2


def test_a_group_and_an_image_of_one_name_do_not_meet() -> None:
    assert not positives(group_ids(["a", "b"], ["x", "y"], ["b", None])).any()


def test_missing_matches_nothing() -> None:
    ids = group_ids([None, None, "a"], ["", None, " \t"])
    assert not positives(ids).any()
    assert (ids[:, 1] == -1).all()


def test_pairs_meet_where_they_share_a_text() -> None:
    generator = np.random.default_rng(0)
    for texts in (3, 8, 40):
        first, second = ([f"Text {number} " for number in generator.integers(texts, size=60)] for _ in range(2))
        sets = [{normalise_caption(one), normalise_caption(other)} for one, other in zip(first, second, strict=True)]
        meet = np.array([[bool(one & other) for other in sets] for one in sets]) & ~np.eye(60, dtype=bool)
        assert (positives(pair_ids(first, second)) == meet).all()
    assert pair_ids(["a", "b", "x"], ["b", "c", "y"]).shape == (3, 2)
    grouped = positives(pair_ids(["a", "a", "c", "d"], ["b", "b", "d", "c"], ["g", None, "g", ""]))
    assert np.argwhere(grouped).tolist() == [[0, 2], [2, 0]]


def test_components_equal_the_plain_search() -> None:
    generator = np.random.default_rng(0)
    ids = generator.integers(-1, 55, (60, 2))
    adjacency = positives(ids) | np.eye(60, dtype=bool)
    reach = np.linalg.matrix_power(adjacency.astype(float), 60) > 0
    labels = connected_components(ids)
    assert ((labels[:, None] == labels[None]) == reach).all()
    assert 1 < len(np.unique(labels)) < 60


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5])
def test_dev_shares_nothing_with_train(fraction: float) -> None:
    generator = np.random.default_rng(1)
    ids = np.stack([generator.integers(0, 400, 1000), generator.integers(0, 3000, 1000)], 1)
    train, dev = carve_dev(ids, fraction, seed=4)
    assert np.array_equal(np.sort(np.concatenate([train, dev])), np.arange(1000))
    assert not positives(ids)[np.ix_(train, dev)].any()
    labels = connected_components(ids)
    assert abs(len(dev) - fraction * 1000) <= np.bincount(labels).max()
    again = carve_dev(ids, fraction, seed=4)
    assert np.array_equal(again[1], dev)
    assert not np.array_equal(carve_dev(ids, fraction, seed=5)[1], dev)


def test_dev_that_cannot_be_carved() -> None:
    one_group = np.zeros((50, 2), dtype=np.int64)
    with pytest.raises(DataError, match="1 groups"):
        carve_dev(one_group, 0.1, seed=0)
    with pytest.raises(DataError, match="between 0 and 1"):
        carve_dev(one_group, 1.5, seed=0)
