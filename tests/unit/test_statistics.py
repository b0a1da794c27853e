"""The interval of a paired difference over seeds and images: its formulas, and how often it holds the truth."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from cornernet.ablations.statistics.claims import Effect, Sign, judge
from cornernet.ablations.statistics.intervals import (
    Measurement,
    PairedDifference,
    Summary,
    arm_mean,
    detectable_difference,
    half_width,
    holm,
    p_value,
    paired_difference,
    paired_differences,
    summarise,
)
from cornernet.ablations.statistics.resampling import Resamples
from tests.unit.simulated_studies import Law, collapsing, heavy_tailed, normal, simulate, skewed_in_one_arm

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
# 2,000 would do for coverage, but show false positives only to half a point: 6.1% where they are 5.2%
STUDIES = 10_000 if THOROUGH else 200

SPREADS = {
    "seed_sd": st.floats(0, 10) | st.just(0.0),
    "image_sd": st.floats(0, 10) | st.just(0.0),
    "seeds": st.integers(2, 12),
}


# --------------------------------------------------------------------------------------------------- summaries, pairs
def test_a_summary_leaves_out_what_was_not_measured() -> None:
    assert summarise([1.0, None, 3.0, math.nan]) == Summary(2.0, math.sqrt(2), 2)
    assert math.isnan(summarise([1.0]).deviation)
    assert summarise([None]).count == 0


def test_differences_are_of_seeds_that_both_were_measured_under() -> None:
    assert paired_differences({1: 0.5, 2: None, 3: 0.4}, {1: 0.25, 2: 0.1, 4: 0.3}) == {1: 0.25}


# ----------------------------------------------------------------------------------------------------------- interval
def test_the_half_width_by_hand() -> None:
    # t(.975, 2) = 4.3027, z = 1.9600: sqrt(4.3027^2 * 4 / 3 + 1.96^2 * 2.25)
    assert half_width(2.0, 3, 1.5) == pytest.approx(math.sqrt(4.30265**2 * 4 / 3 + 1.959964**2 * 2.25), rel=1e-5)


@pytest.mark.parametrize("level", [0.0, 1.0, 1.5, 95.0, -0.5])
def test_levels_lie_between_none_and_all(level) -> None:
    with pytest.raises(ValueError, match="confidence"):
        half_width(1.0, 3, 1.0, level)
    if level:
        with pytest.raises(ValueError, match="power"):
            detectable_difference(1.0, 3, 1.0, level)
    assert half_width(1.0, 2, 1.0, 0.01) < half_width(1.0, 2, 1.0, 0.99)
    assert detectable_difference(1.0, 2, 1.0, 0.5) < detectable_difference(1.0, 2, 1.0, 0.99)


def test_the_detectable_difference_by_hand() -> None:
    # t(.975, 4) + t(.8, 4) = 2.7764 + 0.9410, and 2.80 for the images
    expected = math.sqrt((2.77645 + 0.94096) ** 2 * 4 / 5 + 2.801585**2 * 2.25)
    assert detectable_difference(2.0, 5, 1.5) == pytest.approx(expected, rel=1e-5)


@given(**SPREADS, difference=st.floats(-50, 50), confidence=st.floats(0.5, 0.999))
def test_the_p_value_is_where_the_interval_reaches_zero(seed_sd, image_sd, seeds, difference, confidence) -> None:
    p = p_value(difference, seed_sd, seeds, image_sd)
    assert 0 <= p <= 1
    half = half_width(seed_sd, seeds, image_sd, confidence)
    assume(abs(half - abs(difference)) > 1e-9 * half)
    assert (p < 1 - confidence) == (half < abs(difference))
    # 1 - p has lost the digits of a small p
    if 1e-6 < p < 1 - 1e-6:
        assert half_width(seed_sd, seeds, image_sd, 1 - p) == pytest.approx(abs(difference), rel=1e-6)


@given(values=st.lists(st.floats(-20, 20), min_size=2, max_size=10))
def test_without_image_noise_it_is_the_paired_t_test(values) -> None:
    spread = float(np.std(values, ddof=1))
    assume(spread > 1e-3 and abs(np.mean(values)) > 1e-3)
    expected = stats.ttest_1samp(values, 0).pvalue
    assert p_value(float(np.mean(values)), spread, len(values), 0.0) == pytest.approx(expected, rel=1e-6)


@given(difference=st.floats(0.1, 30), image_sd=st.floats(0.5, 5), seeds=st.integers(2, 9))
def test_without_seed_noise_it_is_the_z_test(difference, image_sd, seeds) -> None:
    expected = 2 * stats.norm.sf(difference / image_sd)
    assert p_value(difference, 0.0, seeds, image_sd) == pytest.approx(expected, rel=1e-6)


def test_p_at_its_ends() -> None:
    assert p_value(0.0, 1.0, 3, 1.0) == 1
    assert p_value(0.0, 0.0, 3, 0.0) == 1
    assert p_value(1e-9, 0.0, 3, 0.0) == 0
    assert math.isnan(p_value(1.0, math.nan, 1, 1.0))
    assert math.isnan(p_value(1.0, 1.0, 3, math.nan))
    assert math.isnan(half_width(math.nan, 1, 1.0))
    assert math.isnan(detectable_difference(math.nan, 1, 1.0))


def test_a_one_sided_p_value_is_small_on_its_own_side_alone() -> None:
    found = PairedDifference(per_seed={0: 1.0, 1: 2.0, 2: 3.0}, resamples={s: np.array([0.0, 1.0]) for s in range(3)})
    assert found.one_sided(0.0) == pytest.approx(found.p_value(0.0) / 2)
    assert found.one_sided(5.0) == pytest.approx(1 - found.p_value(5.0) / 2)
    assert found.one_sided(0.0) < 0.5 < found.one_sided(5.0)


def test_spreads_and_levels_that_are_none_are_errors() -> None:
    with pytest.raises(ValueError, match="cannot be negative"):
        half_width(-1.0, 3, 1.0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        half_width(1.0, 3, 1.0, confidence=95)
    with pytest.raises(ValueError, match=r"from 0\.5 to below 1"):
        detectable_difference(1.0, 3, 1.0, power=80)


# --------------------------------------------------------------------------------------------------------------- Holm
@given(p_values=st.lists(st.floats(0, 1) | st.sampled_from([0.01, 0.05]), min_size=1, max_size=5))
def test_holm_is_the_closure_of_bonferroni(p_values) -> None:
    """A test is rejected where Bonferroni rejects every family that it is part of: the principle Holm shortens."""
    everyone = range(len(p_values))
    families = [f for size in everyone for f in itertools.combinations(everyone, size + 1)]
    for at, adjusted in enumerate(holm(p_values)):
        mine = [family for family in families if at in family]
        expected = max(min(1.0, len(family) * min(p_values[i] for i in family)) for family in mine)
        assert adjusted == pytest.approx(expected, rel=1e-12)


def test_holm_counts_what_could_not_be_tested() -> None:
    adjusted = holm([0.02, math.nan, 0.01])
    assert adjusted[0] == pytest.approx(0.04)
    assert math.isnan(adjusted[1])
    assert adjusted[2] == pytest.approx(0.03)
    with pytest.raises(ValueError, match=r"1\.5 is not a p-value"):
        holm([0.5, 1.5])


# -------------------------------------------------------------------------------------------------------- differences
def measured(value: float | None, resamples: list[float], fingerprint: str = "data") -> Measurement:
    values = {"AP": np.asarray(resamples)}
    return Measurement(metrics={"AP": value}, resamples=Resamples(fingerprint=fingerprint, version=1, values=values))


def test_a_difference_is_in_points_and_its_image_spread_that_of_the_mean_over_seeds() -> None:
    variant = {0: measured(0.5, [0.4, 0.6, 0.5]), 1: measured(0.6, [0.7, 0.5, 0.6]), 2: measured(0.7, [0.7, 0.7, 0.7])}
    base = {0: measured(0.4, [0.4, 0.4, 0.4]), 1: measured(0.4, [0.4, 0.4, 0.4]), 3: measured(0.1, [0.1, 0.1, 0.1])}
    found = paired_difference("AP", variant, base)
    assert found.seeds == (0, 1)
    assert found.mean == pytest.approx(15)
    assert found.seed_sd == pytest.approx(math.sqrt(50))
    # what images do to one seed they undo to the other
    assert found.image_sd == pytest.approx(0, abs=1e-9)
    assert not found.enough_seeds
    alike = PairedDifference(per_seed=found.per_seed, resamples={s: np.array([1.0, 3.0, 8.0]) for s in found.seeds})
    for power in (0.5, 0.8):
        expected = detectable_difference(alike.seed_sd, 2, alike.image_sd, power)
        assert alike.detectable(power) == expected
    assert alike.detectable() == expected > found.detectable()


def test_noise_of_images_that_both_arms_share_cancels() -> None:
    common = [0.3, 0.5, 0.7, 0.45]
    variant = {s: measured(0.6, [c + 0.1 for c in common]) for s in range(3)}
    base = {s: measured(0.5, common) for s in range(3)}
    assert paired_difference("AP", variant, base).image_sd == pytest.approx(0, abs=1e-9)


def test_resamples_without_the_metric_are_left_out_of_the_spread() -> None:
    values = np.array([1.0, math.nan, 3.0])
    difference = PairedDifference(per_seed={0: 2.0, 1: 2.0}, resamples={0: values, 1: values})
    assert difference.image_sd == pytest.approx(math.sqrt(2))


def test_a_seed_without_the_metric_is_left_out() -> None:
    arms = {0: measured(None, [math.nan]), 1: measured(math.nan, [math.nan]), 2: measured(0.5, [0.5])}
    assert paired_difference("AP", arms, arms).seeds == (2,)
    # that one of the two has it is not enough
    assert paired_difference("AP", {0: arms[0], 2: arms[2]}, {0: arms[2], 2: arms[2]}).seeds == (2,)
    assert paired_difference("AP", {0: arms[2]}, {0: arms[0]}).unmeasured == (0,)
    nothing = paired_difference("AP", {}, {})
    assert nothing.seeds == ()
    assert math.isnan(nothing.mean)
    assert math.isnan(nothing.p_value())


def test_arms_on_other_images_are_not_compared() -> None:
    with pytest.raises(ValueError, match="seed 0: the base was evaluated on other images"):
        paired_difference("AP", {0: measured(0.5, [0.5])}, {0: measured(0.5, [0.5], "other data")})
    arms = {0: measured(0.5, [0.5]), 1: measured(0.5, [0.5], "other data")}
    with pytest.raises(ValueError, match="seed 1: the variant was evaluated on other images"):
        paired_difference("AP", arms, arms)
    lacking = {0: Measurement(metrics={"AP50": 0.5}, resamples=measured(0.5, [0.5]).resamples)}
    with pytest.raises(ValueError, match="no resamples of AP50"):
        paired_difference("AP50", lacking, lacking)


def test_a_difference_of_differences_is_over_the_seeds_of_both() -> None:
    one = PairedDifference(per_seed=dict.fromkeys(range(4), 3.0), resamples={s: np.array([1.0, 5.0]) for s in range(4)})
    two = PairedDifference(per_seed={s: 1.0 * s for s in range(2, 6)}, resamples={s: np.ones(2) for s in range(2, 6)})
    found = one.less(two)
    assert dict(found.per_seed) == {2: 1.0, 3: 0.0}
    assert found.image_sd == pytest.approx(np.std([0, 4], ddof=1))
    assert found.negated().mean == -found.mean
    with pytest.raises(ValueError, match="not paired"):
        one.less(PairedDifference(per_seed={2: 1.0}, resamples={2: np.ones(3)}))


def test_incomplete_differences_are_errors() -> None:
    with pytest.raises(ValueError, match="each seed needs both"):
        PairedDifference(per_seed={0: 1.0}, resamples={})
    with pytest.raises(ValueError, match="is NaN"):
        PairedDifference(per_seed={0: math.nan}, resamples={0: np.ones(2)})
    with pytest.raises(ValueError, match="not paired"):
        PairedDifference(per_seed={0: 1.0, 1: 1.0}, resamples={0: np.ones(2), 1: np.ones(3)})


def test_a_record_without_resamples_can_be_let_pass_and_has_no_spread_over_images() -> None:
    old = Measurement(metrics={"AP": 0.25}, resamples=None)
    assert old.resamples is None
    assert not old.resampled("AP")
    new = measured(0.5, [0.4, 0.6])
    assert (new.resampled("AP"), new.resampled("AR1")) == (True, False)
    found = paired_difference("AP", {0: new, 1: new}, {0: new, 1: old}, resamples_required=False)
    assert dict(found.per_seed) == {0: 0.0, 1: 25.0}
    assert found.seed_sd == pytest.approx(math.sqrt(312.5))
    assert math.isnan(found.image_sd)
    assert math.isnan(found.interval()[0])
    # and neither has a difference to one that has it
    whole = paired_difference("AP", {0: new, 1: new}, {0: new, 1: new})
    assert math.isnan(whole.less(found).image_sd)
    assert math.isnan(found.less(whole).image_sd)
    with pytest.raises(ValueError, match="seed 1: the base has no resamples of AP"):
        paired_difference("AP", {0: new, 1: new}, {0: new, 1: old})


def test_seeds_without_the_metric_are_listed_as_unmeasured() -> None:
    arms = {0: measured(None, [math.nan] * 2), 1: measured(0.5, [0.4, 0.6]), 2: measured(0.5, [0.4, 0.6])}
    found = paired_difference("AP", arms, {seed: arms[seed] for seed in (0, 1)})
    assert (found.seeds, found.unmeasured) == ((1,), (0,))
    assert found.negated().unmeasured == (0,)
    whole = PairedDifference(per_seed={0: 1.0, 1: 1.0}, resamples={0: np.ones(2), 1: np.ones(2)})
    assert (whole.less(found).seeds, whole.less(found).unmeasured) == ((1,), (0,))


def test_the_level_of_an_arm_has_the_same_interval_with_its_own_spreads() -> None:
    arm = {
        0: measured(0.50, [0.40, 0.60, 0.50]),
        1: measured(0.54, [0.46, 0.66, 0.56]),
        2: measured(0.58, [0.46, 0.66, 0.56]),
        3: measured(None, [math.nan] * 3),
    }
    found = arm_mean("AP", arm)
    assert found.seeds == (0, 1, 2)
    assert (found.mean, found.seed_sd, found.image_sd) == pytest.approx((54, 4, 10))
    half = half_width(4, 3, 10)
    assert found.interval() == pytest.approx((54 - half, 54 + half))
    half = half_width(4, 3, 10, 0.5)
    assert found.interval(0.5) == pytest.approx((54 - half, 54 + half))
    lacking = {0: Measurement(metrics={"AP": 0.5}, resamples=None)}
    with pytest.raises(ValueError, match="seed 0: the arm has no resamples of AP; evaluate again"):
        arm_mean("AP", lacking)
    assert math.isnan(arm_mean("AP", lacking, resamples_required=False).image_sd)
    with pytest.raises(ValueError, match=r"seed 1: the arm was evaluated on other images, .*; evaluate all arms"):
        arm_mean("AP", {0: arm[0], 1: measured(0.5, [0.1, 0.2, 0.3], "other")})


# ----------------------------------------------------------------------------------------------------------- coverage
CELLS = pytest.mark.parametrize(
    ("seeds", "seed_noise"), list(itertools.product((3, 5, 10), (0.25, 1.0, 4.0))), ids=lambda value: str(value)
)


def at_least(count: int, share: float) -> bool:
    """Tell whether ``count`` of STUDIES is ``share`` or more; of few studies, whether chance explains it (p > 1e-4)."""
    return count >= share * STUDIES if THOROUGH else stats.binom.cdf(count, STUDIES, share) > 1e-4


def studies(
    seeds: int, seed_noise: float, truth: float, stream: int, own_noise: float = 0.0, law: Law = normal
) -> Iterator[PairedDifference]:
    rng = np.random.default_rng([stream, seeds, int(100 * seed_noise)])
    return simulate(rng, truth, seed_noise, seeds, STUDIES, own_noise=own_noise, law=law)


@CELLS
def test_the_interval_covers_the_truth_as_often_as_it_says(seeds, seed_noise) -> None:
    truth = 1.7
    intervals = [difference.interval() for difference in studies(seeds, seed_noise, truth, 1)]
    covered = sum(low <= truth <= high for low, high in intervals)
    print(f"coverage: {covered / STUDIES:.2%}")  # pytest -rP shows it
    assert at_least(covered, 0.93), f"covers {covered} of {STUDIES}"
    assert at_least(STUDIES - covered, 0.015), f"covers {covered} of {STUDIES}: wider than need be"


@CELLS
def test_verdicts_on_differences_that_are_none_are_rarely_given(seeds, seed_noise) -> None:
    effect = Effect(variant="a", base="b")
    claim = Sign(name="a", statement="a is better", effect=effect)
    verdicts = [judge([claim], {effect: d})[0].verdict for d in studies(seeds, seed_noise, 0.0, 2)]
    found = len(verdicts) - verdicts.count("inconclusive")
    print(f"false positives: {found / STUDIES:.2%}")  # pytest -rP shows it
    assert at_least(STUDIES - found, 0.94), f"a verdict in {found} of {STUDIES}"


LAWS = [normal, skewed_in_one_arm, heavy_tailed, collapsing]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("seeds", [3, 6, 12, 24] if THOROUGH else [3, 12])
def test_false_positives_stay_rare_whatever_the_noise_of_seeds(seeds, law) -> None:
    found = sum(d.p_value() < 0.05 for d in studies(seeds, 2.0, 0.0, 4, own_noise=1.0, law=law))
    print(f"false positives: {found / STUDIES:.2%}")  # pytest -rP shows it
    assert at_least(STUDIES - found, 0.93), f"a difference in {found} of {STUDIES}"


def test_noise_of_single_seeds_on_images_is_counted_once() -> None:
    """With it in the spread over images too, fewer than half as many false differences are found as are allowed."""
    found = list(studies(6, 0.5, 0.0, 5, own_noise=2.0))
    twice = [np.mean(list(d.resamples.values()), axis=0).std(ddof=1) for d in found]
    wrong_then = sum(abs(d.mean) > half_width(d.seed_sd, 6, spread) for d, spread in zip(found, twice, strict=True))
    wrong_now = sum(d.p_value() < 0.05 for d in found)
    assert at_least(STUDIES - wrong_now, 0.94)
    assert wrong_then < wrong_now
    assert np.mean([d.image_sd**2 for d in found]) == pytest.approx(1, rel=0.15)


@CELLS
def test_the_detectable_difference_is_found_four_times_in_five(seeds, seed_noise) -> None:
    truth = detectable_difference(seed_noise, seeds, 1.0)
    found = sum(difference.interval()[0] > 0 for difference in studies(seeds, seed_noise, truth, 3))
    print(f"power: {found / STUDIES:.2%}")  # pytest -rP shows it
    # adding two kinds of noise in squares is an approximation: 75% to 85%
    assert at_least(found, 0.75), f"found {found} of {STUDIES}"
    assert at_least(STUDIES - found, 0.15), f"found {found} of {STUDIES}"


def test_seeds_alone_would_not_do() -> None:
    """Why images enter: where they are the larger noise, an interval over seeds is wrong most of the time."""
    found = [(d.mean, half_width(d.seed_sd, 5, 0.0)) for d in studies(5, 0.25, 0.0, 1)]
    assert sum(abs(mean) <= half for mean, half in found) < 0.5 * STUDIES
