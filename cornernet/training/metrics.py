"""metrics.jsonl, the file to which a run adds a line of numbers as it trains: written, read and cut back."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cornernet.files import atomic_write, open_log

__all__ = ["append_metrics", "finite", "read_metrics", "truncate_metrics"]


def append_metrics(path: Path, record: Mapping[str, Any]) -> None:
    """Add one line to the file, in a single write. Raises an ``OSError`` that names the file."""
    try:
        with open_log(path) as file:
            file.write((json.dumps(record) + "\n").encode())
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)
        raise


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of the file in order; an empty list if there is no file.

    Lines that are not records of an iteration are skipped, such as a last line that a crash cut short.
    """
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError, RecursionError):
            line = json.loads(text)
            if isinstance(line, dict) and type(line.get("iteration")) is int:
                lines.append(line)
    return lines


def truncate_metrics(path: Path, done: int) -> None:
    """Drop the lines after iteration ``done``, and a last line that was cut short: the run resumes from there."""
    if path.exists():
        atomic_write(path, "".join(json.dumps(line) + "\n" for line in read_metrics(path) if line["iteration"] <= done))


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return the values with None in place of NaN and infinities, which JSON cannot hold."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
