"""From a study's records to its differences: what each arm measured by seed, and the effects that claims are about."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

from ..statistics.claims import Effect, effects_of
from ..statistics.intervals import Measurement, PairedDifference, paired_difference
from ..studies.study import Contrast, Study
from .record import Record

__all__ = [
    "MIN_OBJECTS",
    "Arms",
    "Records",
    "Runs",
    "differences",
    "few_objects",
    "measured",
    "paired",
    "runs_of",
    "true_corners_of",
]

Records: TypeAlias = Mapping[tuple[str, str, int], Record | None]
"""The record of each (study, variant, seed); None where the job did not run or failed."""

Runs: TypeAlias = Mapping[str, Mapping[int, Record]]
"""The records of each variant by seed."""

Arms: TypeAlias = Mapping[str, Mapping[int, Measurement]]
"""What each variant measured, by seed."""

MIN_OBJECTS = 30
"""Over fewer objects no value is shown, and no claim is judged: a single object would move AP by several points."""


def runs_of(study: Study, records: Records, seeds: Sequence[int]) -> dict[str, dict[int, Record]]:
    """Return the records of each variant by seed, without the seeds that did not run."""
    return {
        variant.name: {
            seed: record for seed in seeds if (record := records.get((study.name, variant.name, seed))) is not None
        }
        for variant in study.variants
    }


def measured(study: Study, runs: Runs, without: Collection[str] = ()) -> dict[str, dict[int, Measurement]]:
    """Return what each variant measured by seed; the metrics ``without`` count as not measured.

    Raises ``ValueError`` that names the run, for a record that lacks a metric of the study or cannot be read.
    """
    return {
        name: {seed: _measurement(study, name, seed, record, without) for seed, record in by_seed.items()}
        for name, by_seed in runs.items()
    }


def _measurement(study: Study, variant: str, seed: int, record: Record, without: Collection[str]) -> Measurement:
    where = f"the record of {study.name}, {variant}, seed {seed}"
    measurement = record.measurement(where)
    missing = [metric for metric in study.metrics if metric not in measurement.metrics]
    if missing:
        raise ValueError(f"{where} lacks the metric {missing[0]!r}; evaluate again")
    return Measurement(metrics={**measurement.metrics, **dict.fromkeys(without, None)}, resamples=measurement.resamples)


def paired(study: Study, metric: str, contrast: Contrast, arms: Arms) -> PairedDifference:
    """Return a difference in a metric. Raises ``ValueError`` for arms that were evaluated on different images."""
    ours, base = (arms.get(side, {}) for side in contrast.sides)
    try:
        return paired_difference(metric, ours, base, resamples_required=False)
    except ValueError as error:
        raise ValueError(f"study {study.name}, {contrast.label}: {error}") from error


def differences(study: Study, arms: Arms) -> dict[Effect, PairedDifference]:
    """Return each effect that the study's claims are about, in points; raises as :func:`paired` does."""
    effects = dict.fromkeys(effect for claim in study.claims for effect in effects_of(claim))
    return {
        effect: paired(study, effect.metric, Contrast(variant=effect.variant, base=effect.base), arms)
        for effect in effects
    }


# ------------------------------------------------------------------------------------------------------------ objects
def true_corners_of(runs: Runs) -> dict[str, int] | None:
    """Return how many true corners each corner metric is measured on; None where no record tells."""
    # the same in every record: all are evaluated on the same data
    found = (record.true_corners for by_seed in runs.values() for record in by_seed.values())
    return next((corners for corners in found if corners is not None), None)


def few_objects(
    metrics: Iterable[str], areas: tuple[int, int, int] | None, true_corners: Mapping[str, int] | None
) -> dict[str, int]:
    """Return the metrics that are measured on fewer than :data:`MIN_OBJECTS` objects or corners, and on how many.

    ``areas`` are the small, medium and large objects, and ``true_corners`` the corners of each corner metric. A metric
    whose objects are not known is left out.
    """
    counts = {metric: _objects(metric, areas, true_corners or {}) for metric in metrics}
    return {metric: number for metric, number in counts.items() if number is not None and number < MIN_OBJECTS}


def _objects(metric: str, areas: tuple[int, int, int] | None, true_corners: Mapping[str, int]) -> int | None:
    if metric in true_corners:
        return true_corners[metric]
    if areas is None:
        return None
    band = "sml".find(metric[-1]) if metric[:2] in ("AP", "AR") and len(metric) == 3 else -1
    return sum(areas) if band < 0 else areas[band]
