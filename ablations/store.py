"""Where runs are kept: a folder a training, a record an evaluation. A record is written last, whole or not at all.

::

    STORE/trainings/KEY/        as cornernet.training writes it
    STORE/evaluations/KEY.json  the record: config, provenance, metrics
    STORE/logs/KEY.log          what the processes said that made a training and its evaluations
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablations.planner import Job
from cornernet.files import atomic_write

__all__ = ["Store", "StoreError"]


class StoreError(RuntimeError):
    """A store that cannot be used. The message names the file and the fix."""


class Store:
    """A folder of runs. Keys come from ``ablations.planner``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def training(self, job: Job) -> Path:
        """Return the folder of a job's training."""
        return self.root / "trainings" / job.training_key

    def record_path(self, job: Job) -> Path:
        """Return the file of a job's record."""
        return self.root / "evaluations" / f"{job.evaluation_key}.json"

    def log_path(self, job: Job) -> Path:
        """Return the file of what the process of a job's training and its evaluations says."""
        return self.root / "logs" / f"{job.training_key}.log"

    def record(self, job: Job) -> dict[str, Any] | None:
        """Return a job's record, or None while it is not finished."""
        path = self.record_path(job)
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StoreError(f"the record {path} cannot be read: {error}; remove it to evaluate again") from error
        return record

    def write_record(self, job: Job, record: dict[str, Any]) -> None:
        """Write a job's record: from here on the job is finished."""
        path = self.record_path(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps(record, indent=1, allow_nan=False) + "\n")

    def iterations_done(self, job: Job) -> int:
        """Return how far a job's training has come, as its metrics tell."""
        path = self.training(job) / "metrics.jsonl"
        with contextlib.suppress(FileNotFoundError, IndexError, ValueError, KeyError):
            return int(json.loads(path.read_text(encoding="utf-8").splitlines()[-1])["iteration"])
        return 0

    @contextlib.contextmanager
    def lock(self, job: Job) -> Iterator[None]:
        """Hold a job's training for this process. Raises :class:`StoreError` while another process has it."""
        folder = self.training(job)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(
                    f"another process is working on {folder}; wait for it, or use another store"
                ) from error
            yield
