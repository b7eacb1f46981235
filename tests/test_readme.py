"""What README tells a newcomer to type works.

Invariants: every fenced block is known here, so that a new command comes with its test; the two scripts exist and
explain themselves; the commands for one's own folder, typed in their order beside a small `my/` folder, exit 0 and
leave what they promise; the Python example runs as it stands; every picture that README shows is there; every command
in its table is one of `dalr`, and none is missing.
"""

import gzip
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from dalr.cli.report import NEXT
from dalr.config import apply_overrides, parse_config, read_yaml
from dalr.simcse.stages import PipelineConfig

Run = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
SCRIPTS = ["bash scripts/quickstart.sh", "bash scripts/test.sh"]
# Sections whose commands need the real data.
WITH_DATA = ("Sentences alone", "A language model of your own text", "Labels from several judges")
# The same commands in seconds: two steps of a small batch on small pictures.
TINY = ["train.steps=2", "train.batch_size=8", "train.evaluate_every=1", "model.image.image_size=32"]


def shell_lines() -> list[str]:
    return [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines() if line]


def lines_of(title: str) -> list[str]:
    """The commands of a section."""
    section = README.partition(f"## {title}\n")[2].partition("\n## ")[0]
    return [line for block in re.findall(r"^```bash\n(.*?)^```", section, re.M | re.S) for line in block.splitlines()]


@pytest.fixture
def sliced_data(data_dir: Path, tmp_path: Path) -> Path:
    """The real data cut to a few lines a file; of a fixed order, those that name classes with every class in it."""
    target = tmp_path / "data"
    for folder in ("sts", "transfer", "minbert", "snli", "blimp"):
        for path in (data_dir / folder).rglob("*"):
            if path.is_file():
                lines = path.read_bytes().splitlines(keepends=True)
                (target / path.relative_to(data_dir)).parent.mkdir(parents=True, exist_ok=True)
                (target / path.relative_to(data_dir)).write_bytes(b"".join(lines[:120]))
    for name in ("train_5500.label", "TREC_10.label"):
        lines = (data_dir / "transfer/TREC" / name).read_bytes().splitlines(keepends=True)
        by_class = sorted(lines, key=lambda line: line.split(b":")[0])
        chosen = [line for n, line in enumerate(by_class) if n % 40 == 0] + [
            line for line in lines if line[:4] == b"ABBR"
        ]
        (target / "transfer/TREC" / name).write_bytes(b"".join(chosen[:300]))
    captions = (data_dir / "flickr8k/captions_without_images.txt").read_text().splitlines()[:200]
    (target / "flickr8k").mkdir()
    (target / "flickr8k/captions_without_images.txt").write_text("\n".join(captions))
    (target / "wikinews").mkdir()
    with gzip.open(data_dir / "wikinews/articles.jsonl.gz", "rt", encoding="utf-8") as articles:
        (target / "wikinews/articles.jsonl.gz").write_bytes(gzip.compress("".join(islice(articles, 150)).encode()))
    (target / "fashion").mkdir()
    titles = (data_dir / "fashion/train.csv").read_text().splitlines()[:100]
    (target / "fashion/train.csv").write_text("\n".join(titles))
    return target


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with `my/products.csv`, 24 photos with captions, and the configs."""
    (tmp_path / "my/images").mkdir(parents=True)
    rows = ["image,text"]
    for number in range(1, 25):
        shutil.copy(ROOT / f"assets/demo/images/p{number:04d}.jpg", tmp_path / f"my/images/{number}.jpg")
        rows.append(f"images/{number}.jpg,product number {number} in red or blue")
    (tmp_path / "my/products.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_is_known() -> None:
    assert [kind for kind, _ in BLOCKS].count("python") == 1
    lines = shell_lines()
    assert [line for line in lines if line in SCRIPTS] == SCRIPTS
    others = [line for line in lines if line not in SCRIPTS and line != "pip install -e ."]
    assert others
    assert all(line.startswith("dalr ") for line in others)


@pytest.mark.parametrize("line", SCRIPTS)
def test_the_scripts_explain_themselves(line: str) -> None:
    # That they work is what tests/test_scripts.py is about.
    done = subprocess.run([*line.split(), "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert line in done.stdout


def test_the_commands_for_an_own_folder(own_folder: Path, dalr: Run) -> None:
    elsewhere = [line for title in WITH_DATA for line in lines_of(title)]
    for line in shell_lines():
        arguments = shlex.split(line)
        if arguments[0] == "dalr" and line not in elsewhere:
            assert dalr(*arguments[1:], *(TINY if arguments[1] == "train" else []))[0] == 0, line
    for left in ("runs/mine/model.json", "runs/store/catalogue.json", "report/index.html"):
        assert (own_folder / left).is_file()

    code = next(block for kind, block in BLOCKS if kind == "python")
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["texts"].shape == names["images"].shape  # type: ignore[attr-defined]


@pytest.mark.data
def test_the_commands_for_sentences(
    sliced_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dalr: Run
) -> None:
    lines = lines_of(WITH_DATA[0])
    assert len(lines) > 5
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DALR_DATA", str(sliced_data))
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    tiny = ["model.text.name=new", "model.text.max_length=64", "train.batch_size=8", "leaks.drop=false"]
    for line in lines:
        arguments = shlex.split(os.path.expandvars(line))
        if arguments[1] == "train":
            names = parse_config(PipelineConfig, apply_overrides(read_yaml(arguments[2]), [])).names
            arguments += [*tiny, *(f"stages.{name}.train={{steps: 2}}" for name in names)]
        elif arguments[2] == "transfer":
            arguments += ["--folds", "2"]
        assert dalr(*arguments[1:])[0] == 0, line
    for left in ("runs/sentences/stages/3-sup/model.json", "runs/hard-negatives.csv", "runs/tasks/model.json"):
        assert (tmp_path / left).is_file()


@pytest.mark.data
def test_the_commands_for_language(
    sliced_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dalr: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DALR_DATA", str(sliced_data))
    for name in ("configs", "assets"):
        (tmp_path / name).symlink_to(ROOT / name)
    small = ["data.length=32", "train.batch_size=4", "leaks.sts=null", "data.dev=0.1"]
    fresh = ["model.new.layers=1", "model.new.width=16", "model.new.heads=2", "model.tokenizer.vocab_size=400"]
    for line in lines_of(WITH_DATA[1]):
        arguments = shlex.split(os.path.expandvars(line))
        if "antlm" in line:
            arguments += small
        if "antlm-encoder" in line:
            arguments += fresh
        if arguments[1] == "bench":
            arguments += ["--steps", "2", "--rounds", "1"]
        elif "antlm" in line:
            arguments += ["schedule=1_CLM+1_MLM", "unit=step"]
        elif "order=[unsup]" in line:
            arguments += ["train.batch_size=8", "stages.unsup.train={steps: 2}", "leaks.drop=false"]
        elif arguments[1] == "train":
            arguments += TINY
        else:
            arguments += ["--per-task", "2"]
        assert dalr(*arguments[1:])[0] == 0, line
    for left in ("runs/language/lm/config.json", "runs/from-scratch/model.json", "runs/adapted-pairs/model.json"):
        assert (tmp_path / left).is_file()


@pytest.mark.data
def test_the_commands_for_labels(sliced_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dalr: Run) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DALR_DATA", str(sliced_data))
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for line in lines_of(WITH_DATA[2]):
        arguments = shlex.split(os.path.expandvars(line))
        if arguments[1] == "train":
            arguments += ["train.steps=2", "train.interpolate=[0.5, 1.0]", "train.batch_size=8"]
        assert dalr(*arguments[1:])[0] == 0, line
    for left in ("runs/labels.parquet", "runs/judged/model.json"):
        assert (tmp_path / left).is_file()


def test_the_summary_page_says_the_same() -> None:
    assert {line for _, lines in NEXT for line in lines.splitlines()} <= set(shell_lines())


def test_pictures_are_there() -> None:
    shown = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", README)
    assert shown
    for words, path in shown:
        assert len(words) > 10
        with Image.open(ROOT / path) as picture:
            assert min(picture.size) >= 200
        assert (ROOT / path).stat().st_size < 600_000


def test_the_table_names_every_command(dalr: Run) -> None:
    named = {line.split("`")[1].split()[1] for line in README.splitlines() if line.startswith("| `dalr ")}
    code, out, _ = dalr("--help")
    assert code == 0
    listed = re.search(r"Commands:\n(.*)", out, flags=re.DOTALL)
    assert listed is not None
    assert named == {line.split()[0] for line in listed.group(1).splitlines() if re.match(r"  [a-z]", line)}
