"""Progress for a person: a Rich bar on a terminal, nothing on a pipe, never on stdout."""

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dalr.progress import ProgressSink


@contextlib.contextmanager
def bar(title: str) -> Iterator[ProgressSink | None]:
    """Yield a `progress(done, total)` callable, or None where stderr is not a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as display:
        task = display.add_task(title, total=None)
        yield lambda done, total: display.update(task, completed=done, total=total)
