"""Figures as bytes: seaborn's look, colours that people with any colour deficiency tell apart, text that stays text.

The same data gives the same bytes: no date, no name of a program, ids of SVG elements salted with a constant, and every
setting of matplotlib that is not named here at its default, whatever the user's own settings are.
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

__all__ = ["plain", "rendered", "styled", "subplots"]

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
    """Draw with these settings alone in this context."""
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


def rendered(made: Figure) -> tuple[bytes, bytes]:
    """Return a figure as SVG and as PNG."""
    svg, png = io.BytesIO(), io.BytesIO()
    with warnings.catch_warnings():
        # names from data may be in letters that the font lacks: the SVG holds them as text all the same
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        made.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        # laid out once: it is most of the time, and both are alike
        made.set_layout_engine("none")
        made.savefig(png, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return svg.getvalue(), png.getvalue()


def plain(text: str) -> str:
    """Return text that matplotlib takes as it is: a dollar sign begins no formula."""
    return text.replace("$", r"\$")
