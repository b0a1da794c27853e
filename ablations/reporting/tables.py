"""A study's table as it is shown: our rows with their intervals, the paper's values beside them, and the verdicts.

Every interval is that of :mod:`ablations.statistics.intervals`, over seeds and images. Where a metric was not resampled
in some run, its column has only the spread over seeds, and the table says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ..statistics.claims import Effect, JudgedClaim, effects_of, judge
from ..statistics.intervals import MIN_SEEDS_FOR_VERDICT, PairedDifference, summarise
from ..studies.study import Contrast, Study
from .cells import FAILED, NOT_MEASURED, NOT_RUN, difference_cell, level_cell, points, spread_cell
from .context import Context, Records
from .grid import Cell, Grid, markdown_escape
from .grid import Row as GridRow
from .notes import notes
from .rows import Cost, DifferenceRow, Row, Runs, VariantRow, measured, not_resampled, paired, rows_of, runs_of
from .verdicts import claims_grid, claims_markdown, claims_reading, decided

__all__ = ["StudyTable", "study_table"]

_COUNTED: tuple[Cost, ...] = ("multiply_adds", "parameters")
_SPREADS = ("low", "high", "seed_sd", "image_sd", "detectable")


@dataclass(frozen=True)
class StudyTable:
    """One study's results: a row for each variant and contrast (:mod:`ablations.reporting.rows`)."""

    study: Study
    context: Context
    rows: Sequence[Row]
    true_corners: dict[str, int] | None = None
    """How many true corners each corner metric is measured on, where it is recorded."""
    judged: tuple[JudgedClaim, ...] = ()
    """The study's claims, in the order declared."""
    differences: Mapping[Effect, PairedDifference] = field(default_factory=dict, repr=False)
    """The effects that the claims are about, in points."""
    trainings: Mapping[tuple[str, int], str] = field(default_factory=dict, repr=False)
    """The training key behind each (variant, seed) that ran."""
    seeds_alone: tuple[str, ...] = ()
    """Metrics that some run measured without resamples: their spread is only over seeds."""
    side_by_side: int = 1
    """How many runs shared the machine, at most, while times were taken."""
    disagreements: tuple[str, ...] = ()
    """Where variants that must measure the same do not."""

    @property
    def times(self) -> dict[str, Cost]:
        """The columns of times and costs: what a reader sees, and what a row calls it."""
        columns: dict[str, tuple[Cost, bool]] = {
            "ms an image": ("latency", self.study.latency),
            "ms a training step": ("step_latency", self.study.step_latency),
            "million multiply-adds": ("multiply_adds", self.study.costs),
            "thousand parameters": ("parameters", self.study.costs),
            "MiB a training step": ("step_memory", self.study.costs),
        }
        return {name: cost for name, (cost, shown) in columns.items() if shown}

    @property
    def few_seeds(self) -> bool:
        """Whether some row that ran has too few seeds for an interval to mean anything."""
        return any(0 < len(row.seeds) < MIN_SEEDS_FOR_VERDICT for row in self.rows)

    @property
    def heading(self) -> str:
        """The paper's number of the table, and its title."""
        return f"{self.number}{self.study.title}"

    @property
    def number(self) -> str:
        """The paper's number of the table, with a full stop and a space after it; empty where it has none."""
        return "" if self.study.table is None else f"Table {self.study.table}. "

    @property
    def claims_heading(self) -> str:
        """What stands above the claims."""
        return f"{'Claims' if self.study.table is None else 'The paper' + chr(39) + 's claims'}, tested here"

    @property
    def published_says(self) -> str:
        """What stands above the block of published detectors."""
        return f"As the paper prints them in its table {self.study.table}, on COCO; none was measured here:"

    def shown(self, metric: str) -> str:
        """Return what the paper calls a metric, where it uses another name."""
        return dict(self.study.paper_names).get(metric, metric)

    def runs_here(self, row: Row) -> bool:
        """Tell whether the machine of the runs can run a variant, or both sides of a difference."""
        return not any((self.study.name, side) in self.context.unavailable for side in row.sides)

    def missing(self, row: Row) -> str:
        """Return what stands in the cells of a row without any run."""
        if self._failed_seeds(row):
            return FAILED
        return NOT_RUN if self.runs_here(row) else NOT_MEASURED

    def notes(self) -> list[str]:
        """Return what a reader needs to read the table, one note for each line."""
        return notes(self)

    def to_frame(self) -> pd.DataFrame:
        """Return the table in long form: a line for each row, metric and seed, and for the paper's values.

        A line whose seed is ``mean`` has the mean over seeds, its interval and its spreads.
        """
        lines: list[dict[str, Any]] = []
        for row in self.rows:
            for metric in self.study.metrics:
                start = {"row": row.label, "kind": row.kind, "metric": metric, "source": "ours"}
                lines += [{**start, "seed": seed, "percent": value} for seed, value in row.values[metric].items()]
                spread = row.spread(metric)
                mean = spread.pop("mean")
                if mean is not None:
                    lines.append({**start, "seed": "mean", "percent": mean, **spread})
                if row.paper is not None and metric in row.paper:
                    lines.append({**start, "source": "paper", "seed": "", "percent": row.paper[metric]})
        for name, values in self.study.published_values().items():
            start = {"row": name, "kind": "published", "source": "paper", "seed": ""}
            lines += [{**start, "metric": metric, "percent": value} for metric, value in values.items()]
        return pd.DataFrame(lines, columns=["row", "kind", "metric", "source", "seed", "percent", *_SPREADS])

    def grid(self) -> Grid:
        """Return the table as it is shown: for each metric our value and, where there is one, the paper's."""
        printed = [metric for metric in self.study.metrics if any(metric in (row.paper or {}) for row in self.rows)]
        header = [name for metric in self.study.metrics for name in self._columns(metric, metric in printed)]
        winners = self._winners()
        verdict = [f"verdict, {self.shown(self.study.metrics[0])}"] if decided(self.judged) else []
        rows = [self._grid_row(row, printed, winners.get(row.label, ())) for row in self.rows]
        return Grid((*header, *self.times, *verdict, "seeds"), tuple(rows))

    def _columns(self, metric: str, printed: bool) -> list[str]:
        name = self.shown(metric)
        return [name, f"{name}, paper"] if printed else [name]

    def _grid_row(self, row: Row, printed: Sequence[str], best_in: Sequence[str]) -> GridRow:
        signed = isinstance(row, DifferenceRow)
        cells: list[Cell] = []
        for metric in self.study.metrics:
            cells.append(self._cell(row, metric, metric in best_in) if row.seeds else Cell(self.missing(row)))
            if metric in printed:
                value = (row.paper or {}).get(metric)
                cells.append(Cell(points(value, signed=signed), sort=value))
        cells += [_cost_cell(row, cost) for cost in self.times.values()]
        if decided(self.judged):
            cells.append(Cell(self._verdict(row)))
        failed = len(self._failed_seeds(row))
        seeds = f"{len(row.seeds)} ({failed} failed)" if failed else str(len(row.seeds))
        return GridRow(row.label, row.kind, (*cells, Cell(seeds, sort=len(row.seeds))))

    def _cell(self, row: Row, metric: str, best: bool) -> Cell:
        if metric in self.seeds_alone or self.few_seeds:
            return _spread_cell(list(row.values[metric].values()), isinstance(row, DifferenceRow))
        found = row.statistics[metric]
        if found.mean is None:
            return Cell(NOT_MEASURED)
        low, high = (math.nan if value is None else value for value in (found.low, found.high))
        if isinstance(row, VariantRow):
            return Cell(level_cell(found.mean, low, high), strong=best, sort=found.mean)
        # where the interval contains zero, show what difference would have been found
        note = f"detectable {points(found.detectable)}" if low <= 0 <= high else ""
        return Cell(difference_cell(found.mean, low, high), note=note, sort=found.mean)

    def _verdict(self, row: Row) -> str:
        """Return the verdict on the claim that a difference in the first metric has a sign, where one is declared."""
        if isinstance(row, VariantRow):
            return ""
        effect = Effect(variant=row.contrast.variant, base=row.contrast.base, metric=self.study.metrics[0])
        parts = []
        for judged in self.judged:
            if effect not in effects_of(judged.claim):
                continue
            if judged.claim.kind == "sign":
                return judged.verdict
            if judged.claim.kind == "chain":
                parts.append(f"{judged.verdict}, as one of several parts")
        return parts[0] if parts else "no claim"

    def _failed_seeds(self, row: Row) -> list[int]:
        """Return the seeds under which a variant, or a side of a difference, failed."""
        failed = self.context.failed
        return [s for s in self.context.seeds if any((self.study.name, side, s) in failed for side in row.sides)]

    def _winners(self) -> dict[str, list[str]]:
        """Return variant to the metrics that it is clearly best in, by the interval of every contrast it is in."""
        means = {row.label: row.statistics for row in self.rows if isinstance(row, VariantRow)}
        winners: dict[str, list[str]] = {}
        for metric in self.study.metrics:
            found = {name: each[metric].mean for name, each in means.items()}
            known = {name: mean for name, mean in found.items() if mean is not None}
            if metric in self.seeds_alone or not known:
                continue
            best = (min if self.study.lower_is_better else max)(known, key=lambda name: known[name])
            if self._clearly_best(best, metric):
                winners.setdefault(best, []).append(metric)
        return winners

    def _clearly_best(self, variant: str, metric: str) -> bool:
        lower = self.study.lower_is_better
        clear = [
            _clear(row, metric, above=(row.contrast.variant == variant) != lower)
            for row in self.rows
            if isinstance(row, DifferenceRow) and variant in row.sides
        ]
        return bool(clear) and all(clear)

    def to_markdown(self) -> str:
        """Return the table with its heading, its notes, and the claims with their verdicts."""
        published = self.published_grid()
        parts = [
            f"### {self.heading}",
            self.study.question,
            self.grid().to_markdown(),
            "  \n".join(markdown_escape(line, plain=False) for line in self.notes()),
        ]
        if published is not None:
            parts += [markdown_escape(self.published_says, plain=False), published.to_markdown()]
        if decided(self.judged):
            parts += [f"#### {self.claims_heading}", claims_markdown(self.judged)]
        return "\n\n".join(parts)

    def published_grid(self) -> Grid | None:
        """Return the block of what the paper prints of other detectors, or None where the study names none."""
        metrics = self.study.metrics
        rows = [
            GridRow(name, "variant", tuple(Cell(points(row.get(metric)), sort=row.get(metric)) for metric in metrics))
            for name, row in self.study.published_values().items()
        ]
        return Grid(tuple(map(self.shown, metrics)), tuple(rows)) if rows else None

    def to_latex(self) -> str:
        """Return the table, and its claims where one is judged, as LaTeX to be read by ``\\input``."""
        lines = " ".join(line.replace("*", "").replace("`", "") for line in self.notes())
        text = self.grid().to_latex(self.heading, f"tab:{self.study.name}", lines)
        if decided(self.judged):
            title = f"{self.heading}: {self.claims_heading[0].lower()}{self.claims_heading[1:]}"
            reading = " ".join(line.replace("*", "") for line in claims_reading(self.judged))
            text += "\n" + claims_grid(self.judged).to_latex(title, f"tab:{self.study.name}-claims", reading)
        published = self.published_grid()
        if published is not None:
            text += "\n" + published.to_latex(self.published_says, f"tab:{self.study.name}-published")
        return text


def study_table(study: Study, records: Records, context: Context) -> StudyTable:
    """Return a study's table from the records of its jobs, with its claims judged.

    Raises ``ValueError`` that names the run, for a record that lacks a metric of the study or cannot be read, and for
    arms that were evaluated on different images.
    """
    runs = runs_of(study, records, context.seeds)
    arms = measured(study, runs)
    effects = dict.fromkeys(effect for claim in study.claims for effect in effects_of(claim))
    differences = {
        effect: paired(study, effect.metric, Contrast(variant=effect.variant, base=effect.base), arms)
        for effect in effects
    }
    found = [record for by_seed in runs.values() for record in by_seed.values()]
    return StudyTable(
        study,
        context,
        rows_of(study, runs, arms, context.seeds),
        # the same in every record: all are evaluated on the same data
        true_corners=next((record.true_corners for record in found if record.true_corners is not None), None),
        judged=tuple(judge(study.claims, differences)),
        differences=differences,
        trainings={(name, seed): run.training_key for name, by_seed in runs.items() for seed, run in by_seed.items()},
        seeds_alone=not_resampled(study, arms),
        side_by_side=max((record.latency.workers for record in found), default=1),
        disagreements=tuple(_disagreements(study, runs)),
    )


def _disagreements(study: Study, runs: Runs) -> list[str]:
    if not study.identical:
        return []
    return study.disagreements(
        {(name, seed): record.metrics for name, by_seed in runs.items() for seed, record in by_seed.items()}
    )


def _cost_cell(row: Row, cost: Cost) -> Cell:
    values = list(row.costs[cost].values())
    # what is counted has no spread over seeds
    return _spread_cell(values[:1] if cost in _COUNTED else values, isinstance(row, DifferenceRow))


def _spread_cell(values: Sequence[float | None], signed: bool) -> Cell:
    summary = summarise(values)
    return Cell(spread_cell(summary, signed=signed), sort=summary.mean if summary.count else None)


def _clear(row: DifferenceRow, metric: str, *, above: bool) -> bool:
    """Tell whether the interval of a difference lies above zero, or below it, over enough seeds for a verdict."""
    found = row.statistics[metric]
    if len(row.seeds) < MIN_SEEDS_FOR_VERDICT or found.low is None or found.high is None:
        return False
    return found.low > 0 if above else found.high < 0
