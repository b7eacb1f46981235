"""The study's runner and its figures: `scripts/run_study.py`, `scripts/draw_study.py`.

Invariants: the shards are the grid, each cell once; what is ablated is each term of the method, off, alone, halved
and doubled, and every such cell is a config; a study that names what is not there is refused by its key; a difference
that is there is found and one that is not is not, also with few seeds, the same queries drawn for both methods,
captions of one photo together; a cell that fails costs itself alone; a finished cell is not run again, a changed one
is refused and left out of the tables, and run anew it gives the same numbers; methods that look at no image see the
same sentences in the same batches as those that do; the shipped studies are configs; the same result draws the same
figures.
"""

import importlib
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from dalr import DualEncoder
from dalr.checkpoint import list_checkpoints
from dalr.run.assembly import assemble
from dalr.run_folder import lock_run
from dalr.training_log import read_log

ROOT = Path(__file__).parents[1]
STUDIES = [path for path in sorted((ROOT / "configs/study").glob("*.yaml")) if "\nmethods:" in path.read_text()]


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.chdir(ROOT)
    return importlib.import_module("run_study")


def call(study: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["run_study.py", *arguments])
    try:
        study.main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    return 0


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_study_is_a_grid_of_configs(
    study: Any, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("DALR_DATA", "data")
    assert call(study, monkeypatch, str(path), "--out", "runs/none", "--dry-run") == 0
    commands = capsys.readouterr().out.splitlines()
    assert len(commands) == len(set(commands)) > 1
    parts = []
    for shard in range(3):
        call(study, monkeypatch, str(path), "--out", "runs/none", "--dry-run", "--shard", f"{shard}/3")
        parts.append(capsys.readouterr().out.splitlines())
    assert sorted(line for part in parts for line in part) == sorted(commands)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def write(tmp_path: Path, **values: Any) -> Path:
    whole = {
        "config": str(ROOT / "configs/study/student.yaml"),
        "seeds": [0],
        "baseline": "simcse",
        "methods": {"simcse": ["objective={name: simcse}"], "dalr": ["objective={name: dalr, profile: paper}"]},
        "data": "data",
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**whole, **values}, sort_keys=False))
    return path


def test_every_term_is_ablated(study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DALR_DATA", "data")
    methods = {
        "simcse": ["objective={name: simcse}"],
        "dalr": ["objective={name: dalr, profile: paper, rank_cross: 1}"],
    }
    read = study.load_config(study.Study, write(tmp_path, methods=methods, ablate="dalr"))
    cells = {cell.method: cell.parsed().objective for cell in study.cells(read, tmp_path)}
    whole = cells["dalr"]
    weights = {term: getattr(whole, term) for term in study.TERMS if getattr(whole, term)}
    assert list(weights) == ["info", "cross", "consistency", "soft_cross", "soft_intra", "rank", "rank_cross"]
    assert set(study.TERMS) < set(study.LOSS_PARTS)
    for term, weight in weights.items():
        for name, factor in (("off", 0), ("half", 0.5), ("double", 2)):
            found = {other: getattr(cells[f"dalr.{term}.{name}"], other) for other in weights}
            assert found == pytest.approx({**weights, term: weight * factor})
    alone = {term: getattr(cells["dalr.rank.alone"], term) for term in study.TERMS}
    assert alone == {**dict.fromkeys(study.TERMS, 0), "info": whole.info, "rank": whole.rank}
    assert len(cells) == 2 + 4 * len(weights)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"baseline": "simsce"}, "baseline: 'simsce' is none of the methods (simcse, dalr)"),
        ({"methods": {"a b": []}, "baseline": "a b"}, "'a b' names a folder"),
        ({"seed": [0]}, "unknown key 'seed'; did you mean 'seeds'?"),
        ({"measures": ["graded"]}, "retrieval.attributes: name the columns"),
        ({"retrieval": {"split": "test"}}, "retrieval.manifest: name the manifest"),
        ({"methods": {"simcse": ["objective.nam=dalr"]}}, "only, simcse: "),
        ({"methods": {"simcse": ["objective.nam=dalr"]}}, "unknown key 'objective.nam'"),
        ({"config": "nowhere.yaml"}, "nowhere.yaml: cannot be read"),
    ],
)
def test_what_is_wrong_is_told(
    study: Any, values: dict[str, Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("DALR_DATA", "data")
    assert call(study, monkeypatch, str(write(tmp_path, **values)), "--out", str(tmp_path / "out")) == 2
    assert says in capsys.readouterr().err
    assert call(study, monkeypatch, str(write(tmp_path)), "--out", str(tmp_path / "out"), "--shard", "3/3") == 2
    assert "--shard 3/3: expected I/N" in capsys.readouterr().err


@pytest.mark.parametrize("measure", ["sts", "retrieval"])
def test_a_difference_is_found_where_there_is_one(study: Any, measure: str) -> None:
    from study_tables import compare

    draw = np.random.default_rng(0)
    gold = draw.uniform(0, 5, 400)
    noise = {name: draw.normal(size=(3, 400)) for name in ("same", "other")}

    def cell(method: str, seed: int, spread: float, of: str) -> dict[str, Any]:
        scores = {"A": gold + spread * noise[of][seed % 3], "A.gold": gold}
        if measure == "retrieval":
            scores = {"text_to_image": np.exp(-np.abs(spread * noise[of][seed % 3]))}
        return {"setting": "only", "method": method, "seed": seed, "scores": {measure: scores}}

    methods = {"base": (2.0, "same"), "equal": (2.0, "other"), "better": (1.5, "same"), "twin": (2.0, "same")}
    found = [cell(method, seed, *how) for method, how in methods.items() for seed in range(3)]
    # Two methods are compared on the seeds that both have, whatever a third lacks.
    found.append(cell("base", 3, 0.0, "same"))
    found.append(cell("late", 3, 0.0, "other"))
    differences = compare(found, 200)["only"]["sts" if measure == "sts" else "retrieval text_to_image"]
    better, equal, twin = (differences[name]["base"] for name in ("better", "equal", "twin"))
    assert better["low"] > 0
    assert better["p"] < 0.05
    assert differences["base"]["better"]["difference"] == -better["difference"]
    assert equal["low"] < 0 < equal["high"]
    assert equal["p"] > 0.05
    # The same queries are drawn for both.
    assert (twin["difference"], twin["low"], twin["high"], twin["p"]) == (0, 0, 0, 1)
    assert better["seeds"] == 3
    assert differences["late"]["base"]["seeds"] == 1
    assert "late" not in differences["better"]


def test_few_seeds_do_not_make_a_difference(study: Any) -> None:
    from study_tables import compare

    draw = np.random.default_rng(0)

    def cell(method: str, seed: int) -> dict[str, Any]:
        # What a seed does to all queries alike is far more than what tells queries apart.
        ranks = 0.5 + 0.05 * draw.normal() + 0.01 * draw.normal(size=100)
        return {"setting": "only", "method": method, "seed": seed, "scores": {"retrieval": {"text_to_image": ranks}}}

    trials = [compare([cell(name, seed) for name in "ab" for seed in range(3)], 20) for _ in range(300)]
    p = np.array([trial["only"]["retrieval text_to_image"]["a"]["b"]["p"] for trial in trials])
    # Nothing is there: five in a hundred, give or take what 300 trials can tell.
    assert 0.02 < (p < 0.05).mean() < 0.09


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_many_queries_are_enough_where_seeds_are_alike(study: Any, seeds: int) -> None:
    """Two or three seeds alone have hardly a degree of freedom; where they agree, it is the queries that decide."""
    from study_tables import compare

    draw = np.random.default_rng(0)

    def trial(gain: float) -> float:
        easy = draw.normal(size=300)  # how far each query is easier for the one method, whatever its seed

        def cell(method: str, seed: int) -> dict[str, Any]:
            ranks = (method == "a") * (easy + gain) + 0.001 * draw.normal(size=300)
            return {"setting": "s", "method": method, "seed": seed, "scores": {"retrieval": {"text_to_image": ranks}}}

        found = compare([cell(name, seed) for name in "ab" for seed in range(seeds)], 50)
        return float(found["s"]["retrieval text_to_image"]["a"]["b"]["p"])

    assert 0.02 < np.mean([trial(0.0) < 0.05 for _ in range(200)]) < 0.1
    # Four standard errors of the mean of 300.
    assert np.mean([trial(4 / 300**0.5) < 0.05 for _ in range(50)]) > 0.9


def test_only_what_met_the_same_queries_is_compared(study: Any) -> None:
    from study_tables import compare, tables

    draw = np.random.default_rng(0)

    def cell(method: str, seed: int, gold: np.ndarray) -> dict[str, Any]:
        figures = {
            "setting": "only",
            "method": method,
            "seed": seed,
            "dev": 1.0,
            "cost": {"seconds": 60},
            "command": "",
        }
        figures["retrieval"] = {name: {"mrr": 1.0, "ndcg@10": 1.0, "recall@1": 1.0} for name in ("text_to_image",)}
        ranks = {"text_to_image": draw.uniform(size=len(gold)), "text_to_image.group": gold}
        return {**figures, "scores": {"retrieval": ranks}}

    whole, other = np.arange(50), np.arange(50) // 2
    found = [cell(name, seed, whole) for name in ("one", "two", "odd") for seed in range(2)]
    found[5] = cell("odd", 1, other)  # as many queries, and others
    differences = compare(found, 20)["only"]["retrieval text_to_image"]
    assert differences["one"]["two"]["seeds"] == 2
    assert differences["one"]["odd"]["seeds"] == 1
    # Parts that hang on the seed, alike for all methods, are compared seed by seed.
    parts = [cell(name, seed, (whole, other)[seed]) for name in ("one", "two") for seed in range(2)]
    assert compare(parts, 20)["only"]["retrieval text_to_image"]["one"]["two"]["seeds"] == 2
    # The study's baseline has not this figure: the first method that has is what others are compared with.
    table = tables(found, "simcse", {"only": {"retrieval text_to_image": differences}})
    assert "less one | p (seeds)" in table
    assert f"{differences['two']['one']['difference']:+.2f} [" in table


def test_captions_of_one_photo_are_one_query(study: Any) -> None:
    from study_tables import compare

    draw = np.random.default_rng(0)
    photos = np.repeat(np.arange(40), 5)
    gain = np.repeat(draw.normal(size=40), 5)

    def cell(method: str, grouped: bool) -> dict[str, Any]:
        scores = {"text_to_image": gain * (method == "a")}
        if grouped:
            scores["text_to_image.group"] = photos
        return {"setting": "only", "method": method, "seed": 0, "scores": {"retrieval": scores}}

    alone, together = (
        compare([cell("a", grouped), cell("b", grouped)], 400)["only"]["retrieval text_to_image"]["a"]["b"]
        for grouped in (False, True)
    )
    assert together["difference"] == alone["difference"]
    # Five equal queries a photo: the interval is that of 40, not of 200.
    wider = (together["high"] - together["low"]) / (alone["high"] - alone["low"])
    assert wider == pytest.approx(5**0.5, rel=0.15)


@pytest.mark.data
def test_the_student_is_what_is_written_of_it(data_dir: Path) -> None:
    from dalr.evaluation.sts import sts_dev

    student = DualEncoder.from_pretrained(ROOT / "assets/encoder")
    assert sts_dev(student, data_dir / "sts")["sts_dev"] == pytest.approx(65.5, abs=0.05)
    assert "65.5 on STS-B dev" in (ROOT / "docs/language.md").read_text()


def test_told_to_end_it_ends_its_training_and_goes_on_later(tmp_path: Path) -> None:
    """A kill in the middle of a cell: nothing keeps its folder, and the next call ends it from its checkpoint."""
    (tmp_path / "corpus.txt").write_text("".join(f"sentence {n} of a small text\n" for n in range(200)))
    (tmp_path / "config.yaml").write_text(
        f"data: {{corpus: {tmp_path / 'corpus.txt'}}}\nobjective: {{name: simcse}}\n"
        "model: {text: {name: new, train: full, new: {layers: 1, width: 16, heads: 2, vocab_size: 100}}}\n"
        "train: {steps: 400, batch_size: 64, checkpoint_every: 10}\n"
    )
    (tmp_path / "study.yaml").write_text(
        f"config: {tmp_path / 'config.yaml'}\nseeds: [0]\nbaseline: one\nmethods: {{one: []}}\nmeasures: []\n"
        f"data: {tmp_path}\n"
    )
    command = [sys.executable, "scripts/run_study.py", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out")]
    run = tmp_path / "out/only/one-0"
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list_checkpoints(run / "checkpoints") and time.monotonic() < deadline:
        time.sleep(0.05)
    first.terminate()
    assert first.wait(60) == 143
    with lock_run(run):  # nobody holds it
        pass
    assert json.loads((run / "run.json").read_text())["status"] == "running"
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert [event["event"] for event in read_log(run / "log.jsonl")].count("resume") == 1
    known = json.loads(run.with_name("one-0.json").read_text())
    assert set(known["sources"]) == {"data.corpus"}
    assert known["peak_memory_gib"] > 0.1
    piped = subprocess.run(f"{shlex.join(command)} --dry-run | head -c 5", shell=True, cwd=ROOT, capture_output=True)
    assert (piped.stdout, piped.stderr) == (b"dalr ", b"")


@pytest.mark.data
def test_a_small_study_on_real_sentences(
    study: Any, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    flickr, own = data_dir / "flickr8k", tmp_path / "data"
    for path in (data_dir / "sts").rglob("*.*"):
        part = own / path.relative_to(data_dir)
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:60]), encoding="utf-8")
    for name in ("flickr8k", "models"):
        (own / name).symlink_to(data_dir / name)
    monkeypatch.setenv("DALR_DATA", str(own))
    captions = (flickr / "captions_without_images.txt").read_text().splitlines()[:300]
    photos = tmp_path / "photos.csv"
    photos.write_text("\n".join((flickr / "captions.csv").read_text().splitlines()[:121]))
    (tmp_path / "corpus.txt").write_text("\n".join(captions))
    student = "{name: new, train: full, max_length: 16, new: {layers: 1, width: 16, heads: 2, vocab_size: 300}}"
    small = [
        f"data.corpus={tmp_path / 'corpus.txt'}",
        f"data.train={photos}",
        f"data.root={flickr}",
        f"model.text={student}",
        "teachers=[{name: 'lexical:words', side: text}, {name: '${DALR_DATA}/models/mobilenetv2_100', side: image}]",
        "train.steps=4",
        "train.evaluate_every=null",
        "train.batch_size=16",
    ]
    values: dict[str, Any] = {
        "settings": {"small": small},
        "measures": ["sts", "geometry", "retrieval"],
        "data": str(own),
        "retrieval": {"manifest": str(photos), "root": str(flickr), "split": "train"},
    }
    path = write(tmp_path, **values)
    out, result = tmp_path / "out", tmp_path / "result.json"
    arguments = (str(path), "--out", str(out), "--json", str(result), "--resamples", "20")
    assert call(study, monkeypatch, *arguments) == 0, capsys.readouterr().err
    written = json.loads(result.read_text())
    simcse, dalr = written["cells"]
    assert simcse["command"].startswith("dalr train configs/study/student.yaml ")
    assert f"data.root={flickr}" in simcse["command"]
    assert "retrieval" not in simcse
    assert dalr["retrieval"]["text_to_image"]["queries"] > 50
    assert dalr["cost"]["peak_memory_gib"] > 0.1
    assert dalr["inputs"]["data.train"] == simcse["inputs"]["data.train"]
    assert "teachers.${DALR_DATA}/models/mobilenetv2_100" in dalr["inputs"]
    told = written["differences"]["small"]["sts"]["dalr"]["simcse"]
    assert told["difference"] == pytest.approx(dalr["sts"]["avg"] - simcse["sts"]["avg"], abs=0.01)
    table = (out / "table.md").read_text()
    assert f"| dalr | 1 | {dalr['sts']['STS12']:.2f} |" in table
    assert f"{dalr['geometry']['uniformity']:.2f}" in table

    assert f"\n    {dalr['command']}\n" in table
    assert dalr["terms"]["info"][-1] == [4, pytest.approx(dalr["terms"]["info"][-1][1])]

    draw = importlib.import_module("draw_study")
    pictures = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        call(draw, monkeypatch, str(result), "--out", str(folder), "--terms", "dalr")
        pictures.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert pictures[0] == pictures[1]
    assert set(pictures[0]) == {"sts.svg", "retrieval.svg", "terms.svg"}

    # In bf16 they are other figures, near these, and kept beside them.
    halved = tmp_path / "bf16.json"
    assert call(study, monkeypatch, *arguments[:3], "--json", str(halved), "--set", "precision=bf16") == 0
    for cell, whole in zip(json.loads(halved.read_text())["cells"], (simcse, dalr), strict=True):
        assert cell["sts"]["pearson"] != whole["sts"]["pearson"]
        assert cell["sts"]["avg"] == pytest.approx(whole["sts"]["avg"], abs=1)
        assert cell["geometry"] == whole["geometry"]
    assert len(list((out / "small/simcse-0").glob("sts-*.json"))) == 2

    # A finished cell is not run again; one that is gone comes back the same; one that cannot run costs itself alone.
    before = (out / "small/simcse-0/run.json").stat().st_mtime_ns
    shutil.rmtree(out / "small/dalr-0")
    methods = yaml.safe_load(path.read_text())["methods"]
    broken = {"broken": ["objective={name: rankcse}", "teachers=[]"], **methods}
    assert call(study, monkeypatch, str(write(tmp_path, **values, methods=broken)), *arguments[1:]) == 1
    assert "small/broken-0: dalr train ended with 2: " in capsys.readouterr().err
    again = json.loads(result.read_text())
    assert (out / "small/simcse-0/run.json").stat().st_mtime_ns == before
    assert [cell["sts"] for cell in again["cells"]] == [simcse["sts"], dalr["sts"]]
    assert list(again["failed"]) == [str(out / "small/broken-0")]
    # Other sentences in the file that it was trained on: what is finished is no cell of this study any more.
    (tmp_path / "corpus.txt").write_text("\n".join(captions[1:]))
    study.content.cache_clear()
    assert call(study, monkeypatch, str(write(tmp_path, **values)), *arguments[1:]) == 1
    assert capsys.readouterr().err.count("what it was trained on has changed since (data.corpus: ") == 2
    (tmp_path / "corpus.txt").write_text("\n".join(captions))
    study.content.cache_clear()
    values["settings"] = {"small": [*small, "train.steps=5"]}
    assert call(study, monkeypatch, str(write(tmp_path, **values)), *arguments[1:]) == 1
    assert capsys.readouterr().err.count("train.steps: 4 → 5") == 2
    assert json.loads(result.read_text())["cells"] == []

    # What the objectives look at is all in which the methods differ: their batches hold the same sentences.
    values["settings"] = {"small": small}
    read = study.load_config(study.Study, write(tmp_path, **values))
    plans = [assemble(cell.parsed()) for cell in study.cells(read, out)]
    for step in range(6):
        one, other = (plan.data.batch(step) for plan in plans)
        assert one.kind == other.kind
        assert torch.equal(one.text["input_ids"], other.text["input_ids"])
        assert one.image is None
        assert (other.image is None) == (other.kind == "text")
