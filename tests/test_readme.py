"""What README tells a newcomer to type works.

Invariants: every fenced block is known here, so that a new command comes with its test; the two scripts exist and
explain themselves; the commands for one's own folder, typed in their order beside a small `my/` folder, exit 0 and
leave what they promise; the Python example runs as it stands; every picture that README shows is there; every command
in its table is one of `dalr`, and none is missing.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from dalr.cli import main
from dalr.cli.report import NEXT

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
SCRIPTS = ["bash scripts/quickstart.sh", "bash scripts/test.sh"]
# The same commands in seconds: two steps of a small batch on small pictures.
TINY = ["train.steps=2", "train.batch_size=8", "train.evaluate_every=1", "model.image.image_size=32"]


def shell_lines() -> list[str]:
    return [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines() if line]


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


def call(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> object:
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


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


def test_the_commands_for_an_own_folder(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in shell_lines():
        arguments = shlex.split(line)
        if arguments[0] == "dalr":
            assert call(monkeypatch, arguments + (TINY if arguments[1] == "train" else [])) == 0, line
    for left in ("runs/mine/model.json", "runs/store/catalogue.json", "summary.html"):
        assert (own_folder / left).is_file()

    code = next(block for kind, block in BLOCKS if kind == "python")
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["texts"].shape == names["images"].shape  # type: ignore[attr-defined]


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


def test_the_table_names_every_command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    named = {line.split("`")[1].split()[1] for line in README.splitlines() if line.startswith("| `dalr ")}
    assert call(monkeypatch, ["dalr", "--help"]) == 0
    listed = re.search(r"Commands:\n(.*)", capfd.readouterr().out, flags=re.DOTALL)
    assert listed is not None
    assert named == {line.split()[0] for line in listed.group(1).splitlines() if re.match(r"  [a-z]", line)}
