"""The rows of a study's table: a variant with its values, or the difference between two variants.

A row holds the variant or the contrast that it is about; everything that is printed of it is derived from that.
Values are in percent, and differences in points.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from cornernet.config import Config
from cornernet.model.costs import costs

from ..records.measuring import Arms, Runs, paired
from ..records.record import Record
from ..records.timing import Timing
from ..statistics.intervals import Measurement, PairedDifference, SeedsAndImages, arm_mean, paired_differences
from ..studies.study import Contrast, Study, Variant

__all__ = [
    "COSTS",
    "Cost",
    "DifferenceRow",
    "Row",
    "Statistics",
    "VariantRow",
    "not_resampled",
    "rows_of",
]

Cost: TypeAlias = Literal["latency", "step_latency", "multiply_adds", "parameters", "step_memory"]

COSTS: tuple[Cost, ...] = ("latency", "step_latency", "multiply_adds", "parameters", "step_memory")
"""Milliseconds of an image and of a training step, millions, thousands, and MiB of a training step."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """A mean over seeds with its interval and spreads; None for what is not known.

    ``detectable`` is the true difference that would be found, of a difference.
    """

    mean: float | None
    low: float | None
    high: float | None
    seed_sd: float | None
    image_sd: float | None
    detectable: float | None = None

    @classmethod
    def of(cls, quantity: SeedsAndImages) -> Statistics:
        """Return the statistics of an arm's mean or of a difference."""
        low, high = quantity.interval()
        return cls(
            mean=_number(quantity.mean),
            low=_number(low),
            high=_number(high),
            seed_sd=_number(quantity.seed_sd),
            image_sd=_number(quantity.image_sd),
            detectable=_number(quantity.detectable()) if isinstance(quantity, PairedDifference) else None,
        )


@dataclass(frozen=True, kw_only=True)
class _Row(abc.ABC):
    """What both kinds of rows have. A row is JSON in results.json: see :meth:`to_dict`."""

    kind: ClassVar[Literal["variant", "difference"]]

    seeds: tuple[int, ...]
    """Those that it ran under."""
    values: Mapping[str, Mapping[int, float | None]]
    """Metric to its value under each seed; None where there was nothing to measure it on."""
    statistics: Mapping[str, Statistics]
    """By metric."""
    costs: Mapping[Cost, Mapping[int, float]]
    """Times and costs by seed; empty where they were not measured, or the study does not show them."""
    paper: Mapping[str, float] | None
    """Metric to the printed value; None where the paper has no such row."""

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """What the row is called."""

    @property
    @abc.abstractmethod
    def sides(self) -> tuple[str, ...]:
        """The names of the variants that must have run for it."""

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON."""
        return {
            "label": self.label,
            "kind": self.kind,
            "seeds": list(self.seeds),
            "values": self.values,
            "statistics": {metric: self.spread(metric) for metric in self.statistics},
            **{str(cost): by_seed for cost, by_seed in self.costs.items()},
            "paper": self.paper,
        }

    def spread(self, metric: str) -> dict[str, float | None]:
        """Return a metric's statistics by name."""
        return dict(self.statistics[metric].__dict__)


@dataclass(frozen=True, kw_only=True)
class VariantRow(_Row):
    """One arm of a study."""

    kind: ClassVar[Literal["variant"]] = "variant"

    variant: Variant

    @property
    def label(self) -> str:
        """The variant's name."""
        return self.variant.name

    @property
    def sides(self) -> tuple[str, ...]:
        """The variant's name."""
        return (self.variant.name,)

    def spread(self, metric: str) -> dict[str, float | None]:
        """Return a metric's statistics by name; nothing is detectable of a single arm."""
        return {name: value for name, value in super().spread(metric).items() if name != "detectable"}


@dataclass(frozen=True, kw_only=True)
class DifferenceRow(_Row):
    """A difference between two arms, paired by seed."""

    kind: ClassVar[Literal["difference"]] = "difference"

    contrast: Contrast

    @property
    def label(self) -> str:
        """The contrast's label, such as ``A minus B``."""
        return self.contrast.label

    @property
    def sides(self) -> tuple[str, ...]:
        """The names of both variants."""
        return self.contrast.sides


Row: TypeAlias = VariantRow | DifferenceRow


def rows_of(study: Study, runs: Runs, arms: Arms, seeds: Sequence[int], timing: Timing | None = None) -> list[Row]:
    """Return a study's rows: its variants, then its differences. ``timing`` has the times of the variants.

    Raises ``ValueError`` that names the run, for arms that were evaluated on different images.
    """
    variants = {
        variant.name: _variant_row(study, variant, arms[variant.name], runs[variant.name], timing)
        for variant in study.variants
    }
    differences = [_difference_row(study, contrast, arms, variants, seeds) for contrast in study.contrasts]
    return [*variants.values(), *differences]


def not_resampled(study: Study, arms: Arms) -> tuple[str, ...]:
    """Return the metrics that some run measured without resamples: their spread is only over seeds."""
    measurements = [measurement for arm in arms.values() for measurement in arm.values()]
    return tuple(metric for metric in study.metrics if _somewhere_not_resampled(measurements, metric))


def _somewhere_not_resampled(measurements: Iterable[Measurement], metric: str) -> bool:
    return any(each.metrics[metric] is not None and not each.resampled(metric) for each in measurements)


def _variant_row(
    study: Study,
    variant: Variant,
    arm: Mapping[int, Measurement],
    runs: Mapping[int, Record],
    timing: Timing | None,
) -> VariantRow:
    try:
        statistics = {m: Statistics.of(arm_mean(m, arm, resamples_required=False)) for m in study.metrics}
    except ValueError as error:
        raise ValueError(f"study {study.name}, {variant.name}: {error}") from error
    return VariantRow(
        variant=variant,
        seeds=tuple(arm),
        values={m: {seed: _percent(each.metrics[m]) for seed, each in arm.items()} for m in study.metrics},
        statistics=statistics,
        costs={**_times(variant, timing), **_costs(study, runs)},
        paper=study.paper_values(variant),
    )


def _difference_row(
    study: Study, contrast: Contrast, arms: Arms, rows: Mapping[str, VariantRow], seeds: Sequence[int]
) -> DifferenceRow:
    ours, base = (rows[side] for side in contrast.sides)
    paper = None
    if ours.paper is not None and base.paper is not None:
        # from the printed rows: the paper's own improvement row does not equal their difference
        paper = {m: round(ours.paper[m] - base.paper[m], 1) for m in ours.paper}
    return DifferenceRow(
        contrast=contrast,
        seeds=tuple(seed for seed in seeds if all(seed in arms[side] for side in contrast.sides)),
        values={m: paired_differences(ours.values[m], base.values[m]) for m in study.metrics},
        statistics={m: Statistics.of(paired(study, m, contrast, arms)) for m in study.metrics},
        costs={cost: paired_differences(ours.costs[cost], base.costs[cost]) for cost in COSTS},
        paper=paper,
    )


def _times(variant: Variant, timing: Timing | None) -> dict[Cost, dict[int, float]]:
    """Return the times in milliseconds under the seed that was timed, without those that are refused.

    The times in records are of single evaluations: they differ with the moment by more than variants differ.
    """
    parts = {} if timing is None else {"latency": timing.image, "step_latency": timing.step}
    found: dict[Cost, dict[int, float]] = {"latency": {}, "step_latency": {}}
    for cost, values in found.items():
        timed = parts.get(cost, {}).get(variant.name)
        if timing is not None and timed is not None and not timed.refused:
            values[timing.seed] = timed.milliseconds
    return found


def _costs(study: Study, runs: Mapping[int, Record]) -> dict[Cost, dict[int, float]]:
    """Return, in studies of costs, what the network costs under each seed."""
    found: dict[Cost, dict[int, float]] = {"multiply_adds": {}, "parameters": {}, "step_memory": {}}
    for seed, record in runs.items() if study.costs else ():
        on_paper = costs(Config.from_dict(record.config, f"the record of {study.name}, seed {seed}"))
        found["multiply_adds"][seed] = on_paper.multiply_adds / 1e6
        found["parameters"][seed] = on_paper.parameters / 1e3
        if record.step_mebibytes is not None:
            found["step_memory"][seed] = record.step_mebibytes
    return found


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
