"""What the scripts that fill tables share: figures kept in files, and their spread over seeds."""

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dalr.files import write_json


def json_once(path: Path, only_read: bool, make: Callable[[], Any]) -> Any:
    """The JSON in `path`, made where there is none; None where it may only be read."""
    if path.is_file():
        return json.loads(path.read_text())
    if only_read:
        return None
    value = make()
    write_json(path, value)
    return value


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {deviation:.2f}"
