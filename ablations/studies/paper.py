"""The values that the paper prints: tables 1 to 7 of arXiv 1808.01244v2."""

from __future__ import annotations

import functools
import importlib.resources
import json
from dataclasses import dataclass
from typing import Any

__all__ = ["PaperTable", "paper_table"]


@dataclass(frozen=True)
class PaperTable:
    """A table as printed; values in percent."""

    number: int
    title: str
    metrics: tuple[str, ...]
    rows: dict[str, dict[str, float]]
    note: str
    others: dict[str, dict[str, dict[str, float]]]
    """Rows of other detectors that the paper prints in groups, by group and name. What it leaves blank is left out."""

    def row(self, name: str) -> dict[str, float]:
        """Return a printed row, metric to percent. Raises ``KeyError`` that names the existing rows."""
        rows = {**self.rows, **{other: row for group in self.others.values() for other, row in group.items()}}
        if name not in rows:
            raise KeyError(f"table {self.number} has no row {name!r}; it has {', '.join(rows)}")
        return rows[name]

    def group(self, name: str) -> str:
        """Return the group of :attr:`others` that a row is in; empty for a row of none."""
        return next((group for group, rows in self.others.items() if name in rows), "")

    def transposed(self) -> PaperTable:
        """Return the table with its rows as metrics and its metrics as rows, without other detectors."""
        rows = {metric: {name: row[metric] for name, row in self.rows.items()} for metric in self.metrics}
        return PaperTable(self.number, self.title, tuple(self.rows), rows, self.note, {})


@functools.cache
def paper_table(number: int) -> PaperTable:
    """Return table ``number`` of the paper, 1 to 7."""
    text = importlib.resources.files(__package__).joinpath("paper_tables.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)["tables"][str(number)]
    metrics = tuple(table["metrics"])
    rows = {name: dict(zip(metrics, values, strict=True)) for name, values in table["rows"].items()}
    others = {
        group: {name: _printed(metrics, values) for name, values in table[group].items()}
        for group in _GROUPS
        if group in table
    }
    return PaperTable(number, table["title"], metrics, rows, table.get("note", ""), others)


_GROUPS = ("two-stage detectors", "one-stage detectors")


def _printed(metrics: tuple[str, ...], values: list[float | None]) -> dict[str, float]:
    return {name: value for name, value in zip(metrics, values, strict=True) if value is not None}
