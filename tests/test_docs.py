"""The pages under docs/.

Invariants: every Python block runs as it stands; every YAML block is part of the config that its page is about, which
parses whole, a pipeline with all its stages; every file that a page links is there.
"""

import re
from pathlib import Path

import pytest
import yaml

from dalr.simcse.stages import merged
from tests.test_configs import check_whole

ROOT = Path(__file__).parents[1]
BASES = {
    "sentences": ["simcse-2tier.yaml"],
    "language": ["antlm-encoder.yaml"],
    "experts": ["experts.yaml", "fashion.yaml"],
}
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCKS = [
    pytest.param(page.stem, kind, code, id=f"{page.stem}-{kind}-{number}")
    for page in PAGES
    for number, (kind, code) in enumerate(re.findall(r"^```(python|yaml)\n(.*?)^```", page.read_text(), re.M | re.S))
]


@pytest.mark.parametrize(("page", "kind", "code"), BLOCKS)
def test_a_block_works(page: str, kind: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "yaml":
        monkeypatch.setenv("DALR_DATA", "data")
        part = yaml.safe_load(code)
        bases = [yaml.safe_load((ROOT / "configs" / name).read_text()) for name in BASES[page]]
        check_whole(merged(next((base for base in bases if part.keys() <= base.keys()), bases[0]), part))
    else:
        monkeypatch.chdir(tmp_path)
        exec(compile(code, "docs", "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_linked_is_there(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()) if "://" not in link]
    assert all((page.parent / link).exists() for link in links)
