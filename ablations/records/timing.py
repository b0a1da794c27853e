"""Times of a study's variants that were measured together: the record, its file, and when it is refused.

Times compare only where they were taken on the same images, in turn, in one process: then whatever slows the machine
slows all variants alike. A file ``FOLDER/timings/KEY.json`` holds one study's; the key covers the configuration of all
its variants (:func:`ablations.running.planner.timing_key`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from cornernet.files import atomic_write, make_folder, read_regular

from .record import Provenance, RecordError, compact

__all__ = ["MAX_WALL_OVER_CPU", "TIMINGS", "Timed", "Timing", "load_timings", "read_timing", "write_timing"]

MAX_WALL_OVER_CPU = 1.1
"""Times are refused where the process waited longer for the CPU than this: another program had it."""

TIMINGS = "timings"
"""The subfolder of a folder of records."""

_LARGEST_FILE = 2**20


class Timed(msgspec.Struct, frozen=True, kw_only=True):
    """The times of one variant over the images, or over training steps."""

    milliseconds: float
    """Median of wall time."""
    cpu_milliseconds: float
    """Median of the process's CPU time, over all its threads."""
    quartiles: tuple[float, float]
    """Of wall time, in milliseconds."""
    ratio: tuple[float, float, float]
    """Quartiles, with the median between them, of the wall time over that of the base on the same image."""
    wall_over_cpu: float | None
    """Of all images together. None on a GPU, where the process waits for the device."""

    @property
    def refused(self) -> bool:
        """Whether the machine was not quiet."""
        return self.wall_over_cpu is not None and self.wall_over_cpu > MAX_WALL_OVER_CPU


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of a study's variants together, by name of the variant."""

    timing_key: str
    study: str
    base: str
    seed: int
    """Of the trainings whose weights were used."""
    images: int
    image: dict[str, Timed]
    """From a photograph in memory to its boxes."""
    step: dict[str, Timed]
    """A training step, from a batch in memory to new weights; empty where the study does not ask for it."""
    provenance: Provenance

    @property
    def refused(self) -> bool:
        """Whether any of the times is refused."""
        return any(each.refused for part in (self.image, self.step) for each in part.values())


def write_timing(folder: Path, timing: Timing) -> Path:
    """Write a timing to ``folder``, which is created if needed, and return its file."""
    make_folder(folder, below=folder.parent)
    path = folder / f"{timing.timing_key}.json"
    atomic_write(path, compact(msgspec.to_builtins(timing), "the timing") + "\n")
    return path


def read_timing(path: Path) -> Timing | None:
    """Return the timing in a file, or None without a file.

    Raises :class:`ablations.records.record.RecordError` for a file that is not one, or is that of another key.
    """
    try:
        found: Any = json.loads(read_regular(path, _LARGEST_FILE))
        timing = msgspec.convert(found, Timing)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path.name} is not a timing: {error}; remove it to measure again") from error
    if timing.timing_key != path.stem:
        raise RecordError(f"{path.name} is the timing {timing.timing_key!r}; remove it to measure again")
    return timing


def load_timings(folder: Path) -> tuple[dict[str, Timing], list[str]]:
    """Return the timings in a folder by key, and a sentence for each file that cannot be read."""
    timings, broken = {}, []
    for path in sorted(folder.glob("*.json")):
        try:
            timing = read_timing(path)
        except RecordError as error:
            broken.append(f"{folder.name}/{error}")
            continue
        if timing is not None:
            timings[path.stem] = timing
    return timings, broken
