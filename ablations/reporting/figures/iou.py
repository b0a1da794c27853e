"""AP over the IoU that a detection must reach: how well the boxes fit."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from ...records.record import Record, known
from ..context import Records
from ..tables import StudyTable
from .style import (
    Drawing,
    drawing,
    in_words,
    legend,
    numbered,
    plot_groups,
    runs_of,
    subplots,
)

__all__ = ["draw"]

THRESHOLDS = [0.5 + 0.05 * step for step in range(10)]


def draw(table: StudyTable, records: Records) -> Drawing | None:
    """Return the figure; None for a table whose first metric is not AP."""
    if table.study.metrics[0] != "AP" or table.study.identical:
        return None
    lines = [
        {"variant": variant, "seed": seed, "IoU": round(iou, 2), "AP": 100 * value}
        for variant, seed, record in runs_of(table, records)
        for iou, value in _by_threshold(record).items()
    ]
    data = pd.DataFrame(lines, columns=["variant", "seed", "IoU", "AP"])
    names = [variant.name for variant in table.study.variants]

    def make() -> Figure:
        made, (axis,) = subplots(1, 1, (7, 3.8))
        plot_groups(axis, data, "IoU", "AP", names)
        axis.set(xlabel="IoU that counts as found", ylabel="AP, %", ylim=(0, None))
        legend(made, axis)
        return made

    words = in_words(data[data["IoU"].isin([0.5, 0.75, 0.9])], "variant", "IoU", "AP")
    return drawing(
        f"{table.study.name}-iou",
        table.study.name,
        f"{numbered(table)}, AP over the IoU threshold: thin lines are seeds, thick ones their mean.",
        f"AP falls as the IoU threshold rises, by row of {numbered(table)}: {words}",
        data,
        make,
        "not run",
    )


def _by_threshold(record: Record) -> dict[float, float]:
    """Return AP by IoU: at all ten thresholds where the record has them, otherwise at those among its metrics."""
    curves = known(record.curves)
    if curves is not None:
        return {iou: value for iou, value in zip(THRESHOLDS, curves.ap_by_iou, strict=True) if value is not None}
    found = {percent / 100: record.metrics.get(f"AP{percent}") for percent in (50, 60, 70, 75, 80, 90)}
    return {iou: value for iou, value in found.items() if value is not None}
