"""Looks at a study before all of its seeds have run, and what they cost.

Whoever tests after 8 seeds, after 16 and after 24, each time at 5%, finds a difference where there is none in 11% of
the studies. A group-sequential design declares the looks beforehand and spends the 5% on them: by the time a share
``t`` of the seeds has run, a difference may have been found in

    spent(t) = a t^r

of the studies in which there is none (``a`` = 0.05, ``r`` = 2; Lan & DeMets 1983, with the power family of Kim & DeMets
1987). With looks after 8, 16 and 24 seeds this allows the two-sided p-values .0056, .0189 and .0392. A large ``r``
keeps nearly all for the last look; at the first it would ask for more than Student's t can show with few seeds.

The p-value that a look allows follows from the joint law of the looks' z-values. Without a difference they are those of
a random walk seen at its shares ``t``: normal, with correlations ``sqrt(t_j / t_k)``. The density of the walks that
have crossed at no look so far is carried from look to look by Gauss-Legendre quadrature (Armitage, McPherson & Rowe
1969). A look's test is that of :mod:`ablations.statistics.intervals`, Student's t with the spread over images; its
p-value stands for the z-value with the same p. Noise that all seeds share raises the correlations, which makes crossing
rarer.

A claim's p-value over its looks is the smallest level ``a`` at which it has crossed at some look. It is a p-value like
any other, whenever the runs stop, so Holm's adjustment applies to it. The interval of a look has the confidence that
the look allows: such intervals hold the truth at all looks together in 95% of the studies (Jennison & Turnbull 1989).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Looks", "Schedule"]

_POINTS = 48
"""Points of the quadrature: with 40, 60 or 100 the levels are the same to ten digits."""

_SMALLEST = 1e-12
"""Below this level an upper bound stands for it."""


@dataclass(frozen=True, kw_only=True)
class Looks:
    """After how many seeds a study is looked at, declared before it runs.

    ``at`` are numbers of seeds, ascending; the last is the maximum. ``spending`` is the exponent ``r``. A difference
    whose interval at the maximum lies within ``margin`` points of zero gets that as its verdict; None for no such
    verdict. Raises ``ValueError`` for numbers that make no design.
    """

    at: tuple[int, ...]
    spending: float = 2.0
    margin: float | None = 1.0

    def __post_init__(self) -> None:
        if not self.at or self.at[0] < 1 or any(late <= early for early, late in itertools.pairwise(self.at)):
            raise ValueError(f"looks are numbers of seeds in ascending order, such as 8, 16, 24; not {self.at}")
        if not (self.spending > 0 and math.isfinite(self.spending)):
            raise ValueError(f"the exponent of the spending is {self.spending}; use a positive number")
        if self.margin is not None and not (self.margin > 0 and math.isfinite(self.margin)):
            raise ValueError(f"the margin is {self.margin}; use a positive number of points, or None")

    @property
    def maximum(self) -> int:
        """The number of seeds at the last look."""
        return self.at[-1]

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of the maximum at each look: ``t``."""
        return tuple(seeds / self.maximum for seeds in self.at)

    def allowed(self, level: float) -> tuple[float, ...]:
        """Return the two-sided p-value that each look allows, so that all looks together err with ``level``.

        Raises ``ValueError`` for a level that is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"the level is {level}; use a value between 0 and 1")
        return _allowed(self.shares, self.spending, level)

    def over(self, look: int, p: float) -> float:
        """Return the level at which a p-value of ``p`` at look number ``look`` (the first is 0) just crosses.

        With a single look it is ``p``. NaN stays NaN.
        """
        if len(self.at) == 1 or math.isnan(p) or p in (0.0, 1.0):
            return p
        return _crossing_level(self.shares, self.spending, look, p)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The seeds of a study in the order in which they run, and the looks at them.

    Raises ``ValueError`` unless there are as many seeds as at the last look.
    """

    seeds: tuple[int, ...]
    looks: Looks

    def __post_init__(self) -> None:
        if len(self.seeds) != self.looks.maximum:
            raise ValueError(f"{len(self.seeds)} seeds are declared, and the last look is after {self.looks.maximum}")

    def at(self, look: int) -> tuple[int, ...]:
        """Return the seeds that look number ``look`` (the first is 0) is over."""
        return self.seeds[: self.looks.at[look]]

    def complete(self, ran: Collection[int]) -> int:
        """Return how many looks are complete where the seeds ``ran`` have run."""
        there = 0
        while there < len(self.seeds) and self.seeds[there] in ran:
            there += 1
        return sum(seeds <= there for seeds in self.looks.at)


@functools.lru_cache(maxsize=4096)
def _crossing_level(shares: tuple[float, ...], spending: float, look: int, p: float) -> float:
    from scipy.optimize import brentq

    before = shares[look - 1] if look else 0.0
    # crossing here is at least as likely as crossing here for the first time
    bound: float = min(1.0, p / (shares[look] ** spending - before**spending))
    if bound < _SMALLEST or look == 0:
        return bound

    def excess(log_level: float) -> float:
        return math.log(_allowed(shares, spending, math.exp(log_level))[look] / p)

    low, high = math.log(p), min(math.log(bound) + 1e-9, math.log1p(-1e-9))
    if low >= high or excess(high) <= 0:
        return bound
    crossing: float = brentq(excess, low, high, xtol=1e-10)
    return math.exp(crossing)


@functools.lru_cache(maxsize=4096)
def _allowed(shares: tuple[float, ...], spending: float, level: float) -> tuple[float, ...]:
    """Return the two-sided p-values, one a look; see the module's docstring."""
    from scipy.special import ndtr, ndtri

    allowed = [level * shares[0] ** spending]
    nodes, weights = _rule()
    # the walk's value at a look is z sqrt(t)
    reach = -float(ndtri(allowed[0] / 2)) * math.sqrt(shares[0])
    walks = reach * nodes
    density = np.exp(-(walks**2) / (2 * shares[0])) / math.sqrt(2 * math.pi * shares[0])
    for before, share in itertools.pairwise(shares):
        mass = density * weights * reach
        step = math.sqrt(share - before)
        reach = _reach(walks, mass, step, level * (share**spending - before**spending), share)
        allowed.append(2 * float(ndtr(-reach / math.sqrt(share))))
        here = reach * nodes
        density = np.exp(-((here[:, None] - walks) ** 2) / (2 * step**2)) @ mass / (step * math.sqrt(2 * math.pi))
        walks = here
    return tuple(allowed)


def _reach(walks: NDArray[np.float64], mass: NDArray[np.float64], step: float, spent: float, share: float) -> float:
    """Return how far a walk may be at a look, so that ``spent`` of all walks cross there for the first time."""
    from scipy.optimize import brentq
    from scipy.special import ndtr, ndtri

    def excess(reach: float) -> float:
        return float(mass @ (ndtr((walks - reach) / step) + ndtr((-walks - reach) / step))) - spent

    # crossing here is at least as likely as crossing here for the first time
    furthest = (1e-6 - float(ndtri(spent / 2))) * math.sqrt(share)
    found: float = brentq(excess, 0.0, furthest, xtol=1e-12)
    return found


@functools.cache
def _rule() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    nodes, weights = np.polynomial.legendre.leggauss(_POINTS)
    return nodes, weights
