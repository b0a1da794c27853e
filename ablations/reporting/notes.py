"""What a reader needs to read a table: the sentences below it."""

from __future__ import annotations

from collections.abc import Iterator

from cornernet.console import count

from ..records.measuring import MIN_OBJECTS
from ..records.timing import MAX_WALL_OVER_CPU, Timing
from ..statistics.intervals import CONFIDENCE, MIN_SEEDS_FOR_VERDICT
from .cells import NOT_RECORDED, points
from .grid import FOUND
from .rows import Cost, DifferenceRow, VariantRow
from .study_rows import StudyRows
from .verdicts import decided

__all__ = ["EXPLORATORY", "MEASURED", "notes"]

EXPLORATORY = (
    "**Exploratory** (not pre-registered): no claim was declared before the runs, so there is no confirmatory verdict. "
    "Intervals are unadjusted; of many differences, some look clear by chance."
)

_MEMORY = (
    " MiB: the peak of memory that tensors take in a training step (weights, gradients, Adam's moments, a batch, "
    "activations)."
)

MEASURED: tuple[Cost, ...] = ("latency", "step_latency")
"""Costs that are times."""


def notes(table: StudyRows) -> list[str]:
    """Return the notes of a table, one for each line."""
    context = table.context
    lines = [EXPLORATORY] if table.study.exploratory else []
    lines.append(
        f"Ours: {context.data}, profile `{context.profile}`, in percent. A small-budget run, not COCO: levels do not "
        "compare with the paper's, and a difference only where there is a verdict on it."
    )
    return [
        *lines,
        *_spreads(table),
        *_costs(table),
        *([table.study.remark] if table.study.remark else []),
        *_evaluated_on(table),
        *_seed_by_seed(table),
        *_identical(table),
        *_not_there(table),
        *_too_few_seeds(table),
        *_looks(table),
    ]


def _spreads(table: StudyRows) -> Iterator[str]:
    """Yield what the numbers in the cells are: intervals, spreads over seeds, or both, by column."""
    if table.few_seeds:
        yield (
            "The values of up to two seeds; of more, their mean with the standard deviation (sd). Differences are "
            f"paired by seed. No interval is shown: over fewer than {MIN_SEEDS_FOR_VERDICT} seeds it means nothing."
        )
        return
    every = len(table.seeds_alone) == len(table.study.metrics)
    if not every:
        yield (
            f"Means over seeds. ± is half the {CONFIDENCE:.0%} interval over seeds and images; differences are paired "
            "by seed and image, with their unadjusted interval [low, high]."
            + (
                " Bold: the best of its column, where a verdict below says so of each of its differences."
                if decided(table.judged)
                else f" *{FOUND.capitalize()}*: the true difference that an unadjusted test would find that often, "
                "where the interval contains zero."
            )
        )
    if table.seeds_alone:
        where = "" if every else f"In {', '.join(map(table.shown, table.seeds_alone))}: "
        start = "Mean" if every else "mean"
        yield (
            f"{where}{start} with the standard deviation (sd) over seeds only; differences are paired by seed. Without "
            "resamples of the images there is no interval, and no verdict other than *inconclusive*."
        )


def _costs(table: StudyRows) -> Iterator[str]:
    shown = {name: cost for name, cost in table.times.items() if cost in MEASURED}
    missing = [name for name, cost in shown.items() if not table.timed(cost)]
    if missing and any(row.seeds for row in table.rows):
        yield (
            f"{', '.join(missing)}: not measured. Times compare only where all rows are timed in turn, on a machine "
            "that does nothing else. Those in results.json under `runs` were taken in single evaluations at different "
            "moments, and do not compare."
        )
    if table.timing is not None and len(missing) < len(shown):
        yield from _times(table, table.timing, [name for name in shown if name not in missing])
    if table.study.costs:
        yield (
            "Multiply-adds of the convolutions for one input, by torch's flop counter."
            + (_MEMORY if "step_memory" in table.times.values() else "")
        )


def _times(table: StudyRows, timing: Timing, shown: list[str]) -> Iterator[str]:
    made = timing.provenance
    yield (
        f"{', '.join(shown)}: medians, and medians of the ratio to {table.study.time_base_name} with its quartiles. "
        f"All rows in turn, image by image, in one process: {count(timing.images, 'image')}, the weights of seed "
        f"{timing.seed}, one CPU thread or one device, {made.processor}, revision {made.revision}."
    )
    every = [each for cost in MEASURED for each in table.timed(cost).values()]
    refused = [each.wall_over_cpu for each in every if each.refused and each.wall_over_cpu is not None]
    if refused:
        yield (
            f"Refused: another program had the CPU. Wall time was up to {max(refused):.2f} times CPU time, and up to "
            f"{MAX_WALL_OVER_CPU:g} is accepted."
        )


def _evaluated_on(table: StudyRows) -> Iterator[str]:
    if table.context.areas is not None:
        yield "Objects evaluated on: {} small, {} medium, {} large.".format(*table.context.areas)
    elif any(row.seeds for row in table.rows):
        yield f"Objects evaluated on: {NOT_RECORDED}."
    if table.true_corners is not None:
        counted = [metric for metric in table.study.metrics if metric in table.true_corners]
        counts = "; ".join(f"{table.shown(metric)}: {table.true_corners[metric]}" for metric in counted)
        yield f"Corners evaluated on: {counts}."
    if table.few_objects:
        yield (
            f"Where a cell has a number of objects, they are fewer than {MIN_OBJECTS}, which is too few for a value "
            "and for a verdict."
        )


def _seed_by_seed(table: StudyRows) -> Iterator[str]:
    primary = table.study.metrics[0]
    for row in table.rows:
        if isinstance(row, DifferenceRow) and table.runs_here(row):
            values = row.values[primary].items()
            each = ", ".join(f"seed {seed}: {points(value, signed=True)}" for seed, value in values)
            yield f"{table.shown(primary)}; {row.label}: {each or table.missing(row)}."


def _identical(table: StudyRows) -> Iterator[str]:
    ran = sum(isinstance(row, VariantRow) and bool(row.seeds) for row in table.rows)
    if table.study.identical and not table.disagreements and ran > 1:
        yield f"The {ran} variants measured are identical to the last digit, seed by seed."
    for sentence in table.disagreements:
        yield f"NOT IDENTICAL: {sentence}."


def _not_there(table: StudyRows) -> Iterator[str]:
    for (study, name, seed), why in table.context.failed.items():
        if study == table.study.name:
            yield f"FAILED: {name}, seed {seed}: {why}"
    for variant in table.study.variants:
        reason = table.context.unavailable.get((table.study.name, variant.name))
        if reason is not None:
            yield f"{variant.name}: not measured on this machine, {reason}"


def _looks(table: StudyRows) -> Iterator[str]:
    """Yield what is not shown, and that the intervals of rows know nothing of the looks."""
    schedule = table.context.schedule
    if schedule is None:
        return
    unseen = table.context.unseen.get(table.study.name, 0)
    more = (
        f"; {count(unseen, 'finished run')} of the next one {'is' if unseen == 1 else 'are'} not shown"
        if unseen
        else ""
    )
    seeds = max((len(row.seeds) for row in table.rows), default=0)
    last = f"this is the one after {seeds}" if seeds else "the first is not complete"
    yield f"Looks are after {', '.join(map(str, schedule.looks.at))} seeds; {last}{more}."
    if seeds:
        yield (
            "The intervals in this table are not adjusted for the looks; those beside the claims are. Rows have fewer "
            "seeds where no open claim needed more."
        )


def _too_few_seeds(table: StudyRows) -> Iterator[str]:
    if table.context.schedule is not None:
        return
    fewest = min((len(row.seeds) for row in table.rows if table.runs_here(row)), default=0)
    if fewest < MIN_SEEDS_FOR_VERDICT and not decided(table.judged):
        what = "an interval" if table.study.exploratory else "a verdict"
        yield f"Too few seeds for {what} ({fewest}; {MIN_SEEDS_FOR_VERDICT} are needed)."
