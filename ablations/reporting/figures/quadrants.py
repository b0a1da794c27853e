"""Corner mAP drawn where it was measured: in the top-left and the bottom-right quadrant of a photograph."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cornernet.drawing.escapes import figure_escape

from ..context import Records
from ..tables import StudyTable
from .style import Drawing, drawing, look, numbered, subplots

__all__ = ["draw"]

KINDS = {"top_left": "top-left corners", "bottom_right": "bottom-right corners"}
PLACES = {"top_left": (0.0, 0.5), "bottom_right": (0.5, 0.0)}


def draw(table: StudyTable, records: Records) -> Drawing | None:  # noqa: ARG001 - all figures are called alike
    """Return the figure; None for a table that does not evaluate corners."""
    if not _by_quadrant(table):
        return None
    data = _frame(table)

    def make() -> Figure:
        made, axes = subplots(1, 2, (9, 4.6))
        for axis, (kind, title) in zip(axes, KINDS.items(), strict=True):
            _photograph(axis, data[data["corner"] == kind], [variant.name for variant in table.study.variants])
            axis.set_title(title)
        return made

    words = "; ".join(
        f"{KINDS[line['corner']]}, {line['quadrant'].replace('_', '-')} quadrant, {line['row']}: {line['mean']:.1f}"
        for line in data.dropna(subset=["mean"]).to_dict("records")
    )
    return drawing(
        f"{table.study.name}-quadrants",
        table.study.name,
        f"{numbered(table)}, mAP of corners in percent, in the quadrant of the photograph where they lie; the paper "
        "evaluates two of the four.",
        f"A photograph in four quadrants with the corner mAP of each row: {words}",
        data,
        make,
        "not run",
    )


def _by_quadrant(table: StudyTable) -> list[str]:
    return [metric for metric in table.study.metrics if metric.endswith("_quadrant")]


def _frame(table: StudyTable) -> pd.DataFrame:
    lines: list[dict[str, Any]] = []
    for row in table.rows:
        for metric in _by_quadrant(table):
            _, kind, quadrant = metric.split("/")
            found = row.statistics[metric]
            if found.mean is None:
                continue
            low, high = (None, None) if table.few_seeds else (found.low, found.high)
            lines.append(
                {"row": row.label, "kind": row.kind, "corner": kind, "quadrant": quadrant.split("_quadrant")[0]}
                | {"mean": found.mean, "low": low, "high": high}
            )
    return pd.DataFrame(lines, columns=["row", "kind", "corner", "quadrant", "mean", "low", "high"])


def _photograph(axis: Axes, data: pd.DataFrame, names: list[str]) -> None:
    axis.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[], aspect="equal")
    for x, y in ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5)):
        evaluated = (x, y) in PLACES.values()
        face = "#eef2f6" if evaluated else "white"
        axis.add_patch(Rectangle((x, y), 0.5, 0.5, facecolor=face, edgecolor="black", linewidth=0.8))
        if not evaluated:
            axis.text(x + 0.25, y + 0.25, "not evaluated", ha="center", va="center", color="#666666")
    for quadrant, (x, y) in PLACES.items():
        part = data[data["quadrant"] == quadrant].to_dict("records")
        if not part:
            axis.text(x + 0.25, y + 0.25, "not measured", ha="center", va="center", color="#666666")
        for at, line in enumerate(part):
            difference = line["kind"] == "difference"
            name = "difference" if difference else figure_escape(line["row"])
            value = f"{line['mean']:+.1f}" if difference else f"{line['mean']:.1f}"
            colour = "black" if difference else look(line["row"], names).colour
            height = y + 0.5 - 0.5 * (at + 1) / (len(part) + 1)
            axis.text(x + 0.25, height, f"{name}\n{value}", ha="center", va="center", color=colour, fontsize=8.5)
