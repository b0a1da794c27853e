"""README.md of a folder of results: its tables, a figure for each, pictures, and how all was made."""

from __future__ import annotations

from cornernet.drawing.escapes import markdown_escape

from .contents import Contents
from .figures import Drawing
from .grid import markdown_table
from .provenance import RUNS_HEADER, provenance_rows, runs_rows
from .tables import StudyTable
from .templating import render_template

__all__ = ["readme"]


def readme(contents: Contents) -> str:
    """Return the file's text."""
    report = contents.report
    rows = [[name, markdown_escape(text)] for name, text in provenance_rows(contents.provenance)]
    runs = [[markdown_escape(cell.text) for cell in row] for row in runs_rows(report)]
    return render_template(
        "readme.md.j2",
        contents=contents,
        context=report.context,
        sections=[(table, _seeds(table, contents)) for table in report.tables],
        pictures_folder=f"../pictures/{report.context.profile}-{report.context.data}",
        provenance=markdown_table(["", "how it was made"], rows),
        runs=markdown_table(RUNS_HEADER, runs),
    )


def _seeds(table: StudyTable, contents: Contents) -> Drawing | None:
    """Return the figure of a study that shows every seed, or None if it was not drawn."""
    for drawing in contents.drawings_of(table.study):
        if drawing.name == f"{table.study.name}-seeds" and drawing.svg is not None:
            return drawing
    return None
