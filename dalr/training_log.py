"""What a run tells while it goes on: a JSONL log that survives kills, and the rates of the loop."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dalr.files import write_atomically

Event = dict[str, Any]


class TrainingLog:
    """Appends events to a JSONL file, one object a line; `path` None writes nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def write(self, event: Event) -> None:
        """Append one event; it is in the file when this returns."""
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(event) + "\n")

    def cut_after(self, step: int) -> None:
        """Drop what an interrupted run logged beyond the step that it goes on from, and a torn last line."""
        if self.path is None or not self.path.is_file():
            return
        kept = [line for line, event in _events(self.path) if event["step"] <= step]
        write_atomically(self.path, "".join(f"{line}\n" for line in kept))


def read_log(path: str | Path) -> list[Event]:
    """The events of a run's `log.jsonl`, oldest first; a torn line is left out."""
    return [event for _, event in _events(Path(path))]


def _events(path: Path) -> Iterator[tuple[str, Event]]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and "step" in event:
                yield line, event


class Clock:
    """Examples a second, share of time waiting for data and time left, since the last time they were asked for."""

    def __init__(self, before: float, batches_per_step: int = 1) -> None:
        self.before, self.start, self.batches_per_step = before, time.perf_counter(), batches_per_step
        self.since, self.rows, self.waited, self.batches = self.start, 0, 0.0, 0
        self.rate: float | None = None

    def total(self) -> float:
        return self.before + time.perf_counter() - self.start

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start
        self.batches += 1

    def pause_rate(self) -> None:
        self.since, self.rows, self.waited, self.batches = time.perf_counter(), 0, 0.0, 0

    def figures(self, step: int, total: int) -> dict[str, float]:
        now = time.perf_counter()
        took = max(now - self.since, 1e-9)
        found = {
            "examples_per_second": round(self.rows / took, 1),
            "data_wait": round(self.waited / took, 4),
            "seconds": round(self.total(), 2),
            "seconds_left": round(took * self.batches_per_step / max(self.batches, 1) * (total - step), 1),
        }
        self.pause_rate()
        return found
