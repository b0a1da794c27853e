"""``python -m ablations power``: what a study can find, with how many seeds, in how many minutes, stopping where."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from cornernet.config import ConfigError
from cornernet.console import count, printable, text_table

from ..records.record import Record
from ..statistics.claims import LEVEL
from ..statistics.intervals import POWER
from ..statistics.sequential import Looks

__all__ = ["PowerArguments", "power_text"]

POOLED = "all"
"""The name of an arm that stands for all, each about its own mean."""


@dataclass(frozen=True, kw_only=True)
class PowerArguments:
    """Print what a study can find, before it runs: power, seeds and minutes, and at which look it is expected to stop.

    The spread is that of the base arm alone, so no difference between arms is looked at. Give it with --sd, or let it
    be read from finished records with --records. Example: --effect 2 --sd 1.1 --minutes 5. docs/planning.md tells how
    to plan a study.
    """

    effect: float
    """The difference that is to be found, in points."""
    sd: float | None = None
    """Standard deviation over seeds of one arm, in points."""
    records: Path | None = None
    """A folder of records called PROFILE-DATA, as in reports/records, to take the spread and the minutes from."""
    study: str = "table1"
    """Whose records, with --records."""
    arm: str | None = None
    """Which row of the study, with --records; `all` for the spread about each row's own mean. Default: the row that is
    the profile's own configuration."""
    metric: str = "AP"
    """Which metric, with --records."""
    correlation: float = 0.0
    """Between the two arms under the same seed: what pairing by seed gains. 0 where it gains nothing."""
    image_sd: float = 0.0
    """Standard deviation of the difference over samples of images, which all seeds share, in points."""
    looks: tuple[int, ...] = (8, 16, 24)
    """After how many seeds there is a look; the last is the maximum. A single number: all at once."""
    spending: float = 2.0
    """Exponent of the share of the seeds: how the level is spent over the looks."""
    margin: float = 1.0
    """A difference whose interval at the maximum lies within this many points of zero is found to be smaller."""
    claims: int = 1
    """How many primary claims are tested together: the first that is found is tested at 5% divided by this."""
    power: float = POWER
    """The probability that is wanted, for the number of seeds."""
    arms: int = 2
    """How many arms are trained."""
    minutes: float | None = None
    """Of one training with its evaluations. Default, with --records: the mean of the records."""
    workers: int = 2
    """Trainings side by side."""


def power_text(arguments: PowerArguments) -> str:
    """Return what is printed. Raises ``ConfigError`` for numbers out of range, and for records that tell no spread."""
    from ..statistics.planning import outlook

    _check(arguments)
    try:
        looks = Looks(at=arguments.looks, spending=arguments.spending, margin=arguments.margin)
    except ValueError as error:
        raise ConfigError(f"--looks, --spending and --margin: {error}") from error
    sd, minutes, source = _spread(arguments)
    of_difference = sd * math.sqrt(2 * (1 - arguments.correlation))
    level = LEVEL / arguments.claims
    there = outlook(looks, abs(arguments.effect), of_difference, arguments.image_sd, level=level)
    nothing = outlook(looks, 0.0, of_difference, arguments.image_sd, level=level)
    a_seed = None if minutes is None else minutes * arguments.arms / min(arguments.workers, arguments.arms)
    rows = [
        [at + 1, seeds, f"{allowed:.4f}", _share(found), _share(running), *_minutes(seeds, a_seed)]
        for at, (seeds, allowed, found, running) in enumerate(
            zip(looks.at, looks.allowed(level), there.found, there.running, strict=True)
        )
    ]
    header = ["look", "seeds", "p allowed", "found by then", "takes place", *(["minutes by then"] if a_seed else [])]
    tests = f"tested at {LEVEL:.0%}"
    if arguments.claims > 1:
        tests = f"first of {arguments.claims} claims, tested at {level:.1%}"
    return "\n".join(
        [
            f"spread of an arm over seeds: {sd:.2f} points ({source}); of a difference {of_difference:.2f}, with a "
            f"correlation of {arguments.correlation:g}; over images {arguments.image_sd:.2f}",
            f"a true difference of {arguments.effect:g} points, {tests}:",
            "",
            text_table(header, rows, numbers=range(len(header))),
            "",
            f"expected: {_expected(there.expected_seeds, looks, a_seed)}",
            f"of no difference: {_expected(nothing.expected_seeds, looks, a_seed)}; one is found all the same in "
            f"{_share(nothing.wrong)}, and in {_share(nothing.small)} it is found to be smaller than {looks.margin:g}",
            *_wanted(arguments, looks, of_difference, level),
        ]
    )


def _check(arguments: PowerArguments) -> None:
    for flag, value, right, limits in (
        ("--effect", arguments.effect, arguments.effect != 0 and math.isfinite(arguments.effect), "a number but 0"),
        ("--correlation", arguments.correlation, -1 <= arguments.correlation < 1, "a number from -1 to below 1"),
        ("--image-sd", arguments.image_sd, 0 <= arguments.image_sd < math.inf, "0 or more"),
        ("--claims", arguments.claims, arguments.claims >= 1, "1 or more"),
        ("--arms", arguments.arms, arguments.arms >= 2, "2 or more"),
        ("--workers", arguments.workers, arguments.workers >= 1, "1 or more"),
        ("--power", arguments.power, 0.05 < arguments.power < 1, "a number between 0.05 and 1"),
        ("--minutes", arguments.minutes, arguments.minutes is None or arguments.minutes > 0, "more than 0"),
        ("--sd", arguments.sd, arguments.sd is None or 0 < arguments.sd < math.inf, "more than 0"),
        ("--looks", arguments.looks, bool(arguments.looks) and arguments.looks[0] >= 2, "numbers from 2"),
    ):
        if not right:
            raise ConfigError(f"{flag} is {value}; use {limits}")
    if (arguments.sd is None) == (arguments.records is None):
        raise ConfigError("give either --sd, the spread of one arm over seeds, or --records, a folder to read it from")


def _spread(arguments: PowerArguments) -> tuple[float, float | None, str]:
    """Return the spread of an arm over seeds in points, the minutes of a training, and where both come from."""
    from .report import finished_records

    if arguments.records is None:
        assert arguments.sd is not None
        return arguments.sd, arguments.minutes, "as given"
    study, records, own = finished_records(arguments.records, arguments.study)
    names = [variant.name for variant in study.variants]
    arm = own if arguments.arm is None else arguments.arm
    if arm != POOLED and arm not in names:
        reason = "no row is the profile's own configuration" if arm is None else f"there is no row {arm!r}"
        raise ConfigError(f"--arm: {reason}; use one of: {', '.join([*names, POOLED])}")
    by_arm = {
        name: [record for (_, variant, _), record in records.items() if variant == name and record is not None]
        for name in (names if arm == POOLED else [arm])
    }
    values = {name: _values(found, arguments.metric) for name, found in by_arm.items()}
    freedom = sum(max(0, len(each) - 1) for each in values.values())
    if freedom < 2:
        raise ConfigError(
            f"--records: {printable(arguments.records)} has {count(freedom + 1, 'seed')} of {arguments.metric} in "
            f"{study.name}, {arm}; a spread needs three or more"
        )
    squares = sum(statistics.variance(each) * (len(each) - 1) for each in values.values() if len(each) > 1)
    used = [record for found in by_arm.values() for record in found]
    minutes = _mean_minutes(used) if arguments.minutes is None else arguments.minutes
    where = f"{study.name}, {arm}, {freedom} degrees of freedom, in {printable(arguments.records)}"
    return math.sqrt(squares / freedom), minutes, where


def _values(records: list[Record], metric: str) -> list[float]:
    found = (record.metrics.get(metric) for record in records)
    return [100 * value for value in found if value is not None and not math.isnan(value)]


def _mean_minutes(records: list[Record]) -> float | None:
    times = [each.seconds.training + each.seconds.evaluation for each in records if each.seconds.training is not None]
    return statistics.fmean(times) / 60 if times else None


def _share(value: float) -> str:
    return f"{value:.1%}"


def _minutes(seeds: float, a_seed: float | None) -> list[str]:
    return [] if a_seed is None else [f"{seeds * a_seed:.0f}"]


def _expected(seeds: float, looks: Looks, a_seed: float | None) -> str:
    minutes = "" if a_seed is None else f", {seeds * a_seed:.0f} minutes"
    return f"{seeds:.1f} of {looks.maximum} seeds{minutes}"


def _wanted(arguments: PowerArguments, looks: Looks, sd: float, level: float) -> list[str]:
    """Return how many seeds the wanted power takes, at once and with looks at the same shares."""
    from ..statistics.planning import seeds_for

    lines = []
    for shares, how in (((1.0,), "in a single look"), (looks.shares, "at most, with looks at the same shares")):
        if how != "in a single look" and len(shares) == 1:
            continue
        found = seeds_for(
            abs(arguments.effect), sd, arguments.image_sd, shares=shares, level=level, power=arguments.power
        )
        seeds = "more than 400 seeds" if found is None else count(found, "seed")
        lines.append(f"for {arguments.power:.0%}: {seeds} {how}")
    return lines
