"""Experts together: their scores kept, joined into labels, written and described.

Invariants: scores are kept by content and computed once, those of an added expert alone, whatever its kind; an expert
that fails is named and loses none of the others' scores; NaN, a wrong length and constant scores are refused by the
expert's name; a blank of people's costs that score alone; the Parquet trains, and a catalogue keeps what it knew; bias,
disagreement and the pairs held out are what they say.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from questions import save_classifier

from dalr.config import parse_config
from dalr.data.groups import normalise_caption
from dalr.data.manifest import Manifest
from dalr.data.scored_pairs import read_scored_pairs
from dalr.errors import ConfigError, DataError
from dalr.experts import judges
from dalr.experts import labels as labelling
from dalr.experts.judges import ExpertConfig, build_judge
from dalr.experts.labels import LabelConfig, Labels, label_pairs, write_labels
from dalr.experts.pairs import JudgedConfig, JudgedPairs, hold_out, read_judged
from dalr.experts.report import describe_labels
from tests.tiny_catalogue import tiny_catalogue, tiny_model

Run = Callable[..., tuple[int, str, str]]

CONFIG: dict[str, Any] = {
    "experts": {"words": {"kind": "tfidf"}, "letters": {"kind": "characters"}},
    "calibration": {"method": "platt"},
}


def test_labels(pairs: JudgedPairs, tmp_path: Path) -> None:
    config = parse_config(LabelConfig, {**CONFIG, "cache": str(tmp_path / "cache")})
    labels = label_pairs(pairs, config)
    assert labels.reused == []
    assert labels.names == ["words", "letters"]
    assert pairs.label is not None
    np.testing.assert_allclose(labels.label_P, 0.5 * pairs.label + 0.5 * labels.calibrated_AP.mean(axis=0))
    found = describe_labels(pairs, labels)
    assert found["correlation"]["words"]["words"] == 1.0
    assert found["correlation"]["words"]["letters"] == found["correlation"]["letters"]["words"] > 0.5
    assert found["experts"]["words"]["auc"] == 1.0
    for name, scores in zip(labels.names, labels.calibrated_AP, strict=True):
        assert found["experts"][name]["bias"] == pytest.approx((scores - pairs.label).mean(), abs=1e-4)
    spread = labels.calibrated_AP.std(axis=0)
    assert found["disputed"][0]["where"] == pairs.where[int(spread.argmax())]

    more = parse_config(
        LabelConfig,
        {**CONFIG, "experts": {**CONFIG["experts"], "bm25": {"kind": "bm25"}}, "cache": str(tmp_path / "cache")},
    )
    again = label_pairs(pairs, more)
    assert again.reused == ["words", "letters"]
    assert np.array_equal(again.raw_AP[:2], labels.raw_AP)


PEOPLE = {"kind": "column", "column": "people"}
JUDGES = ("TextJudge", "ImageTextJudge", "CrossEncoderJudge", "LexicalJudge", "ColumnJudge")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of the experts that were let judge, in order."""
    found: list[str] = []
    for name in JUDGES:
        judge = getattr(judges, name)

        def score(self: Any, pairs: JudgedPairs, real: Any = judge.score) -> Any:
            found.append(self.kind if hasattr(self, "kind") else type(self).__name__)
            return real(self, pairs)

        monkeypatch.setattr(judge, "score", score)
    return found


def labels_of(pairs: JudgedPairs, cache: Path, experts: dict[str, Any], **more: Any) -> Labels:
    return label_pairs(pairs, parse_config(LabelConfig, {"experts": experts, "cache": str(cache), **more}))


def test_an_added_expert_is_computed_alone(pairs: JudgedPairs, tmp_path: Path, asked: list[str]) -> None:
    """One of each kind is added to those before; what people said is read again, and costs nothing."""
    for seed in (0, 1):
        tiny_model(seed, image=False).save_pretrained(tmp_path / f"encoder{seed}")
        save_classifier(tmp_path / f"cross{seed}", 1, seed)
    text, cross = {"kind": "text", "name": str(tmp_path / "encoder0")}, {"kind": "cross_encoder"}
    added: list[tuple[str, dict[str, Any], str]] = [
        ("first", text, "TextJudge"),
        ("people", PEOPLE, "ColumnJudge"),
        ("other_weights", {**text, "name": str(tmp_path / "encoder1")}, "TextJudge"),
        ("other_pooling", {**text, "pooling": "cls"}, "TextJudge"),
        ("other_prompt", {**text, "prompt": "question: "}, "TextJudge"),
        ("cross", {**cross, "name": str(tmp_path / "cross0")}, "CrossEncoderJudge"),
        ("other_cross", {**cross, "name": str(tmp_path / "cross1")}, "CrossEncoderJudge"),
        *((kind, {"kind": kind}, kind) for kind in ("bm25", "tfidf", "characters")),
    ]
    experts: dict[str, Any] = {}
    before: Labels | None = None
    for name, expert, kind in added:
        experts[name] = expert
        asked.clear()
        found = labels_of(pairs, tmp_path / "cache", experts)
        read = ["ColumnJudge"] if "people" in experts and name != "people" else []
        assert sorted(asked) == sorted([kind, *read]), name
        assert found.reused == [other for other in experts if other not in (name, "people")]
        if before is not None:
            assert np.array_equal(found.raw_AP[:-1], before.raw_AP)
            assert not any(np.array_equal(found.raw_AP[-1], row) for row in before.raw_AP), name
        before = found
    # How scores are used is no part of them, nor is an expert's name; other pairs are.
    asked.clear()
    renamed = {
        f"my_{name}": {**expert, "weight": 2, "calibration": {"method": "rank"}} for name, expert in experts.items()
    }
    labels_of(pairs, tmp_path / "cache", renamed, aggregation={"rule": "median"})
    assert asked == ["ColumnJudge"]
    labels_of(hold_out(pairs, 0.3)[0], tmp_path / "cache", {"words": {"kind": "tfidf"}})
    assert asked == ["ColumnJudge", "tfidf"]


def test_an_added_expert_of_photos_is_computed_alone(tmp_path: Path, asked: list[str]) -> None:
    pairs = read_judged(str(tiny_catalogue(tmp_path / "catalogue")), JudgedConfig())
    experts: dict[str, Any] = {}
    for seed in (0, 1):
        tiny_model(seed).save_pretrained(tmp_path / f"pair{seed}")
        experts[f"pair{seed}"] = {"kind": "image_text", "name": str(tmp_path / f"pair{seed}")}
        found = labels_of(pairs, tmp_path / "cache", experts)
        assert len(asked) == seed + 1
        assert found.reused == ["pair0"][:seed]
    assert not np.allclose(*found.raw_AP, atol=1e-3)
    assert pairs.images is not None
    first, second = (pairs.images.image_path(row) for row in (0, 1))
    first.write_bytes(second.read_bytes())
    changed = read_judged(str(tmp_path / "catalogue/products.csv"), JudgedConfig())
    assert labels_of(changed, tmp_path / "cache", experts).reused == [], "another photo under the old name"


def test_disagreement_counts_experts_as_the_rule_does(pairs: JudgedPairs, tmp_path: Path) -> None:
    """An expert of weight 0 has no part in a weighted label, and must not lower that label's weight either."""
    experts = {"words": {"kind": "tfidf"}, "people": {"kind": "column", "column": "people", "weight": 0}}
    found = {}
    for rule in ("mean", "weighted"):
        values = {"experts": experts, "aggregation": {"rule": rule, "disagreement": 1}, "cache": str(tmp_path)}
        found[rule] = label_pairs(pairs, parse_config(LabelConfig, values))
    table = found["mean"].calibrated_AP
    np.testing.assert_allclose(found["mean"].weight_P, 1 - 2 * table.std(axis=0))
    assert found["mean"].weight_P.max() < 1
    assert found["weighted"].weight_P.tolist() == [1.0] * len(pairs)


def test_bias_is_against_labels_or_else_against_the_others(tmp_path: Path) -> None:
    """And only over scores that experts gave: where one was silent, the table holds what the others say."""
    table = tmp_path / "table.csv"
    table.write_text("first,second,truth,high,low\na,b,1,0.9,0.2\nc,d,0,0.5,0.4\ne,f,,1,0\ng,h,,,0.1\n")
    people = {"kind": "column", "calibration": {"method": "none"}}
    experts = {name: {**people, "column": name} for name in ("high", "low")}

    def bias(label: str | None, **some: Any) -> dict[str, float | None]:
        pairs = read_judged(str(table), JudgedConfig(first="first", second="second", label=label))
        labels = label_pairs(pairs, parse_config(LabelConfig, {"experts": some}))
        return {name: expert["bias"] for name, expert in describe_labels(pairs, labels)["experts"].items()}

    assert bias("truth", **experts) == {"high": pytest.approx(0.2), "low": pytest.approx(-0.2)}
    apart = round((0.9 - 0.2 + 0.5 - 0.4 + 1 - 0) / 3, 4)
    assert bias(None, **experts) == {"high": apart, "low": -apart}
    assert bias(None, low=experts["low"]) == {"low": None}
    table.write_text("first,second,truth,high,low\na,b,1,,0.3\nc,d,,0.2,0.4\ne,f,,0.3,0.5\n")
    assert bias("truth", **experts) == {"high": None, "low": pytest.approx(-0.7)}


def test_experts_are_judged_by_what_they_said_themselves(
    tmp_path: Path, dalr: Callable[..., tuple[int, str, str]]
) -> None:
    table = tmp_path / "table.csv"
    # Each of the two has scored other pairs; where one was silent, the table holds what the other says.
    table.write_text("first,second,label,one,two\na,b,1,0.2,\nc,d,0,0.4,\ne,f,1,,0.9\ng,h,0,,0.1\n")
    config = tmp_path / "config.yaml"
    people = "{kind: column, calibration: {method: none}, column: "
    config.write_text(f"data: {{first: first, second: second}}\nexperts: {{one: {people}one}}, two: {people}two}}}}\n")
    code, said, error = dalr("label", table, "--config", config, "--out", tmp_path / "labels.parquet", "--json")
    assert (code, error) == (0, error)
    found = json.loads(said)
    assert found["correlation"] == {"one": {"one": 1.0, "two": None}, "two": {"one": None, "two": 1.0}}
    assert {name: expert["auc"] for name, expert in found["experts"].items()} == {"one": 0.0, "two": 1.0}
    assert found["experts"]["one"]["mean"] == 0.3
    assert found["experts"]["two"]["error"] == 0.01
    code, said, _ = dalr("label", table, "--config", config, "--out", tmp_path / "again.parquet")
    assert code == 0
    assert "–" in said


def test_a_pair_that_people_left_blank(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("first,second,grade,weight\na b,a b,1,3\na c,a d,,2\nx,y,0,1\n")
    pairs = read_judged(str(table), JudgedConfig())
    people = {"kind": "column", "column": "grade", "calibration": {"method": "none"}}
    config = {"experts": {"people": people, "words": {"kind": "tfidf"}}, "calibration": {"method": "minmax"}}
    labels = label_pairs(pairs, parse_config(LabelConfig, config))
    assert np.isnan(labels.raw_AP[0]).tolist() == [False, True, False]
    assert labels.calibrated_AP[0, 1] == labels.calibrated_AP[1, 1] == labels.label_P[1]
    assert describe_labels(pairs, labels)["correlation"]["people"]["words"] == 1.0
    write_labels(tmp_path / "labels.parquet", pairs, labels)
    assert read_scored_pairs(tmp_path / "labels.parquet", high=1)[0].weights() == [3, 2, 1]
    with pytest.raises(DataError, match=r"table.csv:3: no expert has a score for this pair, nor for 0 others"):
        label_pairs(pairs, parse_config(LabelConfig, {"experts": {"people": people}}))
    table.write_text("first,second,grade\na b,a b,\na c,a d, \n")
    with pytest.raises(DataError, match=r"experts.people: the column 'grade' is blank throughout"):
        label_pairs(read_judged(str(table), JudgedConfig()), parse_config(LabelConfig, {"experts": {"people": people}}))
    with pytest.raises(ConfigError, match="low: 5 is to be less than high, 5"):
        parse_config(LabelConfig, {"experts": {"people": {**people, "low": 5, "high": 5}}})


def test_a_catalogue_keeps_what_it_knew(tmp_path: Path) -> None:
    """Above all its split: rows of the test part must not come back as rows to train on."""
    tiny_catalogue(tmp_path)
    lines = [f"p{n},images/{n}.png,a thing number {n},{('train', 'test')[n % 2]},{n / 10},{n},red" for n in range(8)]
    catalogue = tmp_path / "products.csv"
    catalogue.write_text("\n".join(["id,image,text,split,weight,grade,colour", *lines]))
    pairs = read_judged(str(catalogue), JudgedConfig())
    config = parse_config(LabelConfig, {"experts": {"people": {"kind": "column", "column": "grade", "high": 7}}})
    labels = label_pairs(pairs, config)
    write_labels(tmp_path / "labels.parquet", pairs, labels)
    read, before = Manifest.load(tmp_path / "labels.parquet"), Manifest.load(catalogue)
    assert (read.keys, read.split, read.columns["colour"]) == (before.keys, before.split, ["red"] * 8)
    np.testing.assert_allclose(read.weight, before.weight * labels.label_P, atol=1e-6)
    assert len(read.part("train")) == 4


class Broken:
    """An expert whose answer is given."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def fingerprint(self) -> Any:
        return None

    def score(self, pairs: JudgedPairs) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (np.full(60, np.nan), "gave 60 scores that are no numbers, the first for pair 1"),
        (np.zeros(59), r"gave \(59,\) scores for 60 pairs; expected one a pair"),
        (np.full(60, 0.3), "gave every pair the same score, 0.3, which says nothing"),
        (MemoryError("of all"), "MemoryError: of all"),
    ],
)
def test_an_expert_that_fails(
    pairs: JudgedPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, said: str
) -> None:
    config = parse_config(
        LabelConfig,
        {
            "experts": {"odd": {"kind": "bm25"}, **CONFIG["experts"]},
            "calibration": {"method": "rank"},
            "cache": str(tmp_path / "cache"),
        },
    )
    real = labelling.build_judge

    def build(expert: ExpertConfig, cache: Any) -> Any:
        return Broken(answer) if expert.kind == "bm25" else real(expert, cache)

    monkeypatch.setattr(labelling, "build_judge", build)
    with pytest.raises(DataError, match=rf"experts.odd: {said}.*the scores of words, letters are kept"):
        label_pairs(pairs, config)
    monkeypatch.undo()
    assert label_pairs(pairs, config).reused == ["words", "letters"]


def test_calibration_names_the_expert(tmp_path: Path) -> None:
    few = JudgedPairs(["a b", "c"], ["a", "b"], None, np.array([1.0, 0.0]), {}, ["1", "2"], [])
    with pytest.raises(DataError, match=r"experts.words: calibration platt needs at least 20"):
        label_pairs(few, parse_config(LabelConfig, {**CONFIG, "cache": str(tmp_path)}))
    with pytest.raises(ConfigError, match="is to be a column's name"):
        parse_config(LabelConfig, {"experts": {"a b": {"kind": "bm25"}}})
    with pytest.raises(ConfigError, match="an expert of kind text needs one"):
        build_judge(ExpertConfig(kind="text"))
    with pytest.raises(ConfigError, match="an expert of kind column needs the name of one"):
        build_judge(ExpertConfig(kind="column"))


def test_pairs_are_held_out_to_select_by(tmp_path: Path, dalr: Run) -> None:
    """By chains of shared questions: asked again in other letters, one question would stand on both sides."""
    lines = [
        (f"question {n}", f"{('Question', 'other')[n % 3 == 0]} {n + (n % 2)}", ("1", "0", "")[n % 3])
        for n in range(300)
    ]
    source, config = tmp_path / "pairs.tsv", tmp_path / "experts.yaml"
    source.write_text("\n".join("\t".join(line) for line in [("sentence1", "sentence2", "label"), *lines]))
    config.write_text(json.dumps({"experts": CONFIG["experts"], "cache": str(tmp_path / "cache")}))
    out, dev = tmp_path / "labels.parquet", tmp_path / "dev.parquet"
    call = partial(dalr, "label", source, "--config", config, "--out", out)
    code, printed, error = call("--dev", dev, "--json")
    assert code == 0, error
    kept, held = (read_scored_pairs(path, high=1)[0] for path in (out, dev))
    assert (len(kept), len(held)) == (json.loads(printed)["pairs"], json.loads(printed)["dev"])
    sides = [{normalise_caption(text) for text in part.sentences()} for part in (kept, held)]
    assert not sides[0] & sides[1]
    # A tenth is cut off, of which the third without a label measures nothing.
    assert len(kept) == pytest.approx(270, abs=3)
    assert len(held) == pytest.approx(20, abs=8)
    label_of = {line[:2]: line[2] for line in lines}
    said = zip(held.first, held.second, held.score, strict=True)
    assert all(float(label_of[one, other]) == score for one, other, score in said)
    assert set(held.score) == {0, 1}
    assert "pairs held out" in call("--dev", dev, "--dev-share", "0.3")[1]
    assert len(read_scored_pairs(out, high=1)[0]) == pytest.approx(210, abs=3)

    for path, said in (
        (tmp_path / "dev.csv", "expected the name of a Parquet file"),
        (dev, "--dev: there are no hard labels to hold out; name data.label"),
    ):
        source.write_text("sentence1\tsentence2\na\tb\nc\td\n")
        code, _, error = call("--dev", path)
        assert (code, said in error) == (2, True), error
    source.write_text("sentence1\tsentence2\tlabel\na\tb\t1\nb\tc\t0\n")
    code, _, error = call("--dev", dev)
    assert "--dev: 2 pairs form 1 groups that share no text, too few to hold out 0.1 of them" in error
    with pytest.raises(DataError, match="judges pairs of texts"):
        hold_out(read_judged(str(tiny_catalogue(tmp_path / "catalogue")), JudgedConfig()), 0.1)


def test_the_command(source: Path, tmp_path: Path, dalr: Run) -> None:
    config = tmp_path / "experts.yaml"
    config.write_text(json.dumps(CONFIG))
    out = tmp_path / "new/labels.parquet"
    call = partial(dalr, "label", source, "--config", config, "--out", out)
    code, printed, _ = call("--json")
    found = json.loads(printed)
    assert code == 0
    assert set(found) == {"out", "pairs", "dev", "bad", "reused", "correlation", "experts", "label", "disputed"}
    pairs, bad = read_scored_pairs(out, high=1)
    assert (len(pairs), bad) == (60, [])
    assert pairs.weights() == [1.0] * 60
    code, printed, _ = call("aggregation.disagreement=1", "aggregation.hard_share=0")
    assert code == 0
    assert "ρ words" in printed
    assert "60 labels, mean" in printed
    assert min(read_scored_pairs(out, high=1)[0].weights()) < 1
    assert call("aggregation.rule=best")[0] == 2
    code, _, error = dalr("label", source, "--config", config, "--out", tmp_path / "labels.csv")
    assert (code, "expected the name of a Parquet file, ending in .parquet" in error) == (2, True)
    (tmp_path / "file").write_text("")
    code, _, error = dalr("label", source, "--config", config, "--out", tmp_path / "file/labels.parquet")
    assert (code, error.strip()) == (2, f"dalr label: {tmp_path / 'file'}: File exists")
