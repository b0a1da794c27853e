"""reports/README.md: a row for each claim of the paper, and a column with the verdict of each folder of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from cornernet.console import count
from cornernet.drawing.escapes import markdown_escape

from ..profiles import PROFILES
from ..records.measuring import MIN_OBJECTS
from ..statistics.claims import CONCLUSIONS, LEVEL, JudgedClaim
from ..studies import PROTOCOL, declared_in
from .cells import estimate_cell
from .grid import markdown_table
from .kernels_report import KernelReport
from .overview import overview
from .report import Report
from .speed_report import SpeedReport
from .templating import render_template

__all__ = ["EXPECTED", "index_markdown"]

EXPECTED = ("standard-shapes", "standard-bccd", "gpu-shapes")
"""Folders that have a column even before anything ran."""

NO_RECORDS = "not run"


def index_markdown(
    reports: Mapping[str, Report],
    kernels: Sequence[KernelReport],
    speeds: Sequence[SpeedReport] = (),
    left_out: Sequence[str] = (),
    unrecorded: Sequence[str] = (),
) -> str:
    """Return the text of reports/README.md.

    ``reports`` maps a folder's name to its report. ``left_out`` are sentences on what could not be read.
    ``unrecorded`` are the names of folders of tables without committed records, which are not regenerated.
    """
    columns = list(dict.fromkeys([*EXPECTED, *reports]))
    return render_template(
        "reports.md.j2",
        level=f"{LEVEL:.0%}",
        min_objects=MIN_OBJECTS,
        protocols=[
            (protocol, *(_claims(protocol, named, reports, primary=primary) for primary in (True, False)))
            for protocol, named in _by_protocol(columns)
        ],
        folders=_folders(columns, reports, unrecorded),
        kernels=_kernels(kernels),
        speeds=_speeds(speeds),
        left_out=left_out,
    )


def _by_protocol(columns: Sequence[str]) -> list[tuple[int, list[str]]]:
    """Return the folders whose profiles follow each protocol, from the first protocol on."""
    profiles = {name: PROFILES.get(name.partition("-")[0]) for name in columns}
    followed = {name: PROTOCOL if profile is None else profile.declarations for name, profile in profiles.items()}
    return [(each, [name for name in columns if followed[name] == each]) for each in sorted(set(followed.values()))]


def _claims(protocol: int, columns: Sequence[str], reports: Mapping[str, Report], primary: bool) -> str:
    judged = {name: _judged(reports[name], primary) if name in reports else {} for name in columns}
    body = []
    for study in declared_in(protocol).values():
        for claim in study.claims:
            if primary and not claim.primary:
                continue
            cells = [_verdict(judged[name].get((study.name, claim.name)), name, study.name) for name in columns]
            table = study.title if study.table is None else f"Table {study.table}"
            body.append([table, markdown_escape(claim.statement), *cells])
    return markdown_table(["", "claim", *map(markdown_escape, columns)], body)


def _judged(report: Report, primary: bool) -> dict[tuple[str, str], JudgedClaim]:
    if primary:
        return {
            (study, judged.claim.name): judged
            for study, judged in overview(report.tables, report.absent).judged.items()
        }
    return {(table.study.name, judged.claim.name): judged for table in report.tables for judged in table.judged}


def _verdict(judged: JudgedClaim | None, folder: str, study: str) -> str:
    if judged is None:
        return NO_RECORDS
    if not any(estimate.per_seed or estimate.unmeasured for estimate in judged.estimates):
        return f"[{NO_RECORDS}]({quote(folder)}/tables/{study}.md)"
    bold = "**" if judged.verdict in CONCLUSIONS else ""
    shown = estimate_cell(judged.estimate)
    return f"[{bold}{judged.verdict}{bold}]({quote(folder)}/tables/{study}.md)" + (f", {shown}" if shown else "")


def _folders(columns: Sequence[str], reports: Mapping[str, Report], unrecorded: Sequence[str]) -> str:
    body = [_folder(reports[name], name) if name in reports else _empty(name, name, NO_RECORDS) for name in columns]
    for name in unrecorded:
        link = f"[{markdown_escape(name)}]({quote(name)}/README.md)"
        body.append(_empty(name, link, "records not committed; not regenerated"))
    return markdown_table(["", "profile", "data", "runs", "seeds", "hardware"], body)


def _folder(report: Report, name: str) -> list[str]:
    runs = [record for record in report.records.values() if record is not None]
    texts = [
        report.context.profile,
        report.context.data,
        count(len({record.evaluation_key for record in runs}), "evaluation"),
        ", ".join(map(str, report.context.seeds)) if runs else "",
        ", ".join(sorted({record.provenance.processor for record in runs})),
    ]
    links = f"[tables]({quote(name)}/README.md), [page]({quote(name)}/index.html)"
    return [links, *map(markdown_escape, texts)]


def _empty(name: str, shown: str, why: str) -> list[str]:
    """Return the row of a folder without records, which is called PROFILE-DATA."""
    profile, _, data = name.partition("-")
    return [shown, markdown_escape(profile), markdown_escape(data), why, "", ""]


def _kernels(kernels: Sequence[KernelReport]) -> str | None:
    """Return a table with a row for each device, or None without any."""
    body = []
    for each in kernels:
        part = each.data[each.data["ratio"].notna()]
        link = f"[{markdown_escape(each.device)}](benchmarks/{quote(each.name)}.md)"
        body.append([link, count(len(part), "row"), ", ".join(dict.fromkeys(part["implementation"])), each.date[:10]])
    return markdown_table(["device", "measured", "implementations", "date"], body) if body else None


def _speeds(speeds: Sequence[SpeedReport]) -> str | None:
    """Return a table with a row for each suite and device, or None without any."""
    body = [
        [
            f"[{each.suite} on {markdown_escape(each.device)}](benchmarks/{quote(each.name)}.md)",
            f"{each.measured} of {count(len(each.rows), 'row')}",
            each.date[:10],
        ]
        for each in speeds
    ]
    return markdown_table(["", "measured", "date"], body) if body else None
