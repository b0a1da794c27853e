"""Reading metrics.jsonl, the numbers that a training run writes as it goes."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

__all__ = ["read_metrics"]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of metrics, in its order; none where there is no file.

    A line that was cut short, by a machine that stopped, and what else is no line of a run, is left out.
    """
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError, RecursionError):
            line = json.loads(text)
            if isinstance(line, dict) and type(line.get("iteration")) is int:
                lines.append(line)
    return lines
