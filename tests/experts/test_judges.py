"""Each kind of expert alone.

Invariants: each kind gives one number a pair, higher where the sides fit, and what its definition says (cosines of
the encoder itself, the classifier's own probability, people's scores as they stand); a score out of range, a missing
column and a model of another kind are refused.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from questions import rows, save_classifier

from dalr.config import parse_config
from dalr.data.manifest import DataConfig, Manifest
from dalr.encoders import TextConfig, build_text_encoder
from dalr.errors import ConfigError, DataError, ModelError
from dalr.experts.judges import ExpertConfig, build_judge, checked, judge_key
from dalr.experts.labels import LabelConfig, label_pairs, write_labels
from dalr.experts.pairs import JudgedConfig, JudgedPairs, read_judged
from dalr.model import DualEncoder
from tests.tiny_catalogue import tiny_catalogue, tiny_model


def scores_of(pairs: JudgedPairs, cache: Path, **values: Any) -> np.ndarray:
    return np.asarray(build_judge(parse_config(ExpertConfig, values), cache).score(pairs))


def test_reading(source: Path, tmp_path: Path) -> None:
    pairs = read_judged(str(source), JudgedConfig())
    assert len(pairs) == 60
    assert pairs.label is not None
    assert pairs.label.tolist() == [1.0, 0.0] * 30
    assert pairs.where[0] == "questions.tsv:2"
    partly = tmp_path / "partly.csv"
    partly.write_text("a,b,grade\nx y,z,3\nx,,3\nq,r,\nq,s,9\n")
    found = read_judged(str(partly), JudgedConfig(first="a", second="b", label="grade", low=1, high=5))
    assert found.label is not None
    assert found.label[0] == 0.5
    assert np.isnan(found.label[1])
    assert [(row.row, row.reason) for row in found.bad] == [
        (3, "has no second text"), (5, "the label 9 is outside the range 1 to 5"),
    ]  # fmt: skip
    assert read_judged(str(partly), JudgedConfig(first="a", second="b")).label is None
    with pytest.raises(DataError, match="there is no column 'c'"):
        read_judged(str(partly), JudgedConfig(first="a", second="c"))
    with pytest.raises(DataError, match="name both columns of texts"):
        read_judged(str(partly), JudgedConfig(first="a"))


@pytest.mark.parametrize("kind", ["bm25", "tfidf", "characters"])
def test_by_words(pairs: JudgedPairs, tmp_path: Path, kind: str) -> None:
    scores = scores_of(pairs, tmp_path, kind=kind)
    assert scores[::2].min() > scores[1::2].max()  # what shares words is above what shares none
    if kind == "characters":
        return
    with pytest.raises(DataError, match="word"):
        scores_of(JudgedPairs(["…", "!"], ["?", "–"], None, None, {}, ["1", "2"], []), tmp_path, kind=kind)


def test_by_an_encoder(pairs: JudgedPairs, encoder: Path, tmp_path: Path) -> None:
    scores = scores_of(pairs, tmp_path, kind="text", name=str(encoder))
    model = DualEncoder.from_pretrained(encoder)
    assert pairs.second is not None
    u, v = model.encode_text(pairs.first), model.encode_text(pairs.second)
    np.testing.assert_allclose(scores, (u * v).sum(axis=1), atol=1e-5)
    prompted = scores_of(pairs, tmp_path, kind="text", name=str(encoder), prompt="a red ", partner_prompt="a blue ")
    u, v = model.encode_text(pairs.first, prompt="a red "), model.encode_text(pairs.second, prompt="a blue ")
    np.testing.assert_allclose(prompted, (u * v).sum(axis=1), atol=1e-5)
    assert not np.allclose(scores, prompted, atol=1e-3)


def test_an_encoder_with_another_pooling(pairs: JudgedPairs, encoder: Path, tmp_path: Path) -> None:
    own, first = ({"kind": "text", "name": str(encoder), **more} for more in ({}, {"pooling": "cls"}))
    scores = scores_of(pairs, tmp_path, **first)
    pooled = build_text_encoder(TextConfig(name=str(encoder), pooling="cls"))
    u, v = (torch.from_numpy(pooled.encode(side)) for side in pairs.texts())
    np.testing.assert_allclose(scores, torch.cosine_similarity(u, v), atol=1e-5)
    assert not np.allclose(scores, scores_of(pairs, tmp_path, **own), atol=1e-3)
    keys = {judge_key(build_judge(parse_config(ExpertConfig, values)), pairs) for values in (own, first)}
    assert len(keys) == 2, "scores kept of one pooling would be taken for those of the other"
    for kind in ("image_text", "cross_encoder", "tfidf", "column"):
        with pytest.raises(ConfigError, match=f"pooling: is for experts of kind text, and this one is of kind {kind}"):
            parse_config(ExpertConfig, {**first, "kind": kind})


@pytest.mark.parametrize("classes", [1, 3])
def test_by_a_cross_encoder(pairs: JudgedPairs, tmp_path: Path, classes: int) -> None:
    tokenizer, model = save_classifier(tmp_path / "cross", classes)
    scores = scores_of(pairs, tmp_path, kind="cross_encoder", name=str(tmp_path / "cross"))
    assert pairs.second is not None
    for row in (0, 17, 59):
        tokens = tokenizer(pairs.first[row], pairs.second[row], return_tensors="pt")
        with torch.inference_mode():
            logits = model(**tokens).logits[0]
        wanted = logits[0].sigmoid() if classes == 1 else logits.softmax(dim=0)[-1]
        assert scores[row] == pytest.approx(float(wanted), abs=1e-5)
    if classes == 3:
        first = scores_of(pairs, tmp_path, kind="cross_encoder", name=str(tmp_path / "cross"), class_name="label_0")
        assert not np.allclose(first, scores)
        with pytest.raises(ConfigError, match="class_name: 'yes' is no class of"):
            scores_of(pairs, tmp_path, kind="cross_encoder", name=str(tmp_path / "cross"), class_name="yes")


def test_an_encoder_is_no_cross_encoder(pairs: JudgedPairs, minilm_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no trained classifier .it lacks 'classifier"):
        scores_of(pairs, tmp_path, kind="cross_encoder", name=str(minilm_dir))


def test_by_people(pairs: JudgedPairs, tmp_path: Path) -> None:
    assert scores_of(pairs, tmp_path, kind="column", column="people").tolist() == [row[3] for row in rows()]
    with pytest.raises(DataError, match=r"questions.tsv:2: the score 0.8 is outside the range 0 to 0.5; mend it"):
        scores_of(pairs, tmp_path, kind="column", column="people", high=0.5)
    with pytest.raises(DataError, match=r"there is no column 'peeple'; did you mean 'people'"):
        scores_of(pairs, tmp_path, kind="column", column="peeple")
    halved = scores_of(pairs, tmp_path, kind="column", column="people", low=0, high=2)
    np.testing.assert_allclose(halved, [row[3] / 2 for row in rows()])


def test_photos_with_captions(tmp_path: Path) -> None:
    catalogue = tiny_catalogue(tmp_path / "catalogue")
    model = tiny_model()
    model.save_pretrained(tmp_path / "pair")
    pairs = read_judged(str(catalogue), JudgedConfig())
    assert pairs.images is not None
    scores = scores_of(pairs, tmp_path, kind="image_text", name=str(tmp_path / "pair"))
    p = model.encode_text(pairs.first)
    v = model.encode_image([pairs.images.image_path(row) for row in range(len(pairs))])
    np.testing.assert_allclose(scores, (p * v).sum(axis=1), atol=1e-4)
    before = pairs.fingerprint()
    first, second = (pairs.images.image_path(row) for row in (0, 1))
    first.write_bytes(second.read_bytes())
    assert read_judged(str(catalogue), JudgedConfig()).fingerprint() != before, "another photo under the old name"
    with pytest.raises(DataError, match="judges pairs of texts, and these are photos"):
        scores_of(pairs, tmp_path, kind="tfidf")
    config = parse_config(LabelConfig, {"experts": {"own": {"kind": "image_text", "name": str(tmp_path / "pair")}}})
    labels = label_pairs(pairs, config)
    write_labels(tmp_path / "labels.parquet", pairs, labels)

    read = Manifest.load(tmp_path / "labels.parquet", DataConfig(root=str(catalogue.parent)))
    np.testing.assert_allclose(read.weight, labels.label_P, atol=1e-6)
    assert read.texts == pairs.first


def test_checked() -> None:
    assert checked([1, 2.5], 2).dtype == np.float64
