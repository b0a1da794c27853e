"""Where the time of a training step goes: forward, loss, backward, clipping and the optimiser."""

from __future__ import annotations

from ..context import Records
from ..tables import StudyTable
from .stacked import stacked
from .style import Drawing, numbered

__all__ = ["draw"]


def draw(table: StudyTable, records: Records) -> Drawing | None:
    """Return the figure; None for a table that shows no times of steps."""
    if not table.study.step_latency:
        return None
    return stacked(
        table,
        records,
        "step_stages",
        f"{numbered(table)}, where the time of a training step goes, mean over seeds. Taken in each row's own "
        "evaluation: compare the parts of a bar, not the bars.",
    )
