"""What people read in a terminal: progress, counts, tables, errors, and names made printable.

A name that came from outside (a class, a file, a folder, a key) is data, and a terminal obeys some of it: an escape
sequence moves the cursor, a line break forges a line, a mark of direction turns a line around. So:

* a text that is made here puts each name through :func:`printable`, or :func:`named` where it stands among others;
* an error derives from :class:`PrintableError`, whose text is printable whatever was inserted;
* a program starts with :func:`survive_any_encoding`, and its ``main`` is :func:`ended_by_its_reader`.

Files have rules of their own, in ``cornernet.drawing.escapes``. JSON escapes by itself and holds names as they are.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import select
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ParamSpec, TextIO

from tqdm import tqdm

__all__ = [
    "PrintableError",
    "Progress",
    "count",
    "ended_by_its_reader",
    "error_text",
    "is_unread",
    "listing",
    "named",
    "printable",
    "survive_any_encoding",
    "text_table",
]

SECONDS_BETWEEN_LINES = 10.0
_P = ParamSpec("_P")


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


_BLURRED = re.compile(r'|\s.*|.*\s|.*[,;"].*')
"""Names whose ends cannot be seen in a list: blank at an end, or with a separator in them."""


def named(text: object) -> str:
    """Return a name made printable for a list, in quotes where its ends are not plain: ``cat``, but ``"cat, dog"``."""
    shown = printable(text)
    return '"' + shown.replace('"', '\\"') + '"' if _BLURRED.fullmatch(shown) else shown


def listing(names: Iterable[object], most: int = 0) -> str:
    """Return names as ``a, b and 3 more``: the first ``most`` of them, or all for 0."""
    names = list(names)
    shown = ", ".join(map(named, names[:most] if most else names))
    return f"{shown} and {len(names) - most} more" if most and len(names) > most else shown


class PrintableError(BaseException):
    """An error whose text is safe to print, whatever names were inserted: each argument is one line of it."""

    def __str__(self) -> str:
        return "\n".join(map(printable, self.args))


def error_text(error: BaseException) -> str:
    """Return an error's text, safe to print: the lines of one of ours, and any other in one line."""
    return str(error) if isinstance(error, PrintableError) else printable(error)


def text_table(header: Sequence[str], rows: Iterable[Sequence[object]], numbers: Iterable[int] = ()) -> str:
    """Return a table in plain text. The columns ``numbers`` are aligned to the right.

    Cells are written as they are, made printable: a name that looks like a number stays that name. Blanks are quoted.
    """
    lines = [[named(cell) if str(cell).isspace() else printable(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    right = set(numbers)
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            " " * (width - _width(cell)) + cell if at in right else cell + " " * (width - _width(cell))
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _width(text: str) -> int:
    """Return how many columns of a terminal a printable text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) or letter in _JOINERS else 1 + (unicodedata.east_asian_width(letter) in "WF")
        for letter in text
    )


def survive_any_encoding() -> None:
    """Make standard output and standard error write what their encoding lacks as escapes instead of failing.

    Standard input, from which lists of paths are read, is decoded as file names are. Call it where a program starts.
    """
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
    if reconfigure := getattr(sys.stdin, "reconfigure", None):
        with contextlib.suppress(io.UnsupportedOperation):  # something of it was read already
            reconfigure(encoding=sys.getfilesystemencoding(), errors="surrogateescape")


UNREAD = 128 + 13
"""Exit status of a program whose output nobody reads any more: what a shell says of one that SIGPIPE ended."""


def ended_by_its_reader(main: Callable[_P, int]) -> Callable[_P, int]:
    """Make ``main`` end quietly with status :data:`UNREAD` once nobody reads what it prints, as in ``... | head -1``.

    Other broken pipes, such as that of a process that died, are raised. SIGPIPE itself would end the program at those.
    """

    @functools.wraps(main)
    def ended(*args: _P.args, **kwargs: _P.kwargs) -> int:
        try:
            try:
                return main(*args, **kwargs)
            finally:
                for stream in (sys.stdout, sys.stderr):
                    if stream is not None and not stream.closed:
                        stream.flush()
        except BrokenPipeError:
            gone = _unread()
            if not gone:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for number in gone:  # what is left in the buffers is written when the interpreter ends
                os.dup2(nowhere, number)
            os.close(nowhere)
            return UNREAD

    return ended


def is_unread(error: BaseException) -> bool:
    """Return whether an error means that nobody reads what this program prints any more."""
    return isinstance(error, BrokenPipeError) and bool(_unread())


def _unread() -> list[int]:
    """Return the file descriptors of standard output and standard error whose reader has gone."""
    gone = []
    for stream in (sys.stdout, sys.stderr):
        try:
            number = stream.fileno()
            poll = select.poll()
            poll.register(number, 0)  # only errors
            if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
                gone.append(number)
        except (AttributeError, OSError, ValueError):  # it is no file, or closed
            continue
    return gone


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
