"""A table as it is shown, rendered as Markdown, LaTeX and HTML.

Unrounded values are in the CSV that :class:`ablations.reporting.tables.StudyTable` makes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

import pandas as pd

from cornernet.drawing import html
from cornernet.drawing.html import Cell

__all__ = ["Cell", "Grid", "Row", "latex_escape", "markdown_escape"]

Kind: TypeAlias = Literal["variant", "difference"]


@dataclass(frozen=True)
class Row:
    """A row: its name, its cells under the header, and whether it is a paired difference."""

    name: str
    kind: Kind
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Grid:
    """Rows under a header. Nothing stands above the names of the rows."""

    header: tuple[str, ...]
    rows: tuple[Row, ...]

    def to_markdown(self) -> str:
        """Return a Markdown table, with differences in italics and their notes in an extra row."""
        body = []
        for row in self.rows:
            name = (
                f"*difference: {markdown_escape(row.name)}*" if row.kind == "difference" else markdown_escape(row.name)
            )
            # the writer of the table strips spaces of any width
            body.append([name.replace("\u2003", "&emsp;"), *map(_markdown, row.cells)])
            if any(cell.note for cell in row.cells):
                body.append(["&emsp;detectable", *(cell.note.removeprefix("detectable ") for cell in row.cells)])
        columns = ["", *map(markdown_escape, self.header)]
        return str(pd.DataFrame(body, columns=columns).to_markdown(index=False, disable_numparse=True))

    def to_html(self, caption: str) -> str:
        """Return a table that a reader can sort."""
        rows = [[Cell(_named(row)), *row.cells] for row in self.rows]
        return html.table(["", *self.header], rows, caption=caption, kinds=[row.kind for row in self.rows])

    def to_latex(self, caption: str, label: str, notes: str = "") -> str:
        """Return a table environment with rules of booktabs, to be read by ``\\input``, with ``notes`` below."""
        lines = [
            "% needs \\usepackage{booktabs} and \\usepackage{graphicx}",
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{latex_escape(caption)}}}",
            f"\\label{{{re.sub(r'[^A-Za-z0-9:-]+', '-', label)}}}",
            "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
            f"\\begin{{tabular}}{{l{'r' * len(self.header)}}}",
            "\\toprule",
            " & ".join(["", *map(latex_escape, self.header)]) + r" \\",
            "\\midrule",
        ]
        for at, row in enumerate(self.rows):
            if at and row.kind != self.rows[at - 1].kind:
                lines.append("\\midrule")
            lines.append(" & ".join([latex_escape(_named(row)), *map(_latex, row.cells)]) + r" \\")
        lines += ["\\bottomrule", "\\end{tabular}}"]
        if notes:
            lines.append(f"\\par\\smallskip\\footnotesize {latex_escape(notes)}")
        return "\n".join([*lines, "\\end{table}", ""])


def _named(row: Row) -> str:
    return f"difference: {row.name}" if row.kind == "difference" else row.name


def _markdown(cell: Cell) -> str:
    text = markdown_escape(cell.text)
    if not cell.strong:
        return text
    number, space, rest = text.partition(" ")
    return f"**{number}**{space}{rest}" if number[:1].isdigit() or number[:1] in "+-" else f"**{text}**"


def _latex(cell: Cell) -> str:
    text = latex_escape(cell.text)
    return f"\\textbf{{{text}}}" if cell.strong else text


def markdown_escape(text: str, *, plain: bool = True) -> str:
    """Return text for one line or one table cell of Markdown, in which no column, tag, link or code span begins.

    Without ``plain``, backticks and stars keep their meaning, for our own sentences.
    """
    text = " ".join(text.splitlines()).replace("\\", "&#92;").replace("|", "&#124;").replace("](", "]&#40;")
    text = re.sub(r"<(?=[A-Za-z/!?])", "&#60;", text)
    return re.sub(r"([`*_~])", r"\\\1", text) if plain and re.search(r"[`*~]|\b_|_\b", text) else text


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


def latex_escape(text: str) -> str:
    """Return text for the body of a LaTeX document, in which no character can begin a command."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.splitlines()))
