"""Fixtures that the data tests share."""

from collections.abc import Callable
from pathlib import Path

import pytest
from data_samples import encoded, picture


@pytest.fixture
def photos(tmp_path: Path) -> Callable[[int], list[str]]:
    """Write n different JPEGs below tmp_path/images and give their paths relative to tmp_path."""

    def make(count: int) -> list[str]:
        (tmp_path / "images").mkdir(exist_ok=True)
        names = [f"images/{number}.jpg" for number in range(count)]
        for number, name in enumerate(names):
            (tmp_path / name).write_bytes(encoded(picture(number)))
        return names

    return make
