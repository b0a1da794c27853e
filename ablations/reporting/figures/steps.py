"""Where the time of a training step goes: forward, loss, backward, clipping and the optimiser."""

from __future__ import annotations

from ablations.reporting.figures.stacked import stacked
from ablations.reporting.figures.style import Drawing, numbered
from ablations.reporting.tables import Records, StudyTable

__all__ = ["draw"]


def draw(table: StudyTable, records: Records) -> Drawing | None:
    """Return the figure; None for a table that shows no times of steps."""
    if not table.study.step_latency:
        return None
    return stacked(
        table, records, "step_stages", f"{numbered(table)}, where the time of a training step goes, mean over seeds."
    )
