"""Looks: what each allows, p-values over them, and claims that are judged at them."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cornernet.ablations.statistics.claims import (
    LEVEL,
    Chain,
    Claim,
    Effect,
    Equivalence,
    Interaction,
    JudgedClaim,
    Sign,
    judge,
    judge_primary,
)
from cornernet.ablations.statistics.intervals import PairedDifference, half_width
from cornernet.ablations.statistics.planning import looks_at, outlook, seeds_for, stops
from cornernet.ablations.statistics.sequential import Looks, Schedule
from tests.unit.simulated_studies import LAWS, collapsing, crossed, family, normal, simulate, small

LOOKS = Looks(at=(8, 16, 24))
SCHEDULE = Schedule(seeds=tuple(range(11, 35)), looks=LOOKS)
A = Effect(variant="a", base="none")
B = Effect(variant="b", base="none")


# --------------------------------------------------------------------------------------------------------------- levels
def crossing(allowed: tuple[float, ...], shares: tuple[float, ...]) -> float:
    """Return the probability of crossing at any look, by the law of all looks together."""
    correlations = [[np.sqrt(min(s, t) / max(s, t)) for t in shares] for s in shares]
    z = stats.norm.isf(np.array(allowed) / 2)
    inside = stats.multivariate_normal(np.zeros(len(z)), correlations, abseps=1e-7, releps=1e-7)
    return 1 - float(inside.cdf(z, lower_limit=-z))


@pytest.mark.parametrize("at", [(8, 16, 24), (6, 12), (3, 4, 20)])
@pytest.mark.parametrize("level", [0.05, 0.01])
def test_by_each_look_as_much_is_spent_as_declared(at, level) -> None:
    looks = Looks(at=at)
    allowed = looks.allowed(level)
    for look in range(1, len(at) + 1):
        spent = level * looks.shares[look - 1] ** 2
        assert crossing(allowed[:look], looks.shares[:look]) == pytest.approx(spent, abs=2e-5)


def test_what_three_looks_allow() -> None:
    assert LOOKS.allowed(0.05) == pytest.approx((0.00556, 0.01891, 0.03922), abs=1e-5)
    assert Looks(at=(6, 12)).allowed(0.05) == pytest.approx((0.0125, 0.04356), abs=1e-5)
    late = Looks(at=(8, 16, 24), spending=4.0).allowed(0.05)
    assert late[0] < LOOKS.allowed(0.05)[0]
    assert late[2] > LOOKS.allowed(0.05)[2]
    with pytest.raises(ValueError, match=r"the level is 1\.0; use a value between 0 and 1"):
        LOOKS.allowed(1.0)


@settings(deadline=None, max_examples=30)
@given(level=st.floats(1e-9, 0.5), look=st.integers(0, 2))
def test_what_a_look_allows_crosses_at_exactly_that_level(level, look) -> None:
    assert LOOKS.over(look, LOOKS.allowed(level)[look]) == pytest.approx(level, rel=1e-6)


def test_p_values_over_looks_at_the_edges() -> None:
    assert [Looks(at=(5,)).over(0, p) for p in (0.0, 1e-30, 0.03, 1.0)] == [0.0, 1e-30, 0.03, 1.0]
    assert [LOOKS.over(look, p) for look in range(3) for p in (0.0, 1.0)] == [0.0, 1.0] * 3
    assert np.isnan(LOOKS.over(1, np.nan))
    p = np.array([1e-40, 1e-13, 1e-12, 1e-11, 1e-8, 1e-4, 0.01, 0.3, 0.8, 0.999])
    for look in range(3):
        over = np.array([LOOKS.over(look, each) for each in p])
        assert np.all(np.diff(over) >= 0)
        assert np.all((over >= p) & (over <= 1))


# --------------------------------------------------------------------------------------------------------------- claims
def difference(*means: float, noise: float = 1.0, image_sd: float = 0.1, seeds: int = 24) -> PairedDifference:
    """Return a difference with this mean over the first eight seeds, over the next eight, and over the last."""
    pattern = noise * np.array([1.0, -1.0, 0.5, -0.5, 0.8, -0.8, 0.2, -0.2])
    values = np.concatenate([mean + pattern for mean in means])[:seeds]
    resamples = image_sd * np.linspace(-1.7, 1.7, 50)
    return PairedDifference(
        per_seed={11 + at: float(value) for at, value in enumerate(values)},
        resamples={11 + at: value + resamples for at, value in enumerate(values)},
    )


SIGN = Sign(name="a", statement="a is better", effect=A, primary=True)


def only(claim: Claim, *differences: PairedDifference, schedule: Schedule = SCHEDULE) -> JudgedClaim:
    return judge([claim], dict(zip((A, B), differences, strict=False)), schedule)[0]


@pytest.mark.parametrize(
    ("means", "seeds", "verdict", "looks"),
    [
        ((3,), 7, "not looked at yet", 0),
        ((3,), 8, "holds here", 1),
        ((-3,), 8, "opposite here", 1),
        ((0.6,), 8, "undecided so far", 1),
        ((0.6, 0.6), 15, "undecided so far", 1),
        ((0.6, 0.6), 16, "holds here", 2),
        ((0.2, 0.2, 0.2), 24, "smaller than the margin here", 3),
        ((0.6, -2.5, 2.5), 24, "undecided at the maximum", 3),
        ((3, 0, -2), 24, "holds here", 3),
    ],
)
def test_a_claim_is_judged_at_complete_looks_alone(means, seeds, verdict, looks) -> None:
    found = only(SIGN, difference(*means, seeds=seeds))
    assert (found.verdict, len(found.looks)) == (verdict, looks)
    assert len(found.estimate.per_seed) == (0, 8, 16, 24)[looks]
    assert found.settled == (verdict not in ("not looked at yet", "undecided so far"))
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_missing_seed_holds_up_the_looks_after_it() -> None:
    whole = difference(3, 3, 3)
    assert len(only(SIGN, whole.over(set(whole.per_seed) - {19})).looks) == 1
    # evaluated with nothing to measure is not missing
    without = PairedDifference(
        per_seed={seed: value for seed, value in whole.per_seed.items() if seed != 19},
        resamples={seed: values for seed, values in whole.resamples.items() if seed != 19},
        unmeasured=(19,),
    )
    assert len(only(SIGN, without).looks) == 3


def test_p_is_the_smallest_level_and_the_interval_that_of_the_last_look() -> None:
    measured = difference(0.6, 0.6, 0.1)
    found = only(SIGN, measured)
    levels = [LOOKS.over(at, measured.over(SCHEDULE.at(at)).p_value()) for at in range(3)]
    assert [look.level for look in found.looks] == levels
    assert found.p == min(levels)
    estimate = found.estimate
    assert estimate.confidence == pytest.approx(1 - LOOKS.allowed(LEVEL)[2])
    half = half_width(measured.seed_sd, 24, measured.image_sd, estimate.confidence)
    assert (estimate.low, estimate.high) == pytest.approx((measured.mean - half, measured.mean + half))
    assert found.tested_at == pytest.approx(LOOKS.allowed(LEVEL)[2])
    assert found.detectable(estimate, 0.5) == pytest.approx(half)


def test_the_direction_is_that_of_the_look_that_decided() -> None:
    found = only(SIGN, difference(2, -1.5, -1.5))
    assert found.estimate.mean < 0
    assert found.verdict == "holds here"


def test_small_is_what_lies_within_the_margin_at_the_level_of_holms_step() -> None:
    # its 95% interval lies within 1 point, its 97.5% interval does not
    measured = difference(0.5, 0.5, 0.5, noise=1.8)
    half = [half_width(measured.seed_sd, 24, measured.image_sd, 1 - level) for level in (LEVEL, LEVEL / 2)]
    assert 0.5 + half[0] < 1.1 < 0.5 + half[1]
    schedule = Schedule(seeds=SCHEDULE.seeds, looks=Looks(at=LOOKS.at, margin=1.1))
    assert only(SIGN, measured, schedule=schedule).verdict == "smaller than the margin here"
    other = Sign(name="b", statement="b", effect=B)
    beside = judge([SIGN, other], {A: measured, B: difference(0.1, 0.1, 0.1, noise=9)}, schedule)
    assert [judged.verdict for judged in beside] == ["undecided at the maximum"] * 2
    none = Schedule(seeds=SCHEDULE.seeds, looks=Looks(at=LOOKS.at, margin=None))
    assert only(SIGN, measured, schedule=none).verdict == "undecided at the maximum"


CHAIN = Chain(name="c", statement="both", parts=(SIGN, Sign(name="b", statement="b", effect=B)))


def test_a_chain_holds_at_a_look_and_is_refuted_over_the_looks_by_one_part() -> None:
    assert only(CHAIN, difference(3), difference(3)).verdict == "holds here"
    found = only(CHAIN, difference(3), difference(0.6))
    assert found.verdict == "undecided so far"
    assert found.p == LOOKS.over(0, difference(0.6).p_value())
    against = difference(-1.5)
    refuted = only(CHAIN, difference(3), against)
    assert refuted.verdict == "opposite here"
    assert refuted.p == pytest.approx(2 * LOOKS.over(0, against.p_value()))
    assert only(CHAIN, difference(0.1, 0.1, 0.1), difference(0.2, 0.2, 0.2)).verdict == "smaller than the margin here"
    assert only(CHAIN, difference(0.1, 0.1, 0.1), difference(0.6, -2.5, 2.5)).verdict == "undecided at the maximum"


def test_interactions_and_equivalences_have_looks() -> None:
    grows = Interaction(name="g", statement="g", effect=A, other=B)
    assert only(grows, difference(4), difference(1)).verdict == "holds here"
    assert len(only(grows, difference(4), difference(1, seeds=7)).looks) == 0, "both are needed"
    same = Equivalence(name="s", statement="s", effect=A, margin=2.0)
    assert only(same, difference(0.1)).verdict == "holds here"
    assert only(same, difference(6)).verdict == "opposite here"
    # it has a margin of its own
    wide = Equivalence(name="s", statement="s", effect=A, margin=0.3)
    assert only(wide, difference(0.2, 0.2, 0.2)).verdict == "undecided at the maximum"


def test_one_look_at_the_end_gives_the_numbers_of_no_looks() -> None:
    once = Schedule(seeds=SCHEDULE.seeds, looks=Looks(at=(24,)))
    claims = [
        SIGN,
        Sign(name="b", statement="b", effect=B),
        Chain(name="c", statement="c", parts=CHAIN.parts),
        Interaction(name="g", statement="g", effect=A, other=B),
        Equivalence(name="s", statement="s", effect=B, margin=2.0),
    ]
    names = {"undecided at the maximum": "inconclusive", "smaller than the margin here": "inconclusive"}
    for a, b in itertools.product((3.0, 0.4, -0.7), (0.5, 0.02, -2.0)):
        differences = {A: difference(a, a, a), B: difference(b, b, b, noise=2)}
        for before, now in zip(judge(claims, differences), judge(claims, differences, once), strict=True):
            assert now.estimates == before.estimates
            assert (now.p, now.adjusted_p, now.level, now.tested_at) == (
                *(before.p, before.adjusted_p, before.level, before.tested_at),
            )
            assert now.detectable(now.estimate) == before.detectable(before.estimate)
            assert names.get(now.verdict, now.verdict) == before.verdict


def test_primary_claims_are_corrected_over_their_own_looks() -> None:
    tables = {"one": ([SIGN], {A: difference(1.2)}), "two": ([SIGN], {A: difference(0.6, 0.7)})}
    found = judge_primary(tables, SCHEDULE)
    assert [len(judged.looks) for judged in found.values()] == [1, 2]
    ranked = sorted(judged.p for judged in found.values())
    assert sorted(judged.adjusted_p for judged in found.values()) == pytest.approx(
        [2 * ranked[0], max(ranked[1], 2 * ranked[0])]
    )


# ------------------------------------------------------------------------------------------------------ false verdicts
def test_simulated_at_once_is_judged_as_one_by_one() -> None:
    rng = np.random.default_rng(5)
    looks = Looks(at=(3, 5, 8))
    schedule = Schedule(seeds=tuple(range(8)), looks=looks)
    for found in simulate(rng, 1.5, 1.0, 8, 40):
        judged = judge([SIGN], {A: found}, schedule)[0]
        spreads = [found.over(schedule.at(at)).image_sd for at in range(3)]
        at, _ = stops(np.array([list(found.per_seed.values())]), np.array([spreads]), looks, LEVEL)
        crossing_at = [look.level <= LEVEL for look in judged.looks]
        assert at[0] == (crossing_at.index(True) if any(crossing_at) else 3)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("at", [(8, 16, 24), (6, 12)], ids=str)
@pytest.mark.parametrize("noise", [(4.0, 0.0), (1.0, 1.0)], ids=str)
def test_over_all_looks_a_difference_that_is_none_is_found_in_five_of_a_hundred(at, law, noise) -> None:
    found = crossed(np.random.default_rng(1), Looks(at=at), law, *noise, studies=4000)[-1]
    # 5.5% and three standard deviations of 4,000 studies
    assert found < 0.055 + 3 * np.sqrt(0.055 / 4000)


@pytest.mark.parametrize("effects", [(0.0,) * 4, (9.0, 0.0, 0.0)], ids=str)
def test_over_a_family_that_shares_its_base_arm_false_verdicts_are_as_rare(effects) -> None:
    for law in (normal, collapsing):
        found = family(np.random.default_rng(2), LOOKS, law, effects, studies=4000)
        assert found < 0.055 + 3 * np.sqrt(0.055 / 4000)


def test_a_difference_of_the_margin_is_rarely_found_smaller() -> None:
    assert max(small(np.random.default_rng(3), LOOKS, normal, 1.0, sd) for sd in (0.5, 1.0, 1.5)) < 0.0275


# ------------------------------------------------------------------------------------------------------------ planning
def test_an_outlook_is_what_happens() -> None:
    here = outlook(LOOKS, 2.0, 2.0)
    assert here.found[-1] > 0.99
    assert here.running == (1.0, 1 - here.found[0], 1 - here.found[1])
    assert here.expected_seeds == pytest.approx(8 * sum(here.running))
    assert here.wrong < 0.001
    nothing = outlook(LOOKS, 0.0, 1.0)
    assert nothing.wrong == pytest.approx(0.05, abs=0.006)
    assert nothing.small > 0.9
    assert outlook(Looks(at=(24,)), 0.6, 1.0).found[0] > outlook(LOOKS, 0.6, 1.0).found[-1]
    # noise of the images does not go away
    assert outlook(LOOKS, 2.0, 1.0, 2.0).found[-1] < 0.3
    with pytest.raises(ValueError, match="one at least must be above 0"):
        outlook(LOOKS, 1.0, 0.0)
    with pytest.raises(ValueError, match="use two or more"):
        outlook(Looks(at=(1, 2)), 1.0, 1.0)


def test_the_seeds_that_a_power_takes_are_those_of_the_t_test() -> None:
    found = seeds_for(1.0, 1.0, power=0.8)
    t, freedom = stats.t.isf(0.025, 9), 9
    power = stats.nct.sf(t, freedom, np.sqrt(10)) + stats.nct.cdf(-t, freedom, np.sqrt(10))
    assert power > 0.8
    assert found == 10
    assert seeds_for(1.0, 1.0, shares=(0.5, 1.0), power=0.8) in (10, 11, 12)
    assert seeds_for(1.0, 1.0, 1.0, power=0.8) is None
    assert looks_at(7, (1 / 3, 2 / 3, 1)).at == (3, 5, 7)
