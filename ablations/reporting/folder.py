"""A folder of results: every file of it as bytes, a pure function of a report; writing them, and finding stale ones.

README.md is what people see first, index.html the same on one page with more; tables/ and figures/ are what a paper
takes; results.json is everything shown, and ``results.schema.json`` beside this module says what it holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import pandas as pd

from cornernet.files import atomic_write, remove_unfinished

from ..records.record import Record, tree
from ..statistics.intervals import CONFIDENCE
from .figures import Drawing, draw_all
from .grid import markdown_escape
from .made_with import RUNS_HEADER, made_with, provenance_rows, runs_rows
from .overview import Overview, overview
from .page import index_page
from .placed import PlacedPicture
from .report import Report
from .tables import StudyTable
from .verdicts import claims_frame

__all__ = ["GENERATED", "render", "stale", "write_files"]

GENERATED = ("tables", "figures")
"""The folders in which every file is ours: what is no longer made is removed."""

_SECONDS_UNFINISHED = 3600.0
"""A file that has been in the making for longer is of a process that was killed."""

_DIGITS = 9
"""Of a number in results.json: sums in another order, on another processor, differ behind them."""


def render(report: Report, pictures: Sequence[PlacedPicture] = (), notes: Sequence[str] = ()) -> dict[str, bytes]:
    """Return the files of a report's folder by their path in it. The same report gives the same bytes.

    ``notes`` are sentences on what was left out beside records.
    """
    summary, drawings = overview(report.tables), draw_all(report.tables, report.records)
    provenance = made_with(report)
    files: dict[str, bytes | str] = {}
    for table in report.tables:
        name = table.study.name
        files[f"tables/{name}.md"] = table.to_markdown() + "\n"
        files[f"tables/{name}.csv"] = _csv(table.to_frame())
        files[f"tables/{name}.tex"] = table.to_latex()
        if table.judged:
            files[f"tables/{name}-claims.csv"] = _csv(claims_frame(table.judged))
    for each in drawings:
        if each.svg is not None and each.png is not None:
            files[f"figures/{each.name}.svg"] = each.svg
            files[f"figures/{each.name}.png"] = each.png
    results = _results(report, summary, drawings, provenance, pictures)
    files["results.json"] = json.dumps(_rounded(results), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    files["README.md"] = _readme(report, summary, drawings, provenance, pictures, notes)
    files["index.html"] = index_page(report, summary, drawings, provenance, pictures, notes)
    return {path: content.encode() if isinstance(content, str) else content for path, content in files.items()}


def _csv(frame: pd.DataFrame) -> str:
    return str(frame.to_csv(index=False, lineterminator="\n", float_format=f"%.{_DIGITS}g"))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {str(name): _rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value


def _results(
    report: Report,
    summary: Overview,
    drawings: Sequence[Drawing],
    provenance: Mapping[str, Any],
    pictures: Sequence[PlacedPicture],
) -> dict[str, Any]:
    context = report.context
    return {
        "version": 1,
        "context": {
            "profile": context.profile,
            "data": context.data,
            "command": context.command,
            "seeds": list(context.seeds),
            "areas": None if context.areas is None else list(context.areas),
        },
        "provenance": dict(provenance),
        "tables": [_table(table, report) for table in report.tables],
        "overview": summary.to_dict(),
        "figures": [
            {
                "name": each.name,
                "study": each.study,
                "caption": each.caption,
                "drawn": each.svg is not None,
                "missing": each.missing,
                "columns": list(map(str, each.data.columns)),
                "rows": json.loads(each.data.to_json(orient="values", double_precision=6)),
            }
            for each in drawings
        ],
        "pictures": [
            {"file": each.path, "sha256": each.sha256, "title": each.title, "rule": each.rule, "runs": list(each.runs)}
            for each in pictures
        ],
        "runs": [
            {"study": study, "variant": variant, "seed": seed, **_without_bulk(record)}
            for (study, variant, seed), record in report.records.items()
            if record is not None
        ],
    }


def _table(table: StudyTable, report: Report) -> dict[str, Any]:
    failed = [
        {"variant": variant, "seed": seed, "why": why}
        for (study, variant, seed), why in report.context.failed.items()
        if study == table.study.name
    ]
    return {
        "study": table.study.name,
        "table": table.study.table,
        "title": table.study.title,
        "unit": "percent",
        "exploratory": table.study.exploratory,
        "confidence": CONFIDENCE,
        "areas": None if table.context.areas is None else list(table.context.areas),
        "spread_over_seeds_alone": list(table.seeds_alone),
        "rows": [row.to_dict() for row in table.rows],
        "published": table.study.published_values(),
        "claims": [claim.to_dict() for claim in table.judged],
        "not_measured_here": {
            variant: why for (study, variant), why in report.context.unavailable.items() if study == table.study.name
        },
        "disagreements": list(table.disagreements),
        **({"failed": failed} if failed else {}),
    }


def _without_bulk(record: Record) -> dict[str, Any]:
    """Return a record without what is shown elsewhere or to nobody: curves, resamples, the configuration."""
    found = tree(record)
    kept = {name: value for name, value in found.items() if name not in ("curves", "resamples", "config")}
    if found["resamples"] is not None:
        kept["resamples"] = {name: value for name, value in found["resamples"].items() if name != "values"}
    return kept


def _readme(
    report: Report,
    summary: Overview,
    drawings: Sequence[Drawing],
    provenance: Mapping[str, Any],
    pictures: Sequence[PlacedPicture],
    notes: Sequence[str],
) -> str:
    context = report.context
    data = markdown_escape(context.data)
    body = [f"# Profile `{context.profile}` on {data}"]
    if not any(report.records.values()):
        body.append(f"No run of this profile on {data} has a record. {_code(context.command)} makes them.")
    else:
        body.append("The same with sortable tables and all figures, in one file: [index.html](index.html).")
    body += [f"Left out: {markdown_escape(line)}." for line in (*report.broken, *notes)]
    if summary.decided:
        body.append(summary.to_markdown())
    for table in report.tables:
        body.append(table.to_markdown())
        for each in drawings:
            if each.study == table.study.name and each.name == f"{each.study}-seeds" and each.png is not None:
                body.append(f"![{_alternative(each.alternative)}](figures/{each.name}.png)")
    if pictures:
        body.append("## Pictures")
        for picture in pictures:
            place = quote(f"../pictures/{context.profile}-{context.data}/{picture.path}")
            body += [
                f"### {markdown_escape(picture.title)}",
                f"![{_alternative(picture.alternative)}]({place})",
                f"{markdown_escape(picture.caption)}  \nChosen by: {markdown_escape(picture.rule)}",
            ]
    rows = pd.DataFrame([[name, markdown_escape(text)] for name, text in provenance_rows(provenance)])
    rows.columns = pd.Index(["", "how it was made"])
    runs = pd.DataFrame(
        [[markdown_escape(cell.text) for cell in row] for row in runs_rows(report)], columns=RUNS_HEADER
    )
    body += [
        "## How it was made",
        _code(context.command),
        str(rows.to_markdown(index=False, disable_numparse=True)),
        "### Runs",
        str(runs.to_markdown(index=False, disable_numparse=True)),
    ]
    return "\n\n".join(body) + "\n"


def _code(text: str) -> str:
    """Return text as a code span of Markdown, in which nothing but its end is markup."""
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}"


def _alternative(text: str) -> str:
    return markdown_escape(text).replace("]", "&#93;").replace("[", "&#91;")


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write what differs, and remove from :data:`GENERATED` what is no longer made.

    Each file is replaced whole. A call that is killed leaves some as they were: the next one, and a check, finds them.
    """
    remove_unfinished(folder, _SECONDS_UNFINISHED)
    for path in stale(folder, files):
        if path in files:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            atomic_write(folder / path, files[path])
        else:
            (folder / path).unlink()


def stale(folder: Path, files: Mapping[str, bytes]) -> list[str]:
    """Return the paths in a folder that are missing, differ from ``files``, or are made no longer.

    Of PNG files the pixels are compared: compression differs between processors.
    """
    wrong = [path for path, content in files.items() if not _same(folder / path, content)]
    there = (path for part in GENERATED for path in (folder / part).glob("*") if path.is_file())
    left = (path.relative_to(folder).as_posix() for path in there)
    return [*wrong, *sorted(path for path in left if path not in files)]


def _same(path: Path, content: bytes) -> bool:
    if not path.is_file():
        return False
    found = path.read_bytes()
    if found == content:
        return True
    if path.suffix != ".png":
        return False
    ours, theirs = (cv2.imdecode(np.frombuffer(each, np.uint8), cv2.IMREAD_UNCHANGED) for each in (content, found))
    return ours is not None and theirs is not None and np.array_equal(ours, theirs)
