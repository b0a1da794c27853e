"""Pages of the speed of inference and training, from the rows in ``reports/benchmarks/DEVICE-SUITE.json``.

A row compares two ways of doing the same work, timed alternately in one process (``benchmarks/stages.py``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cornernet.drawing.html import Cell

from .grid import Grid, Row
from .provenance import measured_with
from .templating import render_template

__all__ = ["SUITES", "SpeedReport", "read_speeds", "speed_files"]

SUITES = ("inference", "training")
_HEADER = (
    "variant", "input", "batch", "ms", "compared with", "its ms", "speedup", "images/s", "GFLOP/s",
    "share of torch.mm", "peak MiB",
)  # fmt: skip
_HOW = (
    "The variant of each row and what it is compared with were timed alternately in one process. Times are medians. "
    "The speedup is the median of the ratios of pairs, with quartiles; above 1 the variant is faster. The share of "
    "torch.mm is the GFLOP/s relative to a large torch.mm in the same process. Peak memory excludes weights and "
    "inputs. Float32 unless stated otherwise."
)


@dataclass(frozen=True)
class SpeedReport:
    """The benchmark rows of one suite on one device, and how they were measured."""

    name: str
    """Name of the JSON file, without its suffix."""
    suite: str
    device: str
    threads: int
    date: str
    versions: dict[str, str]
    rows: tuple[dict[str, Any], ...]

    @property
    def measured(self) -> int:
        """The number of rows that have a time."""
        return sum(row["status"] == "ok" for row in self.rows)

    def grid(self) -> Grid:
        """Return a row for each measurement: its recipe and stage, and its values or the reason why it has none."""
        return Grid(_HEADER, tuple(Row(_named(row), "variant", _cells(row)) for row in self.rows))


def read_speeds(path: Path) -> SpeedReport:
    """Return the benchmark rows in a JSON file. Raises ``ValueError`` that names the file and the fix."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        common, rows = content["common"], tuple(each["extra_info"] for each in content["benchmarks"])
        if not rows:
            raise ValueError("it has no rows")
        for row in rows:
            _cells(row)
        suite = rows[0]["suite"]
        return SpeedReport(
            path.stem, suite, common["device"], common["threads"], content["datetime"], common["versions"], rows
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path.name} holds no rows of a speed suite: {error!r}; publish it again by python -m benchmarks.results"
        ) from error


def speed_files(report: SpeedReport) -> dict[str, bytes]:
    """Return a Markdown table and a page by name, to be written beside the JSON."""
    title = f"Speed of {report.suite} on {report.device}"
    values = {
        "title": title,
        "report": report,
        "how": _HOW,
        "about": measured_with(report.threads, report.versions, report.date),
    }
    grid = report.grid()
    return {
        f"{report.name}.md": render_template("speed.md.j2", rows=grid, **values).encode(),
        f"{report.name}.html": render_template("speed.html.j2", rows=grid.to_table(title), **values).encode(),
    }


def _named(row: dict[str, Any]) -> str:
    return ", ".join(part for part in (row["recipe"], row["stage"]) if part)


def _cells(row: dict[str, Any]) -> tuple[Cell, ...]:
    size = "×".join(map(str, row["size"])) if row["size"] else ""
    what = [Cell(row["way"]), Cell(size), _number(row["batch"], "d")]
    if row["status"] != "ok":
        reason = f"{row['status']}: {row['reason']}"
        return (*what, Cell(reason), *(Cell("") for _ in _HEADER[len(what) + 1 :]))
    ratio = f"{row['ratio']:.2f} [{row['ratio_lower']:.2f}, {row['ratio_upper']:.2f}]"
    against = (
        (Cell(row["against"]), _number(row["against_milliseconds"], ".4g"), Cell(ratio, sort=row["ratio"]))
        if row["against"]
        else (Cell(""),) * 3
    )
    peak = row["peak_bytes"]
    return (
        *what,
        _number(row["milliseconds"], ".4g"),
        *against,
        _number(row["images_per_second"], ".3g"),
        _number(row["gigaflop_per_second"], ".3g"),
        _number(row["share_of_mm"], ".0%"),
        _number(None if peak is None else peak / 2**20, ".0f"),
    )


def _number(value: float | None, form: str) -> Cell:
    return Cell("") if value is None else Cell(format(value, form), sort=value)
