"""Imports point down only, and siblings on a floor stay apart.

Invariants: every module of the package stands on exactly one floor; no module imports from a floor above its own;
nothing below the command line prints. Not vacuous: a test feeds the checker an import that points up.
"""

import ast
from pathlib import Path

import pytest

import dalr

ROOT = Path(dalr.__file__).parent
FLOORS: list[set[str]] = [
    {"losses", "config", "errors", "files", "progress", "__init__"},
    {"encoders", "data"},
    {"model", "lm", "features", "teachers", "neighbours", "noise", "mining", "lexical"},
    {"objectives"},
    {
        "trainer",
        "checkpoint",
        "devices",
        "ema",
        "model_card",
        "run_folder",
        "schedule",
        "selection",
        "train_config",
        "training_data",
        "training_log",
    },
    {"evaluation"},
    {"catalogue", "simcse", "antlm", "experts", "bench"},
    {"cli", "run", "__main__"},
]
# Siblings that may meet: teachers and mining read features, and a teacher may go by words; the trainer is several files
# of one subject; the benches show what their neighbours do.
SAME_FLOOR = {
    ("config", "errors"),
    ("files", "errors"),
    ("teachers", "features"),
    ("teachers", "lexical"),
    ("mining", "features"),
    ("noise", "neighbours"),
    ("trainer", "checkpoint"),
    ("trainer", "devices"),
    ("trainer", "ema"),
    ("trainer", "schedule"),
    ("trainer", "selection"),
    ("selection", "checkpoint"),
    ("selection", "ema"),
    ("selection", "train_config"),
    ("selection", "training_log"),
    ("trainer", "train_config"),
    ("trainer", "training_log"),
    ("cli", "run"),
    ("__main__", "cli"),
}


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def floor_of(part: str) -> int:
    return next(number for number, parts in enumerate(FLOORS) if part in parts)


def imported_parts(source: str) -> set[str]:
    """First names below `dalr` that a source imports anywhere, also inside functions and TYPE_CHECKING."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("dalr.")}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = node.module.split(".")
            if names[0] == "dalr":
                found |= {names[1]} if len(names) > 1 else {alias.name for alias in node.names}
    return found


def upward(part: str, source: str) -> set[str]:
    """What `source`, standing in `part`, imports although it may not."""
    mine = floor_of(part)
    others = imported_parts(source) - {part}
    return {
        other
        for other in others
        if floor_of(other) > mine or (floor_of(other) == mine and (part, other) not in SAME_FLOOR)
    }


MODULES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    if path == ROOT / "__init__.py":
        return  # names of the public surface, loaded on first use
    assert upward(part_of(path), path.read_text()) == set()


def test_the_checker_sees_an_import_that_points_up() -> None:
    assert upward("losses", "def f():\n    from dalr.model import DualEncoder") == {"model"}
    assert upward("encoders", "import dalr.data.images") == {"data"}
    assert upward("trainer", "from dalr.losses import info_nce") == set()


@pytest.mark.parametrize("path", [p for p in MODULES if part_of(p) not in ("cli", "__main__")], ids=str)
def test_nothing_below_the_command_line_prints(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def test_losses_know_no_model() -> None:
    for path in (ROOT / "losses").glob("*.py"):
        assert imported_parts(path.read_text()) <= {"losses", "errors"}, path
