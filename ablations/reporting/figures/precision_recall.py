"""Precision over recall at an IoU of 0.5 and of 0.75, averaged over classes as AP averages them."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from ...records.record import known
from ..cells import NOT_RECORDED
from ..context import Records
from ..tables import StudyTable
from .style import Drawing, drawing, legend, numbered, plot_groups, runs_of, subplots

__all__ = ["draw"]


def draw(table: StudyTable, records: Records) -> Drawing | None:
    """Return the figure; None for a table whose first metric is not AP."""
    if table.study.metrics[0] != "AP" or table.study.identical:
        return None
    lines = [
        {"variant": variant, "seed": seed, "IoU": int(iou) / 100, "recall": at / 100, "precision": value}
        for variant, seed, record in runs_of(table, records)
        if (curves := known(record.curves)) is not None
        for iou, values in curves.precision.items()
        for at, value in enumerate(values)
        if value is not None
    ]
    data = pd.DataFrame(lines, columns=["variant", "seed", "IoU", "recall", "precision"])
    names = [variant.name for variant in table.study.variants]

    def make() -> Figure:
        thresholds = sorted(set(data["IoU"]))
        made, axes = subplots(1, len(thresholds), (9, 3.8), share_y=True)
        for axis, iou in zip(axes, thresholds, strict=True):
            plot_groups(axis, data[data["IoU"] == iou], "recall", "precision", names)
            axis.set(title=f"IoU {iou:g}", xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1))
        legend(made, axes[0])
        return made

    return drawing(
        f"{table.study.name}-precision-recall",
        table.study.name,
        f"{numbered(table)}, precision over recall, mean over classes: thin lines are seeds, thick ones their mean.",
        f"Precision falls as recall rises, by row of {numbered(table)}, at an IoU of 0.5 and of 0.75; the "
        "records have every point.",
        data,
        make,
        NOT_RECORDED,
        of_curves=True,
    )
