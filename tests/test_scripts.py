"""The shell scripts a newcomer runs, and the locks they install from.

Invariants: every script is valid bash and explains itself; the locks hold plain `name==version` lines that satisfy
pyproject.toml and name torch and torchvision, and nothing in the scripts or locks names an address or a place on
one machine; a wrong DALR_PYTHON is refused in one line; `.ci/run` hands DALR_DATA on, prints pytest's closing line
last and exits with the suite's code; the quickstart, at tiny size, goes its six steps and says where its page is,
and a second run trains nothing.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
SCRIPTS = ["scripts/quickstart.sh", "scripts/study.sh", "scripts/test.sh", "scripts/environment.sh", ".ci/run"]
LOCKS = ["requirements.lock", "requirements-dev.lock"]


def bash(*arguments: str, cwd: Path = ROOT, timeout: float = 280, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DALR_", "PYTEST_"))}
    return subprocess.run(
        ["bash", *arguments], cwd=cwd, env=environment | more, capture_output=True, text=True, timeout=timeout
    )


def locked(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_bash(script: str) -> None:
    done = bash("-n", script)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("script", ["scripts/quickstart.sh", "scripts/study.sh", "scripts/test.sh"])
def test_scripts_explain_themselves(script: str, tmp_path: Path) -> None:
    # From another folder, and without doing anything.
    done = bash(str(ROOT / script), "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"bash {script}" in done.stdout
    assert "DALR_PYTHON" in done.stdout
    assert not done.stdout.startswith("#")
    assert not list(tmp_path.iterdir())


def test_the_study_goes_through_every_grid() -> None:
    done = bash("scripts/study.sh", "--dry-run", DALR_PYTHON=sys.executable)
    assert done.returncode == 2
    assert "set DALR_DATA" in done.stderr
    done = bash("scripts/study.sh", "--dry-run", "--shard", "0/50", DALR_PYTHON=sys.executable, DALR_DATA="data")
    assert done.returncode == 0, done.stderr
    grids = {"tuning", "sentences", "weak_teacher", "ablation", "ideas", "forgetting", "graded"}
    assert set(re.findall(r"--out runs/study/(\w+)/", done.stdout)) == grids
    # The others are no grid: what a cell is, the student's own training, and the size of the paper.
    files = {path.stem for path in (ROOT / "configs/study").glob("*.yaml")}
    assert files - grids == {"student", "pretrained", "paper", "paper_size"}


@pytest.mark.parametrize("name", [*SCRIPTS, *LOCKS, "README.md", "configs/demo.yaml"])
def test_nothing_names_an_index_or_a_machine(name: str) -> None:
    text = (ROOT / name).read_text()
    for word in ("://", "--index-url", "--extra-index-url", "--find-links", "/work/", "/home/", "/root"):
        allowed = name == "README.md" and word == "://"
        assert allowed or word not in text, f"{name} names {word}"


@pytest.mark.parametrize("name", LOCKS)
def test_locks_are_plain_lines(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    assert len(lines) > 20
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in lines)
    assert lines == sorted(lines, key=lambda line: canonicalize_name(line.split("==")[0]))
    # These belong to one platform; torch asks for the ones it needs.
    assert not [line for line in lines if re.match(r"nvidia-|cuda-|triton", line)]


def test_locks_satisfy_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    run, dev = locked("requirements.lock"), locked("requirements-dev.lock")
    assert not set(run) & set(dev)
    for wanted, pins in ((project["dependencies"], run), (project["optional-dependencies"]["dev"], run | dev)):
        for line in wanted:
            requirement = Requirement(line)
            pin = pins[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(pin), f"{line} against {pin}"
    # What runs here is what is pinned (a local build such as 2.14.1+cpu is the same version).
    for name in ("torch", "torchvision", "transformers", "timm", "datasets", "accelerate"):
        assert version(name).split("+")[0] == run[name]


def test_torch_and_torchvision_are_installed_by_one_command() -> None:
    text = (ROOT / "scripts/environment.sh").read_text()
    pair = re.search(r"pair=\$\((.*)\)", text)
    assert pair is not None
    printed = bash("-c", pair.group(1)).stdout
    pins = locked("requirements.lock")
    assert printed.split() == [f"torch=={pins['torch']}", f"torchvision=={pins['torchvision']}"]
    assert re.search(r"pip install .*\$pair", text)


@pytest.mark.parametrize("script", ["scripts/quickstart.sh", "scripts/test.sh"])
def test_a_wrong_interpreter_is_refused(script: str) -> None:
    done = bash(script, DALR_PYTHON="/nowhere/python")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["DALR_PYTHON=/nowhere/python: there is no such interpreter"]


def test_an_interpreter_without_the_packages_is_refused(tmp_path: Path) -> None:
    # `-S -E` is a Python that sees no installed package.
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "$@"\n')
    bare.chmod(0o755)
    done = bash("scripts/test.sh", DALR_PYTHON=str(bare))
    assert done.returncode == 1
    assert "lacks: torch, torchvision" in done.stderr
    assert "requirements.lock" in done.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose suite is a few lines of bash, with the shared data beside it."""
    root = tmp_path / "main"
    for folder in (".ci", "scripts"):
        (root / folder).mkdir(parents=True)
    shutil.copy(ROOT / ".ci/run", root / ".ci/run")
    return root


@pytest.mark.parametrize(("code", "closing"), [(0, "3 passed, 1 skipped in 0.12s"), (1, "1 failed in 2.00s")])
def test_ci_run_ends_with_the_suite(checkout: Path, code: int, closing: str) -> None:
    (checkout / "scripts/test.sh").write_text(
        f'echo "data=${{DALR_DATA:-none}} arguments=$*"\necho "===== {closing} ====="\necho after; exit {code}\n'
    )
    done = bash(".ci/run", "-k", "x", cwd=checkout)
    assert done.returncode == code
    assert "data=none arguments=-k x" in done.stdout
    assert done.stdout.splitlines()[-1] == f"===== {closing} ====="
    data = checkout.parent / "shared/data"
    data.mkdir(parents=True)
    assert f"data={data.resolve()} " in bash(".ci/run", cwd=checkout).stdout


def test_ci_run_fails_when_the_suite_cannot_start(checkout: Path) -> None:
    (checkout / "scripts/test.sh").write_text("echo no python >&2; exit 3\n")
    done = bash(".ci/run", cwd=checkout)
    assert done.returncode == 3
    assert "no python" in done.stdout


TINY = ("train.steps=2", "train.batch_size=16", "model.image.image_size=32", "train.log_every=1")


@pytest.mark.timeout(1200)  # seven commands over the whole demo catalogue, twice: minutes on a busy machine
def test_quickstart_at_tiny_size(tmp_path: Path) -> None:
    def quickstart() -> subprocess.CompletedProcess[str]:
        return bash("scripts/quickstart.sh", str(tmp_path / "out"), *TINY, timeout=580, DALR_PYTHON=sys.executable)

    done = quickstart()
    assert done.returncode == 0, done.stderr
    steps = re.findall(r"^— (\d) of 7", done.stdout, flags=re.MULTILINE)
    assert steps == ["1", "2", "3", "4", "5", "6", "7"]
    page = Path(done.stdout.splitlines()[-1].strip())
    assert page == tmp_path / "out/report/index.html"
    assert "The demo catalogue" in page.read_text(encoding="utf-8")
    assert "recall@1" in done.stdout
    again = quickstart()
    assert again.returncode == 0, again.stderr
    assert "loss" not in again.stderr, "the second run trains nothing"
