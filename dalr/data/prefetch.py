"""Results of a numbered function in order, the next ones computed by a thread while the caller works."""

import itertools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """`make(first)`, `make(first + 1)`, … by `next()`; at most `ahead` are computed in advance (0: none).

    One thread makes them one after the other, so `make` needs no lock. An error in `make` is raised by the
    `next()` that would have given its result.
    """

    def __init__(self, make: Callable[[int], T], first: int, ahead: int) -> None:
        self.make = make
        self.numbers = itertools.count(first)
        self.pool = ThreadPoolExecutor(1, "prefetch") if ahead else None
        self.queue: list[Future[T]] = []
        for _ in range(ahead):
            self._order()

    def _order(self) -> None:
        assert self.pool is not None
        self.queue.append(self.pool.submit(self.make, next(self.numbers)))

    def next(self) -> T:
        """The next result."""
        if self.pool is None:
            return self.make(next(self.numbers))
        result = self.queue.pop(0).result()
        self._order()
        return result

    def __enter__(self) -> "Prefetch[T]":
        return self

    def __exit__(self, *error: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)
