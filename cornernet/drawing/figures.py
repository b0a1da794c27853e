"""Figures as bytes, in seaborn's style, with colours for all kinds of colour vision and text that stays text in SVG.

The same data gives the same bytes. Files contain neither a date nor the name of a program, and the ids of SVG elements
are salted with a constant. Settings of matplotlib that are not named here have their defaults, regardless of the user's
own settings.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["rendered", "styled", "subplots"]

_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cornernet-lab",
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 5.0,
}
_DOTS_PER_INCH = 130


@contextmanager
def styled() -> Iterator[None]:
    """Use exactly these settings within this context."""
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
    """Return a figure of ``size`` inches (width, height) and its axes, row by row, without a window or global state."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=share_y, height_ratios=heights)
    return figure, [axis for row in axes for axis in row]


def rendered(figure: Figure) -> tuple[bytes, bytes]:
    """Return a figure as SVG and as PNG."""
    svg, png = io.BytesIO(), io.BytesIO()
    with warnings.catch_warnings():
        # names in the data may have letters that the font lacks; the SVG still holds them as text
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        # the layout takes most of the time and is the same for both formats
        figure.set_layout_engine("none")
        figure.savefig(png, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return svg.getvalue(), png.getvalue()
