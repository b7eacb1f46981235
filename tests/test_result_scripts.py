"""The scripts that fill the tables.

Invariants: each can be loaded and explains itself; the Quora pairs are cut so that no question stands in two parts;
schedules keep their shares at any length; the slice of articles ends before its words are used up; a figure that is
there is not made again; a table is filled in parts, of one recipe only, and a run by another config is no cell of it;
the data's folder stands in no command.
"""

import gzip
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from dalr.data.scored_pairs import read_scored_pairs
from dalr.errors import UsageError
from dalr.evaluation.leaks import leak_key
from dalr.run import RunConfig

ROOT = Path(__file__).parents[1]
SCRIPTS = [
    "adaptation_results",
    "antlm_results",
    "audit_results",
    "broken_expert_results",
    "compression_results",
    "experts_results",
    "fashion_results",
    "search_results",
    "simcse_results",
]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.chdir(ROOT)
    return importlib.import_module


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_explains_itself(load: Any, name: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    script = load(name)
    monkeypatch.setattr("sys.argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 0
    assert f"scripts/{name}.py" in capsys.readouterr().out


def test_no_question_crosses(load: Any, tmp_path: Path) -> None:
    # Now and then with a comma: a leak check takes both for one question.
    rows = [(f"question{',' * (n % 3 == 0)} {n}", f"question {n + 1 if n % 5 else n + 100}", n % 2) for n in range(200)]
    source = tmp_path / "pairs.tsv"
    source.write_text("sentence1\tsentence2\tis_duplicate\n" + "".join(f"{a}\t{b}\t{c}\n" for a, b, c in rows))
    script = load("experts_results")
    script.write_parts(source, tmp_path)
    parts = {name: read_scored_pairs(tmp_path / f"{name}.tsv", high=1)[0] for name in script.SHARES}
    assert sum(map(len, parts.values())) == 200
    texts = {name: {leak_key(text) for text in pairs.sentences()} for name, pairs in parts.items()}
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not texts[one] & texts[other]
    for name, share in script.SHARES.items():
        assert len(parts[name]) == pytest.approx(200 * share, abs=15)


def test_schedules_and_slices(load: Any, tmp_path: Path) -> None:
    script = load("antlm_results")
    assert script.scaled("4_CLM+16_MLM+4_CLM", 0.25) == "1_CLM+4_MLM+1_CLM"
    lengths = {
        name: sum(float(phase.split("_")[0]) for phase in text.split("+")) for name, text in script.SCHEDULES.items()
    }
    assert set(lengths.values()) == {script.WHOLE}
    articles = tmp_path / "articles.jsonl.gz"
    articles.write_bytes(gzip.compress("".join(json.dumps({"text": "a b c"}) + "\n" for _ in range(9)).encode()))
    assert len(script.write_slice(articles, tmp_path, 10).read_text().splitlines()) == 3


def test_a_figure_is_made_once(load: Any, tmp_path: Path) -> None:
    measured = load("measured")
    assert measured.json_once(tmp_path / "a.json", True, dict) is None
    assert measured.json_once(tmp_path / "a.json", False, lambda: {"x": 1}) == {"x": 1}
    assert measured.json_once(tmp_path / "a.json", False, lambda: {"x": 2}) == {"x": 1}
    assert measured.spread([1.0, 3.0]) == "2.00 ± 1.41"


def test_a_run_by_another_config_is_no_cell(load: Any, tmp_path: Path) -> None:
    measured = load("measured")
    values: dict[str, Any] = {"model": {"text": {"name": "new"}}, "objective": {"name": "simcse"}}
    config = RunConfig.model_validate({"data": {"corpus": "a.txt"}, **values})
    assert measured.run_result(tmp_path / "none", config) is None
    record = {"status": "finished", "config": config.model_dump(mode="json"), "result": {"steps": 3}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert measured.run_result(tmp_path, config) == {"steps": 3}
    other = RunConfig.model_validate({"data": {"corpus": "b.txt"}, **values})
    with pytest.raises(UsageError, match=r"data.corpus: 'a.txt' → 'b.txt'"):
        measured.run_result(tmp_path, other)


def test_a_command_names_the_data_by_its_variable(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = load("measured")
    monkeypatch.setenv("DALR_DATA", "data/")
    said = "run.py --data data --set data.train=data/a.csv 'root: data/b' other/data/c metadata"
    data = "${DALR_DATA}"
    wanted = f"run.py --data {data} --set data.train={data}/a.csv 'root: {data}/b' other/data/c metadata"
    assert measured.portable(said) == wanted
    monkeypatch.chdir("/tmp")
    assert measured.portable("--out /tmp/runs --start a=/tmp/b /var/tmp/c") == "--out runs --start a=b /var/tmp/c"


def test_a_table_is_filled_in_parts(load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = load("measured")
    path = tmp_path / "table.json"
    monkeypatch.setattr("sys.argv", ["table.py"])
    recipe = {"config": {"steps": 3}, "sizes": (1, 2), "schedules": {"a": "1_MLM"}, "simcse": None}
    assert measured.with_earlier(path, recipe) == (recipe, {})
    assert measured.with_earlier(None, recipe) == (recipe, {})
    measured.write_result(path, {**recipe, "cells": {"a": {"0": {"x": 1.0}}}})
    more = {"config": {"steps": 3}, "sizes": (1, 2), "schedules": {"b": "1_CLM"}, "simcse": {"rate": 1}}
    joined, cells = measured.with_earlier(path, more)
    assert cells == {"a": {"0": {"x": 1.0}}}
    assert joined["schedules"] == {"a": "1_MLM", "b": "1_CLM"}
    assert joined["simcse"] == {"rate": 1}
    with pytest.raises(SystemExit, match=r"table.json: .*config.steps: 3 there, 4 now"):
        measured.with_earlier(path, {**more, "config": {"steps": 4}})
