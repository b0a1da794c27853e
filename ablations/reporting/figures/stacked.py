"""Stacked bars of times by stage, which two figures draw."""

from __future__ import annotations

from typing import Literal

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cornernet.drawing.escapes import figure_escape

from ...records.record import known
from ..cells import NOT_RECORDED
from ..context import Records
from ..tables import StudyTable
from .style import Drawing, drawing, in_words, runs_of, subplots

__all__ = ["stacked"]


def stacked(table: StudyTable, records: Records, field: Literal["stages", "step_stages"], caption: str) -> Drawing:
    """Return bars of what records have under ``latency``, ``field``: milliseconds by stage, in the record's order."""
    lines = [
        {"variant": variant, "seed": seed, "stage": stage, "ms": value}
        for variant, seed, record in runs_of(table, records)
        for stage, value in known(getattr(record.latency, field)) or ()
    ]
    data = pd.DataFrame(lines, columns=["variant", "seed", "stage", "ms"])
    means = data.groupby(["variant", "stage"], sort=False)["ms"].mean()

    def make() -> Figure:
        variants, stages = list(dict.fromkeys(data["variant"])), list(dict.fromkeys(data["stage"]))
        made, (axis,) = subplots(1, 1, (9, 1.6 + 0.4 * len(variants)))
        colours = sns.color_palette("colorblind", 10)
        start = [0.0] * len(variants)
        for at, stage in enumerate(stages):
            widths = [float(means.get((variant, stage), 0.0)) for variant in variants]
            axis.barh(range(len(variants)), widths, left=start, color=colours[at % 10], label=stage, height=0.7)
            start = [a + b for a, b in zip(start, widths, strict=True)]
        axis.set_yticks(range(len(variants)), [figure_escape(variant) for variant in variants])
        axis.invert_yaxis()
        axis.grid(visible=False, axis="y")
        axis.set(xlabel="milliseconds")
        made.legend(loc="outside lower center", ncols=min(4, len(stages)))
        return made

    words = in_words(data, "variant", "stage", "ms", " ms")
    name = f"{table.study.name}-{field.replace('_', '-')}"
    return drawing(name, table.study.name, caption, f"Stacked bars: {words}", data, make, NOT_RECORDED)
