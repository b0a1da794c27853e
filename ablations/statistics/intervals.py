"""Numbers with their spread: over seeds, over seeds in pairs, and over seeds and images together.

The estimate is the mean ``d`` over ``S`` seeds of the paired difference between two arms. It is uncertain for two
reasons, which do not shrink together:

* *seeds*: another ``S`` seeds would have given other differences. ``s_d``, the standard deviation of the per-seed
  differences, measures this. With few seeds it is itself poorly known, hence Student's t;
* *images*: another sample of images would have moved the differences of all seeds together, since all are evaluated
  on the same images. No number of seeds shows this. ``s_img``, from resamples of the images with the seeds fixed
  (:mod:`ablations.statistics.resampling`), measures it.

Resamples of the images move each seed's difference also by noise of its own (one detector finds the object in this
image, the next one does not). That part differs between seeds, so ``s_d`` contains it already and ``s_img`` must not.
With ``v1`` the mean over seeds of the variance over resamples, and ``vb`` the variance over resamples of the mean over
seeds, noise of single seeds makes up ``(v1 - vb) S / (S - 1)`` of ``v1``, and what the seeds share is::

    s_img^2 = max(0, v1 - (v1 - vb) S / (S - 1))

The level of a single arm is uncertain in the same two ways, and has the same kind of interval with its own two spreads.
It is wider than that of a difference, because what all arms share does not cancel.

The squares add, each with its own quantile::

    half-width = sqrt( t(1 - a/2, S - 1)^2 s_d^2 / S  +  z(1 - a/2)^2 s_img^2 ),    a = 0.05 for 95%

A bootstrap over seeds and images together is not used: with two to five seeds it covers the truth 75-90% of the time.
How often the 95% interval misses a true difference, and so how often a difference is found where there is none, in
percent of 20,000 simulated studies a cell (``python -m tests.unit.simulated_studies``)::

    noise of seeds                0.25     1     4   0.5     2      in units of the noise that all seeds share
    of single seeds on images        0     0     0     2     1      from the images

    normal               3 seeds   4.8   2.5   3.7   2.7   2.9
                         6         5.4   4.3   4.1   4.1   3.7
                         12        5.7   5.3   4.5   4.8   4.5
                         24        5.3   5.2   4.7   5.5   5.2
    skewed in one arm    3         4.6   2.6   3.5   2.9   2.7
                         6         5.2   4.4   4.0   4.0   3.9
                         12        5.4   5.2   4.3   4.9   4.8
                         24        5.3   5.6   4.8   5.3   4.9
    heavy-tailed         3         4.8   2.7   2.3   2.9   2.3
                         6         5.4   4.7   3.2   4.2   3.7
                         12        5.2   5.3   4.1   4.8   4.7
                         24        5.4   5.0   4.8   5.1   5.2
    seeds that collapse  3         4.7   2.3   2.5   2.8   2.3
                         6         5.5   4.3   3.5   3.9   3.6
                         12        5.3   5.0   4.2   4.8   4.8
                         24        5.2   5.4   4.7   5.1   4.9

Collapsing seeds are one in ten, in each arm, by four standard deviations. The interval is wider than necessary where
both kinds of noise are alike and seeds are few, because t is used for seeds as if they were all of the noise. It is
slightly narrow where images are all of the noise, because s_img is itself an estimate (here from 100 images).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .resampling import Resamples

__all__ = [
    "CONFIDENCE",
    "MIN_SEEDS_FOR_VERDICT",
    "POWER",
    "Measurement",
    "PairedDifference",
    "SeedsAndImages",
    "Summary",
    "arm_mean",
    "detectable_difference",
    "half_width",
    "holm",
    "p_value",
    "paired_difference",
    "paired_differences",
    "summarise",
]

# With fewer seeds a spread says almost nothing, and there is no verdict.
MIN_SEEDS_FOR_VERDICT = 3

CONFIDENCE = 0.95
"""Confidence of the intervals shown, two-sided."""

POWER = 0.8
"""Power at which a difference is called detectable."""

# below this a p-value is reported as 0: quantiles of t lose their digits in the far tail
_SMALLEST_P = 1e-100


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (NaN with fewer than two values) of ``count`` measured values."""

    mean: float
    deviation: float
    count: int


def summarise(values: Sequence[float | None]) -> Summary:
    """Return the summary of the measured values; None and NaN stand for values that were not measured."""
    measured = [value for value in values if value is not None and not math.isnan(value)]
    if not measured:
        return Summary(math.nan, math.nan, 0)
    deviation = statistics.stdev(measured) if len(measured) > 1 else math.nan
    return Summary(statistics.fmean(measured), deviation, len(measured))


def paired_differences(variant: Mapping[int, float | None], base: Mapping[int, float | None]) -> dict[int, float]:
    """Return ``variant`` minus ``base`` for the seeds under which both were measured."""
    differences = {}
    for seed in sorted(variant.keys() & base.keys()):
        ours, theirs = variant[seed], base[seed]
        if ours is not None and theirs is not None:
            differences[seed] = ours - theirs
    return differences


# --------------------------------------------------------------------------------------------------------- formulas
def half_width(seed_sd: float, seeds: int, image_sd: float, confidence: float = CONFIDENCE) -> float:
    """Return half the width of the interval for a mean paired difference.

    ``sqrt(t^2 seed_sd^2 / seeds + z^2 image_sd^2)`` with the two-sided quantiles of Student's t with ``seeds - 1``
    degrees of freedom and of the normal law at ``confidence``. NaN with fewer than two seeds, or where a spread is NaN.
    """
    _check_spreads(seed_sd, image_sd)
    if not 0 < confidence < 1:
        raise ValueError(f"the confidence is {confidence}; use a value between 0 and 1")
    return _half_width(seed_sd, seeds, image_sd, 1 - confidence)


def _check_spreads(seed_sd: float, image_sd: float) -> None:
    if seed_sd < 0 or image_sd < 0:
        raise ValueError(f"standard deviations are {seed_sd} and {image_sd}; they cannot be negative")


def _half_width(seed_sd: float, seeds: int, image_sd: float, error: float) -> float:
    """Return the half-width at confidence ``1 - error``; taking the error keeps the digits of small ones."""
    from scipy.special import ndtri, stdtrit

    if seeds < 2:
        return math.nan
    t, z = stdtrit(seeds - 1, error / 2), ndtri(error / 2)
    return math.hypot(t * seed_sd / math.sqrt(seeds), z * image_sd)


def p_value(difference: float, seed_sd: float, seeds: int, image_sd: float) -> float:
    """Return the two-sided p-value of a mean paired difference against no difference.

    It inverts the interval: the p-value is the error level ``a`` at which the interval with confidence ``1 - a`` just
    reaches zero, so p < 0.05 exactly where the 95% interval excludes zero. Without spread over images it is the p-value
    of the paired t-test; without spread over seeds, that of the z-test. Found by bisection in log a (the half-width
    falls as a grows). 0.0 stands for less than 1e-100; NaN with fewer than two seeds, or where a number is NaN.
    """
    _check_spreads(seed_sd, image_sd)
    size = abs(difference)
    if seeds < 2 or math.isnan(size + seed_sd + image_sd):
        return math.nan
    if size == 0:
        return 1.0
    low, high = math.log(_SMALLEST_P), 0.0
    if _half_width(seed_sd, seeds, image_sd, _SMALLEST_P) < size:
        return 0.0
    while high - low > 1e-13:
        middle = (low + high) / 2
        if _half_width(seed_sd, seeds, image_sd, math.exp(middle)) > size:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


def detectable_difference(
    seed_sd: float, seeds: int, image_sd: float, power: float = POWER, confidence: float = CONFIDENCE
) -> float:
    """Return the true difference that a study of this spread finds with probability ``power``, two-sided.

    ``sqrt((t.975 + t.power)^2 seed_sd^2 / seeds + (z.975 + z.power)^2 image_sd^2)`` at the ``confidence`` of 95%:
    (1.96 + 0.84)^2 = 2.80^2 for the images. Where Holm's step tests at a smaller level, ``confidence`` is one less that
    level. NaN as in :func:`half_width`.
    """
    from scipy.special import ndtri, stdtrit

    _check_spreads(seed_sd, image_sd)
    if not 0.5 <= power < 1:
        raise ValueError(f"the power is {power}; use a value from 0.5 to below 1")
    if seeds < 2:
        return math.nan
    tail = (1 + confidence) / 2
    t = stdtrit(seeds - 1, tail) + stdtrit(seeds - 1, power)
    z = ndtri(tail) + ndtri(power)
    return math.hypot(t * seed_sd / math.sqrt(seeds), z * image_sd)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given.

    The k-th smallest of m is multiplied by m - k + 1, made no smaller than the one before it, and capped at 1.
    Rejecting what is at most 5% keeps the probability of any false rejection at 5%, however the tests depend on each
    other. NaN stands for a test that could not be made; it stays NaN and still counts among the m, because the family
    is what was declared.
    """
    outside = [p for p in p_values if p < 0 or p > 1]
    if outside:
        raise ValueError(f"{outside[0]} is not a p-value; use values from 0 to 1")
    ranked = sorted((p, at) for at, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    so_far = 0.0
    for rank, (p, at) in enumerate(ranked):
        so_far = max(so_far, min(1.0, (len(p_values) - rank) * p))
        adjusted[at] = so_far
    return adjusted


# ------------------------------------------------------------------------------------------------------- differences
@dataclass(frozen=True, kw_only=True)
class SeedsAndImages:
    """A quantity under each seed and, for each seed, under the same resamples of the images.

    ``per_seed``: seed to value; ``resamples``: seed to float64 [B] values, NaN where a resample has nothing to
    measure. Both have the same unit, and so does everything derived: AP points in this project's tables.
    """

    per_seed: Mapping[int, float]
    resamples: Mapping[int, NDArray[np.float64]] = field(repr=False)

    def __post_init__(self) -> None:
        if self.per_seed.keys() != self.resamples.keys():
            raise ValueError(
                f"seeds {sorted(self.per_seed)} have a value and seeds {sorted(self.resamples)} have resamples; "
                "each seed needs both"
            )
        if any(math.isnan(value) for value in self.per_seed.values()):
            raise ValueError(f"the value of a seed is NaN: {dict(self.per_seed)}; leave that seed out")
        if len({len(values) for values in self.resamples.values()}) > 1:
            raise ValueError("seeds have different numbers of resamples, so they are not paired")

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds under which it was measured, ascending."""
        return tuple(sorted(self.per_seed))

    @property
    def mean(self) -> float:
        """Mean over seeds; NaN without seeds."""
        return summarise(list(self.per_seed.values())).mean

    @property
    def seed_sd(self) -> float:
        """Sample standard deviation over seeds, NaN with fewer than two: ``s_d`` of a difference."""
        return summarise(list(self.per_seed.values())).deviation

    @property
    def image_sd(self) -> float:
        """``s_img``: the standard deviation that resampling the images gives all seeds together.

        Noise of single seeds on single images is taken out, because :attr:`seed_sd` has it already; with one seed the
        two cannot be told apart, and it stays in. Over the resamples in which it could be measured for every seed; NaN
        with fewer than two.
        """
        if not self.resamples:
            return math.nan
        values = np.array(list(self.resamples.values()))
        values = values[:, ~np.isnan(values).any(axis=0)]
        if values.shape[1] < 2:
            return math.nan
        of_mean = float(values.mean(axis=0).var(ddof=1))
        seeds = len(values)
        if seeds == 1:
            return math.sqrt(of_mean)
        of_each = float(values.var(axis=1, ddof=1).mean())
        return math.sqrt(max(0.0, of_each - (of_each - of_mean) * seeds / (seeds - 1)))

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Return the interval at ``confidence``, two-sided and unadjusted; see :func:`half_width`."""
        half = half_width(self.seed_sd, len(self.per_seed), self.image_sd, confidence)
        return self.mean - half, self.mean + half


@dataclass(frozen=True, kw_only=True)
class PairedDifference(SeedsAndImages):
    """A difference between two arms, paired by seed and by resample of the images.

    ``unmeasured`` are the seeds under which both arms were evaluated and the metric has no value, because there was no
    object to measure it on.
    """

    unmeasured: tuple[int, ...] = ()

    @property
    def ran(self) -> set[int]:
        """Seeds under which both arms were evaluated."""
        return {*self.per_seed, *self.unmeasured}

    @property
    def enough_seeds(self) -> bool:
        """Whether a verdict may be given."""
        return len(self.per_seed) >= MIN_SEEDS_FOR_VERDICT

    def p_value(self, null: float = 0.0) -> float:
        """Return the two-sided p-value against a true difference of ``null``; see :func:`p_value`."""
        return p_value(self.mean - null, self.seed_sd, len(self.per_seed), self.image_sd)

    def one_sided(self, null: float) -> float:
        """Return the p-value against a true difference of ``null`` or less."""
        half = self.p_value(null) / 2
        return half if self.mean > null else 1 - half

    def detectable(self, power: float = POWER) -> float:
        """Return the true difference that would be found with probability ``power``."""
        return detectable_difference(self.seed_sd, len(self.per_seed), self.image_sd, power)

    def over(self, seeds: Collection[int]) -> PairedDifference:
        """Return the difference over these seeds alone."""
        return PairedDifference(
            per_seed={seed: value for seed, value in self.per_seed.items() if seed in seeds},
            resamples={seed: values for seed, values in self.resamples.items() if seed in seeds},
            unmeasured=tuple(seed for seed in self.unmeasured if seed in seeds),
        )

    def less(self, other: PairedDifference) -> PairedDifference:
        """Return the difference of differences, over the seeds that both have. Raises ``ValueError`` if not paired."""
        seeds = sorted(self.per_seed.keys() & other.per_seed.keys())
        spreads = [values[seed] for values in (self.resamples, other.resamples) for seed in seeds]
        # without any spread the resamples are NaN, of any length, and stay NaN
        if len({len(values) for values in spreads if not np.isnan(values).all()}) > 1:
            raise ValueError("two differences have different numbers of resamples, so they are not paired")
        both = self.ran & other.ran
        return PairedDifference(
            per_seed={seed: self.per_seed[seed] - other.per_seed[seed] for seed in seeds},
            resamples={seed: self.resamples[seed] - other.resamples[seed] for seed in seeds},
            unmeasured=tuple(sorted(both - set(seeds))),
        )

    def negated(self) -> PairedDifference:
        """Return the difference with the arms exchanged."""
        return PairedDifference(
            per_seed={seed: -value for seed, value in self.per_seed.items()},
            resamples={seed: -values for seed, values in self.resamples.items()},
            unmeasured=self.unmeasured,
        )


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One evaluation: metrics as fractions (None or NaN where not measured), and the same under resamples.

    ``resamples`` is None for an evaluation that was not resampled.
    """

    metrics: Mapping[str, float | None]
    resamples: Resamples | None

    def resampled(self, metric: str) -> bool:
        """Whether there are resamples of the metric."""
        return self.resamples is not None and metric in self.resamples.values


def paired_difference(
    metric: str,
    variant: Mapping[int, Measurement],
    base: Mapping[int, Measurement],
    *,
    resamples_required: bool = True,
) -> PairedDifference:
    """Return ``variant`` minus ``base`` in ``metric``, in points (100 times the fraction), for the seeds of both.

    A seed under which an arm lacks the metric is left out and listed as unmeasured. Raises ``ValueError`` where the
    arms were not evaluated on the same images and weights, because their differences would not be paired, and where
    resamples of the metric are missing. With ``resamples_required=False``, missing resamples instead make the spread
    over images NaN for all seeds.
    """
    shared = sorted(variant.keys() & base.keys())
    per_seed = {}
    for seed in shared:
        ours, theirs = _measured(variant[seed], metric), _measured(base[seed], metric)
        if ours is not None and theirs is not None:
            per_seed[seed] = 100 * (ours - theirs)
    arms = {"variant": {seed: variant[seed] for seed in per_seed}, "base": {seed: base[seed] for seed in per_seed}}
    values = _resampled(metric, arms, resamples_required)
    return PairedDifference(
        per_seed=per_seed,
        resamples={seed: values["variant"][seed] - values["base"][seed] for seed in per_seed},
        unmeasured=tuple(seed for seed in shared if seed not in per_seed),
    )


def arm_mean(metric: str, arm: Mapping[int, Measurement], *, resamples_required: bool = True) -> SeedsAndImages:
    """Return ``metric`` of one arm in points, for the seeds that have it; raises as :func:`paired_difference` does."""
    points = {seed: _measured(measurement, metric) for seed, measurement in arm.items()}
    per_seed = {seed: 100 * value for seed, value in points.items() if value is not None}
    found = {"arm": {seed: arm[seed] for seed in per_seed}}
    return SeedsAndImages(per_seed=per_seed, resamples=_resampled(metric, found, resamples_required)["arm"])


def _resampled(
    metric: str, arms: Mapping[str, Mapping[int, Measurement]], required: bool
) -> dict[str, dict[int, NDArray[np.float64]]]:
    """Return the metric under resamples in points, by arm and seed, all under the same weights.

    A single NaN each, where some lack them and they are not required.
    """
    first: Resamples | None = None
    values: dict[str, dict[int, NDArray[np.float64]]] = {side: {} for side in arms}
    for side, arm in arms.items():
        for seed, measurement in arm.items():
            found = measurement.resamples
            if found is None or metric not in found.values:
                if required:
                    raise ValueError(f"seed {seed}: the {side} has no resamples of {metric}; evaluate again")
                return {side: {seed: np.full(1, np.nan) for seed in arm} for side, arm in arms.items()}
            first = found if first is None else first
            if not found.paired_with(first):
                raise ValueError(
                    f"seed {seed}: the {side} was evaluated on other images, or resampled by another version; "
                    "evaluate all arms on the same data"
                )
            values[side][seed] = 100 * found.values[metric]
    return values


def _measured(measurement: Measurement, metric: str) -> float | None:
    value = measurement.metrics.get(metric)
    return None if value is None or math.isnan(value) else value
