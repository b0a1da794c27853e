"""How a number stands in a cell: one decimal, a sign where it is a difference, nothing where there is nothing."""

from __future__ import annotations

import math

from ..statistics.claims import Estimate
from ..statistics.intervals import CONFIDENCE

__all__ = ["difference_cell", "estimate_cell", "level_cell", "p_cell", "points"]


def points(value: float | None, *, signed: bool = False) -> str:
    """Return points with one decimal; empty for None and NaN. No zero has a minus."""
    if value is None or math.isnan(value):
        return ""
    return f"{value:+z.1f}" if signed else f"{value:z.1f}"


def level_cell(mean: float, low: float, high: float) -> str:
    """Return an arm's mean with half the width of its interval, as ``44.6 ±1.9``; the mean alone without interval."""
    return points(mean) if math.isnan(low) else f"{points(mean)} ±{points((high - low) / 2)}"


def difference_cell(mean: float, low: float, high: float) -> str:
    """Return a difference with its interval, as ``+3.6 [+1.2, +6.0]``; the mean alone without interval."""
    text = points(mean, signed=True)
    return text if math.isnan(low) else f"{text} [{points(low, signed=True)}, {points(high, signed=True)}]"


def estimate_cell(estimate: Estimate) -> str:
    """Return a tested difference with its interval, and the confidence where it is not the usual one."""
    text = difference_cell(estimate.mean, estimate.low, estimate.high)
    usual = math.isclose(estimate.confidence, CONFIDENCE)
    return text if usual or math.isnan(estimate.low) else f"{text} at {estimate.confidence:.0%}"


def p_cell(p: float) -> str:
    """Return a p-value with three decimals; a dash where the test could not be made."""
    if math.isnan(p):
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"
