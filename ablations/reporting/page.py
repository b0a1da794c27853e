"""index.html: everything of a folder on one page that needs no other file and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cornernet.drawing.html import Cell, details, escape, figure, inline_svg, page, picture, table

from .cells import points
from .figures import Drawing
from .made_with import RUNS_HEADER, provenance_rows, runs_rows
from .overview import Overview
from .placed import PlacedPicture
from .report import Report
from .tables import StudyTable
from .verdicts import claims_grid, claims_reading, decided

__all__ = ["index_page"]

_ROWS_SHOWN = 400
"""Of the data behind a figure; the rest is in results.json."""


def index_page(
    report: Report,
    summary: Overview,
    drawings: Sequence[Drawing],
    provenance: Mapping[str, Any],
    pictures: Sequence[PlacedPicture],
    notes: Sequence[str],
) -> str:
    """Return the page."""
    context = report.context
    title = f"Profile {context.profile} on {context.data}"
    body = [
        f"<h1>{escape(title)}</h1>",
        "<p>A small-budget run, not COCO: compare signs and sizes of differences with the paper's, not levels. The "
        "paper's figures stand in columns of their own. A click on a column's name sorts by it.</p>",
    ]
    if not any(report.records.values()):
        body.append(f"<p>No run has a record here. <code>{escape(context.command)}</code> makes them.</p>")
    body += [f'<p class="note">Left out: {escape(line)}.</p>' for line in (*report.broken, *notes)]
    body.append(_filter(report.tables))
    if summary.decided:
        body.append(_overview(summary))
    body += [_section(each, drawings, report) for each in report.tables]
    if pictures:
        body.append(_pictures(pictures))
    body.append(_provenance(report, provenance))
    return page(title, "\n".join(body))


def _filter(tables: Sequence[StudyTable]) -> str:
    options = "".join(f'<option value="{escape(each.study.name)}">{escape(each.heading)}</option>' for each in tables)
    return (
        '<p class="controls"><label for="filter">Study: </label><select id="filter"><option value="">all of them'
        f"</option>{options}</select></p>"
    )


def _overview(summary: Overview) -> str:
    grid = summary.grid()
    lines = "".join(f"<p class=note>{escape(line)}</p>" for line in summary.notes())
    # the verdict first: a phone shows two columns
    claim, verdict, *rest = grid.header
    rows = [
        [Cell(row.name, link=f"#{name}"), row.cells[1], row.cells[0], *row.cells[2:]]
        for name, row in zip(summary.judged, grid.rows, strict=True)
    ]
    shown = table(["table", verdict, claim, *rest], rows, caption="The paper's primary claims, judged together")
    return f"<section><h2>Overview</h2>{shown}{lines}</section>"


def _section(each: StudyTable, drawings: Sequence[Drawing], report: Report) -> str:
    name = escape(each.study.name)
    parts = [
        f'<section id="{name}" data-study="{name}">',
        f"<h2>{escape(each.heading)}</h2>",
        f"<p>{escape(each.study.question)}</p>",
        each.grid().to_html(each.heading),
        *(f"<p class=note>{_marked(line)}</p>" for line in each.notes()),
    ]
    published = each.published_grid()
    if published is not None:
        parts.append(published.to_html(each.published_says))
    if decided(each.judged):
        parts += [
            f"<h3>{escape(each.claims_heading)}</h3>",
            claims_grid(each.judged).to_html(f"{each.heading}: claims"),
            *(f"<p class=note>{_marked(line)}</p>" for line in claims_reading(each.judged)),
        ]
    parts += [_drawn(drawing) for drawing in drawings if drawing.study == each.study.name]
    classes = _classes(each, report)
    if classes:
        parts.append(details("AP by class", classes))
    parts.append("</section>")
    return "\n".join(parts)


def _marked(line: str) -> str:
    """Return a sentence of ours without the marks of Markdown."""
    return escape(line.replace("*", "").replace("`", ""))


def _drawn(drawing: Drawing) -> str:
    if drawing.svg is None:
        return f'<p class="note">{escape(drawing.caption)} <em>{escape(drawing.missing)}</em></p>'
    data = drawing.data.head(_ROWS_SHOWN)
    rows = [[_value(value) for value in line] for line in data.itertuples(index=False)]
    shown = table(list(map(str, data.columns)), rows, caption=f"Data of the figure {drawing.name}")
    more = len(drawing.data) - len(data)
    text = f'<p class="note">{more} more rows are in results.json.</p>' if more > 0 else ""
    behind = details(f"Data behind this figure ({len(drawing.data)} rows)", shown + text)
    svg = inline_svg(drawing.svg.decode(), drawing.name, drawing.alternative)
    return figure(svg, drawing.caption, behind)


def _value(value: Any) -> Cell:
    if pd.isna(value):
        return Cell("")
    if isinstance(value, bool | str):
        return Cell(str(value))
    return Cell(f"{value:.6g}", sort=float(value))


def _classes(each: StudyTable, report: Report) -> str:
    """Return AP by class, the mean over seeds; empty where nothing ran or classes were not evaluated."""
    by_variant: dict[str, dict[str, list[float]]] = {}
    for (study, variant, _), record in report.records.items():
        if study == each.study.name and record is not None:
            for name, metrics in record.per_class.items():
                value = metrics.get("AP")
                if value is not None:
                    by_variant.setdefault(variant, {}).setdefault(name, []).append(value)
    names = list(dict.fromkeys(name for values in by_variant.values() for name in values))
    if not names:
        return ""
    rows = []
    for variant, values in by_variant.items():
        means = [100 * sum(values[name]) / len(values[name]) if name in values else None for name in names]
        rows.append([Cell(variant), *(Cell(points(mean) or "not measured", sort=mean) for mean in means)])
    return table(["", *names], rows, caption=f"{each.heading}: AP by class, mean over seeds, %")


def _pictures(pictures: Sequence[PlacedPicture]) -> str:
    parts = ["<section><h2>Pictures</h2>"]
    for each in pictures:
        caption = f"{each.caption} Chosen by: {each.rule} Runs: {', '.join(each.runs)}; sha256 {each.sha256[:16]}."
        parts += [
            f"<h3>{escape(each.title)}</h3>",
            figure(picture(each.content, each.kind, each.alternative), caption),
        ]
    return "\n".join([*parts, "</section>"])


def _provenance(report: Report, provenance: Mapping[str, Any]) -> str:
    rows = [[Cell(name), Cell(text)] for name, text in provenance_rows(provenance)]
    lines = "".join(f"<dt>{escape(name.text)}</dt><dd>{escape(text.text)}</dd>" for name, text in rows)
    runs = details("Every run", table(list(RUNS_HEADER), runs_rows(report), caption="Runs"))
    return f"<section><h2>How it was made</h2><dl>{lines}</dl>{runs}</section>"
