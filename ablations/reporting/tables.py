"""A study's table: our rows with their intervals, the paper's beside them, the paired differences, and the verdicts.

Every interval is that of :mod:`ablations.statistics.intervals`, over seeds and images. Where a metric was not resampled
in some run, its column has the spread over seeds alone, and the table says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from cornernet.config import Config
from cornernet.model.costs import costs

from ..statistics.claims import Effect, JudgedClaim, effects_of, judge
from ..statistics.intervals import (
    CONFIDENCE,
    MIN_SEEDS_FOR_VERDICT,
    POWER,
    Measurement,
    PairedDifference,
    SeedsAndImages,
    Summary,
    arm_mean,
    paired_difference,
    paired_differences,
    summarise,
)
from ..studies.study import Contrast, Study
from .cells import difference_cell, level_cell, points
from .grid import Cell, Grid, Row, markdown_escape
from .verdicts import claims_grid, claims_markdown, claims_reading, decided

__all__ = ["FAILED", "NOT_MEASURED", "NOT_RECORDED", "NOT_RUN", "Context", "Records", "StudyTable", "study_table"]

NOT_MEASURED = "not measured"
NOT_RUN = "not run"
FAILED = "failed"
EXPLORATORY = (
    "**Exploratory**: nothing was claimed beforehand, so there is no confirmatory verdict. Intervals are adjusted for "
    "nothing; of many differences, some look clear by chance."
)
NOT_RECORDED = "not recorded"

Records = Mapping[tuple[str, str, int], dict[str, Any] | None]
"""The record of each (study, variant, seed); None where the job did not run or failed."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a reader needs to know of a run of studies as a whole."""

    profile: str
    data: str
    command: str
    seeds: tuple[int, ...]
    areas: tuple[int, int, int] | None
    """Small, medium and large objects evaluated on; None where the records do not say."""
    unavailable: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Why a (study, variant) cannot run on this machine."""
    failed: Mapping[tuple[str, str, int], str] = field(default_factory=dict)
    """Why a (study, variant, seed) without a record failed."""


@dataclass(frozen=True)
class StudyTable:
    """One study's results: a row for each variant and contrast, values in percent.

    ``rows`` are plain data, as in the JSON: ``label``, ``kind`` (variant or difference), ``values`` (metric to the
    value under each seed), ``statistics`` (metric to mean, low, high, seed_sd, image_sd and, of a difference,
    detectable; None where there is none), ``latency`` and ``step_latency`` (milliseconds an image, and a training step,
    under each seed), of studies that show costs ``multiply_adds`` (millions), ``parameters`` (thousands) and
    ``step_memory`` (MiB), likewise, and ``paper`` (metric to the printed figure, or None).
    """

    study: Study
    context: Context
    rows: list[dict[str, Any]]
    true_corners: dict[str, int] | None = None
    """How many true corners each corner metric is measured on, where there are any."""
    judged: tuple[JudgedClaim, ...] = ()
    """The study's claims, in the order declared."""
    differences: Mapping[Effect, PairedDifference] = field(default_factory=dict, repr=False)
    """What the claims speak of, in points."""
    trainings: Mapping[tuple[str, int], str] = field(default_factory=dict, repr=False)
    """The training key behind each (variant, seed) that ran."""
    seeds_alone: tuple[str, ...] = ()
    """Metrics that some run was measured in and not resampled: their spread is over seeds alone."""
    side_by_side: int = 1
    """How many runs shared the machine, at most, while times were taken."""
    disagreements: tuple[str, ...] = ()
    """Where variants that must measure the same do not."""

    @property
    def times(self) -> dict[str, str]:
        """The columns of times and costs: what a reader sees, and the field of a row."""
        shown = {
            "ms an image": self.study.latency,
            "ms a training step": self.study.step_latency,
            "million multiply-adds": self.study.costs,
            "thousand parameters": self.study.costs,
            "MiB a training step": self.study.costs,
        }
        return {name: field for (name, on), field in zip(shown.items(), _TIMES, strict=True) if on}

    @property
    def few_seeds(self) -> bool:
        """Whether some row that ran has too few seeds for an interval to say anything."""
        return any(0 < len(row["seeds"]) < MIN_SEEDS_FOR_VERDICT for row in self.rows)

    def to_frame(self) -> pd.DataFrame:
        """Return the table in long form: a line for each row, metric and seed, and for the paper's figures.

        A line whose seed is ``mean`` has the mean over seeds, its interval and its spreads.
        """
        lines: list[dict[str, Any]] = []
        for row in self.rows:
            for metric in self.study.metrics:
                start = {"row": row["label"], "kind": row["kind"], "metric": metric, "source": "ours"}
                lines += [{**start, "seed": seed, "percent": value} for seed, value in row["values"][metric].items()]
                statistics = row["statistics"][metric]
                if statistics["mean"] is not None:
                    spread = {name: value for name, value in statistics.items() if name != "mean"}
                    lines.append({**start, "seed": "mean", "percent": statistics["mean"], **spread})
                if row["paper"] is not None and metric in row["paper"]:
                    lines.append({**start, "source": "paper", "seed": "", "percent": row["paper"][metric]})
        for name, figures in self.study.published_figures().items():
            start = {"row": name, "kind": "published", "source": "paper", "seed": ""}
            lines += [{**start, "metric": metric, "percent": figure} for metric, figure in figures.items()]
        columns = ["row", "kind", "metric", "source", "seed", "percent", *_SPREADS, "detectable"]
        return pd.DataFrame(lines, columns=columns)

    def grid(self) -> Grid:
        """Return the table as it is shown: of each metric ours and, where there is one, the paper's figure."""
        printed = [metric for metric in self.study.metrics if any(metric in (row["paper"] or {}) for row in self.rows)]
        header = [name for metric in self.study.metrics for name in self._columns(metric, metric in printed)]
        winners, shown = self._winners(), decided(self.judged)
        rows = []
        for row in self.rows:
            ran = [seed for seed in self.context.seeds if seed in row["seeds"]]
            missing, failed = self._missing(row), len(self._failed_seeds(row))
            signed = row["kind"] == "difference"
            cells: list[Cell] = []
            for metric in self.study.metrics:
                strong = metric in winners.get(row["label"], ())
                cells.append(self._cell(row, metric, strong) if ran else Cell(missing))
                if metric in printed:
                    figure = (row["paper"] or {}).get(metric)
                    cells.append(Cell(points(figure, signed=signed), sort=figure))
            for time in self.times.values():
                summary = summarise(_values(row, time))
                cells.append(Cell(_cell(summary, signed), sort=summary.mean if summary.count else None))
            if shown:
                cells.append(Cell(self._verdict(row)))
            seeds = f"{len(ran)} ({failed} failed)" if failed else str(len(ran))
            rows.append(Row(row["label"], row["kind"], (*cells, Cell(seeds, sort=len(ran)))))
        verdict = [f"verdict, {self._shown(self.study.metrics[0])}"] if shown else []
        return Grid((*header, *self.times, *verdict, "seeds"), tuple(rows))

    def _columns(self, metric: str, printed: bool) -> list[str]:
        name = self._shown(metric)
        return [name, f"{name}, paper"] if printed else [name]

    def _verdict(self, row: Mapping[str, Any]) -> str:
        """Return the verdict on the claim that a difference in the first metric has a sign, where one is declared."""
        if row["kind"] != "difference":
            return ""
        effect = f"{self.study.metrics[0]}, {row['label']}"
        parts = []
        for judged in self.judged:
            if effect not in map(str, effects_of(judged.claim)):
                continue
            if judged.claim.kind == "sign":
                return judged.verdict
            if judged.claim.kind == "chain":
                parts.append(f"{judged.verdict}, as one of several parts")
        return parts[0] if parts else "no claim"

    @property
    def heading(self) -> str:
        """The paper's number of the table, and its title."""
        return f"{self.number}{self.study.title}"

    @property
    def number(self) -> str:
        """The paper's number of the table, with a full stop and a space behind it; empty where it has none."""
        return "" if self.study.table is None else f"Table {self.study.table}. "

    def to_markdown(self) -> str:
        """Return the table with its heading, the claims with their verdicts, and what may be concluded from it."""
        published = self.published_grid()
        parts = [
            f"### {self.heading}",
            self.study.question,
            self.grid().to_markdown(),
            "  \n".join(markdown_escape(line, plain=False) for line in self.notes()),
            *(
                []
                if published is None
                else [markdown_escape(self.published_says, plain=False), published.to_markdown()]
            ),
        ]
        if decided(self.judged):
            parts += [f"#### {self.claims_heading}", claims_markdown(self.judged)]
        return "\n\n".join(parts)

    def published_grid(self) -> Grid | None:
        """Return the block of what the paper prints of other detectors, or None where the study names none."""
        figures = self.study.published_figures()
        metrics = self.study.metrics
        rows = [
            Row(name, "variant", tuple(Cell(points(row.get(metric)), sort=row.get(metric)) for metric in metrics))
            for name, row in figures.items()
        ]
        return Grid(tuple(map(self._shown, metrics)), tuple(rows)) if rows else None

    @property
    def published_says(self) -> str:
        """What stands above the block of published detectors."""
        return f"As the paper prints them in its table {self.study.table}, on COCO; none was measured here:"

    def to_latex(self) -> str:
        """Return the table, and its claims where one is judged, as LaTeX to be read by ``\\input``."""
        notes = " ".join(line.replace("*", "").replace("`", "") for line in self.notes())
        text = self.grid().to_latex(self.heading, f"tab:{self.study.name}", notes)
        if decided(self.judged):
            title = f"{self.heading}: {self.claims_heading[0].lower()}{self.claims_heading[1:]}"
            reading = " ".join(line.replace("*", "") for line in claims_reading(self.judged))
            text += "\n" + claims_grid(self.judged).to_latex(title, f"tab:{self.study.name}-claims", reading)
        published = self.published_grid()
        if published is not None:
            text += "\n" + published.to_latex(self.published_says, f"tab:{self.study.name}-published")
        return text

    @property
    def claims_heading(self) -> str:
        """What stands above the claims."""
        return f"{'Claims' if self.study.table is None else 'The paper' + chr(39) + 's claims'}, tested here"

    def _runs_here(self, row: Mapping[str, Any]) -> bool:
        """Tell whether this machine can run a variant, or both sides of a difference."""
        pairs = {_label(contrast): _sides(contrast) for contrast in self.study.contrasts}
        sides = pairs.get(row["label"], (row["label"],))
        return not any((self.study.name, side) in self.context.unavailable for side in sides)

    def _failed_seeds(self, row: Mapping[str, Any]) -> list[int]:
        """Return the seeds under which a variant, or a side of a difference, failed."""
        pairs = {_label(contrast): _sides(contrast) for contrast in self.study.contrasts}
        sides = pairs.get(row["label"], (row["label"],))
        failed = self.context.failed
        return [seed for seed in self.context.seeds if any((self.study.name, side, seed) in failed for side in sides)]

    def _missing(self, row: Mapping[str, Any]) -> str:
        """Return what stands in the cells of a row without any run."""
        if self._failed_seeds(row):
            return FAILED
        return NOT_RUN if self._runs_here(row) else NOT_MEASURED

    def _shown(self, metric: str) -> str:
        """Return what the paper calls a metric, where that is another name."""
        return dict(self.study.paper_names).get(metric, metric)

    def _cell(self, row: Mapping[str, Any], metric: str, winner: bool) -> Cell:
        signed = row["kind"] == "difference"
        if metric in self.seeds_alone or self.few_seeds:
            summary = summarise(list(row["values"][metric].values()))
            return Cell(_cell(summary, signed), sort=summary.mean if summary.count else None)
        mean, low, high = (_number(row["statistics"][metric][name]) for name in ("mean", "low", "high"))
        if math.isnan(mean):
            return Cell(NOT_MEASURED)
        if not signed:
            return Cell(level_cell(mean, low, high), strong=winner, sort=mean)
        detectable = self._detectable(row, metric)
        note = f"detectable {detectable}" if detectable else ""
        return Cell(difference_cell(mean, low, high), note=note, sort=mean)

    def _detectable(self, row: Mapping[str, Any], metric: str) -> str:
        """Return the detectable difference, of a difference whose interval has zero in it."""
        statistics = row["statistics"][metric]
        without = metric in self.seeds_alone or self.few_seeds or statistics["low"] is None
        if row["kind"] != "difference" or without:
            return ""
        return points(statistics["detectable"]) if statistics["low"] <= 0 <= statistics["high"] else ""

    def _winners(self) -> dict[str, list[str]]:
        """Return variant to the metrics that it is best in beyond doubt: by the interval of every contrast it is in."""
        arms = {row["label"]: row for row in self.rows if row["kind"] == "variant"}
        contrasts = {row["label"]: row for row in self.rows if row["kind"] == "difference"}
        winners: dict[str, list[str]] = {}
        for metric in self.study.metrics:
            means = {name: row["statistics"][metric]["mean"] for name, row in arms.items()}
            measured = {name: mean for name, mean in means.items() if mean is not None}
            if metric in self.seeds_alone or not measured:
                continue
            lower = self.study.lower_is_better
            best = (min if lower else max)(measured, key=lambda name: measured[name])
            clear = [
                _clear(contrasts[_label(contrast)], metric, above=(contrast.variant == best) != lower)
                for contrast in self.study.contrasts
                if best in _sides(contrast)
            ]
            if clear and all(clear):
                winners.setdefault(best, []).append(metric)
        return winners

    def notes(self) -> list[str]:
        """Return what a reader needs to read the table, a line each."""
        lines = [EXPLORATORY] if self.study.exploratory else []
        lines += [
            f"Ours: {self.context.data}, profile `{self.context.profile}`, in percent. A small-budget run, not COCO: "
            "compare signs and sizes of differences with the paper's, not levels.",
            *self._how_to_read(),
        ]
        if self.context.areas is not None:
            lines.append("Objects evaluated on: {} small, {} medium, {} large.".format(*self.context.areas))
        elif any(row["seeds"] for row in self.rows):
            lines.append(f"Objects evaluated on: {NOT_RECORDED}.")
        if self.true_corners is not None:
            counted = [metric for metric in self.study.metrics if metric in self.true_corners]
            counts = "; ".join(f"{self._shown(metric)}: {self.true_corners[metric]}" for metric in counted)
            lines.append(f"Corners evaluated on: {counts}.")
        for row in self.rows:
            if row["kind"] == "difference" and self._runs_here(row):
                primary = self.study.metrics[0]
                per_seed = row["values"][primary]
                each = ", ".join(
                    f"seed {seed}: {points(value, signed=True)}" for seed, value in per_seed.items()
                ) or self._missing(row)
                lines.append(f"{self._shown(primary)}; {row['label']}: {each}.")
        if self.study.identical and not self.disagreements:
            ran = sum(row["kind"] == "variant" and bool(row["seeds"]) for row in self.rows)
            if ran > 1:
                lines.append(f"The {ran} variants measured are identical to the last digit, seed by seed.")
        lines += [f"NOT IDENTICAL: {sentence}." for sentence in self.disagreements]
        lines += [
            f"FAILED: {variant}, seed {seed}: {why}"
            for (study, variant, seed), why in self.context.failed.items()
            if study == self.study.name
        ]
        for variant in self.study.variants:
            why = self.context.unavailable.get((self.study.name, variant.name))
            if why is not None:
                lines.append(f"{variant.name}: not measured on this machine, {why}")
        here = [row for row in self.rows if self._runs_here(row)]
        fewest = min((len(row["seeds"]) for row in here), default=0)
        if fewest < MIN_SEEDS_FOR_VERDICT and not decided(self.judged):
            what = "an interval" if self.study.exploratory else "a verdict"
            lines.append(f"Too few seeds for {what} ({fewest}; {MIN_SEEDS_FOR_VERDICT} are needed).")
        return lines

    def _how_to_read(self) -> list[str]:
        """Return what the numbers of the cells are: intervals, spreads over seeds, or both, by column."""
        lines = []
        if self.few_seeds:
            lines.append(
                "Mean ± standard deviation over seeds; differences are paired by seed. An interval over fewer than "
                f"{MIN_SEEDS_FOR_VERDICT} seeds says nothing, and none is shown."
            )
        elif len(self.seeds_alone) < len(self.study.metrics):
            lines.append(
                f"Means over seeds. ± is half the {CONFIDENCE:.0%} interval over seeds and images; differences are "
                "paired by seed and image, with their interval [low, high], adjusted for nothing. *Detectable*: the "
                f"true difference that would be found with {POWER:.0%} probability, where the interval has zero in it. "
                "Bold: the best of its column, where each of its differences shown has zero outside its interval, over "
                f"{MIN_SEEDS_FOR_VERDICT} seeds or more."
            )
        if self.seeds_alone and not self.few_seeds:
            where = (
                ""
                if len(self.seeds_alone) == len(self.study.metrics)
                else f"In {', '.join(map(self._shown, self.seeds_alone))}: "
            )
            lines.append(
                f"{where}mean ± standard deviation over seeds alone; differences are paired by seed. There are no "
                "resamples of the images for that, so there is no interval, and no verdict on it but *inconclusive*."
            )
        timed = [name for name, field in self.times.items() if field in _MEASURED]
        if timed:
            lines.append(
                f"{', '.join(timed)}: mean ± standard deviation over seeds, on one CPU thread or one device"
                + (f", while up to {self.side_by_side} runs shared the machine." if self.side_by_side > 1 else ".")
            )
        if self.study.costs:
            lines.append(
                "Multiply-adds of the convolutions for one input, by torch's flop counter. MiB: the most that tensors "
                "take at a time in a training step; weights, gradients, Adam's moments, a batch, activations."
            )
        return lines


_TIMES = ("latency", "step_latency", "multiply_adds", "parameters", "step_memory")
_MEASURED = ("latency", "step_latency")
_COUNTED = ("multiply_adds", "parameters")
_SPREADS = ("low", "high", "seed_sd", "image_sd")


def study_table(study: Study, records: Records, context: Context) -> StudyTable:
    """Return a study's table from the records of its jobs, with its claims judged.

    Raises ``ValueError`` that names the run for a record that lacks a metric of the study or cannot be read, and for
    arms evaluated on different images.
    """
    found = {
        variant.name: {
            seed: record
            for seed in context.seeds
            if (record := records.get((study.name, variant.name, seed))) is not None
        }
        for variant in study.variants
    }
    arms = {
        name: {seed: _measurement(study, name, seed, record) for seed, record in runs.items()}
        for name, runs in found.items()
    }
    rows = [_variant_row(study, name, arms[name], found[name]) for name in found]
    by_name = {row["label"]: row for row in rows}
    rows += [_difference_row(study, contrast, arms, by_name, context) for contrast in study.contrasts]
    effects = dict.fromkeys(effect for claim in study.claims for effect in effects_of(claim))
    differences = {effect: _paired(study, effect.metric, (effect.variant, effect.base), arms) for effect in effects}
    # the same in every record: all are evaluated on the same data
    counts = (record.get("true_corners") for runs in found.values() for record in runs.values())
    measurements = [each for arm in arms.values() for each in arm.values()]
    return StudyTable(
        study,
        context,
        rows,
        next((each for each in counts if each is not None), None),
        judged=tuple(judge(study.claims, differences)),
        differences=differences,
        trainings={
            (name, seed): record["training_key"]
            for name, runs in found.items()
            for seed, record in runs.items()
            if "training_key" in record
        },
        seeds_alone=tuple(metric for metric in study.metrics if _somewhere_not_resampled(measurements, metric)),
        side_by_side=max(
            (record.get("latency", {}).get("workers", 1) for runs in found.values() for record in runs.values()),
            default=1,
        ),
        disagreements=tuple(_disagreements(study, found)),
    )


def _disagreements(study: Study, found: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> list[str]:
    if not study.identical:
        return []
    return study.disagreements(
        {(name, seed): record["metrics"] for name, runs in found.items() for seed, record in runs.items()}
    )


def _milliseconds(runs: Mapping[int, Mapping[str, Any]], key: str) -> dict[int, float]:
    """Return a time under each seed that has it."""
    times = {seed: record.get("latency", {}).get(key) for seed, record in runs.items()}
    return {seed: value for seed, value in times.items() if value is not None}


def _values(row: Mapping[str, Any], field: str) -> list[float]:
    """Return what a column of times or costs shows of a row: what is counted has no spread over seeds."""
    values = list(row[field].values())
    return values[:1] if field in _COUNTED else values


def _costs(study: Study, runs: Mapping[int, Mapping[str, Any]]) -> dict[str, dict[int, float]]:
    """Return what the network costs under each seed, millions and thousands, and the MiB of a training step."""
    found: dict[str, dict[int, float]] = {"multiply_adds": {}, "parameters": {}, "step_memory": {}}
    for seed, record in runs.items() if study.costs else ():
        if "model" in record.get("config", {}):
            on_paper = costs(Config.from_dict(record["config"], f"the record of {study.name}, seed {seed}"))
            found["multiply_adds"][seed] = on_paper.multiply_adds / 1e6
            found["parameters"][seed] = on_paper.parameters / 1e3
        mebibytes = record.get("memory", {}).get("step_mebibytes")
        if mebibytes is not None:
            found["step_memory"][seed] = mebibytes
    return found


def _measurement(study: Study, variant: str, seed: int, record: Mapping[str, Any]) -> Measurement:
    where = f"the record of {study.name}, {variant}, seed {seed}"
    measurement = Measurement.from_record(record, where, resamples_required=False)
    missing = [metric for metric in study.metrics if metric not in measurement.metrics]
    if missing:
        raise ValueError(f"{where} lacks the metric {missing[0]!r}; evaluate again")
    return measurement


def _somewhere_not_resampled(measurements: Iterable[Measurement], metric: str) -> bool:
    return any(each.metrics[metric] is not None and not each.resampled(metric) for each in measurements)


def _paired(
    study: Study, metric: str, sides: tuple[str, str], arms: Mapping[str, Mapping[int, Measurement]]
) -> PairedDifference:
    variant, base = sides
    try:
        return paired_difference(metric, arms.get(variant, {}), arms.get(base, {}), resamples_required=False)
    except ValueError as error:
        raise ValueError(f"study {study.name}, {variant} less {base}: {error}") from error


def _variant_row(
    study: Study, name: str, arm: Mapping[int, Measurement], runs: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
    try:
        statistics = {m: _statistics(arm_mean(m, arm, resamples_required=False)) for m in study.metrics}
    except ValueError as error:
        raise ValueError(f"study {study.name}, {name}: {error}") from error
    return {
        "label": name,
        "kind": "variant",
        "seeds": list(arm),
        "values": {m: {seed: _percent(each.metrics[m]) for seed, each in arm.items()} for m in study.metrics},
        "statistics": statistics,
        "latency": _milliseconds(runs, "milliseconds"),
        "step_latency": _milliseconds(runs, "step_milliseconds"),
        **_costs(study, runs),
        "paper": study.paper_figures(next(variant for variant in study.variants if variant.name == name)),
    }


def _difference_row(
    study: Study,
    contrast: Contrast,
    arms: Mapping[str, Mapping[int, Measurement]],
    rows: Mapping[str, Mapping[str, Any]],
    context: Context,
) -> dict[str, Any]:
    ours, base = rows[contrast.variant], rows[contrast.base]
    theirs, theirs_base = ours["paper"], base["paper"]
    return {
        "label": _label(contrast),
        "kind": "difference",
        "seeds": [seed for seed in context.seeds if all(seed in arms[side] for side in _sides(contrast))],
        "values": {m: paired_differences(ours["values"][m], base["values"][m]) for m in study.metrics},
        "statistics": {m: _statistics(_paired(study, m, _sides(contrast), arms)) for m in study.metrics},
        **{time: paired_differences(ours[time], base[time]) for time in _TIMES},
        # of the printed rows: the paper's own improvement row does not equal them
        "paper": {m: round(theirs[m] - theirs_base[m], 1) for m in theirs}
        if theirs is not None and theirs_base is not None
        else None,
    }


def _statistics(quantity: SeedsAndImages) -> dict[str, float | None]:
    """Return a mean with its interval and spreads, None for what is not known; of a difference, what is detectable."""
    low, high = quantity.interval()
    found = {
        "mean": quantity.mean,
        "low": low,
        "high": high,
        "seed_sd": quantity.seed_sd,
        "image_sd": quantity.image_sd,
    }
    if isinstance(quantity, PairedDifference):
        found["detectable"] = quantity.detectable()
    return {name: None if math.isnan(value) else value for name, value in found.items()}


def _clear(row: Mapping[str, Any], metric: str, *, above: bool) -> bool:
    """Tell whether the interval of a difference lies above zero, or below it, over seeds enough for a verdict."""
    statistics = row["statistics"][metric]
    if len(row["seeds"]) < MIN_SEEDS_FOR_VERDICT or statistics["low"] is None:
        return False
    return bool(statistics["low"] > 0 if above else statistics["high"] < 0)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _label(contrast: Contrast) -> str:
    return f"{contrast.variant} less {contrast.base}"


def _sides(contrast: Contrast) -> tuple[str, str]:
    return contrast.variant, contrast.base


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _cell(summary: Summary, signed: bool) -> str:
    if summary.count == 0:
        return NOT_MEASURED
    mean = points(summary.mean, signed=signed)
    return mean if math.isnan(summary.deviation) else f"{mean} ± {points(summary.deviation)}"
