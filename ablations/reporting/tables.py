"""A study's table as it is shown: our rows with their intervals, the paper's values beside them, and the verdicts.

Every interval is that of :mod:`ablations.statistics.intervals`, over seeds and images. Where a metric was not resampled
in some run, its column has only the spread over seeds, and the table says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cornernet.console import count
from cornernet.drawing.escapes import markdown_escape

from ..records.measuring import Records, Runs, differences, few_objects, measured, runs_of, true_corners_of
from ..records.timing import Timing
from ..statistics.claims import DIRECTIONS, Chain, Effect, JudgedClaim, Sign, effects_of, judge
from ..statistics.intervals import summarise
from ..studies.study import Contrast, Study
from .cells import NOT_MEASURED, REFUSED, difference_cell, level_cell, points, spread_cell
from .context import Context
from .grid import FOUND, Cell, Grid
from .grid import Row as GridRow
from .notes import MEASURED, notes
from .rows import Cost, DifferenceRow, Row, VariantRow, not_resampled, rows_of
from .study_rows import StudyRows
from .verdicts import claims_grid, claims_markdown, claims_reading, decided

__all__ = ["StudyTable", "study_table"]

_COUNTED: tuple[Cost, ...] = ("multiply_adds", "parameters")
_SPREADS = ("low", "high", "seed_sd", "image_sd", "detectable")


@dataclass(frozen=True)
class StudyTable(StudyRows):
    """One study's results as they are shown."""

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
        times = [name for column, cost in self.times.items() for name in self._time_columns(column, cost)]
        return Grid((*header, *times, *verdict, "seeds"), tuple(rows))

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
        cells += [cell for cost in self.times.values() for cell in self._cost_cells(row, cost)]
        if decided(self.judged):
            cells.append(Cell(self._verdict(row)))
        failed = len(self.failed_seeds(row))
        seeds = f"{len(row.seeds)} ({failed} failed)" if failed else str(len(row.seeds))
        return GridRow(row.label, row.kind, (*cells, Cell(seeds, sort=len(row.seeds))))

    def _cell(self, row: Row, metric: str, best: bool) -> Cell:
        if metric in self.few_objects:
            what = "corner" if metric in (self.true_corners or {}) else "object"
            return Cell(count(self.few_objects[metric], what))
        if metric in self.seeds_alone or self.few_seeds:
            return _spread_cell(list(row.values[metric].values()), isinstance(row, DifferenceRow))
        found = row.statistics[metric]
        if found.mean is None:
            return Cell(NOT_MEASURED)
        low, high = (math.nan if value is None else value for value in (found.low, found.high))
        if isinstance(row, VariantRow):
            return Cell(level_cell(found.mean, low, high), strong=best, sort=found.mean)
        # where claims are judged, their table says what would have been found at the level of each
        note = f"{FOUND} {points(found.detectable)}" if low <= 0 <= high and not decided(self.judged) else ""
        return Cell(difference_cell(found.mean, low, high), note=note, sort=found.mean)

    def _time_columns(self, column: str, cost: Cost) -> list[str]:
        return [column, f"{column}, times {self.study.time_base_name}"] if self.timed(cost) else [column]

    def _cost_cells(self, row: Row, cost: Cost) -> list[Cell]:
        """Return a cell for each of :meth:`_time_columns`: a time and its ratio to the base, or a cost."""
        if cost not in MEASURED:
            return [_cost_cell(row, cost)]
        found = self.timed(cost)
        columns = 2 if found else 1
        if isinstance(row, DifferenceRow):
            return [Cell("")] * columns
        own, base = found.get(row.label), found.get(self.study.time_base_name)
        if own is None or base is None:
            return [Cell(NOT_MEASURED if row.seeds else self.missing(row))] * columns
        if own.refused:
            return [Cell(REFUSED)] * columns
        low, middle, high = own.ratio
        ratio = Cell(f"{middle:.2f} [{low:.2f}, {high:.2f}]", sort=middle) if own is not base else Cell("1", sort=1)
        return [Cell(points(own.milliseconds), sort=own.milliseconds), Cell(REFUSED) if base.refused else ratio]

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

    def _winners(self) -> dict[str, list[str]]:
        """Return variant to the metrics that verdicts say it is best in, over every contrast that it is in."""
        means = {row.label: row.statistics for row in self.rows if isinstance(row, VariantRow)}
        winners: dict[str, list[str]] = {}
        for metric in self.study.metrics:
            found = {name: each[metric].mean for name, each in means.items()}
            known = {name: mean for name, mean in found.items() if mean is not None}
            if not known:
                continue
            best = (min if self.study.lower_is_better else max)(known, key=lambda name: known[name])
            if self._judged_best(best, metric):
                winners.setdefault(best, []).append(metric)
        return winners

    def _judged_best(self, variant: str, metric: str) -> bool:
        """Tell whether verdicts carry that a variant is better in a metric than every other it is compared with."""
        carried = [
            any(_carries(judged, row.contrast, metric) for judged in self.judged)
            for row in self.rows
            if isinstance(row, DifferenceRow) and variant in row.sides
        ]
        return bool(carried) and all(carried)

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
            GridRow(
                self.published_label(name),
                "variant",
                tuple(Cell(points(row.get(metric)), sort=row.get(metric)) for metric in metrics),
            )
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


def study_table(study: Study, records: Records, context: Context, timing: Timing | None = None) -> StudyTable:
    """Return a study's table from the records of its jobs and its times, with its claims judged.

    Raises ``ValueError`` that names the run, for a record that lacks a metric of the study or cannot be read, and for
    arms that were evaluated on different images.
    """
    runs = runs_of(study, records, context.seeds)
    true_corners = true_corners_of(runs)
    few = few_objects(study.metrics, context.areas, true_corners)
    arms = measured(study, runs, few)
    effects = differences(study, arms)
    return StudyTable(
        study,
        context,
        rows_of(study, runs, arms, context.seeds, timing),
        true_corners=true_corners,
        judged=tuple(judge(study.claims, effects, context.schedule)),
        differences=effects,
        trainings={(name, seed): run.training_key for name, by_seed in runs.items() for seed, run in by_seed.items()},
        seeds_alone=not_resampled(study, arms),
        few_objects=few,
        timing=timing,
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
    return Cell(spread_cell(values, signed=signed), sort=summary.mean if summary.count else None)


def _carries(judged: JudgedClaim, contrast: Contrast, metric: str) -> bool:
    """Tell whether a verdict is about the sign of a contrast in a metric: on it alone, or on each part of a chain."""
    sides = [Effect(variant=v, base=b, metric=metric) for v, b in (contrast.sides, contrast.sides[::-1])]
    claim = judged.claim
    if isinstance(claim, Sign):
        return judged.verdict in DIRECTIONS and claim.effect in sides
    # the opposite of a chain says only that one of its parts is wrong
    return (
        isinstance(claim, Chain)
        and judged.verdict == "holds here"
        and any(isinstance(part, Sign) and part.effect in sides for part in claim.parts)
    )
