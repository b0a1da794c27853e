"""AP against the time per image, with the Pareto front: the rows that no other row beats in both."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from cornernet.drawing.escapes import figure_escape

from ..cells import NOT_MEASURED
from ..context import Records
from ..rows import VariantRow
from ..tables import StudyTable
from .style import Drawing, drawing, legend, look, numbered, subplots

__all__ = ["draw", "pareto"]


def draw(table: StudyTable, records: Records) -> Drawing | None:  # noqa: ARG001 - all figures are called alike
    """Return the figure; None for a table without times, or whose rows all detect the same."""
    if not table.study.latency or table.study.identical:
        return None
    lines = []
    for row in table.rows:
        times, ap = list(row.costs["latency"].values()), row.statistics["AP"]
        if isinstance(row, VariantRow) and times and ap.mean is not None:
            low, high = (None, None) if table.few_seeds else (ap.low, ap.high)
            mean = sum(times) / len(times)
            lines.append({"variant": row.label, "ms": mean, "AP": ap.mean, "low": low, "high": high})
    data = pd.DataFrame(lines, columns=["variant", "ms", "AP", "low", "high"])
    data["front"] = pareto(list(data["ms"]), list(data["AP"]))
    names = [variant.name for variant in table.study.variants]

    def make() -> Figure:
        made, (axis,) = subplots(1, 1, (7.5, 4.2))
        front = data[data["front"]].sort_values("ms")
        axis.step(front["ms"], front["AP"], where="post", color="#555555", linewidth=1, label="Pareto front")
        for line in data.to_dict("records"):
            colour, marker = look(line["variant"], names)
            if pd.notna(line["low"]):
                axis.plot([line["ms"]] * 2, [line["low"], line["high"]], color=colour, linewidth=1, alpha=0.6)
            axis.scatter(
                [line["ms"]], [line["AP"]], color=colour, marker=marker, s=40, label=figure_escape(line["variant"])
            )
        axis.set(xlabel="milliseconds an image", ylabel="AP, %", xscale="log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("{x:g}")
        axis.tick_params(axis="x", which="minor", labelsize=7)
        legend(made, axis)
        return made

    words = "; ".join(
        f"{line['variant']}: {line['AP']:.1f} in {line['ms']:.0f} ms{', on the front' if line['front'] else ''}"
        for line in data.to_dict("records")
    )
    return drawing(
        f"{table.study.name}-latency",
        table.study.name,
        f"{numbered(table)}, AP against the time per image, from pixels to boxes, with the Pareto front; bars are "
        "intervals of AP.",
        f"AP against milliseconds per image: {words}",
        data,
        make,
        NOT_MEASURED,
    )


def pareto(costs: list[float], gains: list[float]) -> list[bool]:
    """Tell for each point whether no other costs at most as much and gains at least as much, and differs."""
    points = list(zip(costs, gains, strict=True))
    return [not any(c <= cost and g >= gain and (c < cost or g > gain) for c, g in points) for cost, gain in points]
