"""results.json: all that a folder shows, as data. ``results.schema.json`` beside this module describes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from ..records.record import Record, tree
from ..statistics.intervals import CONFIDENCE
from .contents import Contents
from .context import Context
from .figures import Drawing
from .report import Report
from .tables import StudyTable

__all__ = ["DIGITS", "results_json"]

DIGITS = 9
"""Significant digits of a number in a file: sums in another order, on another processor, differ beyond them."""


def results_json(contents: Contents) -> str:
    """Return the file's text, with floats rounded to :data:`DIGITS`. Raises ``ValueError`` for NaN and infinity."""
    return json.dumps(_rounded(_results(contents)), separators=(",", ":"), allow_nan=False, ensure_ascii=False) + "\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {str(name): _rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value


def _results(contents: Contents) -> dict[str, Any]:
    report = contents.report
    return {
        "version": 1,
        "context": _context(report.context),
        "provenance": dict(contents.provenance),
        "tables": [_table(table, report) for table in report.tables],
        "overview": contents.overview.to_dict(),
        "figures": [_figure(each) for each in contents.drawings],
        "pictures": [
            {"file": each.path, "sha256": each.sha256, "title": each.title, "rule": each.rule, "runs": list(each.runs)}
            for each in contents.pictures
        ],
        "runs": [
            {"study": study, "variant": variant, "seed": seed, **_without_bulk(record)}
            for (study, variant, seed), record in report.records.items()
            if record is not None
        ],
    }


def _context(context: Context) -> dict[str, Any]:
    return {
        "profile": context.profile,
        "data": context.data,
        "command": context.command,
        "seeds": list(context.seeds),
        "areas": None if context.areas is None else list(context.areas),
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
        "timing": None if table.timing is None else msgspec.to_builtins(table.timing),
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


def _figure(drawing: Drawing) -> dict[str, Any]:
    return {
        "name": drawing.name,
        "study": drawing.study,
        "caption": drawing.caption,
        "drawn": drawing.svg is not None,
        "missing": drawing.missing,
        "columns": list(map(str, drawing.data.columns)),
        "in_records": drawing.of_curves,
        "rows": [] if drawing.of_curves else json.loads(drawing.data.to_json(orient="values", double_precision=6)),
    }


def _without_bulk(record: Record) -> dict[str, Any]:
    """Return a record without its large fields: curves, the values of resamples, and the configuration.

    Configurations are under ``provenance``; the rest is in the committed record.
    """
    found = tree(record)
    kept = {name: value for name, value in found.items() if name not in ("curves", "resamples", "config")}
    if found["resamples"] is not None:
        kept["resamples"] = {name: found["resamples"][name] for name in ("fingerprint", "version", "resamples")}
    return kept
