"""The losses over the iterations of training, as thinned in the record."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from ...records.record import known
from ..cells import NOT_RECORDED
from ..context import Records
from ..tables import StudyTable
from .style import Drawing, drawing, legend, numbered, plot_groups, runs_of, subplots

__all__ = ["draw"]

ACROSS = 3  # panels side by side, so that their text can be read where the figure is as wide as a page


def draw(table: StudyTable, records: Records) -> Drawing | None:
    """Return the figure; None for a table whose rows all share one training for each seed."""
    keys = {name: key for (name, _), key in table.trainings.items()}
    if len(set(keys.values())) < 2:
        return None
    lines = [
        {"variant": variant, "seed": seed, "iteration": iteration, "loss": loss, "value": value}
        for variant, seed, record in runs_of(table, records)
        if (curves := known(record.curves)) is not None
        for loss, values in curves.training.loss.items()
        for iteration, value in zip(curves.training.iteration, values, strict=True)
    ]
    data = pd.DataFrame(lines, columns=["variant", "seed", "iteration", "loss", "value"])
    names = [variant.name for variant in table.study.variants]

    def make() -> Figure:
        losses = list(dict.fromkeys(data["loss"]))
        rows, columns = -(-len(losses) // ACROSS), min(ACROSS, len(losses))
        made, axes = subplots(rows, columns, (3 * columns, 2.6 * rows + 0.6))
        for axis in axes[len(losses) :]:
            axis.remove()
        for axis, loss in zip(axes, losses, strict=False):
            plot_groups(axis, data[data["loss"] == loss], "iteration", "value", names)
            axis.set(title=loss, xlabel="iteration", ylabel="", yscale="log")
        legend(made, axes[0])
        return made

    return drawing(
        f"{table.study.name}-training",
        table.study.name,
        f"{numbered(table)}, losses of training: thin lines are seeds, thick ones their mean; logarithmic.",
        f"The losses of training over iterations, by row of {numbered(table)}; the records have every point.",
        data,
        make,
        NOT_RECORDED,
        of_curves=True,
    )
