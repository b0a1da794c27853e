"""What a study expects beforehand, and whether its runs bear it out.

A claim is one sentence of the paper (or of ours), declared with the study before its arms are compared. There are four
kinds, each with one p-value, so that a table's claims can be corrected together:

``Sign``
    a difference has the stated sign. p is two-sided, because the opposite outcome is also an outcome.
``Chain``
    every part holds ("none < fixed < object-dependent"). Where all parts point as stated, p is their largest p-value.
    The parts need no correction: for a false "all hold", every part that does not hold must come out wrong, which is at
    most as likely as that one of them does (an intersection-union test). One part that is significantly against
    refutes "every part", so where parts point against, p is the smallest p-value of these, times the number of all
    parts (Bonferroni: a false refutation needs only one of them).
``Interaction``
    one difference exceeds another ("the gain grows with the object's size"): the difference of differences by seed,
    tested like a sign. One significant and one insignificant difference do not show it.
``Equivalence``
    a difference is smaller than a margin declared beforehand ("similar"). There are two one-sided tests (TOST), against
    -margin or less and against +margin or more; p is twice the larger, so that each test has 2.5% like each side of a
    sign. It is at most 5% exactly where the 95% interval lies within the margins. An insignificant difference does not
    show equivalence: the study may be too small. Where a second difference is named, the difference of both is tested
    ("helps as much here as there").

Verdicts, on Holm-adjusted p-values (family: all claims declared for the table) at 5%:

``holds here``       significant, and as stated;
``opposite here``    significant, and against: the other sign; for a chain one part with the other sign; for an
                     equivalence a difference beyond the margin;
``inconclusive``     neither. The differences that would be found with 80% and with 50% probability, at the level that
                     Holm's step leaves to this claim, tell how much that means;
``too few seeds``    fewer than three seeds in some part: no verdict, and no p-value;
``not measured``     enough seeds ran, but the data has too little to measure the metric on (no small objects, say).
                     Such a claim still counts in the Holm family: the family is what was declared.

Where looks are declared (:mod:`ablations.statistics.sequential`), a claim is judged after each: over all seeds of the
look, once all its arms have run under all of them, and never over others. Its p-value is the smallest level at which it
has crossed at a look, and that look's differences tell the direction. Of a chain the parts against are taken over the
looks one by one, before their number multiplies them. In place of ``inconclusive`` there are then

``smaller than the margin here``  at the maximum, where the interval lies within the margin of zero, at the confidence
                     that Holm's step leaves to the claim; of a chain, those of all parts. It is tested at the last look
                     alone, so it needs no adjustment for the others. Of a true difference beyond the margin, a wrong
                     direction and smallness would both be false, each with half the probability of the level; of one
                     within the margin, only a wrong direction would be;
``undecided at the maximum``  all seeds have run;
``undecided so far``  not all have;
``not looked at yet``  the first look is not complete.

"Here" means on this data, at this budget. The intervals shown are not adjusted for the number of claims; where there
are looks, they have the confidence that their look allows.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from .intervals import (
    CONFIDENCE,
    MIN_SEEDS_FOR_VERDICT,
    POWER,
    PairedDifference,
    detectable_difference,
    half_width,
    holm,
)
from .sequential import Schedule

__all__ = [
    "CONCLUSIONS",
    "DIRECTIONS",
    "LEVEL",
    "UNDECIDED",
    "UNTESTED",
    "Chain",
    "Claim",
    "Differences",
    "Direction",
    "Effect",
    "Equivalence",
    "Estimate",
    "Interaction",
    "JudgedClaim",
    "Look",
    "Sign",
    "Verdict",
    "effects_of",
    "judge",
    "judge_primary",
]

LEVEL = 0.05
"""Level of the Holm-adjusted tests: the probability of any false verdict among a table's claims."""

Direction: TypeAlias = Literal["positive", "negative"]
Verdict: TypeAlias = Literal[
    "holds here",
    "opposite here",
    "smaller than the margin here",
    "inconclusive",
    "undecided at the maximum",
    "undecided so far",
    "not looked at yet",
    "too few seeds",
    "not measured",
]

DIRECTIONS: tuple[Verdict, ...] = ("holds here", "opposite here")
"""The verdicts on a difference's direction."""

CONCLUSIONS: tuple[Verdict, ...] = (*DIRECTIONS, "smaller than the margin here")
"""The verdicts that conclude something."""

UNDECIDED: tuple[Verdict, ...] = ("inconclusive", "undecided at the maximum", "undecided so far")
"""The verdicts of tests that concluded nothing."""

UNTESTED: tuple[Verdict, ...] = ("too few seeds", "not looked at yet")
"""The verdicts of claims that await runs."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """``variant`` minus ``base`` in ``metric``: names of a study's variants, and of one of its metrics."""

    variant: str
    base: str
    metric: str = "AP"

    def __str__(self) -> str:
        return f"{self.metric}, {self.variant} minus {self.base}"


@dataclass(frozen=True, kw_only=True)
class _Claim:
    """What all kinds have: a ``name`` unique in the study, the ``statement`` a reader sees, and whether it is primary.

    The overview of all tables tests the primary claim of each.
    """

    name: str
    statement: str
    primary: bool = False


@dataclass(frozen=True, kw_only=True)
class Sign(_Claim):
    """``effect`` is positive, or negative, as ``expected``."""

    effect: Effect
    expected: Direction = "positive"
    kind: Literal["sign"] = "sign"


@dataclass(frozen=True, kw_only=True)
class Interaction(_Claim):
    """``effect`` minus ``other`` is positive, or negative, as ``expected``; over the seeds that both have."""

    effect: Effect
    other: Effect
    expected: Direction = "positive"
    kind: Literal["interaction"] = "interaction"


@dataclass(frozen=True, kw_only=True)
class Chain(_Claim):
    """Every one of ``parts`` holds. Each part has a name and a statement of its own."""

    parts: tuple[Sign | Interaction, ...]
    kind: Literal["chain"] = "chain"

    def __post_init__(self) -> None:
        if len(self.parts) < 2:
            raise ValueError(
                f"claim {self.name!r}: a chain has two or more parts; declare a single part as a claim of its own"
            )


@dataclass(frozen=True, kw_only=True)
class Equivalence(_Claim):
    """``effect`` lies between ``-margin`` and ``+margin``, in points; the margin is declared before the runs.

    With an ``other``, ``effect`` minus ``other`` does, over the seeds that both have: two effects are similar.
    """

    effect: Effect
    margin: float
    other: Effect | None = None
    kind: Literal["equivalence"] = "equivalence"

    def __post_init__(self) -> None:
        if not (self.margin > 0 and math.isfinite(self.margin)):
            raise ValueError(f"claim {self.name!r}: the margin is {self.margin}; use a positive number of points")


Claim: TypeAlias = Sign | Chain | Interaction | Equivalence


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One tested difference, in points, with everything that tables and figures need.

    ``expected`` is what the claim states: a sign, or "within" the ``margin``. ``low`` to ``high`` is the unadjusted
    interval at ``confidence``, and ``p`` the unadjusted p-value. ``against`` tells whether the mean contradicts what is
    stated. Numbers are NaN where there are too few seeds, or no spread over images.
    """

    label: str
    expected: Direction | Literal["within"]
    margin: float | None
    per_seed: Mapping[int, float]
    mean: float
    seed_sd: float
    image_sd: float
    low: float
    high: float
    confidence: float
    p: float
    against: bool
    unmeasured: tuple[int, ...] = ()
    """Seeds under which both arms were evaluated with nothing to measure the metric on."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds under which both arms (of both differences) were measured."""
        return tuple(sorted(self.per_seed))


@dataclass(frozen=True, kw_only=True)
class Look:
    """A claim at one look: its estimates over so many ``seeds``, and the level at which it crosses there."""

    seeds: int
    estimates: tuple[Estimate, ...]
    level: float

    @property
    def against(self) -> bool:
        """Whether some part points against what is stated."""
        return any(estimate.against for estimate in self.estimates)


@dataclass(frozen=True, kw_only=True)
class JudgedClaim:
    """A claim with its estimates (one for each part of a chain), its p-value before and after Holm, and the verdict.

    ``level`` is that of the claim's own step in Holm's procedure: its p-value was compared with it. ``tested_at`` is
    what the last look allows at that level: the same, unless there are several looks. ``looks`` are the complete ones
    of a ``schedule``, whose last one gives the ``estimates``.
    """

    claim: Claim
    estimates: tuple[Estimate, ...]
    p: float
    adjusted_p: float
    level: float
    tested_at: float
    verdict: Verdict
    looks: tuple[Look, ...] = ()
    schedule: Schedule | None = None

    @property
    def settled(self) -> bool:
        """Whether more seeds of the schedule cannot change anything: it is decided, all have run, or nothing can be."""
        return self.verdict not in ("undecided so far", *UNTESTED)

    def detectable(self, estimate: Estimate, power: float = POWER) -> float:
        """Return the true difference that would be found with probability ``power``, at this claim's level.

        Of an equivalence, the one that would be found to lie beyond the margin.
        """
        spreads = estimate.seed_sd, len(estimate.per_seed), estimate.image_sd
        return (estimate.margin or 0.0) + detectable_difference(*spreads, power, 1 - self.tested_at)

    @property
    def estimate(self) -> Estimate:
        """The estimate that decides.

        Of a chain: a part without a p-value; else, of the parts that point against it, the one with the smallest; else
        the part with the largest.
        """
        untested = [estimate for estimate in self.estimates if math.isnan(estimate.p)]
        against = [estimate for estimate in self.estimates if estimate.against]
        if not untested and against:
            return min(against, key=lambda estimate: estimate.p)
        return untested[0] if untested else max(self.estimates, key=lambda estimate: estimate.p)

    def to_dict(self) -> dict[str, Any]:
        """Return the judged claim as JSON, with None for NaN and seeds as text."""
        return {
            "name": self.claim.name,
            "kind": self.claim.kind,
            "statement": self.claim.statement,
            "primary": self.claim.primary,
            "verdict": self.verdict,
            "p": _json(self.p),
            "adjusted_p": _json(self.adjusted_p),
            "level": self.level,
            **({"looks": self._looks()} if self.schedule is not None else {}),
            "estimates": [
                {
                    "label": e.label,
                    "expected": e.expected,
                    "margin": e.margin,
                    "per_seed": {str(seed): e.per_seed[seed] for seed in e.seeds},
                    "unmeasured": list(e.unmeasured),
                    **{name: _json(getattr(e, name)) for name in _NUMBERS},
                    "detectable": _json(self.detectable(e)),
                    "detectable_half_the_time": _json(self.detectable(e, 0.5)),
                }
                for e in self.estimates
            ],
        }

    def _looks(self) -> list[dict[str, Any]]:
        assert self.schedule is not None
        found = {look.seeds: _json(look.level) for look in self.looks}
        allowed = self.schedule.looks.allowed(LEVEL)
        return [
            {"seeds": seeds, "allowed": level, "complete": seeds in found, "p": found.get(seeds)}
            for seeds, level in zip(self.schedule.looks.at, allowed, strict=True)
        ]


_NUMBERS = ("mean", "seed_sd", "image_sd", "low", "high", "confidence", "p")


def _json(value: float) -> float | None:
    return None if math.isnan(value) else value


def effects_of(claim: Claim) -> tuple[Effect, ...]:
    """Return the effects that a claim is about: what must be measured to judge it."""
    if isinstance(claim, Chain):
        return tuple(dict.fromkeys(effect for part in claim.parts for effect in effects_of(part)))
    other = None if isinstance(claim, Sign) else claim.other
    return (claim.effect,) if other is None else (claim.effect, other)


Differences: TypeAlias = Mapping[Effect, PairedDifference]
"""Each effect that claims are about, in points."""


def judge(claims: Sequence[Claim], differences: Differences, schedule: Schedule | None = None) -> list[JudgedClaim]:
    """Judge a table's claims together, in the order given: over all seeds, or at the looks of a ``schedule``.

    ``differences`` holds each effect that the claims are about, in points
    (:func:`ablations.statistics.intervals.paired_difference`). An effect that is there with its arms exchanged is
    negated. The Holm family is all of ``claims``, including those with too few seeds. Raises ``ValueError`` for two
    claims of the same name, and for a missing effect.
    """
    names = [claim.name for claim in claims]
    if len(set(names)) != len(names):
        raise ValueError(f"two claims share a name among {names}")
    return _verdicts([(claim, differences) for claim in claims], schedule)


def judge_primary(
    tables: Mapping[str, tuple[Sequence[Claim], Differences]], schedule: Schedule | None = None
) -> dict[str, JudgedClaim]:
    """Judge the primary claim of each table, with Holm over all tables. Tables that declare none are left out.

    ``tables``: name to the claims and differences that :func:`judge` takes. Raises ``ValueError`` where a table
    declares more than one primary claim.
    """
    primary = {}
    for table, (claims, differences) in tables.items():
        found = [claim for claim in claims if claim.primary]
        if len(found) > 1:
            raise ValueError(f"table {table}: {len(found)} claims are primary; the overview tests one per table")
        if found:
            primary[table] = found[0], differences
    return dict(zip(primary, _verdicts(list(primary.values()), schedule), strict=True))


def _verdicts(claims: Sequence[tuple[Claim, Differences]], schedule: Schedule | None) -> list[JudgedClaim]:
    looks = [_looks(claim, differences, schedule) for claim, differences in claims]
    p_values = [min((look.level for look in each if not math.isnan(look.level)), default=math.nan) for each in looks]
    adjusted_p = holm(p_values)
    rejected = sum(adjusted <= LEVEL for adjusted in adjusted_p)
    order = sorted(range(len(p_values)), key=lambda at: math.inf if math.isnan(p_values[at]) else p_values[at])
    judged = []
    for at, ((claim, differences), p, adjusted) in enumerate(zip(claims, p_values, adjusted_p, strict=True)):
        # the first step that does not reject ends the procedure, so all others face its level
        level = LEVEL / (len(p_values) - min(order.index(at), rejected))
        looked = looks[at]
        judged.append(
            JudgedClaim(
                claim=claim,
                # of a look that is not complete nothing is told
                estimates=looked[-1].estimates if looked else _estimates(claim, _over(differences, ())),
                p=p,
                adjusted_p=adjusted,
                level=level,
                tested_at=schedule.looks.allowed(level)[len(looked) - 1] if schedule and looked else level,
                verdict=_verdict(looked, adjusted, level, schedule),
                looks=looked if schedule else (),
                schedule=schedule,
            )
        )
    return judged


def _looks(claim: Claim, differences: Differences, schedule: Schedule | None) -> tuple[Look, ...]:
    """Return a claim at each complete look; without a schedule, at a single one over all seeds that there are."""
    if schedule is None:
        return (_look(_estimates(claim, differences), 0, None),)
    effects = effects_of(claim)
    there = set(schedule.seeds).intersection(*(_difference(effect, claim, differences).ran for effect in effects))
    confidences = [1 - allowed for allowed in schedule.looks.allowed(LEVEL)]
    return tuple(
        _look(_estimates(claim, _over(differences, schedule.at(at)), confidences[at]), at, schedule)
        for at in range(schedule.complete(there))
    )


def _over(differences: Differences, seeds: Collection[int]) -> Differences:
    return {effect: difference.over(seeds) for effect, difference in differences.items()}


def _look(parts: tuple[Estimate, ...], at: int, schedule: Schedule | None) -> Look:
    """Return a look with the claim's p-value from those of its parts; see the module's docstring."""

    def crossing(p: float) -> float:
        return p if schedule is None else schedule.looks.over(at, p)

    against = [crossing(part.p) for part in parts if part.against]
    if any(math.isnan(part.p) for part in parts):
        level = math.nan
    else:
        level = min(1.0, len(parts) * min(against)) if against else crossing(max(part.p for part in parts))
    seeds = max(len(part.per_seed) for part in parts) if schedule is None else schedule.looks.at[at]
    return Look(seeds=seeds, estimates=parts, level=level)


def _verdict(looks: Sequence[Look], adjusted_p: float, level: float, schedule: Schedule | None) -> Verdict:
    if not looks:
        return "not looked at yet"
    last = looks[-1].estimates
    at_maximum = schedule is not None and len(looks) == len(schedule.looks.at)
    few = [part for part in last if len(part.per_seed) < MIN_SEEDS_FOR_VERDICT]
    if few:
        ran = all(len(part.per_seed) + len(part.unmeasured) >= MIN_SEEDS_FOR_VERDICT for part in few)
        return "not measured" if ran else "too few seeds" if schedule is None or at_maximum else "undecided so far"
    if adjusted_p <= LEVEL:  # not where it is NaN: without a spread over images there is no verdict
        decisive = min((look for look in looks if not math.isnan(look.level)), key=lambda look: look.level)
        return "opposite here" if decisive.against else "holds here"
    if schedule is None:
        return "inconclusive"
    if not at_maximum:
        return "undecided so far"
    margin = schedule.looks.margin
    small = margin is not None and all(_within(part, margin, level) for part in last)
    return "smaller than the margin here" if small else "undecided at the maximum"


def _within(part: Estimate, margin: float, level: float) -> bool:
    """Tell whether the interval of a difference, at confidence ``1 - level``, lies within the margin of zero."""
    half = half_width(part.seed_sd, len(part.per_seed), part.image_sd, 1 - level)
    # an equivalence has a margin of its own
    return part.expected != "within" and abs(part.mean) + half < margin


def _estimates(claim: Claim, differences: Differences, confidence: float = CONFIDENCE) -> tuple[Estimate, ...]:
    if isinstance(claim, Chain):
        return tuple(estimate for part in claim.parts for estimate in _estimates(part, differences, confidence))
    difference, label = _difference(claim.effect, claim, differences), str(claim.effect)
    other = None if isinstance(claim, Sign) else claim.other
    if other is not None:
        difference = difference.less(_difference(other, claim, differences))
        label = f"({claim.effect}) minus ({other})"
    if isinstance(claim, Equivalence):
        return (_equivalence(claim.margin, difference, label, confidence),)
    against = difference.mean < 0 if claim.expected == "positive" else difference.mean > 0
    p = difference.p_value() if difference.enough_seeds else math.nan
    return (_estimate(label, claim.expected, None, difference, confidence, p, against),)


def _difference(effect: Effect, claim: Claim, differences: Differences) -> PairedDifference:
    if effect in differences:
        return differences[effect]
    turned = Effect(variant=effect.base, base=effect.variant, metric=effect.metric)
    if turned in differences:
        return differences[turned].negated()
    known = "; ".join(map(str, differences)) or "none"
    raise ValueError(f"claim {claim.name!r} is about {effect}, which was not measured; measured were: {known}")


def _equivalence(margin: float, difference: PairedDifference, label: str, confidence: float) -> Estimate:
    """Test a difference against its margins: from inside for "similar", else from outside for "not similar"."""
    outside = abs(difference.mean) > margin
    p = math.nan
    if difference.enough_seeds and outside:
        # two-sided, like a sign: the difference may lie beyond either margin
        p = difference.p_value(math.copysign(margin, difference.mean))
    elif difference.enough_seeds:
        p = min(1.0, 2 * max(difference.one_sided(-margin), difference.negated().one_sided(-margin)))
    return _estimate(label, "within", margin, difference, confidence, p, outside)


def _estimate(
    label: str,
    expected: Direction | Literal["within"],
    margin: float | None,
    difference: PairedDifference,
    confidence: float,
    p: float,
    against: bool,
) -> Estimate:
    low, high = difference.interval(confidence)
    return Estimate(
        label=label,
        expected=expected,
        margin=margin,
        per_seed=dict(difference.per_seed),
        mean=difference.mean,
        seed_sd=difference.seed_sd,
        image_sd=difference.image_sd,
        low=low,
        high=high,
        confidence=confidence,
        p=p,
        against=against,
        unmeasured=difference.unmeasured,
    )
