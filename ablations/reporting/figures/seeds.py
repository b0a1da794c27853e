"""Every seed as a point, with the mean and its interval: the arms on the left, their differences on the right."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cornernet.drawing.escapes import figure_escape

from ...statistics.intervals import CONFIDENCE
from ..context import Records
from ..rows import DifferenceRow, Row, VariantRow
from ..tables import StudyTable
from .style import Drawing, drawing, look, numbered, subplots

__all__ = ["draw"]


def draw(table: StudyTable, records: Records) -> Drawing | None:  # noqa: ARG001 - all figures are called alike
    """Return the figure of a table's first metric."""
    metric = table.study.metrics[0]
    shown = dict(table.study.paper_names).get(metric, metric)
    data = _frame(table, metric)
    names = [variant.name for variant in table.study.variants]

    def make() -> Figure:
        measured = [row for row in table.rows if row.label in set(data["row"])]
        parts = [[row for row in measured if isinstance(row, kind)] for kind in (VariantRow, DifferenceRow)]
        counts = [max(1, len(part)) for part in parts]
        made, (above, below) = subplots(2, 1, (8, 1.5 + 0.46 * sum(counts)), heights=counts)
        _rows(above, parts[0], data, names)
        above.set(xlabel=f"{figure_escape(shown)}, %")
        _rows(below, parts[1], data, names)
        below.axvline(0, color="black", linewidth=1)
        below.set(xlabel=f"{figure_escape(shown)}, difference in points")
        return made

    interval = (
        f"the mean with its {CONFIDENCE:.0%} interval over seeds and images, where there are enough seeds for one"
    )
    return drawing(
        f"{table.study.name}-seeds",
        table.study.name,
        f"{numbered(table)}, {shown}: every seed as a point, and {interval}. Differences are paired by seed.",
        f"{shown} of each row of {numbered(table)} and of each difference between rows: " + _in_words(data),
        data,
        make,
        "not run",
    )


def _frame(table: StudyTable, metric: str) -> pd.DataFrame:
    lines: list[dict[str, Any]] = []
    for row in table.rows:
        found = row.statistics[metric]
        without = table.few_seeds or metric in table.seeds_alone
        low, high = (None, None) if without else (found.low, found.high)
        lines += [
            {"row": row.label, "kind": row.kind, "seed": seed, "value": value}
            | {"mean": found.mean, "low": low, "high": high}
            for seed, value in row.values[metric].items()
            if value is not None
        ]
    columns = ["row", "kind", "seed", "value", "mean", "low", "high"]
    return pd.DataFrame(lines, columns=columns)


def _rows(axis: Axes, rows: Sequence[Row], data: pd.DataFrame, names: list[str]) -> None:
    for at, row in enumerate(rows):
        part = data[data["row"] == row.label]
        # a difference looks like its variant
        colour, marker = look(row.sides[0], names)
        axis.scatter(part["value"], [at + 0.16] * len(part), color=colour, marker=marker, s=22, alpha=0.7, linewidths=0)
        first = part.iloc[0]
        mean = first["mean"]
        if pd.notna(first["low"]):
            axis.plot([first["low"], first["high"]], [at - 0.12] * 2, color=colour, linewidth=2)
        if pd.notna(mean):
            axis.scatter([mean], [at - 0.12], color=colour, marker="|", s=120, linewidths=2)
    axis.set_yticks(range(len(rows)), [_wrapped(row) for row in rows], fontsize=8)
    axis.set_ylim(max(1, len(rows)) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")


def _wrapped(row: Row) -> str:
    """Return a row's label in short lines; the base of a difference begins a line of its own."""
    variant, *base = row.sides
    lines = textwrap.wrap(variant, 46)
    for name in base:
        lines += textwrap.wrap(f"minus {name}", 46)
    return "\n".join(map(figure_escape, lines))


def _in_words(data: pd.DataFrame) -> str:
    means = data.dropna(subset=["mean"]).groupby("row", sort=False)["mean"].first()
    return "; ".join(f"{row} {mean:.1f}" for row, mean in means.items()) or "nothing measured"
