"""Work on many image files at once, in threads: reading, decoding and hashing do not hold the interpreter's lock."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["in_order"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_order(
    function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int | None = None
) -> Iterator[_Result]:
    """Yield ``function(item)`` for each item, in order, computed ahead by ``threads`` threads, by default 8 at most.

    Twice as many results as threads are computed ahead, so that memory does not grow with the number of items. The
    first error is raised in its place. When the iterator is closed, as by an error or Ctrl-C, what has not begun is
    dropped.
    """
    count = min(8, os.cpu_count() or 1) if threads is None else threads
    pool = ThreadPoolExecutor(count)
    try:
        waiting: deque[Future[_Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
