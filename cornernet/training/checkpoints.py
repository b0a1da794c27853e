"""The checkpoints of a training run: one folder each, complete or absent, and read only if unchanged.

::

    checkpoints/step-N/model.safetensors   weights and statistics, with configuration and classes as in a run's weights
    checkpoints/step-N/training.pt         optimiser and scaler: tensors and plain values, read without running code
    checkpoints/step-N/contents.json       iteration, data, revision of the training, and the sha256 of both files

Only the newest counts. A crash while one is being written leaves the previous one. A crash while the previous one is
being removed leaves the newer one. Other files in the folder are not touched. The digests are there because a file that
a disk or a copy has damaged may still be readable: training would continue with wrong numbers, and nobody would notice.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from cornernet.console import printable
from cornernet.data.images import DataError
from cornernet.files import atomic_write, make_folder, remove_file, remove_unfinished, sync
from cornernet.training.errors import NotFiniteError
from cornernet.training.revision import TRAINING_REVISION
from cornernet.training.step import TrainStep
from cornernet.weights.bounds import problem_in_file
from cornernet.weights.checkpoints import CheckpointError
from cornernet.weights.unfinished import CONTENTS, STEP, WEIGHTS, file_digest, newest, read_contents, require_unchanged

__all__ = [
    "RunCheckpoint",
    "load_newest",
    "newest",
    "read_checkpoint",
    "remove_others",
    "require_finite_weights",
    "write_checkpoint",
]

REST = "training.pt"

_PARTIAL = re.compile(r"\.step-[0-9]{1,18}\.partial")


class RunCheckpoint(NamedTuple):
    """The state that a run resumes from."""

    iteration: int
    """Finished iterations."""
    weights: dict[str, Tensor]
    rest: dict[str, Any]
    """The state of the optimiser and of the scaler, as given to :func:`write_checkpoint`."""
    data: str
    """Identifies the training data (``DetectionDataset.quick_fingerprint``)."""
    revision: int
    """The revision of the code that trained it; 1 for checkpoints that do not tell."""


def write_checkpoint(
    folder: Path,
    iteration: int,
    weights: Mapping[str, Tensor],
    rest: Mapping[str, Any],
    data: str,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a checkpoint into a run's ``checkpoints``, beside the previous one, then remove the previous one.

    ``metadata`` goes into the header of the weights.

    A checkpoint of the same iteration is left as it is: the run was in that state before, and the folder holds no other
    run. Raises ``OSError`` if it cannot be written, for example because the disk is full; then nothing of it is left,
    and the previous one is unchanged.
    """
    make_folder(folder, below=folder.parent)
    partial, final = folder / f".step-{iteration:07d}.partial", folder / f"step-{iteration:07d}"
    _remove(partial)
    if final.exists():
        remove_others(folder, final)
        return
    try:
        partial.mkdir()
        safetensors.torch.save_file(dict(weights), partial / WEIGHTS, None if metadata is None else dict(metadata))
        torch.save({"iteration": iteration, **rest}, partial / REST)
        digests = {name: file_digest(partial / name) for name in (WEIGHTS, REST)}
        contents = {"iteration": iteration, "data": data, "revision": TRAINING_REVISION, "sha256": digests}
        atomic_write(partial / CONTENTS, json.dumps(contents, indent=1))
        for path in (*partial.iterdir(), partial):
            sync(path)
        partial.rename(final)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        # an unfinished checkpoint is useless, and the disk may be full
        _remove(partial)
        if isinstance(error, OSError):
            raise
        # neither torch nor safetensors reports a full disk as an OSError
        raise OSError(f"cannot write {final}: {error}") from error
    sync(folder)
    remove_others(folder, final)


def remove_others(folder: Path, keep: Path) -> None:
    """Remove all checkpoints but one from a run's ``checkpoints``, and unfinished ones that crashes left.

    Only the files of a checkpoint are removed: a folder that holds anything else is left with it.
    """
    for path in folder.glob("*step-*"):
        if path != keep and (STEP.fullmatch(path.name) or _PARTIAL.fullmatch(path.name)):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        return
    remove_unfinished(path)
    for name in (CONTENTS, WEIGHTS, REST):
        remove_file(path / name)
    with contextlib.suppress(OSError):  # somebody keeps another file there
        path.rmdir()


def read_checkpoint(path: Path) -> RunCheckpoint:
    """Read one checkpoint, with tensors on the CPU. Nothing pickled is executed.

    Raises :class:`CheckpointError` if it differs from what was written: truncated, changed, or mixed from two.
    """
    match = STEP.fullmatch(path.name)
    try:
        if match is None:
            raise ValueError("its name is not step-N")
        contents = read_contents(path)
        for name in (WEIGHTS, REST):
            require_unchanged(path, contents, name)
        weights = safetensors.torch.load_file(path / WEIGHTS)
        if (problem := problem_in_file(path / REST)) is not None:
            raise ValueError(f"{REST}: {problem}")
        rest = torch.load(path / REST, map_location="cpu", weights_only=True)
        for named, iteration in ((REST, int(rest["iteration"])), (CONTENTS, int(contents["iteration"]))):
            if iteration != int(match[1]):
                raise ValueError(f"{named} belongs to iteration {iteration}")
        return RunCheckpoint(int(match[1]), weights, rest, contents["data"], int(contents.get("revision", 1)))
    except Exception as error:
        reason = " ".join(str(error).split())  # torch's have several lines
        raise CheckpointError(
            f"cannot read the checkpoint {path}: {reason}; remove it to start again from the beginning"
        ) from error


def load_newest(folder: Path, step: TrainStep, data: str) -> int:
    """Load the newest checkpoint of a run's ``checkpoints`` into a step, and return its iteration; 0 if there is none.

    ``data`` is the quick fingerprint of the training data. Raises :class:`CheckpointError` for a checkpoint that is
    damaged or does not fit the model, and ``DataError`` if the data has changed: the result would be one of a mixture.
    Warns if an older revision of the code trained it.
    """
    path = newest(folder)
    if path is None:
        return 0
    found = read_checkpoint(path)
    if found.data != data:
        raise DataError(
            f"the training data has changed since {path} was written, in its images or its boxes; restore the data, or "
            "start a new run in another folder"
        )
    try:
        step.detector.load_state_dict(found.weights)
        step.load_state_dict(found.rest)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"the checkpoint {path} does not fit the run: {reason}; remove it to start again from the beginning"
        ) from error
    if found.revision != TRAINING_REVISION and step.processes.first:
        print(
            f"warning: {printable(path)} was trained by revision {found.revision} of the training code, and this is "
            f"revision {TRAINING_REVISION} (docs/reliability.md): the run goes on, and its iterations from here on are "
            "not those that it would have had",
            file=sys.stderr,
        )
    return found.iteration


def require_finite_weights(state: Mapping[str, Tensor], done: int) -> None:
    """Raise :class:`NotFiniteError` if a weight or a statistic is NaN or infinite after ``done`` iterations."""
    broken = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise NotFiniteError(f"after iteration {done} weights are not finite ({broken[0]}{more})")
