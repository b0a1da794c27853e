"""Figures: each has a file and a row here. Figures draw what the records hold, and nothing where they hold nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..context import Records
from ..tables import StudyTable
from . import (
    iou,
    latency,
    precision_recall,
    quadrants,
    seeds,
    sizes,
    stages,
    steps,
    training,
)
from .style import Drawing

__all__ = ["FIGURES", "Drawing", "draw_all"]

FIGURES: dict[str, Callable[[StudyTable, Records], Drawing | None]] = {
    "seeds": seeds.draw,
    "sizes": sizes.draw,
    "quadrants": quadrants.draw,
    "latency": latency.draw,
    "iou": iou.draw,
    "precision-recall": precision_recall.draw,
    "training": training.draw,
    "stages": stages.draw,
    "steps": steps.draw,
}
"""The figures by name. A figure's function returns None for tables that it does not apply to."""


def draw_all(tables: Sequence[StudyTable], records: Records) -> list[Drawing]:
    """Return every figure of every table, in the order of the tables and then of :data:`FIGURES`."""
    drawings = []
    for table in tables:
        for function in FIGURES.values():
            drawing = function(table, records)
            if drawing is not None:
                drawings.append(drawing)
    return drawings
