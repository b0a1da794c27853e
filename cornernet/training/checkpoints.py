"""The checkpoints of a training run: a folder each, there whole or not at all, and read only as it was written.

::

    checkpoints/step-N/model.safetensors   weights and statistics
    checkpoints/step-N/training.pt         optimiser and scaler: tensors and plain values, read without running code
    checkpoints/step-N/contents.json       the iteration, what was trained on, and the sha256 of both files

The newest is the one that counts. A crash while one is written leaves the one before it, and one while that is removed
leaves the newer; what else lies in the folder is let alone. Digests are there because a file that a disk or a copy has
damaged may well be readable: its numbers would be others, and nothing would say so.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from cornernet.files import sync
from cornernet.weights.checkpoints import CheckpointError

__all__ = ["RunCheckpoint", "newest", "read_checkpoint", "tidy", "write_checkpoint"]

WEIGHTS, REST, CONTENTS = "model.safetensors", "training.pt", "contents.json"

_STEP = re.compile(r"step-(\d+)")
_PARTIAL = re.compile(r"\.step-\d+\.partial")


class RunCheckpoint(NamedTuple):
    """What a run goes on from."""

    iteration: int
    """Finished iterations."""
    weights: dict[str, Tensor]
    rest: dict[str, Any]
    """State of the optimiser and of the scaler, as given to :func:`write_checkpoint`."""
    data: str
    """What was trained on (``DetectionDataset.outline``)."""


def newest(folder: Path) -> Path | None:
    """Return the checkpoint with the most iterations in a run's ``checkpoints``, or None without any."""
    found = {int(match[1]): path for path in folder.glob("step-*") if (match := _STEP.fullmatch(path.name))}
    return found[max(found)] if found else None


def write_checkpoint(
    folder: Path, iteration: int, weights: Mapping[str, Tensor], rest: Mapping[str, Any], data: str
) -> None:
    """Write a checkpoint into a run's ``checkpoints`` beside the last one, then remove the last one.

    One of as many iterations is left as it is: a run has been in that state once, and nothing else lies there. Raises
    ``OSError`` where it cannot be written, on a full disk for example; nothing of it is left then, and the last one is
    as it was.
    """
    folder.mkdir(exist_ok=True)
    partial, final = folder / f".step-{iteration:07d}.partial", folder / f"step-{iteration:07d}"
    shutil.rmtree(partial, ignore_errors=True)
    if final.exists():
        tidy(folder, final)
        return
    try:
        partial.mkdir()
        safetensors.torch.save_file(dict(weights), partial / WEIGHTS)
        torch.save({"iteration": iteration, **rest}, partial / REST)
        digests = {name: _digest(partial / name) for name in (WEIGHTS, REST)}
        contents = {"iteration": iteration, "data": data, "sha256": digests}
        (partial / CONTENTS).write_text(json.dumps(contents, indent=1), encoding="utf-8")
        for path in (*partial.iterdir(), partial):
            sync(path)
        partial.rename(final)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        # it is of no use, and its room may be what is lacking
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise
        # neither torch nor safetensors tells of a full disk as an OSError
        raise OSError(f"{final} cannot be written: {error}") from error
    sync(folder)
    tidy(folder, final)


def tidy(folder: Path, keep: Path) -> None:
    """Remove the other checkpoints of a run's ``checkpoints``, and what crashes left of some."""
    for path in folder.glob("*step-*"):
        if path != keep and (_STEP.fullmatch(path.name) or _PARTIAL.fullmatch(path.name)):
            shutil.rmtree(path)


def read_checkpoint(path: Path) -> RunCheckpoint:
    """Read one checkpoint, tensors on the CPU. Nothing pickled is executed.

    Raises :class:`CheckpointError` for one that is not as it was written: cut short, changed, or put together from two.
    """
    match = _STEP.fullmatch(path.name)
    try:
        if match is None:
            raise ValueError("its name is not step-N")
        contents = json.loads((path / CONTENTS).read_text(encoding="utf-8"))
        for name in (WEIGHTS, REST):
            if _digest(path / name) != contents["sha256"][name]:
                raise ValueError(f"{name} is not what was written: the file is damaged")
        weights = safetensors.torch.load_file(path / WEIGHTS)
        rest = torch.load(path / REST, map_location="cpu", weights_only=True)
        for named, iteration in ((REST, int(rest["iteration"])), (CONTENTS, int(contents["iteration"]))):
            if iteration != int(match[1]):
                raise ValueError(f"{named} is of iteration {iteration}")
        return RunCheckpoint(int(match[1]), weights, rest, contents["data"])
    except Exception as error:
        raise CheckpointError(
            f"the checkpoint {path} cannot be read: {error}; remove it to start again from the beginning"
        ) from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
