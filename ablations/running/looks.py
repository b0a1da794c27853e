"""Where studies with declared looks stand, and which jobs the next look needs.

A function of the finished records alone, so every call, on any machine, continues in the same way. A claim is looked at
once all its arms have finished under all seeds of the look. A study is over when its primary claim is settled, and no
arm runs on that only settled claims need. The rows that no claim is about have the seeds of the first look.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ..records.measuring import Records, differences, few_objects, measured, runs_of, true_corners_of
from ..records.record import Record, known
from ..statistics.claims import Claim, JudgedClaim, effects_of, judge, judge_primary
from ..statistics.sequential import Schedule
from ..studies.study import Study

__all__ = ["Standing", "looked_at", "standing"]

Name = tuple[str, str, int]
"""A study, a variant and a seed."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a family of studies stands: their claims at the complete looks."""

    schedule: Schedule
    studies: Mapping[str, Study]
    primary: Mapping[str, JudgedClaim]
    """By study, with Holm over the family."""
    claims: Mapping[str, Sequence[JudgedClaim]]
    """All claims of each study, with Holm over its own."""
    looked: Mapping[str, Mapping[str, tuple[int, ...]]]
    """The seeds of each study's variants that complete looks are over."""

    @property
    def open(self) -> list[str]:
        """The studies whose primary claim is not settled."""
        return [name for name, judged in self.primary.items() if not judged.settled]

    def needed(self, study: str, to_the_maximum: bool = False) -> set[Name]:
        """Return what the next look at a study needs, or all that may follow if nothing more is decided."""
        names = {
            (study, variant.name, seed) for variant in self.studies[study].variants for seed in self.schedule.at(0)
        }
        judged = self.primary.get(study)
        if judged is not None and not judged.settled:
            last = len(self.schedule.looks.at) - 1 if to_the_maximum else len(judged.looks)
            names |= {(study, name, seed) for name in self._running(study) for seed in self.schedule.at(last)}
        return names

    def _running(self, study: str) -> set[str]:
        """Return the variants that the study's open claims need."""
        judged = [self.primary[study]] if study in self.primary else []
        judged += [each for each in self.claims[study] if not each.claim.primary]
        return {name for each in judged if not each.settled for name in _arms(each.claim)}


def standing(studies: Sequence[Study], records: Records, schedule: Schedule) -> Standing:
    """Return where a family of studies stands, by their finished records.

    Raises ``ValueError`` that names the run, for a record that cannot be used.
    """
    looked, found = {}, {}
    for study in studies:
        runs = runs_of(study, records, schedule.seeds)
        looked[study.name] = looked_at(schedule, study, {name: by_seed.keys() for name, by_seed in runs.items()})
        kept = {name: {seed: by_seed[seed] for seed in looked[study.name][name]} for name, by_seed in runs.items()}
        few = few_objects(study.metrics, _areas(kept), true_corners_of(kept))
        found[study.name] = differences(study, measured(study, kept, few))
    tables = {study.name: (study.claims, found[study.name]) for study in studies}
    return Standing(
        schedule=schedule,
        studies={study.name: study for study in studies},
        primary=judge_primary(tables, schedule),
        claims={study.name: judge(study.claims, found[study.name], schedule) for study in studies},
        looked=looked,
    )


def looked_at(schedule: Schedule, study: Study, ran: Mapping[str, Collection[int]]) -> dict[str, tuple[int, ...]]:
    """Return the seeds of each variant that complete looks are over; the others are shown nowhere.

    ``ran`` are the seeds that have finished, by variant. The study's look is that of its primary claim.
    """
    complete = {variant.name: schedule.complete(ran.get(variant.name, ())) for variant in study.variants}
    primary = [name for claim in study.claims if claim.primary for name in _arms(claim)]
    most = min((complete[name] for name in primary), default=max(complete.values()))
    return {name: schedule.at(min(looks, most) - 1) if min(looks, most) else () for name, looks in complete.items()}


def _arms(claim: Claim) -> set[str]:
    return {side for effect in effects_of(claim) for side in (effect.variant, effect.base)}


def _areas(runs: Mapping[str, Mapping[int, Record]]) -> tuple[int, int, int] | None:
    found = (known(record.objects) for by_seed in runs.values() for record in by_seed.values())
    return next((areas for areas in found if areas is not None), None)
