"""Studies whose truth is known: what the interval and the verdicts are tried on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from cornernet.ablations.statistics.intervals import PairedDifference
from cornernet.ablations.statistics.resampling import RESAMPLES, image_weights

IMAGES = 100

Law = Callable[[np.random.Generator, int], NDArray[np.float64]]
"""Draws the noise of that many seeds, of mean 0 and standard deviation 1."""


def normal(rng: np.random.Generator, seeds: int) -> NDArray[np.float64]:
    """Noise as textbooks have it."""
    return rng.normal(0, 1, seeds)


def skewed_in_one_arm(rng: np.random.Generator, seeds: int) -> NDArray[np.float64]:
    """The difference of an arm with a long tail of bad seeds and one without."""
    return (rng.normal(0, 1, seeds) - (rng.exponential(1, seeds) - 1)) / np.sqrt(2)


def heavy_tailed(rng: np.random.Generator, seeds: int) -> NDArray[np.float64]:
    """Student's t with three degrees of freedom."""
    return rng.standard_t(3, seeds) / np.sqrt(3)


def collapsing(rng: np.random.Generator, seeds: int) -> NDArray[np.float64]:
    """The difference of two arms in each of which one training in ten collapses, by four standard deviations."""
    arms = [rng.normal(0, 1, seeds) - 4 * (rng.random(seeds) < 0.1) for _ in range(2)]
    return (arms[0] - arms[1]) / np.sqrt(2 * (1 + 16 * 0.1 * 0.9))


def simulate(
    rng: np.random.Generator,
    truth: float,
    seed_noise: float,
    seeds: int,
    studies: int,
    *,
    own_noise: float = 0.0,
    law: Law = normal,
) -> Iterator[PairedDifference]:
    """Yield studies of a paired difference: ``truth`` plus noise of the seeds plus noise of the images.

    The difference of seed s on image i is truth + e_s + u_i + v_si, and the metric is the mean over images. The mean of
    the u_i, which all seeds of a study share, has standard deviation 1. In units of that, ``seed_noise`` is the
    standard deviation of the e_s, drawn by ``law``, and ``own_noise`` that of a seed's mean of the v_si. Resamples are
    drawn as for AP, as many as a record holds.
    """
    weights: NDArray[np.float64] = image_weights("simulated", IMAGES, RESAMPLES) / IMAGES
    for _ in range(studies):
        of_images = rng.normal(0, np.sqrt(IMAGES), IMAGES)
        of_seeds = truth + seed_noise * law(rng, seeds)
        own = rng.normal(0, own_noise * np.sqrt(IMAGES), (seeds, IMAGES)) if own_noise else np.zeros((seeds, IMAGES))
        means, resampled = (of_images + own).mean(axis=1), (of_images + own) @ weights.T
        yield PairedDifference(
            per_seed={seed: float(value + means[seed]) for seed, value in enumerate(of_seeds)},
            resamples={seed: value + resampled[seed] for seed, value in enumerate(of_seeds)},
        )
