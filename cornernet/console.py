"""What people read in a terminal: progress of long work, counts in messages, and names made printable."""

from __future__ import annotations

import contextlib
import sys
import time
import unicodedata
from collections.abc import Iterator
from typing import TextIO

from tqdm import tqdm

__all__ = ["Progress", "count", "printable", "survive_any_encoding"]

SECONDS_BETWEEN_LINES = 10.0


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return the number with its noun: ``1 image``, ``2 images``.

    ``plural`` is needed where an s does not make it: ``count(2, "box", "boxes")``.
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


_JOINERS = "\u200c\u200d"
"""Zero-width joiners: Persian, several scripts of India and emoji need them, and they forge nothing."""


def printable(text: object) -> str:
    r"""Return a name that came from outside (a class, a file, a key) as one line that is safe to print.

    What a terminal or a page would obey instead of showing is written as an escape: ``\n``, ``\x1b``, ``\u202e``.
    That is control characters, line and paragraph separators, marks that change the direction of text, other invisible
    format characters, lone surrogates, and code points that have no character. Everything else, in any script, stays.
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs"
        else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def survive_any_encoding() -> None:
    """Make standard output and standard error write what their encoding lacks as escapes instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


class Progress:
    """A progress line with the rate and the remaining time.

    In a terminal it is one moving line. Elsewhere (a log file, CI) it is a plain line every ten seconds and at the end.
    One step is ``unit_scale`` units, for example the images of an iteration.
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
        """Show that ``done`` steps in total are done, with a note such as the losses."""
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
        """Exclude the time spent in this context from the rate."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.began += time.monotonic() - began

    def rate(self) -> float:
        """Return units per second since the start."""
        elapsed = max(time.monotonic() - self.began, 1e-9)
        return (self.done - self.start) * self.unit_scale / elapsed

    def line(self, note: str) -> str:
        """Return the current state as one plain line."""
        remaining = (self.total - self.done) * self.unit_scale / max(self.rate(), 1e-9)
        minutes, seconds = divmod(round(remaining), 60)
        eta = f"ETA {minutes}:{seconds:02d}" if self.done > self.start else "ETA ?"
        return f"{self.what} {self.done}/{self.total}  {self.rate():.1f} {self.unit}/s  {eta}  {note}".rstrip()

    def close(self) -> None:
        """End the line."""
        if self.bar is not None:
            self.bar.close()
