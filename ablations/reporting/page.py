"""index.html: all results of a folder on one page, which needs no other file and no network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from cornernet.drawing.html import Cell, Table

from .cells import points
from .contents import Contents
from .figures import Drawing
from .overview import Overview
from .provenance import provenance_rows, runs_table
from .report import Report
from .tables import StudyTable
from .templating import render_template
from .verdicts import claims_grid, claims_reading, decided

__all__ = ["index_page"]

_ROWS_SHOWN = 400
"""How many rows of a figure's data the page shows; all of them are in results.json."""


@dataclass(frozen=True)
class _Figure:
    drawing: Drawing
    data: Table


@dataclass(frozen=True)
class _Section:
    """A study on the page. ``claims``, ``published`` and ``classes`` are None if there is nothing to show."""

    table: StudyTable
    results: Table
    published: Table | None
    claims: Table | None
    claims_notes: list[str]
    figures: list[_Figure]
    classes: Table | None


def index_page(contents: Contents) -> str:
    """Return the page."""
    context = contents.report.context
    return render_template(
        "index.html.j2",
        title=f"Profile {context.profile} on {context.data}",
        contents=contents,
        command=context.command,
        overview=_overview(contents.overview) if contents.overview.decided else None,
        sections=[_section(table, contents) for table in contents.report.tables],
        provenance=provenance_rows(contents.provenance),
        runs=runs_table(contents.report),
    )


def _overview(overview: Overview) -> Table:
    grid = overview.grid()
    # the verdict comes first: a phone shows two columns
    claim, verdict, *rest = grid.header
    rows = [
        [Cell(row.name, link=f"#{name}"), row.cells[1], row.cells[0], *row.cells[2:]]
        for name, row in zip(overview.judged, grid.rows, strict=True)
    ]
    return Table("The paper's primary claims, judged together", ["table", verdict, claim, *rest], rows)


def _section(table: StudyTable, contents: Contents) -> _Section:
    published, judged = table.published_grid(), table.judged
    shown = decided(judged)
    return _Section(
        table=table,
        results=table.grid().to_table(table.heading),
        published=None if published is None else published.to_table(table.published_says),
        claims=claims_grid(judged).to_table(f"{table.heading}: claims") if shown else None,
        claims_notes=claims_reading(judged) if shown else [],
        figures=[_Figure(each, _data(each)) for each in contents.drawings_of(table.study)],
        classes=_classes(table, contents.report),
    )


def _data(drawing: Drawing) -> Table:
    data = drawing.data.head(_ROWS_SHOWN)
    rows = [[_value(value) for value in line] for line in data.itertuples(index=False)]
    return Table(f"Data of the figure {drawing.name}", list(map(str, data.columns)), rows)


def _value(value: Any) -> Cell:
    if pd.isna(value):
        return Cell("")
    if isinstance(value, bool | str):
        return Cell(str(value))
    return Cell(f"{value:.6g}", sort=float(value))


def _classes(table: StudyTable, report: Report) -> Table | None:
    """Return AP by class, the mean over seeds, or None if no run of the study evaluated classes."""
    by_variant: dict[str, dict[str, list[float]]] = {}
    for (study, variant, _), record in report.records.items():
        if study == table.study.name and record is not None:
            for name, metrics in record.per_class.items():
                value = metrics.get("AP")
                if value is not None:
                    by_variant.setdefault(variant, {}).setdefault(name, []).append(value)
    names = list(dict.fromkeys(name for values in by_variant.values() for name in values))
    if not names:
        return None
    rows = []
    for variant, values in by_variant.items():
        means = [100 * sum(values[name]) / len(values[name]) if name in values else None for name in names]
        rows.append([Cell(variant), *(Cell(points(mean) or "not measured", sort=mean) for mean in means)])
    return Table(f"{table.heading}: AP by class, mean over seeds, %", ["", *names], rows)
