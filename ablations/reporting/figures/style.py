"""What all figures share: the look, the colour of each variant, and the bytes of a figure.

The same data gives the same bytes: no date, no name of a program, ids of SVG elements salted with a constant, and every
setting of matplotlib that is not named here at its default, whatever the user's own settings are.
"""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ablations.reporting.tables import Records, StudyTable
from ablations.studies import STUDIES

__all__ = [
    "Drawing",
    "Look",
    "drawing",
    "in_words",
    "legend",
    "look",
    "numbered",
    "plain",
    "plot_groups",
    "runs_of",
    "styled",
    "subplots",
]

_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cornernet-lab",
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 5.0,
    "path.simplify": True,
}
_MARKERS = "os^Dv<>P"
_DOTS_PER_INCH = 130


class Look(NamedTuple):
    """How a variant is drawn, in every figure of every table."""

    colour: tuple[float, float, float]
    marker: str


@dataclass(frozen=True)
class Drawing:
    """A figure: its name, the study it is of, what it shows, what it looks like in words, and the data behind it.

    ``svg`` and ``png`` are None where the records hold nothing to draw; ``missing`` says what they lack.
    """

    name: str
    study: str
    caption: str
    alternative: str
    data: pd.DataFrame
    svg: bytes | None = None
    png: bytes | None = None
    missing: str = ""


@functools.cache
def _palette() -> list[tuple[float, float, float]]:
    # eight of the ten: the last two are a grey, and a blue near the first
    colours = sns.color_palette("colorblind", 10)
    return [tuple(colours[at]) for at in (0, 1, 2, 3, 4, 5, 6, 8)]


@functools.cache
def _numbers() -> dict[str, int]:
    names = dict.fromkeys(variant.name for study in STUDIES.values() for variant in study.variants)
    return {name: number for number, name in enumerate(names)}


def look(variant: str, among: Sequence[str] = ()) -> Look:
    """Return a variant's colour and marker: those of its place among the variants of all studies.

    A variant of none of them is drawn by its place in ``among``.
    """
    number = _numbers().get(variant)
    if number is None:
        number = among.index(variant) if variant in among else 0
    colours = _palette()
    return Look(colours[number % len(colours)], _MARKERS[number // len(colours) % len(_MARKERS)])


@contextmanager
def styled() -> Iterator[None]:
    """Draw with the project's settings alone."""
    with mpl.rc_context():
        mpl.rcdefaults()
        sns.set_theme(style="whitegrid", palette="colorblind", rc=_SETTINGS)
        yield


def subplots(
    rows: int,
    columns: int,
    size: tuple[float, float],
    share_y: bool = False,
    heights: Sequence[float] | None = None,
) -> tuple[Figure, list[Axes]]:
    """Return a figure of ``size`` inches and its axes, row by row; no window and no global state behind it."""
    made = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(made)
    axes = made.subplots(rows, columns, squeeze=False, sharey=share_y, height_ratios=heights)
    return made, [axis for row in axes for axis in row]


def drawing(
    name: str, study: str, caption: str, alternative: str, data: pd.DataFrame, draw: Callable[[], Figure], missing: str
) -> Drawing:
    """Return a figure from the function that draws it, which is not called where there is no data."""
    if data.empty:
        return Drawing(name, study, caption, alternative, data, missing=missing)
    with styled():
        made = draw()
        svg, png = io.BytesIO(), io.BytesIO()
        with warnings.catch_warnings():
            # names from data may be in letters that the font lacks: the SVG holds them as text all the same
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            made.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
            made.savefig(png, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return Drawing(name, study, caption, alternative, data, svg.getvalue(), png.getvalue())


def numbered(table: StudyTable) -> str:
    """Return what a caption calls a table."""
    return table.study.title if table.study.table is None else f"Table {table.study.table}"


def in_words(data: pd.DataFrame, first: str, second: str, value: str, unit: str = "") -> str:
    """Return the means of a column over two others, in words."""
    means = data.groupby([first, second], sort=False)[value].mean().reset_index()
    return "; ".join(f"{one}, {two}: {mean:.1f}{unit}" for one, two, mean in means.itertuples(index=False, name=None))


def plain(text: str) -> str:
    """Return text that matplotlib takes as it is: a dollar sign begins no formula."""
    return text.replace("$", r"\$")


def runs_of(table: StudyTable, records: Records) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    """Yield variant, seed and record of the runs behind a table, in its order."""
    for variant in table.study.variants:
        for seed in table.context.seeds:
            record = records.get((table.study.name, variant.name, seed))
            if record is not None:
                yield variant.name, seed, record


def plot_groups(axis: Axes, data: pd.DataFrame, x: str, y: str, names: Sequence[str]) -> None:
    """Draw ``y`` over ``x`` for each variant: a thin line a seed, and a thick one for their mean."""
    for variant in dict.fromkeys(data["variant"]):
        part = data[data["variant"] == variant]
        colour = look(variant, names).colour
        for _, each in part.groupby("seed"):
            axis.plot(each[x], each[y], color=colour, linewidth=0.6, alpha=0.5)
        mean = part.groupby(x)[y].mean()
        axis.plot(mean.index, mean.to_numpy(), color=colour, linewidth=1.8, label=plain(variant))


def legend(made: Figure, axis: Axes) -> None:
    """Put the legend of an axis below the whole figure."""
    handles, labels = axis.get_legend_handles_labels()
    kept = dict(zip(labels, handles, strict=True))
    made.legend(list(kept.values()), list(kept), loc="outside lower center", ncols=min(3, len(kept)))
