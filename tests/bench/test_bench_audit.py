"""`dalr bench audit` runs in a process of its own, and what it times is an audit that finds the wrong pairs."""

import json
from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]


def test_bench_audit(dalr: Run) -> None:
    code, out, error = dalr("bench", "audit", "--rows", 3000, "--width", 32, "--json")
    assert code == 0, error
    found = json.loads(out)
    assert list(found) == ["rows", "width", "threads", "seconds", "peak_mb", "auroc"]
    assert found["auroc"] > 0.97
    assert found["seconds"] > 0
    assert 100 < found["peak_mb"] < 4000
    assert dalr("bench", "audit", "--rows", 10)[0] == 2
