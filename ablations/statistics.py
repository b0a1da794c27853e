"""Numbers with their spread: over seeds, and over seeds in pairs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["MIN_SEEDS_FOR_VERDICT", "Summary", "paired_differences", "summarise"]

# With fewer seeds a spread says next to nothing, and no verdict is given.
MIN_SEEDS_FOR_VERDICT = 3


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (NaN with fewer than two values) of ``count`` measured values."""

    mean: float
    deviation: float
    count: int


def summarise(values: Sequence[float | None]) -> Summary:
    """Return the summary of the values that were measured; None and NaN were not."""
    measured = [value for value in values if value is not None and not math.isnan(value)]
    if not measured:
        return Summary(math.nan, math.nan, 0)
    deviation = statistics.stdev(measured) if len(measured) > 1 else math.nan
    return Summary(statistics.fmean(measured), deviation, len(measured))


def paired_differences(variant: Mapping[int, float | None], base: Mapping[int, float | None]) -> dict[int, float]:
    """Return ``variant`` less ``base`` for the seeds that both were measured under."""
    differences = {}
    for seed in sorted(variant.keys() & base.keys()):
        ours, theirs = variant[seed], base[seed]
        if ours is not None and theirs is not None:
            differences[seed] = ours - theirs
    return differences
