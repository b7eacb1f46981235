from pathlib import Path

import pytest
from questions import rows

from dalr.experts.pairs import JudgedConfig, JudgedPairs, read_judged
from tests.tiny_catalogue import tiny_model


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "questions.tsv"
    lines = ["question1\tquestion2\tis_duplicate\tpeople", *("\t".join(map(str, row)) for row in rows())]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def pairs(source: Path) -> JudgedPairs:
    return read_judged(str(source), JudgedConfig())


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    tiny_model(image=False).save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"
