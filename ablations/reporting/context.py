"""What a reader must know about a run of studies as a whole, and the records behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..records.measuring import Records
from ..statistics.sequential import Schedule

__all__ = ["Context", "Records"]


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
    schedule: Schedule | None = None
    """The looks at which claims are judged; None where all seeds are judged at once."""
    unseen: Mapping[str, int] = field(default_factory=dict)
    """How many finished runs of each study are of no complete look, and so in no table."""
    failed: Mapping[tuple[str, str, int], str] = field(default_factory=dict)
    """Why a (study, variant, seed) without a record failed."""
