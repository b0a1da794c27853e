"""Studies whose truth is known: what the interval and the verdicts are tried on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cornernet.ablations.statistics.intervals import PairedDifference
from cornernet.ablations.statistics.resampling import RESAMPLES, image_weights

IMAGES = 100


def simulate(
    rng: np.random.Generator, truth: float, seed_noise: float, seeds: int, studies: int
) -> Iterator[PairedDifference]:
    """Yield studies of a paired difference: ``truth`` plus noise of the seeds plus noise of the images.

    The difference of seed s on image i is truth + e_s + u_i, the metric is the mean over images, and the mean of the
    u_i, which all seeds of a study share, has standard deviation 1: ``seed_noise`` is in units of the image noise.
    Resamples are drawn as for AP, as many as a record holds.
    """
    weights: NDArray[np.float64] = image_weights("simulated", IMAGES, RESAMPLES) / IMAGES
    for _ in range(studies):
        of_images = rng.normal(0, np.sqrt(IMAGES), IMAGES)
        of_seeds = truth + rng.normal(0, seed_noise, seeds)
        mean, resampled = of_images.mean(), weights @ of_images
        yield PairedDifference(
            per_seed={seed: float(value + mean) for seed, value in enumerate(of_seeds)},
            resamples={seed: value + resampled for seed, value in enumerate(of_seeds)},
        )
