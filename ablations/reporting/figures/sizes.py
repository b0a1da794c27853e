"""AP by the size of the object: a point for each seed, and the interval of the mean."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from cornernet.drawing.escapes import figure_escape

from ..context import Records
from ..rows import VariantRow
from ..tables import StudyTable
from .style import Drawing, drawing, in_words, legend, look, numbered, subplots

__all__ = ["draw"]

SIZES = {"APs": "small", "APm": "medium", "APl": "large"}


def draw(table: StudyTable, records: Records) -> Drawing | None:  # noqa: ARG001 - all figures are called alike
    """Return the figure; None for a table without AP by size."""
    if not set(SIZES) <= set(table.study.metrics):
        return None
    data = _frame(table)
    names = [variant.name for variant in table.study.variants]

    def make() -> Figure:
        made, (axis,) = subplots(1, 1, (8, 3.6))
        step = 0.8 / len(names)
        for at, name in enumerate(names):
            colour, marker = look(name, names)
            for column, size in enumerate(SIZES.values()):
                part = data[(data["variant"] == name) & (data["size"] == size)]
                if part.empty:
                    continue
                x = column - 0.4 + step * (at + 0.5)
                axis.scatter(
                    [x] * len(part),
                    part["AP"],
                    color=colour,
                    marker=marker,
                    s=20,
                    linewidths=0,
                    label=figure_escape(name),
                )
                first = part.iloc[0]
                if pd.notna(first["low"]):
                    axis.plot([x, x], [first["low"], first["high"]], color=colour, linewidth=1.6)
        axis.set_xticks(range(len(SIZES)), list(SIZES.values()))
        axis.set(xlabel="size of the object", ylabel="AP, %")
        axis.grid(visible=False, axis="x")
        legend(made, axis)
        return made

    words = in_words(data, "variant", "size", "AP")
    return drawing(
        f"{table.study.name}-sizes",
        table.study.name,
        f"{numbered(table)}, AP by the size of the object: every seed as a point, and the interval of the mean.",
        f"AP of small, medium and large objects by row of {numbered(table)}: {words}",
        data,
        make,
        "not run, or no such objects",
    )


def _frame(table: StudyTable) -> pd.DataFrame:
    lines: list[dict[str, Any]] = []
    for row in table.rows:
        if not isinstance(row, VariantRow):
            continue
        for metric, size in SIZES.items():
            found = row.statistics[metric]
            without = table.few_seeds or metric in table.seeds_alone
            low, high = (None, None) if without else (found.low, found.high)
            lines += [
                {"variant": row.label, "size": size, "seed": seed, "AP": value}
                | {"mean": found.mean, "low": low, "high": high}
                for seed, value in row.values[metric].items()
                if value is not None
            ]
    return pd.DataFrame(lines, columns=["variant", "size", "seed", "AP", "mean", "low", "high"])
