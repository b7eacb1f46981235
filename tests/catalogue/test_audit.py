"""Invariants of an audit:

- mismatches are found without a label, and their probability is true: of rows with probability p about p are wrong;
  a clean catalogue has (almost) none; no evidence says nothing;
- folds are cut by group, and do not move when rows are added;
- each fault of a picture or caption is named on what has it, and on nothing else;
- several captions of a picture and several pictures of a product are no doubles; rows, look-alikes and captions of
  other products, and what stands in two splits, are;
- the files are written, their counts add up, and `dalr train` reads the cleaned manifest;
- an audit run again judges what is new or changed and nothing else, and what people decided stands as long as the row
  says the same; a decision is on disk at once, and half a line of a crash costs itself alone;
- with neither model nor store the command exits 2.
"""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageFilter
from sklearn.metrics import roc_auc_score
from tiny_catalogue import draw_photo, tiny_model, write_manifest

from dalr.catalogue.audit import (
    AuditConfig,
    AuditResult,
    Decision,
    Memory,
    audit_catalogue,
    read_decisions,
    record_decision,
    write_audit,
)
from dalr.catalogue.audit.captions import CaptionConfig, caption_faults, word_set
from dalr.catalogue.audit.crossfit import cut_folds
from dalr.catalogue.audit.mismatch import Calibration, LogOdds, cosine_scores, sibling_scores
from dalr.catalogue.audit.pictures import PictureConfig, picture_faults
from dalr.catalogue.audit.repeats import products, repeat_faults, same_looks
from dalr.catalogue.photos import survey_photos
from dalr.config import parse_config
from dalr.data.manifest import DataConfig, Manifest
from dalr.errors import ConfigError, DataError, UsageError
from dalr.neighbours import RandomPairs, Scores
from dalr.run import load_run_config
from dalr.run.training import run_training

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]


def calibration_error(probability: np.ndarray, wrong: np.ndarray, bins: int = 10) -> float:
    """Mean distance between said and true share of wrong rows over bins of the probability."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    parts = [place == number for number in range(bins) if (place == number).any()]
    return float(sum(abs(probability[part].mean() - wrong[part].mean()) * part.mean() for part in parts))


def normal(size: int, mean: float, seed: int) -> torch.Tensor:
    return mean + torch.randn(size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3])
def test_the_probability_is_true(share: float) -> None:
    count = round(share * 4000)
    wrong = np.r_[np.ones(count, bool), np.zeros(4000 - count, bool)]
    evidence = {
        name: Scores(
            torch.cat([normal(count, 0, seed), normal(4000 - count, strength, seed + 1)]), normal(20000, 0, seed + 2)
        )
        for name, strength, seed in (("neighbours", 3.0, 0), ("cosine", 2.0, 10))
    }
    calibration = Calibration.fit(evidence)
    fit, probability = calibration.judge({name: scores.own_N for name, scores in evidence.items()})
    assert calibration.share == pytest.approx(share, abs=0.03)
    assert calibration_error(probability, wrong) < 0.03
    again = Calibration.from_json(json.loads(json.dumps(calibration.as_json())))
    assert np.array_equal(again.judge({name: scores.own_N for name, scores in evidence.items()})[1], probability)
    if count:
        alone = Calibration.fit({"cosine": evidence["cosine"]}).judge({"cosine": evidence["cosine"].own_N})[0]
        assert roc_auc_score(wrong, -fit) > roc_auc_score(wrong, -alone) + 0.01


@pytest.mark.parametrize(("faults", "flagged"), [(0, 0), (200, 0.9)])
def test_faults_far_better_than_random_are_found_where_they_stand_apart(faults: int, flagged: float) -> None:
    """Right pairs at 8 ± 1, captions of similar products at 4 ± 1, random pairs at 0 ± 1: none is like a random one."""
    wrong = np.r_[np.ones(faults, bool), np.zeros(4000 - faults, bool)]
    own = torch.cat([normal(faults, 4, 0), normal(4000 - faults, 8, 1)])
    calibration = Calibration.fit({"cosine": Scores(own, normal(20000, 0, 2))})
    probability = calibration.judge({"cosine": own})[1]
    assert (probability[wrong] > 0.5).sum() >= flagged * faults
    assert (probability[~wrong] > 0.5).sum() <= 0.01 * 4000
    assert calibration_error(probability, wrong) < 0.03


@pytest.mark.parametrize("kind", ["left", "ceiling", "ties", "few"])
def test_right_pairs_of_uneven_scores_are_not_flagged(kind: str) -> None:
    generator = np.random.default_rng(0)
    own = {
        "left": -generator.gumbel(size=3000),
        "ceiling": 6 * generator.beta(5, 1, 3000),
        "ties": np.repeat([4.0, 5.0, 6.0], 100),
        "few": generator.normal(size=60),
    }[kind]
    scores = Scores(torch.from_numpy(own + 8).float(), normal(20000, 0, 2))
    probability = Calibration.fit({"cosine": scores}).judge({"cosine": scores.own_N})[1]
    assert (probability > 0.5).sum() == 0


def test_no_evidence_says_nothing() -> None:
    scores = Scores(torch.cat([normal(500, 3, 0), torch.full((500,), float("nan"))]), normal(5000, 0, 1))
    odds = LogOdds.fit(scores)
    assert odds.slope > 1
    assert not odds(scores.own_N)[500:].any()
    same = LogOdds.fit(Scores(torch.zeros(10), torch.zeros(10)))
    assert (same.slope, same.intercept) == (0, 0)
    # Evidence that speaks for random pairs is none.
    assert LogOdds.fit(Scores(normal(500, -3, 0), normal(5000, 0, 1))).slope == 0


def test_standing_of_a_cosine_is_that_of_all_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    text, image = (torch.nn.functional.normalize(torch.randn(60, 8, generator=generator), dim=1) for _ in range(2))
    pairs = RandomPairs(torch.tensor([4, 7]), torch.tensor([9, 2]))
    found = cosine_scores(text, image, pairs)
    cosine = image @ text.T
    by_picture = (cosine - cosine.mean(1, keepdim=True)) / cosine.std(1, keepdim=True, correction=0)
    by_caption = (cosine - cosine.mean(0)) / cosine.std(0, correction=0)
    expected = (by_picture + by_caption) / 2
    torch.testing.assert_close(found.own_N, expected.diagonal(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.null_M, expected[pairs.picture_M, pairs.caption_M], rtol=1e-4, atol=1e-5)


def test_siblings() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(200, 16, generator=generator)
    image[1], image[2] = image[0] + 0.05 * image[1], -image[0]
    captions = np.arange(200)
    captions[[1, 2]] = 0
    scores = sibling_scores(image, captions, RandomPairs(torch.tensor([5, 9]), torch.tensor([0, 9])))
    assert scores.own_N[0] > 4, "hardly any of the 200 pictures is nearer than its twin"
    assert scores.own_N[2] < 1, "nearly every picture is nearer than the others of its caption"
    assert bool(torch.isnan(scores.own_N[3:]).all())
    assert torch.isnan(scores.null_M).tolist() == [False, True]


def test_evidence_that_says_the_same_counts_once() -> None:
    wrong = np.r_[np.ones(400, bool), np.zeros(3600, bool)]
    seen, other = (
        Scores(torch.cat([normal(400, 0, seed), normal(3600, 2, seed + 1)]), normal(20000, 0, seed + 2))
        for seed in (0, 10)
    )
    twice = Calibration.fit({"a": seen, "b": seen, "c": seen, "d": other})
    slope = {name: line.slope for name, line in twice.odds.items()}
    assert slope["a"] + slope["b"] + slope["c"] < 1.5 * slope["d"], "it would be 3 if each counted by itself"
    found = twice.judge({name: (other if name == "d" else seen).own_N for name in "abcd"})[0]
    # Added up as they are, the three drown the fourth.
    drowned = 3 * LogOdds.fit(seen)(seen.own_N) + LogOdds.fit(other)(other.own_N)
    assert roc_auc_score(wrong, -found) > roc_auc_score(wrong, -drowned) + 0.005


def test_folds_are_cut_by_group_and_stay() -> None:
    groups = np.random.default_rng(0).integers(0, 400, 900)
    ids = np.stack([groups, np.full(900, -1)], axis=1)
    keys = [f"row {number:04}" for number in range(900)]
    folds = cut_folds(ids, keys, 3)
    assert all(len(set(folds[groups == group])) == 1 for group in np.unique(groups))
    assert np.bincount(folds).min() > 200
    some = np.sort(np.random.default_rng(1).permutation(900)[:850])
    first = {group: min(key for key, own in zip(keys, groups, strict=True) if own == group) for group in groups}
    kept = [place for place, row in enumerate(some) if first[groups[row]] in {keys[other] for other in some}]
    smaller = cut_folds(ids[some], [keys[row] for row in some], 3)
    assert np.array_equal(smaller[kept], folds[some][kept])
    with pytest.raises(DataError, match=r"crossfit: 100 pairs in .* groups are too few for 5 folds"):
        cut_folds(ids[:100], keys[:100], 5)


def test_captions() -> None:
    texts = [f"a red dress number {number}" for number in range(40)]
    texts += ["the same for all of them"] * 12
    faulty = {
        "A LONG RED DRESS": "shouting",
        "красное длинное платье": "another script",
        "img_2033.jpg": "file name",
        "IMG 2033": "file name",
        "1234 / 5": "no words",
        "a <b>red</b> dress": "markup",
        "  ": "empty caption",
        "NaN": "empty caption",
        "a " * 30: "too long",
    }
    texts += list(faulty)
    pictures = [str(number) for number in range(len(texts))]
    found = caption_faults(texts, pictures, CaptionConfig(), lambda some: [len(text.split()) for text in some], 20)
    assert [[name for name, _ in faults] for faults in found[52:]] == [[name] for name in faulty.values()]
    assert [[name for name, _ in faults] for faults in found[40:52]] == [["boilerplate"]] * 12
    assert not any(found[:40])
    assert found[40][0][1] == "the same caption stands under 12 different pictures"
    # A catalogue that shouts everywhere, or is Cyrillic throughout, is not told so row by row.
    loud = [text.upper() for text in texts[:40]]
    assert not any(caption_faults(loud, pictures[:40], CaptionConfig()))
    assert not any(caption_faults(["красное платье"] * 5, pictures[:5], CaptionConfig()))
    assert word_set("Red dress, LONG") == word_set("long red Dress!") != word_set("long red dresses")


def scene(seed: int) -> Image.Image:
    squares = np.random.default_rng(seed).integers(0, 256, size=(8, 8, 3), dtype=np.uint8)
    return Image.fromarray(squares).resize((256, 256), Image.Resampling.NEAREST)


def load(folder: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("image", "text")) -> Manifest:
    return Manifest.read(write_manifest(folder, rows, header), DataConfig())


def test_pictures(tmp_path: Path) -> None:
    pictures = {
        "good": scene(0),
        "blank": Image.new("RGB", (256, 256), "white"),
        "dark": scene(1).point(lambda value: value // 6),
        "blurred": scene(2).filter(ImageFilter.GaussianBlur(8)),
        "small": scene(3).resize((40, 60), Image.Resampling.NEAREST),
        "odd shape": scene(4).resize((900, 200), Image.Resampling.NEAREST),
        "placeholder": scene(5),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png")
    (tmp_path / "unreadable picture.png").write_bytes(b"no picture")
    rows = [(f"{name}.png", f"caption of {name}") for name in [*pictures, "unreadable picture"]]
    rows += [("placeholder.png", f"product {number}") for number in range(12)] + [("", "no picture at all")]
    manifest = load(tmp_path, rows)
    survey = survey_photos(manifest)
    found = picture_faults(survey, manifest.texts, PictureConfig())
    names = [[name for name, _ in faults] for faults in found]
    assert names[:8] == [[], *([name] for name in list(pictures)[1:]), ["unreadable picture"]]
    assert names[8:] == [["placeholder"]] * 12 + [["no picture"]]
    assert found[4][0][1] == "the picture has 40 × 60 pixels"
    measures = survey.photos[0].measures
    assert measures is not None
    assert (measures.width, measures.height) == (256, 256)


def test_the_size_is_that_of_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(0).resize((1600, 400)).save(tmp_path / "turned.jpg", exif=exif)
    survey = survey_photos(load(tmp_path, [("turned.jpg", "a turned picture")]))
    measures = survey.photos[0].measures
    assert measures is not None
    assert (measures.width, measures.height) == (400, 1600)


def test_doubles(tmp_path: Path) -> None:
    for number in range(6):
        scene(number).save(tmp_path / f"{number}.jpg", quality=92)
    scene(0).save(tmp_path / "0-again.jpg", quality=60)
    rows = [
        ("0.jpg", "a red dress", "p0", "train"),
        ("0.jpg", "a red dress", "p0", "train"),
        ("0-again.jpg", "a blue dress", "p1", "val"),
        ("1.jpg", "a green bag", "p2", "train"),
        ("2.jpg", "a green bag from behind", "p2", "train"),
        ("3.jpg", "A bag, green", "p3", "train"),
        ("1.jpg", "a green bag with a strap", "p4", "train"),
        ("4.jpg", "a white lamp", "p5", "train"),
        ("5.jpg", "a black shoe", "p6", "train"),
    ]
    manifest = load(tmp_path, rows, ("image", "text", "group", "split"))
    survey = survey_photos(manifest)
    product = products(manifest, survey.keys())
    found = repeat_faults(manifest, survey, same_looks(manifest, survey), product)
    names = [[name for name, _ in faults] for faults in found]
    assert names == [
        ["look-alike", "crosses splits"],
        ["duplicate row", "look-alike", "crosses splits"],
        ["look-alike", "crosses splits"],
        ["shared picture", "similar caption"],
        [],
        ["similar caption"],
        ["shared picture"],
        [],
        [],
    ]
    assert found[1][0][1] == "the same picture and caption as products.csv:2"
    assert found[2][1][1] == "its picture stands in train too (products.csv:2)"


def planted(folder: Path, size: int = 240, share: float = 0.25) -> tuple[Path, np.ndarray]:
    """Photos of two colours in one of two layouts, captions that say which; some are moved."""
    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    kinds = generator.integers(0, 4, size)
    colours = np.array([(220, 40, 40), (40, 60, 220), (40, 190, 60), (230, 200, 40)])
    rows = []
    for number, kind in enumerate(kinds):
        cells = np.clip(colours[kind] + generator.normal(0, 12, (8, 8, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(cells).resize((96, 96), Image.Resampling.NEAREST).save(folder / f"images/{number}.png")
        rows.append([f"images/{number}.png", ("red dress", "blue shoe", "green bag", "yellow lamp")[kind], number])
    moved = generator.permutation(size)[: round(share * size)]
    words = [row[1] for row in rows]
    for target, source in zip(moved, np.roll(moved, 1), strict=True):
        rows[target][1] = words[source]
    wrong = np.array([row[1] != word for row, word in zip(rows, words, strict=True)])
    return write_manifest(folder, [(image, f"a {text} no {number}") for image, text, number in rows]), wrong


@pytest.mark.parametrize("folds", [1, 2])
def test_moved_captions_are_found(tmp_path: Path, folds: int) -> None:
    path, wrong = planted(tmp_path / "data", size=240 if folds == 1 else 500)
    manifest = Manifest.load(path)
    heads = {"kind": "linear", "standardise": True}
    values = {"folds": folds, "crossfit": {"dim": 16, "text_head": heads, "image_head": heads}}
    values["crossfit"]["train"] = {"epochs": 3, "batch_size": 64, "lr": 0.003}  # type: ignore[index]
    config = parse_config(AuditConfig, values)
    model = tiny_model()
    told: list[tuple[int, int]] = []
    result = audit_catalogue(model, manifest, config, shared=False, progress=lambda *part: told.append(part))
    probability = np.array([row.probability for row in result.rows])
    assert roc_auc_score(wrong, probability) > 0.95
    assert result.share == pytest.approx(wrong.mean(), abs=0.12)
    kinds = {name for row in result.rows for name in row.scores}
    assert kinds == {"neighbours"} | ({"cosine"} if folds > 1 else set())
    flagged = [row for row in result.rows if row.verdict == "wrong"]
    assert all(row.findings[0] == "mismatch" and "likely not to fit" in row.reason for row in flagged)
    assert all(
        "the caption fits the picture of products.csv:" in row.reason for row in flagged if row.better is not None
    )
    if folds > 1:
        steps = [part for part in told if part[1] == told[-1][1]]
        assert steps[-1][0] == steps[-1][1], "the last thing that takes long is the last fold's training"
        assert steps == sorted(steps)
        better = [(row.row, row.better) for row in flagged if row.better is not None and wrong[row.row]]
        right = [manifest.texts[a].split()[1] == _colour(tmp_path / f"data/images/{b}.png") for a, b in better]  # type: ignore[union-attr]
        assert len(right) > 30
        assert np.mean(right) > 0.7


def test_one_product_alone_is_not_compared(tmp_path: Path) -> None:
    path, _ = planted(tmp_path / "data")
    manifest = Manifest.load(path)
    alone = replace(manifest, group=["p1"] * len(manifest))
    result = audit_catalogue(tiny_model(), alone, AuditConfig(), shared=False)
    assert any("there is no other to compare them with" in note for note in result.notes)
    assert result.share is None
    assert all(row.probability is None for row in result.rows)


def _colour(path: Path) -> str:
    red, green, blue = np.asarray(Image.open(path)).reshape(-1, 3).mean(0)
    return "yellow" if min(red, green) > 150 else ("red", "green", "blue")[int(np.argmax((red, green, blue)))]


def test_the_files(tmp_path: Path) -> None:
    path, wrong = planted(tmp_path / "data")
    with open(path, "a", encoding="utf-8") as stream:
        stream.write("images/0.png,\nimages/missing.png,a red dress of nobody\n")
    manifest = Manifest.load(path)
    config = AuditConfig()
    result = audit_catalogue(tiny_model(), manifest, config, shared=False)
    out = tmp_path / "audit"
    summary = write_audit(out, manifest, result, config, "tiny")
    kept = json.loads((out / "summary.json").read_text())
    assert set(kept.pop("files")) >= {"audit.parquet", "audit.csv", "products.csv", "cleaned.csv", "state/judge.json"}
    assert summary == kept
    assert sum(summary["verdicts"].values()) == summary["rows"] == len(manifest)
    assert summary["compared"] == len(wrong)
    table = pq.read_table(out / "audit.parquet").to_pydict()
    with open(out / "audit.csv", newline="", encoding="utf-8") as stream:
        sheet = list(csv.DictReader(stream))
    assert list(table) == list(sheet[0])
    assert [row["reason"] for row in sheet] == table["reason"]
    assert table["findings"][-1] == "unreadable picture"
    with open(out / "products.csv", newline="", encoding="utf-8") as stream:
        per_product = list(csv.DictReader(stream))
    assert len(per_product) == summary["products"] == len(set(table["product"]))
    for name, count in summary["verdicts"].items():
        assert sum(int(product[name]) for product in per_product) == count
    worst = [float(product["worst"]) for product in per_product]
    assert worst == sorted(worst, reverse=True)
    twice = next(product for product in per_product if product["first_key"] == table["key"][0])
    assert (twice["rows"], twice["pictures"], "empty caption" in twice["findings"]) == ("2", "1", True)
    assert table["probability"][-1] is None
    cleaned = Manifest.load(out / "cleaned.csv", DataConfig(root=str(manifest.root)))
    assert len(cleaned) == summary["usable"] == sum(table["usable"])
    assert cleaned.weight.min() >= 0.5 - 1e-3
    kept = {key: 1 - (p or 0) for key, p in zip(table["key"], table["probability"], strict=True)}
    assert cleaned.weight == pytest.approx([kept[key] for key in cleaned.keys], abs=1e-3)
    overrides = [f"data.train={out / 'cleaned.csv'}", f"data.root={manifest.root}", "data.val=null", "train.steps=2"]
    overrides += ["train.batch_size=16", "evaluation.retrieval=false"]
    run_training(load_run_config(ROOT / "configs/demo.yaml", overrides), tmp_path / "run")
    assert (tmp_path / "run/model.json").is_file()


def test_the_cleaned_manifest_keeps_its_column_names(tmp_path: Path) -> None:
    for number in range(4):
        scene(number).save(tmp_path / f"{number}.png")
    rows = [(f"{number}.png", f"title {number}", f"brand {number}", f"sku{number}") for number in range(4)]
    path = write_manifest(tmp_path, rows, ("photo", "title", "brand", "sku"))
    for text, expected in (("title", "title"), (["brand", "title"], "text")):
        manifest = Manifest.load(path, DataConfig(image="photo", text=text, id="sku"))
        config = AuditConfig()
        write_audit(tmp_path / "out", manifest, audit_catalogue(tiny_model(), manifest, shared=False), config, "tiny")
        with open(tmp_path / "out/cleaned.csv", newline="", encoding="utf-8") as stream:
            cleaned = list(csv.DictReader(stream))
        assert list(cleaned[0])[:4] == ["sku", "photo", expected, "weight"]
        assert cleaned[1][expected] == manifest.texts[1]
        assert ("brand" in cleaned[0]) == (expected == "title")


def test_too_few_to_compare_are_still_looked_at(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(3):
        draw_photo(tmp_path / f"images/{number}.png", number)
    manifest = load(tmp_path, [(f"images/{number}.png", f"text {number}") for number in range(3)])
    result = audit_catalogue(tiny_model(), manifest, shared=False)
    assert result.share is None
    assert result.notes == ["3 rows have both a caption and a picture, too few to compare them; 50 are needed"]
    assert {row.verdict for row in result.rows} == {"faulty"}, "40 pixels are small"


@pytest.mark.parametrize("folds", [1, 2])
def test_run_again_it_judges_what_changed(tmp_path: Path, folds: int) -> None:
    path, wrong = planted(tmp_path / "data", size=300 if folds == 1 else 500)
    lines = path.read_text().splitlines()
    values = {"folds": folds, "crossfit": {"dim": 16, "train": {"epochs": 2, "batch_size": 64}}}
    config = parse_config(AuditConfig, values)
    model, out = tiny_model(), tmp_path / "out"

    def run(some: list[str]) -> tuple[Manifest, AuditResult]:
        path.write_text("\n".join(some) + "\n")
        manifest = Manifest.load(path)
        decisions, _ = read_decisions(out)
        memory = Memory.load(out)
        result = audit_catalogue(model, manifest, config, shared=False, memory=memory, decisions=decisions)
        write_audit(out, manifest, result, config, "tiny")
        return manifest, result

    _, first = run(lines[:-10])
    assert (first.judged, first.compared) == (len(lines) - 11, len(lines) - 11)
    again = run(lines[:-10])[1]
    assert again.judged == 0
    assert [row.probability for row in again.rows] == [row.probability for row in first.rows]
    assert [row.reason for row in again.rows] == [row.reason for row in first.rows]
    # Ten rows come, one caption changes, one row goes.
    image, text = lines[5].split(",")
    other = "yellow lamp" if "yellow" not in text else "red dress"
    changed = [*lines[:5], f"{image},a {other} no 999", *lines[6:20], *lines[21:]]
    _, third = run(changed)
    assert third.judged == 11
    assert (third.rows[4].probability or 0) > 0.5
    kept = [row for row in range(len(third.rows)) if row != 4 and row < len(lines) - 12]
    before = [row.probability for number, row in enumerate(first.rows) if number != 19]
    assert [third.rows[row].probability for row in kept] == [before[row] for row in kept]
    new = np.array([row.probability for row in third.rows[-10:]])
    assert roc_auc_score(wrong[-10:], new) > 0.9
    # Where most is new, all is judged anew.
    assert run([line.replace("a ", "one ") for line in changed])[1].judged == len(changed) - 1


def test_decisions_stand(tmp_path: Path) -> None:
    path, _ = planted(tmp_path / "data", size=120)
    manifest, config, out = Manifest.load(path), AuditConfig(), tmp_path / "out"
    model = tiny_model()
    result = audit_catalogue(model, manifest, config, shared=False)
    write_audit(out, manifest, result, config, "tiny")
    bad = [row for row in result.rows if row.verdict == "wrong"][:2]
    good = next(row for row in result.rows if row.verdict != "wrong" and row.usable)
    stale = next(row.row for row in reversed(result.rows) if row.row not in (bad[0].row, bad[1].row, good.row))
    said = [
        Decision(manifest.keys[bad[0].row], bad[0].content, "wrong"),
        Decision(manifest.keys[bad[0].row], bad[0].content, "right"),
        Decision(manifest.keys[bad[1].row], bad[1].content, "fix", "a green bag, mended"),
        Decision(manifest.keys[good.row], good.content, "wrong"),
        Decision(manifest.keys[stale], "0" * 32, "wrong"),
    ]
    for one in said:
        record_decision(out, one)
    with open(out / "decisions.jsonl", "a") as stream:
        stream.write('{"key": "1", "cont')
    record_decision(out, said[0])
    record_decision(out, said[1])
    decisions, broken = read_decisions(out)
    assert broken == 1
    assert decisions[manifest.keys[bad[0].row]].choice == "right"
    result = audit_catalogue(model, manifest, config, shared=False, memory=Memory.load(out), decisions=decisions)
    summary = write_audit(out, manifest, result, config, "tiny")
    assert result.judged == 0
    assert (result.rows[bad[0].row].verdict, result.rows[good.row].verdict) == ("ok", "wrong")
    assert summary["decided"] == 3
    assert any("1 decisions are of rows that have changed since" in note for note in summary["notes"])
    cleaned = Manifest.load(out / "cleaned.csv", DataConfig(root=str(manifest.root)))
    rows = {key: row for row, key in enumerate(cleaned.keys)}
    assert manifest.keys[good.row] not in rows
    mended = rows[manifest.keys[bad[1].row]]
    assert (cleaned.texts[mended], cleaned.weight[mended]) == ("a green bag, mended", 1.0)
    assert cleaned.weight[rows[manifest.keys[bad[0].row]]] == 1.0
    with pytest.raises(UsageError, match=r"expected right, wrong, or fix with the text"):
        record_decision(out, Decision("1", "2", "fix"))
    with pytest.raises(UsageError, match=r"the decision cannot be saved"):
        record_decision(tmp_path / "nowhere", said[0])


def test_a_state_that_is_not_whole_is_not_read(tmp_path: Path) -> None:
    path, _ = planted(tmp_path / "data", size=80)
    manifest, config, out = Manifest.load(path), AuditConfig(), tmp_path / "audit"
    write_audit(out, manifest, audit_catalogue(tiny_model(), manifest, config, shared=False), config, "tiny")
    assert Memory.load(out) is not None
    whole = (out / "state/judged.parquet").read_bytes()
    (out / "state/judged.parquet").write_bytes(whole[:200])
    assert Memory.load(out) is None
    (out / "state/judged.parquet").write_bytes(whole)
    (out / "state/judge.json").write_text('{"format": 1}')
    assert Memory.load(out) is None


def test_a_config_out_of_order() -> None:
    with pytest.raises(ConfigError, match=r"doubtful=0.9 is above wrong=0.5"):
        parse_config(AuditConfig, {"doubtful": 0.9})


def test_the_command(tmp_path: Path, dalr: Run) -> None:
    path, _ = planted(tmp_path / "data", size=120)
    tiny_model().save_pretrained(tmp_path / "model")
    call = ("audit", "--data", path, "--out", tmp_path / "out")
    code, out, error = dalr(*call, "--model", tmp_path / "model", "--json")
    assert code == 0, error
    assert {"verdicts", "findings", "share", "usable", "worst", "compared"} <= set(json.loads(out))
    code, out, error = dalr(*call, "--model", tmp_path / "model", "wrong=0.9")
    assert code == 0, error
    assert "120 rows" in out
    for more, message in (
        ((), "give --model, --store, or --text-encoder with --image-encoder"),
        (("--text-encoder", "new"), "--text-encoder and --image-encoder go together"),
        (("--model", tmp_path / "model", "wrng=1"), "did you mean 'wrong'"),
        (("--model", tmp_path / "model", "--out", path), "is not an audit's folder"),
        (("--store", tmp_path / "none"), "is not a catalogue's store"),
    ):
        code, out, error = dalr(*call, *more)
        assert (code, out, len(error.splitlines())) == (2, "", 1), error
        assert message in error


def test_a_full_disk_costs_nothing_that_was_there(tmp_path: Path) -> None:
    """The system itself refuses to write more than a few kilobytes into any file."""
    path, _ = planted(tmp_path)
    tiny_model().save_pretrained(tmp_path / "model")
    arguments = ["audit", "--model", str(tmp_path / "model"), "--data", str(path), "--out", str(tmp_path / "out")]
    code = (
        "import resource, sys\n"
        "limit = int(sys.argv.pop(1))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
        "from dalr.cli import main\n"
        "main()\n"
    )

    def run(limit: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, str(limit), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    full = run(2_000)
    assert full.returncode in (1, 2), full.stderr
    assert full.stderr.splitlines()[-1].startswith("dalr audit: ")
    assert "Traceback" not in full.stderr
    done = run(2**30)
    assert done.returncode == 0, done.stderr
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir() if file.is_file()}
    again = run(2_000)
    assert again.returncode == 2, again.stderr
    assert "the audit cannot be written" in again.stderr
    assert "File too large" in again.stderr
    assert again.stderr.count("\n") == 1
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir() if file.is_file()} == before
