"""Progress of long work, and counts in messages: a moving line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TextIO

from tqdm import tqdm

__all__ = ["Progress", "count"]

SECONDS_BETWEEN_LINES = 10.0


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return the number with its noun: ``1 image``, ``2 images``.

    ``plural`` is needed where an s does not make it: ``count(2, "box", "boxes")``.
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


class Progress:
    """A progress line with a rate and the time that remains.

    In a terminal it is one moving line; elsewhere (a log file, CI) a plain line every ten seconds and at the end.
    ``unit_scale`` units are done in one step: images in an iteration.
    """

    def __init__(
        self,
        what: str,
        total: int,
        *,
        start: int = 0,
        unit: str = "it",
        unit_scale: float = 1.0,
        file: TextIO | None = None,
        quiet: bool = False,
    ) -> None:
        self.what, self.total, self.start = what, total, start
        self.unit, self.unit_scale = unit, unit_scale
        self.file = sys.stderr if file is None else file
        self.quiet = quiet
        self.began = self.last_line = time.monotonic()
        self.done = start
        self.bar = None
        if not quiet and self.file.isatty():
            form = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]{postfix}"
            self.bar = tqdm(total=total, initial=start, desc=what, file=self.file, dynamic_ncols=True, bar_format=form)

    def update(self, done: int, note: str = "") -> None:
        """Show that ``done`` steps in all are done, with a note such as the losses."""
        step, self.done = done - self.done, done
        if self.quiet:
            return
        if self.bar is not None:
            self.bar.set_postfix_str(f"{self.rate():.1f} {self.unit}/s  {note}", refresh=False)
            self.bar.update(step)
            return
        now = time.monotonic()
        if now - self.last_line >= SECONDS_BETWEEN_LINES or (step and done == self.total):
            self.last_line = now
            print(self.line(note), file=self.file, flush=True)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out of the rate what is done meanwhile."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.began += time.monotonic() - began

    def rate(self) -> float:
        """Return units a second since the start."""
        elapsed = max(time.monotonic() - self.began, 1e-9)
        return (self.done - self.start) * self.unit_scale / elapsed

    def line(self, note: str) -> str:
        """Return one plain line of where things stand."""
        remaining = (self.total - self.done) * self.unit_scale / max(self.rate(), 1e-9)
        minutes, seconds = divmod(round(remaining), 60)
        eta = f"ETA {minutes}:{seconds:02d}" if self.done > self.start else "ETA ?"
        return f"{self.what} {self.done}/{self.total}  {self.rate():.1f} {self.unit}/s  {eta}  {note}".rstrip()

    def close(self) -> None:
        """End the line."""
        if self.bar is not None:
            self.bar.close()
