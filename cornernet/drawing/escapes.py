"""Text from outside (names of classes, files, folders and fields) in files for people: one rule for each format.

Every rule starts with ``cornernet.console.printable``: one line, without anything that a terminal, a page or an editor
would obey. The rules:

* CSV: a text that a spreadsheet would run as a formula gets an apostrophe before it. Numbers are not texts, and stay.
* Markdown and LaTeX: no character of the text is markup.
* figures: matplotlib sets no formula.
* pictures: OpenCV's fonts have only ASCII.
* HTML: templates named ``*.html.j2`` escape by themselves (``cornernet.drawing.html``).

JSON is written as it is: it escapes by itself, and programs read it.
"""

from __future__ import annotations

import re
import unicodedata

from cornernet.console import printable

__all__ = [
    "csv_escape",
    "figure_escape",
    "latex_escape",
    "markdown_code",
    "markdown_escape",
    "picture_escape",
]

_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
"""How a cell begins that a spreadsheet runs; full-width signs count, as do signs after spaces that are trimmed."""


def csv_escape(text: object) -> str:
    """Return a text for a cell of a CSV file, which no spreadsheet takes for a formula: ``'=1+1``."""
    shown = printable(text)
    return f"'{shown}" if _FORMULA.match(shown) else shown


def figure_escape(text: object) -> str:
    """Return a text for matplotlib, in which a dollar sign does not start a formula."""
    return printable(text).replace("$", r"\$")


def picture_escape(text: object) -> str:
    """Return a text in ASCII, for OpenCV's fonts: letters without their accents, and a question mark for others."""
    return "".join(map(_ascii, printable(text)))


def _ascii(letter: str) -> str:
    if letter.isascii():
        return letter
    parts = unicodedata.normalize("NFKD", letter)
    base = "".join(part for part in parts if not unicodedata.combining(part))
    return base if base.isascii() else "?"


def markdown_escape(text: object, *, plain: bool = True) -> str:
    """Return text escaped for a line of Markdown or a table cell: it starts no column, tag, entity, link or code span.

    With ``plain=False`` backticks and asterisks keep their meaning, for sentences of this project.
    """
    shown = re.sub(r"&(?=#?\w+;)", "&amp;", printable(text))
    shown = shown.replace("\\", "&#92;").replace("|", "&#124;").replace("](", "]&#40;")
    shown = re.sub(r"<(?=[A-Za-z/!?])", "&#60;", shown)
    return re.sub(r"([`*_~])", r"\\\1", shown) if plain and re.search(r"[`*~]|\b_|_\b", shown) else shown


def markdown_code(text: object) -> str:
    """Return text as a Markdown code span (not for a table), in a fence longer than its runs of backticks."""
    shown = printable(text)
    longest = max(map(len, re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    # one space at both ends is taken off again
    edge = " " if shown[:1] in ("`", " ") or shown[-1:] in ("`", " ") else ""
    return f"{fence}{edge}{shown}{edge}{fence}"


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "`": r"\textasciigrave{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "\u2003": r"\quad{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "[": "{[}",
    "]": "{]}",
}


def latex_escape(text: object) -> str:
    """Return text escaped for the body of a LaTeX document: no character of it starts a command."""
    return "".join(_LATEX.get(character, character) for character in printable(text))
