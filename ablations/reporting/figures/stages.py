"""Where the time of an image goes: reading, resizing, backbone, pooling, heads, decoding, suppression."""

from __future__ import annotations

from ..context import Records
from ..tables import StudyTable
from .stacked import stacked
from .style import Drawing, numbered

__all__ = ["draw"]


def draw(table: StudyTable, records: Records) -> Drawing | None:
    """Return the figure; None for a table that shows no times."""
    if not table.study.latency:
        return None
    return stacked(
        table,
        records,
        "stages",
        f"{numbered(table)}, where the time of an image goes, mean over seeds. Pooling means the corner pooling "
        "modules with their convolutions. Taken in each row's own evaluation: compare the parts of a bar, not the "
        "bars.",
    )
