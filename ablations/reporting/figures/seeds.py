"""Every seed as a point, with the mean and its interval: the arms on the left, their differences on the right."""

from __future__ import annotations

import textwrap
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...statistics.intervals import CONFIDENCE
from ..tables import Records, StudyTable
from .style import Drawing, drawing, look, numbered, plain, subplots

__all__ = ["draw"]


def draw(table: StudyTable, records: Records) -> Drawing | None:  # noqa: ARG001 - all figures are called alike
    """Return the figure of a table's first metric."""
    metric = table.study.metrics[0]
    shown = dict(table.study.paper_names).get(metric, metric)
    data = _frame(table, metric)
    names = [variant.name for variant in table.study.variants]

    def make() -> Figure:
        parts = [data[data["kind"] == kind] for kind in ("variant", "difference")]
        counts = [max(1, part["row"].nunique()) for part in parts]
        made, (above, below) = subplots(2, 1, (8, 1.5 + 0.46 * sum(counts)), heights=counts)
        _rows(above, parts[0], names)
        above.set(xlabel=f"{plain(shown)}, %")
        _rows(below, parts[1], names)
        below.axvline(0, color="black", linewidth=1)
        below.set(xlabel=f"{plain(shown)}, difference in points")
        return made

    interval = (
        f"the mean with its {CONFIDENCE:.0%} interval over seeds and images, where there are seeds enough for one"
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
        statistics = row["statistics"][metric]
        spread = table.few_seeds or metric in table.seeds_alone
        low, high = (None, None) if spread else (statistics["low"], statistics["high"])
        lines += [
            {"row": row["label"], "kind": row["kind"], "seed": seed, "value": value}
            | {"mean": statistics["mean"], "low": low, "high": high}
            for seed, value in row["values"][metric].items()
            if value is not None
        ]
    columns = ["row", "kind", "seed", "value", "mean", "low", "high"]
    return pd.DataFrame(lines, columns=columns)


def _rows(axis: Axes, data: pd.DataFrame, names: list[str]) -> None:
    labels = list(dict.fromkeys(data["row"]))
    for at, label in enumerate(labels):
        part = data[data["row"] == label]
        colour, marker = look(label if label in names else label.partition(" less ")[0], names)
        axis.scatter(part["value"], [at + 0.16] * len(part), color=colour, marker=marker, s=22, alpha=0.7, linewidths=0)
        first = part.iloc[0]
        mean = first["mean"]
        if pd.notna(first["low"]):
            axis.plot([first["low"], first["high"]], [at - 0.12] * 2, color=colour, linewidth=2)
        if pd.notna(mean):
            axis.scatter([mean], [at - 0.12], color=colour, marker="|", s=120, linewidths=2)
    axis.set_yticks(range(len(labels)), [_wrapped(label) for label in labels], fontsize=8)
    axis.set_ylim(max(1, len(labels)) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")


def _wrapped(label: str) -> str:
    parts = label.split(" less ")
    lines = [line for part in parts[:1] for line in textwrap.wrap(part, 46)]
    lines += [line for part in parts[1:] for line in textwrap.wrap(f"less {part}", 46)]
    return plain("\n".join(lines))


def _in_words(data: pd.DataFrame) -> str:
    means = data.dropna(subset=["mean"]).groupby("row", sort=False)["mean"].first()
    return "; ".join(f"{row} {mean:.1f}" for row, mean in means.items()) or "nothing measured"
