"""What a study can find before it runs: its power, and at which look it is expected to stop.

Computed by simulating the study: differences by seed with a given spread, noise of the images that all seeds share,
and at each look the test that :mod:`ablations.statistics.claims` makes.

How often a difference is found where there is none, in percent of 20,000 simulated studies a cell, over all looks::

    noise of seeds                0.25     1     4   0.5     2      in units of the noise that all seeds share
    of single seeds on images        0     0     0     2     1      from the images

    looks after 8, 16, 24 seeds
    normal                         4.1   4.0   4.3   4.5   4.2
    skewed in one arm              4.4   4.2   4.2   4.3   4.1
    heavy-tailed                   4.0   4.2   4.2   4.1   3.8
    seeds that collapse            4.3   4.2   4.2   4.3   4.5
    looks after 6, 12 seeds
    normal                         4.8   4.6   4.2   4.3   4.2
    skewed in one arm              4.6   4.3   4.6   4.4   4.1
    heavy-tailed                   4.7   4.4   3.9   4.2   4.2
    seeds that collapse            4.6   4.4   3.9   4.4   4.2

In families of five claims that share their base arm, with Holm over them, some false verdict is given in 3.2 to 5.1%,
whether none, one or two of the claims are true. A true difference of exactly the margin is found to be smaller, or to
be its opposite, in 2.3% at most. ``python -m tests.unit.simulated_studies`` prints all of this.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from .claims import LEVEL
from .intervals import POWER
from .sequential import Looks

__all__ = ["Outlook", "looks_at", "outlook", "seeds_for", "stops"]

STUDIES = 20_000
"""Studies that an outlook simulates: a probability of 80% is known to 0.3 points."""


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What to expect of a study whose true difference is ``effect``.

    ``found`` is the probability that the direction is found by each look; ``wrong`` that a wrong one is found, and
    ``small`` that the verdict at the maximum is "smaller than the margin".
    """

    effect: float
    looks: Looks
    found: tuple[float, ...]
    wrong: float
    small: float

    @property
    def running(self) -> tuple[float, ...]:
        """The probability that the seeds of each look must run: 1 for the first."""
        return (1.0, *(1 - found for found in self.found[:-1]))

    @property
    def expected_seeds(self) -> float:
        """How many seeds the study needs on average."""
        steps = np.diff((0, *self.looks.at))
        return float(sum(share * step for share, step in zip(self.running, steps, strict=True)))


def stops(
    differences: NDArray[np.float64], image_sd: NDArray[np.float64] | float, looks: Looks, level: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return at which look each study crosses, from 0, or the number of looks where it never does; and its mean there.

    ``differences`` [studies, seeds] are those of the seeds in their order; ``image_sd``, a number or [studies, looks],
    is the spread over images that the seeds share. The mean of a study that never crosses is the one at the maximum.
    """
    at = np.full(len(differences), len(looks.at), np.int64)
    mean = differences[:, : looks.maximum].mean(1)
    spreads = np.broadcast_to(image_sd, (len(differences), len(looks.at)))
    for look in range(len(looks.at) - 1, -1, -1):
        seen = differences[:, : looks.at[look]]
        crossed = np.abs(seen.mean(1)) > _half(seen, spreads[:, look], looks.allowed(level)[look])
        at[crossed], mean[crossed] = look, seen.mean(1)[crossed]
    return at, mean


def _half(seen: NDArray[np.float64], image_sd: NDArray[np.float64] | float, error: float) -> NDArray[np.float64]:
    seeds = seen.shape[1]
    t, z = float(stdtrit(seeds - 1, error / 2)), float(ndtri(error / 2))
    found: NDArray[np.float64] = np.hypot(t * seen.std(1, ddof=1) / math.sqrt(seeds), z * image_sd)
    return found


@functools.lru_cache(maxsize=256)
def outlook(
    looks: Looks, effect: float, seed_sd: float, image_sd: float = 0.0, *, level: float = LEVEL, studies: int = STUDIES
) -> Outlook:
    """Return what to expect where the true difference is ``effect``, in points.

    ``seed_sd`` is the spread over seeds of the difference, ``image_sd`` that over images which all seeds share, and
    ``level`` that of the claim: :data:`LEVEL`, divided by the number of claims for the first of Holm's steps. Raises
    ``ValueError`` for spreads that are negative or both zero, and for fewer than two seeds at a look.
    """
    if not (seed_sd >= 0 and image_sd >= 0 and seed_sd + image_sd > 0):
        raise ValueError(f"the standard deviations are {seed_sd} and {image_sd}; one at least must be above 0")
    if looks.at[0] < 2:
        raise ValueError("the first look is after one seed, which has no spread; use two or more")
    rng = np.random.default_rng(0)
    of_seeds, of_images = rng.standard_normal((studies, looks.maximum)), rng.standard_normal((studies, 1))
    differences = effect + seed_sd * of_seeds + image_sd * of_images
    at, mean = stops(differences, image_sd, looks, level)
    right = np.sign(mean) == (np.sign(effect) or 1.0)
    crossed = at < len(looks.at)
    small = 0.0
    if looks.margin is not None:
        small = float(np.mean(~crossed & (np.abs(mean) + _half(differences, image_sd, level) < looks.margin)))
    return Outlook(
        effect=effect,
        looks=looks,
        # without a difference any direction is a wrong one, and it is of interest how often one is found
        found=tuple(float(np.mean((at <= look) & (right if effect else crossed))) for look in range(len(looks.at))),
        wrong=float(np.mean(crossed & ~right)) if effect else float(np.mean(crossed)),
        small=small,
    )


def seeds_for(
    effect: float,
    seed_sd: float,
    image_sd: float = 0.0,
    *,
    shares: Sequence[float] = (1.0,),
    level: float = LEVEL,
    power: float = POWER,
    most: int = 400,
) -> int | None:
    """Return the smallest maximum of seeds with which the difference is found with probability ``power``.

    ``shares`` are those of the looks; 1.0 alone is a single look. None where ``most`` seeds do not suffice, which may
    be because noise of the images stays however many there are.
    """
    low, high = 3, 4
    while _power(high, effect, seed_sd, image_sd, tuple(shares), level) < power:
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    if _power(low, effect, seed_sd, image_sd, tuple(shares), level) >= power:
        return low
    while high - low > 1:
        middle = (low + high) // 2
        if _power(middle, effect, seed_sd, image_sd, tuple(shares), level) < power:
            low = middle
        else:
            high = middle
    return high


def _power(
    maximum: int, effect: float, seed_sd: float, image_sd: float, shares: tuple[float, ...], level: float
) -> float:
    looks = looks_at(maximum, shares)
    return outlook(looks, effect, seed_sd, image_sd, level=level, studies=4000).found[-1]


def looks_at(maximum: int, shares: Sequence[float]) -> Looks:
    """Return looks at these shares of a maximum of seeds, in whole seeds, none of them after fewer than three."""
    at = sorted({min(maximum, max(3, round(share * maximum))) for share in shares})
    return Looks(at=tuple(at))
