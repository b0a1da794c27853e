"""What all figures share: the colour of each variant, and a figure together with its caption and data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cornernet.drawing.escapes import figure_escape
from cornernet.drawing.figures import rendered, styled, subplots

from ...records.record import Record
from ...studies import STUDIES
from ..context import Records
from ..tables import StudyTable

__all__ = [
    "Drawing",
    "Look",
    "drawing",
    "in_words",
    "legend",
    "look",
    "numbered",
    "plot_groups",
    "runs_of",
    "subplots",
]

_MARKERS = "os^Dv<>P"


class Look(NamedTuple):
    """How a variant is drawn, in every figure of every table."""

    colour: tuple[float, float, float]
    marker: str


@dataclass(frozen=True)
class Drawing:
    """A figure: its name, its study, a caption, a description for readers who cannot see it, and its data.

    ``svg`` is None where the records hold nothing to draw; ``missing`` says why. Data ``of_curves`` are the curves of
    the records, and stored only there.
    """

    name: str
    study: str
    caption: str
    alternative: str
    data: pd.DataFrame
    svg: bytes | None = None
    missing: str = ""
    of_curves: bool = False


@functools.cache
def _palette() -> list[tuple[float, float, float]]:
    # seven of the ten: without those that are faint on white (pink, yellow), and without a second blue
    colours = sns.color_palette("colorblind", 10)
    return [tuple(colours[at]) for at in (0, 1, 2, 3, 4, 5, 7)]


@functools.cache
def _numbers() -> dict[str, int]:
    names = dict.fromkeys(variant.name for study in STUDIES.values() for variant in study.variants)
    return {name: number for number, name in enumerate(names)}


def look(variant: str, among: Sequence[str] = ()) -> Look:
    """Return a variant's colour and marker, by its position among the variants of all studies.

    A variant of no study is drawn by its position in ``among``.
    """
    number = _numbers().get(variant)
    if number is None:
        number = among.index(variant) if variant in among else 0
    colours = _palette()
    return Look(colours[number % len(colours)], _MARKERS[number // len(colours) % len(_MARKERS)])


def drawing(
    name: str,
    study: str,
    caption: str,
    alternative: str,
    data: pd.DataFrame,
    draw: Callable[[], Figure],
    missing: str,
    *,
    of_curves: bool = False,
) -> Drawing:
    """Return a figure from the function that draws it, which is only called where there is data."""
    if data.empty:
        return Drawing(name, study, caption, alternative, data, missing=missing)
    with styled():
        svg = rendered(draw())
    return Drawing(name, study, caption, alternative, data, svg, of_curves=of_curves)


def numbered(table: StudyTable) -> str:
    """Return a table's name for captions."""
    return table.study.title if table.study.table is None else f"Table {table.study.table}"


def in_words(data: pd.DataFrame, first: str, second: str, value: str, unit: str = "") -> str:
    """Return the means of a column over two others as text."""
    means = data.groupby([first, second], sort=False)[value].mean().reset_index()
    return "; ".join(f"{one}, {two}: {mean:.1f}{unit}" for one, two, mean in means.itertuples(index=False, name=None))


def runs_of(table: StudyTable, records: Records) -> Iterator[tuple[str, int, Record]]:
    """Yield variant, seed and record of the runs behind a table, in the table's order."""
    for variant in table.study.variants:
        for seed in table.context.seeds:
            record = records.get((table.study.name, variant.name, seed))
            if record is not None:
                yield variant.name, seed, record


def plot_groups(axis: Axes, data: pd.DataFrame, x: str, y: str, names: Sequence[str]) -> None:
    """Draw ``y`` over ``x`` for each variant: a thin line for each seed, and a thick one for their mean."""
    for variant in dict.fromkeys(data["variant"]):
        part = data[data["variant"] == variant]
        colour = look(variant, names).colour
        for _, each in part.groupby("seed"):
            axis.plot(each[x], each[y], color=colour, linewidth=0.6, alpha=0.5)
        mean = part.groupby(x)[y].mean()
        axis.plot(mean.index, mean.to_numpy(), color=colour, linewidth=1.8, label=figure_escape(variant))


def legend(made: Figure, axis: Axes) -> None:
    """Put the legend of an axis below the whole figure."""
    handles, labels = axis.get_legend_handles_labels()
    kept = dict(zip(labels, handles, strict=True))
    made.legend(list(kept.values()), list(kept), loc="outside lower center", ncols=min(3, len(kept)))
