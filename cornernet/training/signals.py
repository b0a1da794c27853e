"""Ctrl-C and termination signals: a run stops between two iterations, and its loader processes never see them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any

__all__ = ["StopAtBoundary", "ignore_signals", "signals_blocked"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Block Ctrl-C and termination in this process while the context lasts. Processes started in it inherit that."""
    resource_tracker.ensure_running()  # otherwise the first process started here starts it, which unblocks the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals() -> None:
    """Leave Ctrl-C and termination, which reach every process, to the process that started this one."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class StopAtBoundary:
    """Turns the first Ctrl-C or termination signal into a request, which the loop answers between iterations.

    The second signal raises ``KeyboardInterrupt`` at once. A context manager; outside the main thread it does nothing.
    """

    def __init__(self, quiet: bool = True) -> None:
        self.requested = False
        self.quiet = quiet
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> StopAtBoundary:
        with contextlib.suppress(ValueError):  # only the main thread can handle signals
            for number in _SIGNALS:
                self.previous[number] = signal.signal(number, self._request)
        return self

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if not self.quiet:
            # the signal may have interrupted a print, which cannot be entered twice
            os.write(2, b"\nstopping after this iteration; press Ctrl-C again to stop at once\n")

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
