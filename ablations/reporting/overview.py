"""The paper's primary claims, one per table, judged together, and the trainings that several tables share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cornernet.console import count

from ..records.measuring import differences
from ..statistics.claims import LEVEL, Claim, Differences, JudgedClaim, judge_primary
from ..studies.study import Study
from .grid import Cell, Grid, Row
from .verdicts import HEADER, decided, looks_reading, seeds_cell, verdict_cells

if TYPE_CHECKING:
    from .tables import StudyTable

__all__ = ["Overview", "SharedTrainings", "overview"]


@dataclass(frozen=True, kw_only=True)
class SharedTrainings:
    """Trainings that several tables evaluate. ``variants`` maps a study to its variants that use them."""

    variants: dict[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The primary claims by study, Holm-adjusted over all of them, and the trainings that their tables share."""

    tables: dict[str, StudyTable]
    judged: dict[str, JudgedClaim]
    family: int
    """How many primary claims were judged together: those of tables that are not shown too."""
    shared: tuple[SharedTrainings, ...]

    @property
    def decided(self) -> bool:
        """Whether any primary claim has enough seeds for a verdict."""
        return decided(list(self.judged.values()))

    def to_dict(self) -> dict[str, Any]:
        """Return the overview as JSON data."""
        return {
            "claims": {name: judged.to_dict() for name, judged in self.judged.items()},
            "shared_trainings": [
                {"variants": {k: list(v) for k, v in s.variants.items()}, "seeds": list(s.seeds), "keys": list(s.keys)}
                for s in self.shared
            ],
        }

    def grid(self) -> Grid:
        """Return a row for each claim, named by its table."""
        rows = []
        for name, judged in self.judged.items():
            texts = verdict_cells(judged)
            cells = [Cell(judged.claim.statement), Cell(texts[0].strip("*"), strong=texts[0].startswith("**"))]
            rows.append(
                Row(_name(self.tables[name]), "variant", (*cells, *map(Cell, texts[1:]), Cell(seeds_cell(judged))))
            )
        return Grid(("primary claim", *HEADER, "seeds"), tuple(rows))

    def notes(self) -> list[str]:
        """Return sentences on how to read the table and on the trainings that its rows share."""
        return [
            f"One claim per table. Verdicts are at {LEVEL:.0%}, two-sided, with p-values Holm-adjusted over "
            f"{count(self.family, 'table')}: the probability that any verdict here is false is at most "
            f"{LEVEL:.0%}. A table's own verdicts are adjusted over its own claims and may differ. Intervals are "
            "unadjusted. For a claim in parts, the difference shown is that of the part that refutes it, or else of "
            "its least certain part. Not COCO: a verdict applies only to this data at this budget.",
            *looks_reading(list(self.judged.values())),
            *(self._sentence(shared) for shared in self.shared),
        ]

    def to_markdown(self) -> str:
        """Return the section of a folder's README."""
        return "\n\n".join(["## Overview", self.grid().to_markdown(), "  \n".join(self.notes())])

    def _sentence(self, shared: SharedTrainings) -> str:
        sides = []
        for study, variants in shared.variants.items():
            table = self.tables[study]
            whole = len(variants) == len(table.study.variants) > 1
            sides.append(f"{_name(table)} ({'every row' if whole else ', '.join(variants)})")
        seeds = ("seed " if len(shared.seeds) == 1 else "seeds ") + ", ".join(map(str, shared.seeds))
        return (
            f"{', '.join(sides[:-1])} and {sides[-1]} rest on the same trainings ({seeds}), so chance in those "
            "trainings affects all of them; Holm's adjustment allows for this."
        )


def overview(tables: Sequence[StudyTable], absent: Sequence[Study] = ()) -> Overview:
    """Judge the primary claims of ``tables`` together. Tables without a primary claim are left out.

    ``absent`` are studies that are judged with them and have no table here: their claims count among all. Raises
    ``ValueError`` if a table declares more than one.
    """
    # all tables of a folder have the same looks
    schedule = next((table.context.schedule for table in tables), None)
    family: dict[str, tuple[Sequence[Claim], Differences]] = {
        study.name: (study.claims, differences(study, {})) for study in absent
    }
    family |= {table.study.name: (table.study.claims, table.differences) for table in tables}
    everything = judge_primary(family, schedule)
    judged = {table.study.name: everything[table.study.name] for table in tables if table.study.name in everything}
    kept = {table.study.name: table for table in tables if table.study.name in judged}
    return Overview(tables=kept, judged=judged, family=len(everything), shared=_shared(list(kept.values())))


def _shared(tables: Sequence[StudyTable]) -> tuple[SharedTrainings, ...]:
    """Return the trainings that more than one table uses, grouped by the rows that use them."""
    users: dict[str, list[tuple[str, str, int]]] = {}
    for table in tables:
        for (variant, seed), key in table.trainings.items():
            users.setdefault(key, []).append((table.study.name, variant, seed))
    groups: dict[tuple[tuple[str, str], ...], list[tuple[int, str]]] = {}
    for key, found in users.items():
        rows = tuple((study, variant) for study, variant, _ in found)
        if len({study for study, _ in rows}) > 1:
            groups.setdefault(rows, []).append((found[0][2], key))
    shared = []
    for rows, trainings in groups.items():
        variants: dict[str, tuple[str, ...]] = {}
        for study, variant in rows:
            variants[study] = (*variants.get(study, ()), variant)
        seeds, keys = zip(*sorted(trainings), strict=True)
        shared.append(SharedTrainings(variants=variants, seeds=seeds, keys=keys))
    return tuple(shared)


def _name(table: StudyTable) -> str:
    return table.study.name if table.study.table is None else f"Table {table.study.table}"
