"""Claims of each kind: their p-values, their verdicts, and their correction together."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
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
    effects_of,
    judge,
    judge_primary,
)
from cornernet.ablations.statistics.intervals import PairedDifference
from cornernet.ablations.studies.study import Contrast, Study, Variant
from tests.unit.simulated_studies import simulate

A = Effect(variant="a", base="none")
B = Effect(variant="b", base="none")
C = Effect(variant="c", base="none")
LARGE = Effect(variant="a", base="none", metric="APl")


def difference(mean: float, seed_sd: float = 1.0, image_sd: float = 1.0, seeds: int = 5) -> PairedDifference:
    """Return a difference of exactly this mean and these spreads."""

    def standard(count: int, ddof: int) -> np.ndarray:
        values = np.arange(count) - (count - 1) / 2
        return values / values.std(ddof=ddof) if count > 1 else values

    per_seed = mean + seed_sd * standard(seeds, 1)
    return PairedDifference(
        per_seed={seed: float(value) for seed, value in enumerate(per_seed)},
        resamples={seed: value + image_sd * standard(50, 1) for seed, value in enumerate(per_seed)},
    )


def sign(name: str, effect: Effect = A, **fields) -> Sign:
    return Sign(name=name, statement=f"claim {name}", effect=effect, **fields)


def only(claim: Claim, differences: dict[Effect, PairedDifference]) -> JudgedClaim:
    (judged,) = judge([claim], differences)
    return judged


# --------------------------------------------------------------------------------------------------------------- sign
@pytest.mark.parametrize(
    ("mean", "expected", "verdict"),
    [
        (9, "positive", "holds here"),
        (-9, "positive", "opposite here"),
        (-9, "negative", "holds here"),
        (9, "negative", "opposite here"),
        (1, "positive", "inconclusive"),
        (-1, "positive", "inconclusive"),
        (0, "negative", "inconclusive"),
    ],
)
def test_a_sign(mean, expected, verdict) -> None:
    assert only(sign("x", expected=expected), {A: difference(mean)}).verdict == verdict


def test_a_judged_sign_has_what_a_table_needs() -> None:
    found = only(sign("x"), {A: difference(2.0, seed_sd=1.5, image_sd=0.5, seeds=4)})
    t, z = stats.t.ppf(0.975, 3), stats.norm.ppf(0.975)
    half = math.sqrt((t * 1.5) ** 2 / 4 + (z * 0.5) ** 2)
    estimate = found.estimate
    assert (estimate.low, estimate.high) == pytest.approx((2 - half, 2 + half))
    assert (estimate.mean, estimate.seed_sd, estimate.image_sd) == pytest.approx((2, 1.5, 0.5))
    assert (estimate.confidence, estimate.seeds) == (0.95, (0, 1, 2, 3))
    assert found.detectable(estimate) > half
    assert found.detectable(estimate, 0.5) == pytest.approx(half)
    assert found.p == estimate.p == found.adjusted_p
    assert estimate.label == "AP, a minus none"


def test_an_effect_declared_the_other_way_round_is_turned() -> None:
    turned = Effect(variant="none", base="a")
    found = only(sign("x", turned, expected="negative"), {A: difference(9)})
    assert found.verdict == "holds here"
    assert found.estimate.mean == pytest.approx(-9)
    assert found.estimate.low < found.estimate.high


@pytest.mark.parametrize("seeds", [0, 1, 2])
def test_with_fewer_than_three_seeds_there_is_no_verdict_and_no_p_value(seeds) -> None:
    nothing = PairedDifference(per_seed={}, resamples={})
    few = difference(50, seed_sd=0.1, seeds=seeds) if seeds else nothing
    claims: list[Claim] = [
        sign("sign"),
        Equivalence(name="same", statement="", effect=A, margin=60),
        Chain(name="chain", statement="", parts=(sign("1", B), sign("2", A))),
        Interaction(name="grows", statement="", effect=B, other=A),
    ]
    for judged in judge(claims, {A: few, B: difference(9)}):
        assert judged.verdict == "too few seeds"
        assert math.isnan(judged.p)
        assert math.isnan(judged.adjusted_p)
        json.dumps(judged.to_dict(), allow_nan=False)


def test_without_a_spread_over_images_there_is_no_verdict() -> None:
    measured = difference(50, seed_sd=0.1)
    bare = PairedDifference(per_seed=measured.per_seed, resamples=dict.fromkeys(measured.per_seed, np.full(9, np.nan)))
    assert only(sign("x"), {A: bare}).verdict == "inconclusive"


# -------------------------------------------------------------------------------------------------------------- chain
def chain(*parts: Sign | Interaction) -> Chain:
    return Chain(name="chain", statement="none < a < b", parts=parts)


def test_a_chain_is_as_sure_as_its_weakest_part() -> None:
    differences = {A: difference(9), B: difference(4), C: difference(20)}
    found = only(chain(sign("1", A), sign("2", B), sign("3", C)), differences)
    assert found.verdict == "holds here"
    assert found.p == max(e.p for e in found.estimates) == differences[B].p_value()
    assert found.estimate.label == "AP, b minus none"
    assert [e.label for e in found.estimates] == ["AP, a minus none", "AP, b minus none", "AP, c minus none"]


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        (9, 9, "holds here"),
        (9, 1, "inconclusive"),
        (9, -9, "opposite here"),
        (-9, -9, "opposite here"),
        (-9, 1, "opposite here"),
        (-1, 9, "inconclusive"),
        (-1, -1, "inconclusive"),
    ],
)
def test_every_part_of_a_chain_must_hold(first, second, verdict) -> None:
    assert only(chain(sign("1", A), sign("2", B)), {A: difference(first), B: difference(second)}).verdict == verdict


def test_one_part_against_refutes_a_chain_at_bonferronis_price() -> None:
    differences = {A: difference(9), B: difference(-1.2), C: difference(-0.1)}
    found = only(chain(sign("1", A), sign("2", B), sign("3", C)), differences)
    assert found.p == pytest.approx(3 * differences[B].p_value())
    assert found.estimate.label == "AP, b minus none"


# -------------------------------------------------------------------------------------------------------- interaction
def test_an_interaction_is_of_the_differences_seed_by_seed() -> None:
    grows = Interaction(name="grows", statement="grows with size", effect=LARGE, other=A)
    # each difference varies wildly over seeds, but both together
    shared = difference(3, seed_sd=10, image_sd=10)
    more = PairedDifference(
        per_seed={s: v + 2 + 0.1 * (-1) ** s for s, v in shared.per_seed.items()},
        resamples={s: v + 2 + 0.1 * np.cos(np.arange(50)) for s, v in shared.resamples.items()},
    )
    differences = {A: shared, LARGE: more}
    assert only(sign("x", LARGE), differences).verdict == "inconclusive"
    found = only(grows, differences)
    assert found.verdict == "holds here"
    assert found.estimate.mean == pytest.approx(2, abs=0.1)
    assert found.estimate.label == "(APl, a minus none) minus (AP, a minus none)"
    assert only(dataclasses.replace(grows, expected="negative"), differences).verdict == "opposite here"


def test_two_differences_of_which_one_is_significant_are_no_interaction() -> None:
    # what seeds and images do to one they do to the other the other way round
    differences = {LARGE: difference(5), A: difference(-2).negated()}
    found = judge([sign("1", LARGE), sign("2", A)], differences)
    assert [judged.verdict for judged in found] == ["holds here", "inconclusive"]
    assert only(Interaction(name="i", statement="", effect=LARGE, other=A), differences).verdict == "inconclusive"


# -------------------------------------------------------------------------------------------------------- equivalence
def same(margin: float = 2.0) -> Equivalence:
    return Equivalence(name="same", statement="similar", effect=A, margin=margin)


def test_an_equivalence_is_two_one_sided_t_tests_where_images_add_no_noise() -> None:
    measured = difference(0.5, seed_sd=1.0, image_sd=0.0, seeds=6)
    values = list(measured.per_seed.values())
    lower = stats.ttest_1samp(values, -2.0, alternative="greater").pvalue
    upper = stats.ttest_1samp(values, 2.0, alternative="less").pvalue
    assert only(same(), {A: measured}).p == pytest.approx(2 * max(lower, upper), rel=1e-6)


@given(
    mean=st.floats(-5, 5),
    seed_sd=st.floats(0.01, 2),
    image_sd=st.floats(0.01, 2),
    seeds=st.integers(3, 10),
    margin=st.floats(0.1, 4),
)
def test_similar_is_where_the_interval_shown_lies_within_the_margins(mean, seed_sd, image_sd, seeds, margin) -> None:
    found = only(same(margin), {A: difference(mean, seed_sd, image_sd, seeds)})
    shown = found.estimate
    assert shown.confidence == 0.95
    assert (found.verdict == "holds here") == (-margin < shown.low and shown.high < margin)
    # against it, at 5% two-sided: the 95% interval beyond a margin
    low, high = difference(mean, seed_sd, image_sd, seeds).interval(0.95)
    assert (found.verdict == "opposite here") == (low > margin or high < -margin)


def test_not_significant_is_not_similar() -> None:
    noisy = difference(0.0, seed_sd=3.0)
    assert only(sign("x"), {A: noisy}).verdict == "inconclusive"
    assert only(same(), {A: noisy}).verdict == "inconclusive"


def test_a_difference_of_exactly_the_margin_is_not_similar() -> None:
    assert only(same(), {A: difference(2.0)}).p == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("large", "everything", "verdict"),
    [(5.1, 5.0, "holds here"), (12.0, 5.0, "opposite here"), (1.0, 6.0, "opposite here"), (6.9, 5.0, "inconclusive")],
)
def test_two_effects_are_similar_where_their_difference_is(large, everything, verdict) -> None:
    similar = Equivalence(name="same", statement="similar", effect=LARGE, other=A, margin=2.0)
    # images move both alike, so they cancel; seeds do not
    differences = {LARGE: difference(large, 0.5, 3.0), A: difference(everything, 0.0, 3.0)}
    found = only(similar, differences)
    assert found.verdict == verdict
    assert found.estimate.label == "(APl, a minus none) minus (AP, a minus none)"
    assert found.estimate.confidence == 0.95
    assert effects_of(similar) == (LARGE, A)


# ------------------------------------------------------------------------------------------------------- not measured
def unmeasured(seeds: int = 5) -> PairedDifference:
    return PairedDifference(per_seed={}, resamples={}, unmeasured=tuple(range(seeds)))


def test_a_metric_that_the_data_has_nothing_for_is_not_measured_however_many_seeds() -> None:
    claims: list[Claim] = [
        sign("sign", LARGE),
        Equivalence(name="same", statement="", effect=A, other=LARGE, margin=2.0),
        Chain(name="chain", statement="", parts=(sign("1"), sign("2", LARGE))),
        Interaction(name="grows", statement="", effect=LARGE, other=A),
        sign("measured"),
    ]
    judged = judge(claims, {A: difference(9), LARGE: unmeasured()})
    assert [claim.verdict for claim in judged] == ["not measured"] * 4 + ["holds here"]
    assert all(math.isnan(claim.p) for claim in judged[:4])
    assert judged[4].adjusted_p == pytest.approx(5 * judged[4].p), "the family is what was declared"
    tree = json.loads(json.dumps(judged[0].to_dict(), allow_nan=False))
    assert (tree["estimates"][0]["unmeasured"], tree["estimates"][0]["mean"]) == ([0, 1, 2, 3, 4], None)


def test_too_few_seeds_come_before_not_measured() -> None:
    assert only(sign("x"), {A: unmeasured(2)}).verdict == "too few seeds"
    both = Chain(name="chain", statement="", parts=(sign("1"), sign("2", LARGE)))
    assert only(both, {A: difference(9, seeds=2), LARGE: unmeasured()}).verdict == "too few seeds"


# --------------------------------------------------------------------------------------------------------------- Holm
def test_claims_of_a_table_are_corrected_together_and_their_intervals_are_not() -> None:
    differences = {A: difference(2.4), B: difference(2.5), C: difference(9)}
    claims = [sign("1", A), sign("2", B), sign("3", C)]
    alone = [only(claim, differences) for claim in claims]
    together = judge(claims, differences)
    assert [judged.verdict for judged in alone] == ["holds here"] * 3
    assert [judged.verdict for judged in together] == ["inconclusive", "inconclusive", "holds here"]
    assert [judged.claim.name for judged in together] == ["1", "2", "3"]
    assert together[1].adjusted_p == pytest.approx(2 * together[1].p)
    assert together[2].adjusted_p == pytest.approx(3 * together[2].p)
    # the third is tested at a third of 5% and found; the other two then at a half, where the procedure ends
    assert [judged.level for judged in together] == pytest.approx([LEVEL / 2, LEVEL / 2, LEVEL / 3])
    assert together[0].detectable(together[0].estimate) > alone[0].detectable(alone[0].estimate)
    assert [j.estimates for j in together] == [j.estimates for j in alone]


def test_a_chain_is_one_claim_however_many_its_parts() -> None:
    differences = {A: difference(3.5), B: difference(3.5)}
    found = only(chain(sign("1", A), sign("2", B)), differences)
    assert found.adjusted_p == found.p < LEVEL


def test_false_verdicts_among_several_claims_stay_at_five_percent() -> None:
    studies = 200
    effects = [Effect(variant=str(i), base="none") for i in range(6)]
    claims = [sign(str(i), effect) for i, effect in enumerate(effects)]
    arms = [list(simulate(np.random.default_rng(i), 0.0, 1.0, 5, studies)) for i in range(len(effects))]
    wrong = [
        any(judged.verdict != "inconclusive" for judged in judge(claims, dict(zip(effects, study, strict=True))))
        for study in zip(*arms, strict=True)
    ]
    assert stats.binom.sf(sum(wrong) - 1, studies, 0.05) > 1e-3
    # six tests uncorrected err in about a quarter of studies
    uncorrected = sum(any(d.p_value() < 0.05 for d in study) for study in zip(*arms, strict=True))
    assert uncorrected > sum(wrong) + 10


def test_the_overview_tests_one_primary_claim_a_table() -> None:
    first = [sign("x", primary=True), sign("y", B)]
    second = [sign("z", primary=True)]
    tables = {
        "table1": (first, {A: difference(9), B: difference(0)}),
        "table2": (second, {A: difference(3.5)}),
        "table7": ([sign("w")], {A: difference(9)}),
    }
    found = judge_primary(tables)
    assert list(found) == ["table1", "table2"]
    assert found["table1"].adjusted_p == pytest.approx(2 * found["table1"].p)
    assert found["table2"].adjusted_p == pytest.approx(found["table2"].p)
    both = [sign("x", primary=True), sign("y", B, primary=True)]
    with pytest.raises(ValueError, match="table table1: 2 claims are primary"):
        judge_primary({"table1": (both, {})})


# --------------------------------------------------------------------------------------------------------- declaring
def test_what_a_claim_speaks_of() -> None:
    grows = Interaction(name="grows", statement="", effect=LARGE, other=A)
    assert effects_of(sign("x")) == (A,)
    assert effects_of(chain(sign("1", A), sign("2", B), grows)) == (A, B, LARGE)


def test_claims_that_say_nothing_are_errors() -> None:
    with pytest.raises(ValueError, match="two or more parts"):
        chain(sign("1"))
    for margin in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="the margin is"):
            same(margin)
    with pytest.raises(ValueError, match="share a name"):
        judge([sign("x"), sign("x", B)], {A: difference(1), B: difference(1)})
    with pytest.raises(ValueError, match="'x' is about AP, a minus none, which was not measured; measured were: AP, b"):
        judge([sign("x")], {B: difference(1)})
    with pytest.raises(dataclasses.FrozenInstanceError):
        sign("x").name = "y"


def test_a_study_declares_its_claims() -> None:
    study = Study(
        name="s",
        title="",
        question="",
        table=None,
        variants=(Variant(name="a"), Variant(name="none")),
        contrasts=(Contrast(variant="a", base="none"),),
        metrics=("AP",),
        claims=(sign("x"),),
    )
    measured = {
        Effect(variant=c.variant, base=c.base, metric=m): difference(9) for c in study.contrasts for m in study.metrics
    }
    assert [judged.verdict for judged in judge(study.claims, measured)] == ["holds here"]


def test_a_judged_claim_is_plain_data() -> None:
    tree = json.loads(json.dumps(only(same(), {A: difference(0.1, seeds=3)}).to_dict(), allow_nan=False))
    assert (tree["name"], tree["kind"], tree["statement"]) == ("same", "equivalence", "similar")
    (estimate,) = tree["estimates"]
    assert (estimate["expected"], estimate["margin"], list(estimate["per_seed"])) == ("within", 2.0, ["0", "1", "2"])
    assert estimate["low"] < 0.1 < estimate["high"]
