"""What a reader must know about a run of studies as a whole, and the records behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from ..records.record import Record

__all__ = ["Context", "Records"]

Records: TypeAlias = Mapping[tuple[str, str, int], Record | None]
"""The record of each (study, variant, seed); None where the job did not run or failed."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a reader must know about a run of studies as a whole."""

    profile: str
    data: str
    command: str
    """The command that gives these tables."""
    seeds: tuple[int, ...]
    areas: tuple[int, int, int] | None
    """Small, medium and large objects evaluated on; None where the records do not say."""
    unavailable: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Why a (study, variant) cannot run on the machine of the runs."""
    failed: Mapping[tuple[str, str, int], str] = field(default_factory=dict)
    """Why a (study, variant, seed) without a record failed."""
