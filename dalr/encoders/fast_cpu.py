"""What makes image embedding on a CPU fast: an allocator that keeps its pages, and decoding beside computing."""

import ctypes
import functools
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # names and numbers of glibc's malloc.h


@functools.cache
def keep_pages() -> bool:
    """Tell glibc's malloc to keep freed memory, once a process; True where that worked, False elsewhere.

    By default every large tensor is a fresh memory map that the kernel fills with zeros page by page on first
    touch and takes back on free: for a convolutional network on a CPU that costs as much as the arithmetic.
    The process keeps its peak of memory from then on.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    gigabyte = 1 << 30
    return all((mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, gigabyte), mallopt(M_TOP_PAD, 64 << 20)))


def ahead(function: Callable[[T], R], items: Sequence[T], workers: int, depth: int) -> Iterator[R]:
    """`map(function, items)` in order, with up to `depth` results computed ahead by `workers` threads.

    The first error is raised at its item, and what was not started is dropped. workers = 0 runs in the caller.
    """
    if workers == 0:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="dalr-decode") as pool:
        pending: list[Future[R]] = []
        try:
            for number in range(len(items) + depth):
                if number < len(items):
                    pending.append(pool.submit(function, items[number]))
                if number >= depth:
                    yield pending.pop(0).result()
            while pending:
                yield pending.pop(0).result()
        finally:
            for future in pending:
                future.cancel()
