"""reports/README.md: the paper's claims as rows, what each folder of results says to them as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

import pandas as pd

from ..statistics.claims import LEVEL, JudgedClaim
from ..studies import STUDIES
from .cells import estimate_cell
from .grid import markdown_escape
from .kernels_report import KernelReport
from .overview import overview
from .report import Report
from .speed_report import SpeedReport

__all__ = ["EXPECTED", "index_markdown"]

EXPECTED = ("standard-shapes", "standard-bccd", "gpu-shapes")
"""Columns that are there even before anything ran."""

NO_RECORDS = "not run"


def index_markdown(
    reports: Mapping[str, Report],
    kernels: Sequence[KernelReport],
    speeds: Sequence[SpeedReport] = (),
    left_out: Sequence[str] = (),
    unrecorded: Sequence[str] = (),
) -> str:
    """Return the overview of all folders.

    ``reports`` are by folder; ``left_out`` sentences on what could not be read; ``unrecorded`` folders of tables
    without committed records, which are not made again.
    """
    columns = list(dict.fromkeys([*EXPECTED, *reports]))
    parts = [
        "# Results",
        "Written by `nox -s report` from the committed records (records/) and benchmarks (benchmarks/), and by nothing "
        "else; `nox -s report -- --check` fails where this is not so. Small-budget runs, not COCO: what holds, holds "
        "of this data at this budget.",
        "## The paper's primary claims",
        _claims(columns, reports, primary=True),
        f"One claim a table, at {LEVEL:.0%}, two-sided, p-values adjusted by Holm over the tables of a column. Each "
        "verdict leads to its table. *Too few seeds*: fewer than three. *Not measured*: the data has nothing to "
        "measure it on.",
        "## All claims",
        _claims(columns, reports, primary=False),
        "P-values adjusted by Holm over the claims of each table, so that a primary claim may have another verdict "
        "here.",
        "## Folders",
        _folders(columns, reports, unrecorded),
        "## Corner pooling",
        _kernels(kernels),
        "## Inference and training",
        _speeds(speeds),
    ]
    parts += [f"Left out: {markdown_escape(line)}." for line in left_out]
    return "\n\n".join(parts) + "\n"


def _claims(columns: Sequence[str], reports: Mapping[str, Report], primary: bool) -> str:
    judged = {name: _judged(reports[name], primary) if name in reports else {} for name in columns}
    body = []
    for study in STUDIES.values():
        for claim in study.claims:
            if primary and not claim.primary:
                continue
            cells = [_verdict(judged[name].get((study.name, claim.name)), name, study.name) for name in columns]
            number = study.title if study.table is None else f"Table {study.table}"
            body.append([number, markdown_escape(claim.statement), *cells])
    return _table(["", "claim", *map(markdown_escape, columns)], body)


def _judged(report: Report, primary: bool) -> dict[tuple[str, str], JudgedClaim]:
    if primary:
        return {(study, judged.claim.name): judged for study, judged in overview(report.tables).judged.items()}
    return {(table.study.name, judged.claim.name): judged for table in report.tables for judged in table.judged}


def _verdict(judged: JudgedClaim | None, folder: str, study: str) -> str:
    if judged is None:
        return NO_RECORDS
    if not any(estimate.per_seed or estimate.unmeasured for estimate in judged.estimates):
        return f"[{NO_RECORDS}]({quote(folder)}/tables/{study}.md)"
    bold = "**" if judged.verdict in ("holds here", "opposite here") else ""
    shown = estimate_cell(judged.estimate)
    return f"[{bold}{judged.verdict}{bold}]({quote(folder)}/tables/{study}.md)" + (f", {shown}" if shown else "")


def _folders(columns: Sequence[str], reports: Mapping[str, Report], unrecorded: Sequence[str]) -> str:
    body = []
    for name in columns:
        if name not in reports:
            profile, _, data = name.partition("-")
            body.append([name, profile, data, NO_RECORDS, "", ""])
            continue
        report = reports[name]
        runs = [record for record in report.records.values() if record is not None]
        seeds = ", ".join(map(str, report.context.seeds)) if runs else ""
        processors = sorted({record.provenance.processor for record in runs})
        links = f"[tables]({quote(name)}/README.md), [page]({quote(name)}/index.html)"
        count = len({record.evaluation_key for record in runs})
        texts = [report.context.profile, report.context.data, f"{count} evaluations", seeds, ", ".join(processors)]
        body.append([links, *map(markdown_escape, texts)])
    body += [
        [
            f"[{markdown_escape(name)}]({quote(name)}/README.md)",
            *map(markdown_escape, (name.partition("-")[0], name.partition("-")[2])),
            *("records not committed: not made again", "", ""),
        ]
        for name in unrecorded
    ]
    return _table(["", "profile", "data", "runs", "seeds", "hardware"], body)


def _kernels(kernels: Sequence[KernelReport]) -> str:
    body = []
    for each in kernels:
        part = each.data[each.data["ratio"].notna()]
        measured = ", ".join(dict.fromkeys(part["implementation"]))
        body.append(
            [
                f"[{markdown_escape(each.device)}](benchmarks/{quote(each.name)}.md)",
                f"{len(part)} rows",
                measured,
                each.date[:10],
            ]
        )
    if not body:
        return "Not measured."
    return _table(["device", "measured", "implementations", "date"], body)


def _speeds(speeds: Sequence[SpeedReport]) -> str:
    if not speeds:
        return "Not measured."
    body = [
        [
            f"[{each.suite} on {markdown_escape(each.device)}](benchmarks/{quote(each.name)}.md)",
            f"{each.measured} of {len(each.rows)} rows",
            each.date[:10],
        ]
        for each in speeds
    ]
    return _table(["", "measured", "date"], body)


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    frame = pd.DataFrame(body, columns=list(header))
    return str(frame.to_markdown(index=False, disable_numparse=True))
