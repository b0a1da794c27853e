"""Studies whose truth is known: what the interval and the verdicts are tried on.

``python -m tests.unit.simulated_studies`` prints the tables of the docstrings of ``ablations.statistics`` and of
docs/planning.md, in some CPU minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from cornernet.ablations.statistics.claims import LEVEL
from cornernet.ablations.statistics.intervals import PairedDifference
from cornernet.ablations.statistics.planning import outlook, stops
from cornernet.ablations.statistics.resampling import RESAMPLES, image_weights
from cornernet.ablations.statistics.sequential import Looks

IMAGES = 100

Law = Callable[[np.random.Generator, Any], NDArray[np.float64]]
"""Draws noise of seeds, of mean 0 and standard deviation 1: of that many, or of that shape."""


def normal(rng: np.random.Generator, seeds: Any) -> NDArray[np.float64]:
    """Noise as textbooks have it."""
    return rng.normal(0, 1, seeds)


def skewed_in_one_arm(rng: np.random.Generator, seeds: Any) -> NDArray[np.float64]:
    """The difference of an arm with a long tail of bad seeds and one without."""
    return (rng.normal(0, 1, seeds) - (rng.exponential(1, seeds) - 1)) / np.sqrt(2)


def heavy_tailed(rng: np.random.Generator, seeds: Any) -> NDArray[np.float64]:
    """Student's t with three degrees of freedom."""
    return rng.standard_t(3, seeds) / np.sqrt(3)


def collapsing(rng: np.random.Generator, seeds: Any) -> NDArray[np.float64]:
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


# ------------------------------------------------------------------------------------------------- many studies at once
LAWS: dict[str, Law] = {
    "normal": normal,
    "skewed in one arm": skewed_in_one_arm,
    "heavy-tailed": heavy_tailed,
    "seeds that collapse": collapsing,
}

CHUNK = 500
"""Studies that are drawn at a time, for memory."""


def crossed(
    rng: np.random.Generator,
    looks: Looks,
    law: Law,
    seed_noise: float,
    own_noise: float = 0.0,
    *,
    level: float = LEVEL,
    studies: int = 20_000,
) -> NDArray[np.float64]:
    """Return the share of studies without a difference in which one is found by each look.

    The noise is that of :func:`simulate`; the variance over resamples is taken in its closed form, which is that over
    images divided by their number.
    """
    found = np.zeros(len(looks.at))
    for begin in range(0, studies, CHUNK):
        count = min(CHUNK, studies - begin)
        of_images = rng.normal(0, np.sqrt(IMAGES), (count, 1, IMAGES))
        own = rng.normal(0, own_noise * np.sqrt(IMAGES), (count, looks.maximum, IMAGES if own_noise else 1))
        on_images = of_images + own
        differences = seed_noise * law(rng, (count, looks.maximum)) + on_images.mean(2)
        at, _ = stops(differences, np.stack([_image_sd(on_images[:, :seeds]) for seeds in looks.at], 1), looks, level)
        found += [np.sum(at <= look) for look in range(len(looks.at))]
    return found / studies


def _image_sd(on_images: NDArray[np.float64]) -> NDArray[np.float64]:
    seeds = on_images.shape[1]
    of_each, of_mean = on_images.var(2).mean(1) / IMAGES, on_images.mean(1).var(1) / IMAGES
    return np.sqrt(np.maximum(0.0, of_each - (of_each - of_mean) * seeds / (seeds - 1)))


def family(
    rng: np.random.Generator, looks: Looks, law: Law, effects: tuple[float, ...], studies: int = 20_000
) -> float:
    """Return the share of families of claims in which some difference that is none is found, with Holm over all.

    Each claim is about an arm of its own against a base arm that all share; the arms' noise follows ``law`` with a
    standard deviation of 1. ``effects`` are the true differences, 0 for none. A claim that is decided stays so.
    """
    wrong = 0
    for begin in range(0, studies, CHUNK):
        count = min(CHUNK, studies - begin)
        base = law(rng, (count, looks.maximum))
        arms = [effect + law(rng, (count, looks.maximum)) - base for effect in effects]
        # whether a claim crosses at some look, at the level of each of Holm's steps
        steps = [
            np.array([stops(arm, 0.0, looks, LEVEL / left)[0] < len(looks.at) for arm in arms])
            for left in range(1, len(arms) + 1)
        ]
        rejected = np.zeros((len(arms), count), bool)
        for _ in arms:
            left = len(arms) - rejected.sum(0)
            now = np.stack(steps)[np.maximum(left, 1) - 1, :, np.arange(count)].T
            rejected |= now
        wrong += int(np.sum(rejected[[effect == 0 for effect in effects]].any(0)))
    return wrong / studies


def small(rng: np.random.Generator, looks: Looks, law: Law, effect: float, seed_sd: float) -> float:
    """Return how often a true difference of ``effect`` is found to be smaller than the margin, or its opposite."""
    differences = effect + seed_sd * law(rng, (50_000, looks.maximum))
    at, mean = stops(differences, 0.0, looks, LEVEL)
    half = half_widths(differences)
    assert looks.margin is not None
    is_small = (at == len(looks.at)) & (np.abs(mean) + half < looks.margin)
    opposite = (at < len(looks.at)) & (np.sign(mean) != np.sign(effect))
    return float(np.mean(is_small | opposite))


def half_widths(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return half the width of the usual interval of studies [studies, seeds] without noise of images."""
    seeds = differences.shape[1]
    return -float(stdtrit(seeds - 1, LEVEL / 2)) * differences.std(1, ddof=1) / np.sqrt(seeds)


NOISE = ((0.25, 0.0), (1.0, 0.0), (4.0, 0.0), (0.5, 2.0), (2.0, 1.0))
"""Of seeds, and of single seeds on images, in units of the noise that all seeds share from the images."""


def main() -> None:
    """Print all tables."""
    rng = np.random.default_rng(0)
    print("one look: found where there is none, %, by noise", NOISE)
    for name, law in LAWS.items():
        for seeds in (3, 6, 12, 24):
            found = [crossed(rng, Looks(at=(seeds,)), law, *noise)[-1] for noise in NOISE]
            print(f"{name:20} {seeds:2}", *(f"{100 * each:5.1f}" for each in found), flush=True)
    for at in ((8, 16, 24), (6, 12)):
        print(f"looks at {at}: found where there is none by each look, %, by noise", NOISE)
        for name, law in LAWS.items():
            found = [crossed(rng, Looks(at=at), law, *noise) for noise in NOISE]
            print(
                f"{name:20}", *(" ".join(f"{100 * each:4.1f}" for each in row) for row in found), sep="  ", flush=True
            )
        print("five claims with Holm: some false verdict, %; of none true, one true, and two")
        for name, law in LAWS.items():
            cases = [(0.0,) * 5, (9.0, *(0.0,) * 4), (9.0, 9.0, *(0.0,) * 3)]
            print(f"{name:20}", *(f"{100 * family(rng, Looks(at=at), law, case):5.1f}" for case in cases), flush=True)
        print("a true difference of the margin, 1 point: smallness or the opposite found, %; seed sd 0.5, 1, 2")
        for name, law in LAWS.items():
            wrong = [small(rng, Looks(at=at), law, 1.0, sd) for sd in (0.5, 1.0, 2.0)]
            print(f"{name:20}", *(f"{100 * each:5.1f}" for each in wrong), flush=True)
        print("effect in standard deviations of a seed's difference: found by each look %, seeds expected, one look %")
        for effect in (0.0, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0):
            here = outlook(Looks(at=at), effect, 1.0, studies=100_000)
            alone = outlook(Looks(at=(at[-1],)), effect, 1.0, studies=100_000)
            by_look = " ".join(f"{100 * each:5.1f}" for each in here.found)
            print(f"{effect:4.1f}  {by_look}  {here.expected_seeds:5.1f}  {100 * alone.found[0]:5.1f}", flush=True)


if __name__ == "__main__":
    main()
