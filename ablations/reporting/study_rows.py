"""The rows of a study with what is known about them: what a table and its notes are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..records.timing import Timed, Timing
from ..statistics.claims import Effect, JudgedClaim
from ..statistics.intervals import MIN_SEEDS_FOR_VERDICT, PairedDifference
from ..studies.study import Study
from .cells import FAILED, NOT_MEASURED, NOT_RUN
from .context import Context
from .rows import Cost, Row

__all__ = ["StudyRows"]


@dataclass(frozen=True)
class StudyRows:
    """The rows of one study, one for each variant and contrast, and what is known about them."""

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
    few_objects: Mapping[str, int] = field(default_factory=dict)
    """Metrics that are measured on too few objects or corners to be shown, and on how many."""
    timing: Timing | None = None
    """The times of all variants, where they were measured."""
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
            "MiB a training step": ("step_memory", any(row.costs["step_memory"] for row in self.rows)),
        }
        return {name: cost for name, (cost, shown) in columns.items() if shown}

    def timed(self, cost: Cost) -> dict[str, Timed]:
        """Return the measured times of an image or of a training step by variant; empty where there are none."""
        if self.timing is None:
            return {}
        return {"latency": self.timing.image, "step_latency": self.timing.step}.get(cost, {})

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

    def published_label(self, name: str) -> str:
        """Return what the row of a published detector is called: its group too, where the paper has groups."""
        group = self.study.published_group(name)
        return f"{name} ({group.removesuffix(' detectors')})" if group else name

    def shown(self, metric: str) -> str:
        """Return what the paper calls a metric, where it uses another name."""
        return dict(self.study.paper_names).get(metric, metric)

    def runs_here(self, row: Row) -> bool:
        """Tell whether the machine of the runs can run a variant, or both sides of a difference."""
        return not any((self.study.name, side) in self.context.unavailable for side in row.sides)

    def missing(self, row: Row) -> str:
        """Return what stands in the cells of a row without any run."""
        if self.failed_seeds(row):
            return FAILED
        return NOT_RUN if self.runs_here(row) else NOT_MEASURED

    def failed_seeds(self, row: Row) -> list[int]:
        """Return the seeds under which a variant, or a side of a difference, failed."""
        failed = self.context.failed
        return [s for s in self.context.seeds if any((self.study.name, side, s) in failed for side in row.sides)]
