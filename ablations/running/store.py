"""Where runs are kept: a folder for each training and a record for each evaluation.

A record is written last, whole or not at all.

::

    STORE/trainings/KEY/        as cornernet.training.loop writes it, and .lock, held while a process works on it
    STORE/evaluations/KEY.json  the record (ablations.records.record)
    STORE/timings/KEY.json      times of a study's variants (ablations.records.timing), and .lock
    STORE/failures/KEY.json     why an evaluation, or its training, failed; removed once it succeeds
    STORE/logs/KEY.log          the output of the processes that made a training and its evaluations

Several processes may share a store: the one that holds a training's lock works on it, and the others do something else.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cornernet.console import PrintableError
from cornernet.files import atomic_write, make_folder, open_unchanged, remove_file

from ..records.record import Record, RecordError, decode, file_tree
from ..records.timing import Timing, read_timing, write_timing
from .planner import Job

__all__ = ["Failure", "Store", "StoreError"]


class StoreError(PrintableError, RuntimeError):
    """A store that cannot be used. The message names the file and the fix."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a job failed when it was last tried."""

    evaluation_key: str
    training_key: str
    time: str
    """UTC, ISO 8601."""
    traceback: str
    log: str
    """The log's path below the store."""

    @property
    def last_line(self) -> str:
        """The last line of the traceback: the error itself."""
        lines = self.traceback.strip().splitlines()
        return lines[-1].strip() if lines else "no output"


class Store:
    """A folder of runs. Keys come from ``ablations.running.planner``.

    ``published`` holds records from elsewhere by evaluation key, and ``published_timings`` times by timing key. They
    count as finished where the folder has none.
    """

    def __init__(
        self,
        root: Path,
        published: Mapping[str, Record] | None = None,
        published_timings: Mapping[str, Timing] | None = None,
    ) -> None:
        self.root = root
        self.published = {} if published is None else published
        self.published_timings = {} if published_timings is None else published_timings

    def training(self, job: Job) -> Path:
        """Return the folder of a job's training."""
        return self.root / "trainings" / job.training_key

    def record_path(self, job: Job) -> Path:
        """Return the file of a job's record."""
        return self.root / "evaluations" / f"{job.evaluation_key}.json"

    def failure_path(self, job: Job) -> Path:
        """Return the file that says why a job failed."""
        return self.root / "failures" / f"{job.evaluation_key}.json"

    def log_path(self, job: Job) -> Path:
        """Return the file with the output of the process that makes a job's training and its evaluations."""
        return self.root / "logs" / f"{job.training_key}.log"

    def record(self, job: Job) -> Record | None:
        """Return a job's record, or None while it is not finished."""
        record = self.own_record(job)
        return self.published.get(job.evaluation_key) if record is None else record

    def own_record(self, job: Job) -> Record | None:
        """Return a job's record in this folder, ignoring what was published.

        Raises :class:`StoreError` for a file that cannot be read, and for the record of another job.
        """
        path = self.record_path(job)
        found = _read_json(path, "evaluate again")
        if found is None:
            return None
        try:
            record = decode(found, "remove it to evaluate again")
        except RecordError as error:
            raise StoreError(f"{path} cannot be used: {error}") from error
        if record.evaluation_key != job.evaluation_key:
            raise StoreError(f"{path} is the record of {record.evaluation_key}; remove it to evaluate again")
        return record

    def write_record(self, job: Job, record: Record) -> None:
        """Write a job's record. From then on the job is finished, however often it failed before."""
        _write_json(self.record_path(job), file_tree(record))
        remove_file(self.failure_path(job))

    def timing(self, key: str) -> Timing | None:
        """Return a study's times, or None where they were not measured."""
        timing = self.own_timing(key)
        return self.published_timings.get(key) if timing is None else timing

    def own_timing(self, key: str) -> Timing | None:
        """Return a study's times in this folder. Raises :class:`StoreError` for a file that cannot be read."""
        try:
            return read_timing(self.root / "timings" / f"{key}.json")
        except RecordError as error:
            raise StoreError(f"{self.root / 'timings'}: {error}") from error

    def write_timing(self, timing: Timing) -> None:
        """Write a study's times in place of earlier ones."""
        write_timing(self.root / "timings", timing)

    @contextlib.contextmanager
    def alone(self) -> Iterator[str | None]:
        """Hold the lock for measuring times within this context. Yields None, or why times cannot be measured now."""
        make_folder(self.root / "timings", below=self.root)
        with open_unchanged(self.root / "timings" / ".lock") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield "another process measures times in this store"
                return
            busy = any(_locked(path) for path in (self.root / "trainings").glob("*/.lock"))
            yield "a training runs in this store" if busy else None

    def failure(self, job: Job) -> Failure | None:
        """Return why a job last failed, or None where it did not."""
        path = self.failure_path(job)
        found = _read_json(path, "forget the failure")
        if found is None:
            return None
        try:
            return Failure(**found)
        except TypeError as error:
            raise StoreError(
                f"{path} is not the record of a failure: {error}; remove it to forget the failure"
            ) from error

    def write_failure(self, job: Job, traceback: str) -> None:
        """Write why a job failed. The next call tries it again."""
        failure = Failure(
            evaluation_key=job.evaluation_key,
            training_key=job.training_key,
            time=datetime.datetime.now(datetime.UTC).isoformat(),
            traceback=traceback,
            log=str(self.log_path(job).relative_to(self.root)),
        )
        _write_json(self.failure_path(job), failure.__dict__)

    def trained(self, job: Job) -> bool:
        """Return whether a job's training is finished."""
        return (self.training(job) / "model.safetensors").exists()

    def iterations_done(self, job: Job) -> int:
        """Return the last iteration in the metrics of a job's training."""
        path = self.training(job) / "metrics.jsonl"
        with contextlib.suppress(FileNotFoundError, IndexError, ValueError, KeyError, RecursionError, TypeError):
            return int(json.loads(path.read_text(encoding="utf-8").splitlines()[-1])["iteration"])
        return 0

    def resumes_at(self, job: Job) -> int:
        """Return the iteration at which a job's training resumes: its checkpoint's, or the last when finished."""
        if self.trained(job):
            return job.config.training.iterations
        steps = (path.name.removeprefix("step-") for path in (self.training(job) / "checkpoints").glob("step-*"))
        return max((int(step) for step in steps if step.isdecimal()), default=0)

    def acquire(self, job: Job) -> IO[str] | None:
        """Return the lock of a job's training, or None while another process holds it.

        It is held until the file and all copies of it are closed: a process that inherits the file holds the lock too,
        also after this process ends.
        """
        folder = self.training(job)
        make_folder(folder, below=self.root)
        file = open_unchanged(folder / ".lock")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def held(self, job: Job) -> bool:
        """Return whether a live process holds the lock of a job's training."""
        return _locked(self.training(job) / ".lock")

    def finished_records(self) -> Iterator[Record]:
        """Yield the records of this folder, of any job; those that cannot be read are left out."""
        for path in sorted((self.root / "evaluations").glob("*.json")):
            with contextlib.suppress(OSError, ValueError, RecursionError):
                yield decode(json.loads(path.read_text(encoding="utf-8")), "remove it")


def _locked(path: Path) -> bool:
    """Return whether a live process holds the lock of a file."""
    try:
        with path.open(encoding="utf-8") as file:
            # shared: two processes that check at once do not see each other
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _read_json(path: Path, purpose: str) -> dict[str, Any] | None:
    """Return what a file of the store holds, or None without a file. Errors say to remove it to ``purpose``."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path} cannot be read: {error}; remove it to {purpose}") from error
    if not isinstance(tree, dict):
        raise StoreError(f"{path} holds no JSON object; remove it to {purpose}")
    return tree


def _write_json(path: Path, tree: Mapping[str, Any]) -> None:
    make_folder(path.parent, below=path.parent.parent)
    atomic_write(path, json.dumps(tree, indent=1, allow_nan=False) + "\n")
