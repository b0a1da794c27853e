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

    def row(self, name: str) -> dict[str, float]:
        """Return a printed row, metric to percent. Raises ``KeyError`` that names the existing rows."""
        if name not in self.rows:
            raise KeyError(f"table {self.number} has no row {name!r}; it has {', '.join(self.rows)}")
        return self.rows[name]

    def transposed(self) -> PaperTable:
        """Return the table with its rows as metrics and its metrics as rows."""
        rows = {metric: {name: row[metric] for name, row in self.rows.items()} for metric in self.metrics}
        return PaperTable(self.number, self.title, tuple(self.rows), rows, self.note)


@functools.cache
def paper_table(number: int) -> PaperTable:
    """Return table ``number`` of the paper, 1 to 7."""
    text = importlib.resources.files(__package__).joinpath("paper_tables.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)["tables"][str(number)]
    metrics = tuple(table["metrics"])
    rows = {name: dict(zip(metrics, values, strict=True)) for name, values in table["rows"].items()}
    return PaperTable(number, table["title"], metrics, rows, table.get("note", ""))
