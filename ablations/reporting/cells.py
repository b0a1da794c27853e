"""What a cell shows: one decimal, a sign for a difference, nothing where there is nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..statistics.claims import Estimate
from ..statistics.intervals import CONFIDENCE, summarise

__all__ = [
    "FAILED",
    "NOT_MEASURED",
    "NOT_RECORDED",
    "NOT_RUN",
    "REFUSED",
    "difference_cell",
    "estimate_cell",
    "level_cell",
    "p_cell",
    "points",
    "spread_cell",
]

NOT_MEASURED = "not measured"
NOT_RUN = "not run"
REFUSED = "refused"
FAILED = "failed"
NOT_RECORDED = "not recorded"
"""What stands where there is no number."""


def points(value: float | None, *, signed: bool = False) -> str:
    """Return points with one decimal; empty for None and NaN. Zero never has a minus."""
    if value is None or math.isnan(value):
        return ""
    return f"{value:+z.1f}" if signed else f"{value:z.1f}"


def spread_cell(values: Sequence[float | None], *, signed: bool = False) -> str:
    """Return a mean with its standard deviation, as ``44.6 (sd 1.9)``; up to two measured values are shown themselves.

    Two values have a standard deviation, but it says next to nothing.
    """
    summary = summarise(values)
    if summary.count == 0:
        return NOT_MEASURED
    if summary.count <= 2:
        return ", ".join(filter(None, (points(value, signed=signed) for value in values)))
    return f"{points(summary.mean, signed=signed)} (sd {points(summary.deviation)})"


def level_cell(mean: float, low: float, high: float) -> str:
    """Return an arm's mean with half the width of its interval, as ``44.6 ±1.9``; only the mean without an interval."""
    return points(mean) if math.isnan(low) else f"{points(mean)} ±{points((high - low) / 2)}"


def difference_cell(mean: float, low: float, high: float) -> str:
    """Return a difference with its interval, as ``+3.6 [+1.2, +6.0]``; only the mean without one."""
    text = points(mean, signed=True)
    return text if math.isnan(low) else f"{text} [{points(low, signed=True)}, {points(high, signed=True)}]"


def estimate_cell(estimate: Estimate) -> str:
    """Return a tested difference with its interval, and the confidence where it is not the usual 95%."""
    text = difference_cell(estimate.mean, estimate.low, estimate.high)
    usual = math.isclose(estimate.confidence, CONFIDENCE)
    return text if usual or math.isnan(estimate.low) else f"{text} at {100 * estimate.confidence:.3g}%"


def p_cell(p: float) -> str:
    """Return a p-value with three decimals; a dash where there was no test."""
    if math.isnan(p):
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"
