"""How a folder of results was made: command, protocol, code, machine, versions, dates, seeds, data, budgets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cornernet.console import count
from cornernet.drawing.html import Cell, Table

from ..records.record import Provenance, known
from .cells import FAILED, NOT_RECORDED, NOT_RUN
from .report import Report

__all__ = ["RUNS_HEADER", "measured_with", "provenance", "provenance_rows", "runs_rows", "runs_table"]

RUNS_HEADER = ("study", "variant", "seed", "iterations", "seconds", "processor", "torch", "revision")


def provenance(report: Report) -> dict[str, Any]:
    """Return the provenance of a report, as in results.json. Where runs differ, it lists every distinct value."""
    runs = [record for record in report.records.values() if record is not None]
    made = [record.provenance for record in runs]
    dates = sorted(each.date for each in made)
    return {
        "command": report.context.command,
        "profile": report.context.profile,
        "data": report.context.data,
        "protocol": report.protocol,
        "seeds": list(report.context.seeds),
        "seeds_not_run": list(report.absent_seeds),
        "runs": len({record.evaluation_key for record in runs}),
        "trainings": len({record.training_key for record in runs}),
        "first_run": dates[0] if dates else None,
        "last_run": dates[-1] if dates else None,
        "revisions": _distinct(each.revision for each in made),
        "processors": _distinct(each.processor for each in made),
        "platforms": _distinct(each.platform for each in made),
        "versions": _versions(made),
        "evaluators": _distinct(known(each.evaluator) for each in made),
        "fingerprints": {
            "train": _distinct(record.data.train for record in runs),
            "val": _distinct(record.data.val for record in runs),
        },
        "configs": {record.evaluation_key: record.config for record in runs},
        "broken_records": list(report.broken),
        "records_of_no_row": list(report.others),
    }


def _distinct(values: Iterable[str | None]) -> list[str]:
    return sorted({value for value in values if value is not None})


def _versions(made: Sequence[Provenance]) -> dict[str, list[str]]:
    names = sorted({name for each in made for name in each.versions})
    versions = {name: _distinct(each.versions.get(name) for each in made) for name in names}
    return {"python": _distinct(each.python for each in made), **versions}


def provenance_rows(tree: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return :func:`provenance` as pairs of a name and a text, without the configurations."""

    def listed(values: Sequence[object]) -> str:
        return ", ".join(map(str, values)) or NOT_RECORDED

    dates = [tree["first_run"], tree["last_run"]]
    rows = [
        ("command", tree["command"]),
        ("protocol", "none (exploratory)" if tree["protocol"] is None else f"{tree['protocol']} (docs/protocol.md)"),
        ("seeds", listed(tree["seeds"])),
        ("runs", f"{count(tree['runs'], 'evaluation')} of {count(tree['trainings'], 'training')}"),
        ("dates of the runs", " to ".join(dates) if all(dates) else NOT_RECORDED),
        ("code revision", listed(tree["revisions"])),
        ("hardware", listed(tree["processors"])),
        ("system", listed(tree["platforms"])),
        ("versions", "; ".join(f"{name} {listed(values)}" for name, values in tree["versions"].items())),
        ("evaluated by", listed(tree.get("evaluators", ()))),
        ("data, training", listed([each[:16] for each in tree["fingerprints"]["train"]])),
        ("data, evaluation", listed([each[:16] for each in tree["fingerprints"]["val"]])),
        ("configurations", "in results.json, one per evaluation"),
        (
            "on another machine",
            "the same configuration, data and seed give identical bits with the same processor and versions; with "
            "others the last digits of the losses differ, and all later results may differ by as much as between "
            "seeds (docs/reliability.md, Determinism)",
        ),
    ]
    if tree["seeds_not_run"]:
        rows.append(("seeds of the profile that did not run", listed(tree["seeds_not_run"])))
    rows += [("record left out", line) for line in tree["broken_records"]]
    if tree["records_of_no_row"]:
        rows.append(("records that no table uses", listed(tree["records_of_no_row"])))
    return rows


def runs_rows(report: Report) -> list[list[Cell]]:
    """Return a row for each run, under :data:`RUNS_HEADER`: its budget, its time and its machine."""
    lines = []
    for (study, variant, seed), record in report.records.items():
        start = [Cell(study), Cell(variant), Cell(str(seed), sort=seed)]
        if record is None:
            what = FAILED if (study, variant, seed) in report.context.failed else NOT_RUN
            lines.append([*start, Cell(what), *[Cell("")] * 4])
            continue
        made, iterations, seconds = record.provenance, record.iterations, record.seconds.training
        lines.append(
            [
                *start,
                Cell(str(iterations), sort=iterations),
                Cell("resumed") if seconds is None else Cell(str(round(seconds)), sort=seconds),
                Cell(made.processor),
                Cell(made.versions.get("torch", NOT_RECORDED)),
                Cell(made.revision),
            ]
        )
    return lines


def runs_table(report: Report) -> Table:
    """Return the runs as a table of a page."""
    return Table("Runs", RUNS_HEADER, runs_rows(report))


def measured_with(threads: int, versions: Mapping[str, str], date: str) -> str:
    """Return the sentence below a benchmark's heading: number of threads, versions, and the date (ISO 8601)."""
    named = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return f"{count(threads, 'thread')}; {named}; measured {date[:10]}."
