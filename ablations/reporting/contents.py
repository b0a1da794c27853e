"""What a folder of results shows: the report, and what is derived from it or added to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..studies.study import Study
from .figures import Drawing, draw_all
from .overview import Overview, overview
from .pictures import PlacedPicture
from .provenance import provenance
from .report import Report

__all__ = ["Contents"]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All that README.md, index.html and results.json of a folder are made from."""

    report: Report
    overview: Overview
    drawings: Sequence[Drawing]
    provenance: Mapping[str, Any]
    pictures: Sequence[PlacedPicture]
    notes: Sequence[str]
    """Sentences on what was left out in addition to records."""

    @classmethod
    def of(cls, report: Report, pictures: Sequence[PlacedPicture], notes: Sequence[str]) -> Contents:
        """Return the contents for a report: this judges the primary claims together and draws all figures."""
        return cls(
            report=report,
            overview=overview(report.tables, report.absent),
            drawings=draw_all(report.tables, report.records),
            provenance=provenance(report),
            pictures=pictures,
            notes=notes,
        )

    @property
    def any_ran(self) -> bool:
        """Whether any run has a record."""
        return any(self.report.records.values())

    @property
    def left_out(self) -> list[str]:
        """A sentence, without its full stop, on each record or picture that was left out."""
        return [*self.report.broken, *self.notes]

    def drawings_of(self, study: Study) -> list[Drawing]:
        """Return the figures of a study, in order."""
        return [drawing for drawing in self.drawings if drawing.study == study.name]
