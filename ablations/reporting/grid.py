"""A table of results for Markdown, LaTeX and HTML.

Its cells are rounded text. The unrounded values are in the CSV files (:meth:`StudyTable.to_frame`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import pandas as pd

from cornernet.drawing.escapes import latex_escape, markdown_escape
from cornernet.drawing.html import Cell, Table

from ..statistics.intervals import POWER

__all__ = ["FOUND", "Cell", "Grid", "Row", "markdown_table"]

FOUND = f"found with {POWER:.0%} probability at"
"""What stands before the true difference that would be found with that probability."""

Kind: TypeAlias = Literal["variant", "difference"]


@dataclass(frozen=True)
class Row:
    """A row: its name, a cell for each name of the header, and whether it is a paired difference."""

    name: str
    kind: Kind
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Grid:
    """Rows under a header. The header does not name the first column, which holds the names of the rows."""

    header: tuple[str, ...]
    rows: tuple[Row, ...]

    def to_markdown(self) -> str:
        """Return a Markdown table; differences are in italics, and their notes have a row of their own below them."""
        body = []
        for row in self.rows:
            name = (
                f"*difference: {markdown_escape(row.name)}*" if row.kind == "difference" else markdown_escape(row.name)
            )
            # pandas and tabulate strip spaces of any width
            body.append([name.replace("\u2003", "&emsp;"), *map(_markdown, row.cells)])
            if any(cell.note for cell in row.cells):
                body.append([f"&emsp;{FOUND}", *(cell.note.removeprefix(f"{FOUND} ") for cell in row.cells)])
        return markdown_table(["", *map(markdown_escape, self.header)], body)

    def to_table(self, caption: str) -> Table:
        """Return a sortable table for a page."""
        rows = [[Cell(_named(row)), *row.cells] for row in self.rows]
        return Table(caption, ["", *self.header], rows, [row.kind for row in self.rows])

    def to_latex(self, caption: str, label: str, notes: str = "") -> str:
        """Return a table environment with booktabs' rules for ``\\input``; ``notes`` are printed below the table."""
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


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table of texts that are Markdown already."""
    frame = pd.DataFrame(list(rows), columns=list(header))
    return str(frame.to_markdown(index=False, disable_numparse=True))
