"""Help answers at once.

Invariants: neither `dalr --help` nor the help of any command imports torch, transformers or numpy; every command
with --json lists its keys in its help; `python -m dalr` is the same command.
"""

import subprocess
import sys

import pytest

COMMANDS = [
    "", "check", "embed", "report", "search", "train", "eval retrieval", "eval sts", "eval transfer", "bench loss",
    "bench images", "bench train", "eval retrieval-text", "eval pairs",
    "eval clustering", "eval geometry", "eval mteb", "mine", "audit", "index", "export", "app", "label",
]  # fmt: skip

ASK = """
import sys
from dalr.cli import main
sys.argv = ["dalr", *sys.argv[1:], "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {"torch", "transformers", "numpy", "datasets"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize("command", COMMANDS, ids=lambda name: name or "dalr")
def test_help_is_light_and_lists_the_keys(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK, *command.split()], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    if "--json " in done.stdout or "--json\n" in done.stdout:
        assert "--json prints" in " ".join(done.stdout.split())


def test_module_and_command_are_one() -> None:
    done = subprocess.run([sys.executable, "-m", "dalr"], capture_output=True, text=True, timeout=60, check=False)
    assert "Learn, check and search" in done.stdout + done.stderr
