"""The weights of a run that is not finished: those of its newest checkpoint, also while it is being trained.

Training writes a checkpoint under another name, renames it, and only then removes the previous one
(``cornernet.training.checkpoints``). So a checkpoint that cannot be read any more has a successor.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from cornernet.files import open_regular, read_regular

__all__ = [
    "CONTENTS",
    "STEP",
    "WEIGHTS",
    "file_digest",
    "has_weights",
    "newest",
    "read_contents",
    "read_newest",
    "require_unchanged",
]

WEIGHTS, CONTENTS = "model.safetensors", "contents.json"
"""Files of a checkpoint: its weights, and what it holds with the sha256 of each file."""
STEP = re.compile(r"step-([0-9]{1,18})")
"""Matches the name of a checkpoint."""

_LARGEST_CONTENTS = 2**20
_LARGEST_PART = 2**40

T = TypeVar("T")


def newest(folder: Path) -> Path | None:
    """Return the checkpoint with the most iterations in a run's ``checkpoints``, or None if there is no checkpoint."""
    found = {int(match[1]): path for path in folder.glob("step-*") if (match := STEP.fullmatch(path.name))}
    return found[max(found)] if found else None


def has_weights(run: Path) -> bool:
    """Return whether a run has weights: those of the finished training, or a checkpoint."""
    return (run / WEIGHTS).is_file() or newest(run / "checkpoints") is not None


def read_newest(folder: Path, read: Callable[[Path], T]) -> T | None:
    """Return ``read`` of the newest checkpoint, of its successor where it was removed meanwhile; None without any.

    Raises what ``read`` raises for a checkpoint that is still the newest.
    """
    path = newest(folder)
    while path is not None:
        try:
            return read(path)
        except Exception:
            before, path = path, newest(folder)
            if path == before:
                raise
    return None


def read_contents(checkpoint: Path) -> dict[str, Any]:
    """Return what a checkpoint says that it holds. Raises ``OSError`` or ``ValueError`` where it does not say it."""
    try:
        tree = json.loads(read_regular(checkpoint / CONTENTS, _LARGEST_CONTENTS))
    except RecursionError as error:
        raise ValueError(f"{CONTENTS} is nested too deeply") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{CONTENTS} holds no JSON object")
    return tree


def require_unchanged(checkpoint: Path, contents: dict[str, Any], name: str) -> None:
    """Raise ``ValueError`` if the file ``name`` of a checkpoint is not the one that was written."""
    if file_digest(checkpoint / name) != contents["sha256"][name]:
        raise ValueError(f"{name} differs from what was written; the file is damaged")


def file_digest(path: Path) -> str:
    """Return the sha256 (hex) of a file. Raises ``OSError`` for what is no file."""
    with open_regular(path, _LARGEST_PART) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
