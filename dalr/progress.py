"""How far something long has come."""

from collections.abc import Callable

ProgressSink = Callable[[int, int], None]
"""Called with what is done and what there is in all, in units of whoever calls."""
