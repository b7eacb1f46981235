"""`dalr check` as a user calls it.

Invariants
- Exit 0 when usable rows remain, 1 with --strict if any is bad, 2 when nothing is usable or the source is none.
- --json puts exactly one object on stdout, with the keys that the help names, also when nothing is usable.
- A person sees the guessed columns and every bad row with file:row and reason; piped, nothing is cut or coloured.
- With --config the data, columns and limits are the config's, and the estimate is of that config's own run.
- The command line itself loads neither torch nor datasets.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tiny_catalogue import draw_photo, tiny_catalogue, tiny_model, write_manifest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(dalr: Run) -> Run:
    """Call `dalr check` in this process: (exit code, stdout, stderr)."""
    return partial(dalr, "check")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny_catalogue(tmp_path / "data")


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """Two good rows, a missing photo, a text called .png, an empty caption, and a row that is too short."""
    folder = tmp_path / "faulty"
    folder.mkdir()
    for number in range(3):
        draw_photo(folder / f"{number}.png", number)
    (folder / "text.png").write_text("hello")
    rows = [("0.png", "zero"), ("1.png", "one"), ("none.png", "two"), ("text.png", "three"), ("2.png", ""), ("2.png",)]
    return write_manifest(folder, rows)


def test_exit_codes(run: Run, data: Path, faulty: Path, tmp_path: Path) -> None:
    assert run(data)[0] == 0
    assert run(data, "--strict")[0] == 0
    assert run(faulty)[0] == 0
    code, out, err = run(faulty, "--strict")
    assert code == 1
    assert "4 bad rows, and --strict is on" in err
    nothing = write_manifest(tmp_path, [("none.png", "a"), ("none2.png", "b")])
    code, out, err = run(nothing)
    assert code == 2
    assert "no row is usable" in err
    assert "products.csv:3" in out, "the report is still given"


@pytest.mark.parametrize(
    ("content", "reason"),
    [("", "is empty (0 bytes)"), ("image,text\n", "has no rows"), (None, "no such file or folder"),
     ("image,text,text\na,b,c\n", "the column 'text' is given twice")],
)  # fmt: skip
def test_what_cannot_be_read_exits_2_with_one_line(run: Run, tmp_path: Path, content: str | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "d.csv").write_text(content)
    code, _, err = run(tmp_path / "d.csv")
    assert code == 2
    assert reason in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_a_missing_column_names_the_nearest(run: Run, data: Path) -> None:
    code, out, err = run(data, "--text-column", "txt")
    assert (code, out) == (2, "")
    assert "there is no column 'txt' (data.text); did you mean 'text'?" in err


def test_json_is_one_object_with_the_keys_of_the_help(run: Run, data: Path, faulty: Path) -> None:
    code, out, err = run(faulty, "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert (report["rows"], report["usable"], report["bad"]) == (6, 2, 4)
    assert [row["row"] for row in report["bad_rows"]] == [4, 5, 6, 7]
    assert report["bad_rows"][0] == {
        "file": "products.csv", "row": 4, "key": "4", "reason": "image 'none.png' is missing",
    }  # fmt: skip
    assert report["columns"]["guessed"] == ["image", "text"]
    help_text = " ".join(run("--help")[1].split())
    stated = help_text.split("--json prints:")[1]
    for key, value in report.items():
        assert key in stated, key
        if isinstance(value, dict) and key != "columns":
            assert all(inner in stated for inner in value), key
    empty = data.parent / "none.csv"
    empty.write_text("image,text\nnone.png,a\n")
    code, out, _ = run(empty, "--json")
    assert (code, json.loads(out)["usable"]) == (2, 0)


def test_what_a_person_sees(run: Run, faulty: Path, data: Path, tmp_path: Path) -> None:
    _, out, _ = run(faulty)
    assert "image = image (guessed), text = text (guessed)" in out
    assert "6 read, 2 usable, 4 bad" in out
    for line in ("products.csv:4\t4\timage 'none.png' is missing", "products.csv:6\t6\thas no caption"):
        assert line in out
    assert "\x1b" not in out
    assert all(line == line.rstrip() for line in out.splitlines())
    _, out, _ = run(faulty, "--show", "1", "--bad-rows", tmp_path / "bad.jsonl")
    assert "1 × has no caption" in out
    assert "… and 3 more" in out
    assert [json.loads(line)["row"] for line in (tmp_path / "bad.jsonl").read_text().splitlines()] == [4, 5, 6, 7]
    _, out, _ = run(data)
    assert "1 is there more than once, byte for byte (2 files), such as products.csv:3 ~ products.csv:15" in out


def test_several_files_are_splits_of_one(run: Run, data: Path) -> None:
    (data.parent / "val.csv").write_text("image,text\nimages/3.png,a caption of its own\nimages/copy.png,one more\n")
    _, out, _ = run(data, data.parent / "val.csv", "--json")
    report = json.loads(out)
    assert report["splits"]["rows"] == {"products": 14, "val": 2}
    assert report["splits"]["shared"]["image"]["groups"] == 2
    assert report["source"] == f"{data}, {data.parent / 'val.csv'}"


def test_a_model_gives_token_lengths(run: Run, data: Path, tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "model")
    _, out, err = run(data, "--model", tmp_path / "model", "--json")
    report = json.loads(out)
    assert report["tokens"]["limit"] == 64, err
    assert 4 < report["tokens"]["mean"] <= report["tokens"]["longest"] < 30
    assert report["estimate"]["embedding"]["images"] == 13
    assert report["estimate"]["embedding"]["images_per_second"] > 1


CONFIG = """
data: {{train: "{data}", image: image, text: text, max_pixels: 10000}}
model:
  dim: 16
  text: {{name: new, train: {train}, new: {{layers: 1, width: 32, heads: 2, vocab_size: 200, max_length: 5}}}}
  image: {{name: "timm:test_resnet", pretrained: false, image_size: 32}}
objective: {{name: clip}}
train: {{epochs: 6, batch_size: 8}}
"""


@pytest.mark.parametrize("train", ["frozen", "full"])
def test_a_config_gives_columns_limits_and_an_estimate(run: Run, data: Path, tmp_path: Path, train: str) -> None:
    measured = "train: {guard: {metric: mrr}, interpolate: [0.5, 1.0], patience: 2, evaluate_every: 4, "
    (tmp_path / "c.yaml").write_text(
        CONFIG.format(data=data, train=train).replace("train: {epochs", f"{measured}epochs")
    )
    code, out, err = run("--config", tmp_path / "c.yaml", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["columns"]["guessed"] == []
    assert report["tokens"]["limit"] == 5
    assert report["tokens"]["over"] > 0
    estimate = report["estimate"]
    assert (estimate["embedding"]["texts_per_second"] is None) == (train == "full"), (
        "a tower in training embeds nothing"
    )
    assert abs(estimate["training"]["steps"] - 6 * 14 / 8) <= 1
    assert estimate["training"]["measured_on"]["batch_size"] == 8
    assert estimate["training"]["seconds"] == pytest.approx(
        estimate["training"]["steps"] * estimate["training"]["seconds_per_step"], rel=0.05, abs=0.06
    )
    assert 50 < estimate["memory_mb"] < 20_000
    code, out, _ = run("--config", tmp_path / "c.yaml", "--set", "data.max_pixels=100", "--json")
    report = json.loads(out)
    assert (code, report["usable"], report["images"]["unreadable"]) == (2, 0, 13)
    assert report["estimate"] is None
    assert report["notes"][0].startswith("no estimate:")


def test_overrides_need_a_config_and_data_must_be_named(run: Run, data: Path) -> None:
    for arguments, reason in [
        ((data, "--set", "train.lr=1"), "name one with --config"),
        ((), "name the data to check"),
    ]:
        code, _, err = run(*arguments)
        assert code == 2
        assert reason in err


def test_the_command_line_loads_nothing_heavy() -> None:
    code = (
        "import sys, dalr.cli.check; "
        "print([m for m in ('torch', 'transformers', 'datasets', 'PIL', 'numpy', 'pandas') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"
