"""Runs jobs side by side: a process with one CPU thread for each training and the evaluations that share it.

A finished job is not run again, and an interrupted one resumes from its checkpoint. A job that fails leaves its
traceback in the store, and the others continue. Jobs that another live process holds are left to it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from msgspec import UNSET

from cornernet.config import Config
from cornernet.console import Progress, printable
from cornernet.training.metrics import finite

from ..records.record import Data, Latency, Memory, Record, Seconds, StoredResamples
from .executors import Executor, LocalExecutor, Run
from .planner import Fingerprints, Job, grouped, make_job
from .store import Failure, Store

if TYPE_CHECKING:
    from cornernet.data import DetectionDataset
    from cornernet.evaluation.evaluate import Evaluation
    from cornernet.model.detector import Detector

__all__ = ["Outcome", "run_group", "run_jobs"]

POLL_SECONDS = 0.5

SECONDS_TO_STOP = 60.0
"""After this time a process that was asked to stop is asked again: it may just have begun to evaluate."""


def run_group(store: Store, configs: Sequence[Config]) -> int:
    """Train once and evaluate with each configuration in this process, resuming what was begun; write their records.

    The configurations differ only in their testing part. An evaluation that fails prints its traceback, and the others
    continue. Returns how many failed. The caller holds the training's lock. Under torchrun all processes train, and the
    first evaluates.
    """
    from cornernet.data import open_dataset

    config = configs[0]
    train_set = open_dataset(config.data, "train")
    val_set = open_dataset(config.data, "val")
    jobs = [make_job(each, Fingerprints(train_set.fingerprint, val_set.fingerprint)) for each in configs]
    if len({job.training_key for job in jobs}) > 1:
        raise ValueError("the configurations of a group must share one training")
    jobs = [job for job in jobs if store.record(job) is None]
    if not jobs:
        return 0
    try:
        trained = _trained(store, jobs[0])
    except Exception:
        for job in jobs:
            store.write_failure(job, traceback.format_exc())
        raise
    if trained is None:
        return 0
    failed = 0
    for job in jobs:
        try:
            store.write_record(job, _evaluated(job, trained[0], train_set, val_set, trained[1], store.training(job)))
        except Exception as error:  # noqa: BLE001 - the others continue after any error
            store.write_failure(job, traceback.format_exc())
            traceback.print_exc()
            print(
                f"evaluation {job.evaluation_key}: {type(error).__name__}: {printable(error)}",
                file=sys.stderr,
                flush=True,
            )
            failed += 1
    return failed


def _trained(store: Store, job: Job) -> tuple[Detector, float | None] | None:
    """Finish the training; return the detector and the seconds it took, or None on all processes but the first.

    A training that was resumed has no time of its own: its seconds are None.
    """
    import cv2
    import torch

    from cornernet.training.devices import resolve_device
    from cornernet.training.loop import train
    from cornernet.weights.checkpoints import load_detector

    began = time.monotonic()
    folder = store.training(job)
    begun = (folder / "metrics.jsonl").exists()
    if not store.trained(job):
        train(job.training_config, folder, resume=True, final_evaluation=False)
    if int(os.environ.get("RANK", "0")) > 0:
        return None
    training = job.config.training
    if training.threads:
        torch.set_num_threads(training.threads)
        cv2.setNumThreads(training.threads)
    detector = load_detector(folder, device=resolve_device(training.device))
    return detector, None if begun else time.monotonic() - began


def _evaluated(
    job: Job,
    detector: Detector,
    train_set: DetectionDataset,
    val_set: DetectionDataset,
    training: float | None,
    folder: Path,
) -> Record:
    """Evaluate a job's detector and return its record. The training took ``training`` seconds and left ``folder``."""
    from cornernet.evaluation.evaluate import evaluate
    from cornernet.training.memory import step_memory
    from cornernet.training.timing import step_latency

    from ..records.curves import curves
    from ..records.provenance import provenance

    began = time.monotonic()
    evaluation = evaluate(detector, val_set, job.config)
    measures = job.config.testing.measure_step
    step_milliseconds = step_latency(detector, val_set, job.config) if measures else None
    step_mebibytes = step_memory(detector, val_set, job.config) if measures else None
    seconds = Seconds(training=training, evaluation=time.monotonic() - began)
    small, medium, large = val_set.area_counts()
    return Record(
        training_key=job.training_key,
        evaluation_key=job.evaluation_key,
        config=job.config.to_public_dict(),
        data=Data(train=train_set.fingerprint, val=val_set.fingerprint, images=evaluation.images),
        area_bands=list(evaluation.area_bands),
        metrics=finite(evaluation.metrics),
        per_class={name: finite(values) for name, values in evaluation.per_class.items()},
        true_corners=_true_corners(job, evaluation),
        latency=_latency(job, detector, val_set, evaluation, step_milliseconds),
        memory=Memory(step_mebibytes=step_mebibytes),
        resamples=_resamples(job, val_set, evaluation),
        objects=(small, medium, large),
        curves=curves(evaluation, folder / "metrics.jsonl"),
        seconds=seconds,
        provenance=provenance(next(detector.parameters()).device, evaluation.evaluator),
    )


def _latency(
    job: Job, detector: Detector, val_set: DetectionDataset, evaluation: Evaluation, step_milliseconds: float | None
) -> Latency:
    """Return the times of the evaluation, and measure those of its stages."""
    from cornernet.training.timing import stage_latency, step_stages

    assert evaluation.latency is not None
    measures = job.config.testing.measure_step
    return Latency(
        milliseconds=round(evaluation.latency, 3),
        step_milliseconds=None if step_milliseconds is None else round(step_milliseconds, 3),
        workers=int(os.environ.get("CORNERNET_WORKERS", "1")),
        stages=_rounded(stage_latency(detector, val_set, job.config)),
        step_stages=_rounded(step_stages(detector, val_set, job.config)) if measures else UNSET,
    )


def _rounded(stages: Mapping[str, float]) -> list[tuple[str, float]]:
    return [(name, round(milliseconds, 3)) for name, milliseconds in stages.items()]


def _true_corners(job: Job, evaluation: Evaluation) -> dict[str, int] | None:
    """Return how many true corners each metric of corners is measured on; None where none is measured."""
    from cornernet.evaluation.corners import corner_counts
    from cornernet.evaluation.locations import location_counts

    counts: dict[str, int] = {}
    if evaluation.corner_matches is not None:
        counts |= corner_counts(evaluation.corner_matches)
    if evaluation.locations is not None:
        counts |= location_counts(evaluation.locations, job.config.testing.location_radii)
    return counts or None


def _resamples(job: Job, val_set: DetectionDataset, evaluation: Evaluation) -> StoredResamples:
    """Return the metrics that tables compare, under resamples of the images.

    Where corners are evaluated too, only their metrics, and AP beside those of matched corners: more would not fit into
    a published record.
    """
    from ..statistics.resampling import Resamples, bootstrap, corner_bootstrap, location_bootstrap

    assert evaluation.box_matching is not None
    parts: list[Resamples] = []
    if evaluation.corner_matches is not None:
        parts += [
            bootstrap(val_set, evaluation.box_matching, ("AP",)),
            corner_bootstrap(val_set, evaluation.corner_matches),
        ]
    if evaluation.locations is not None:
        parts.append(location_bootstrap(val_set, evaluation.locations, job.config.testing.location_radii))
    if not parts:
        parts.append(bootstrap(val_set, evaluation.box_matching))
    return StoredResamples(**functools.reduce(Resamples.joined, parts).to_record())


@dataclass(frozen=True)
class Outcome:
    """What became of the jobs of a call."""

    failed: tuple[Failure, ...]
    """Jobs that were tried and failed."""
    left: tuple[Job, ...]
    """Jobs that are left because time was up."""
    tried: int
    """How many jobs there were to do."""
    overran: bool = False
    """Whether the deadline came before anything could be kept, so that the call went on until something was."""

    def __add__(self, later: Outcome) -> Outcome:
        """Return what became of the jobs of two calls, one after the other."""
        return Outcome(
            (*self.failed, *later.failed), later.left, self.tried + later.tried, self.overran or later.overran
        )


def run_jobs(
    store: Store,
    jobs: Sequence[Job],
    workers: int,
    *,
    processes: int = 1,
    deadline: float | None = None,
    quiet: bool = False,
    executor: Executor | None = None,
) -> Outcome:
    """Run the jobs that are not finished, ``workers`` trainings at a time, and return what became of them.

    Jobs that share a training share its process; jobs that failed before come last. A training that another process
    holds is left to it, and waited for once there is nothing else to do. ``processes`` is how many GPUs share one
    training, under torchrun. An ``executor`` decides how many run at a time and where, instead of ``workers`` and
    ``processes``. At ``deadline`` (seconds of ``time.monotonic``), or when this process is interrupted or terminated,
    the running trainings are asked to stop, and first write a checkpoint. Every call gets somewhere, so that enough
    calls finish, however short and however slow the machine: if nothing is further at the deadline than it was before,
    one training or evaluation goes on until it is.
    """
    queue = grouped(job for job in jobs if store.record(job) is None)
    queue.sort(key=lambda group: any(store.failure(job) is not None for job in group))
    if not queue:
        return Outcome((), (), 0)
    calls = _Calls(store, LocalExecutor(workers, processes) if executor is None else executor, queue)
    trainings, tried = [group[0] for group in queue], sum(map(len, queue))
    total = sum(job.config.training.iterations for job in trainings)
    progress = Progress("ablate", total, start=sum(map(store.iterations_done, trainings)), quiet=quiet)
    with contextlib.closing(progress), calls.stopped_at_the_end():
        while calls.queue or calls.running:
            late = deadline is not None and time.monotonic() >= deadline
            if late and calls.got_further():
                break
            if (not late or not calls.running) and calls.start_next():
                continue
            if late and not calls.running:  # other processes hold all that is left
                break
            calls.late = late
            time.sleep(POLL_SECONDS)
            calls.collect()
            progress.update(sum(map(store.iterations_done, trainings)), calls.note())
    calls.collect(stopped=True)
    left = tuple(job for group in calls.queue for job in group if store.record(job) is None)
    return Outcome(tuple(calls.failed), left, tried, calls.late)


@dataclass
class _Call:
    """A process that works on a group of jobs that share a training."""

    group: list[Job]
    process: Run
    log: Path
    log_start: int
    """Where in the log this call begins."""
    before: dict[str, Failure | None]
    """Why each job had failed before."""
    reached: tuple[int, int, bool]
    """How far the training was before: its checkpoint's iteration, the last one logged, and whether it was finished."""


class _Calls:
    """The waiting groups of jobs, the running processes, and the failures so far."""

    def __init__(self, store: Store, executor: Executor, queue: list[list[Job]]) -> None:
        self.store, self.executor = store, executor
        self.queue = queue
        self.running: list[_Call] = []
        self.failed: list[Failure] = []
        self.elsewhere: dict[str, dict[str, Failure | None]] = {}
        """Groups that another process held, and how their jobs had failed before that."""
        self.late = False
        """Whether the deadline came before anything was further than before."""
        self._ended_further = False

    def note(self) -> str:
        """Return the note of the progress line."""
        held = sum(self.store.held(group[0]) for group in self.queue)
        parts = [f"{len(self.running)} running", f"{len(self.queue) - held} waiting", f"{len(self.failed)} failed"]
        return ", ".join([*parts, *([f"{held} run by another process"] if held else [])])

    def start_next(self) -> bool:
        """Start the first free group, or drop one that has been finished meanwhile; return whether there was one."""
        if len(self.running) >= self.executor.slots():
            return False
        for index, group in enumerate(self.queue):
            key = group[0].training_key
            lock = self.store.acquire(group[0])
            if lock is None:
                self.elsewhere.setdefault(key, self._failures(group))
                continue
            with lock:
                del self.queue[index]
                group = [job for job in group if self.store.record(job) is None]
                tried = self._new_failures(group, self.elsewhere[key]) if key in self.elsewhere else {}
                # this call does not retry what has just failed elsewhere
                self.failed += tried.values()
                group = [job for job in group if job.evaluation_key not in tried]
                if group:
                    self.running.append(self._start(group, lock))
            return True
        return False

    def got_further(self) -> bool:
        """Return whether a stop now would keep something that was not there before this call.

        A training that has logged an iteration is in its loop, and writes a checkpoint when it is asked to stop.
        """
        return self._ended_further or any(map(self._is_further, self.running))

    def _is_further(self, call: _Call) -> bool:
        now = _reached(self.store, call.group[0])
        further = any(after > before for after, before in zip(now, call.reached, strict=True))
        return further or any(self.store.record(job) is not None for job in call.group)

    def collect(self, stopped: bool = False) -> None:
        """Collect the processes that have ended; with ``stopped``, unfinished jobs go back to the queue."""
        for call in [call for call in self.running if call.process.poll() is not None]:
            self.running.remove(call)
            self._ended_further |= self._is_further(call)
            missing = [job for job in call.group if self.store.record(job) is None]
            told = self._new_failures(missing, call.before)
            self.failed += told.values()
            silent = [job for job in missing if job.evaluation_key not in told]
            if stopped and silent:
                self.queue.insert(0, silent)
                continue
            for job in silent:
                self.store.write_failure(job, _log_tail(call))
                failure = self.store.failure(job)
                assert failure is not None
                self.failed.append(failure)

    @contextlib.contextmanager
    def stopped_at_the_end(self) -> Iterator[None]:
        """Ask the running processes to stop on leaving this context; they first write a checkpoint."""
        previous = None
        with contextlib.suppress(ValueError):  # only the main thread can handle signals
            previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
        deadline_came = False
        try:
            yield
            deadline_came = True
        finally:
            if previous is not None:
                signal.signal(signal.SIGTERM, previous)
            for call in self.running:
                call.process.terminate()
            for call in self.running:
                self._wait(call, patiently=deadline_came)

    def _wait(self, call: _Call, patiently: bool) -> None:
        """Wait until a process that was asked to stop has stopped; ask again if it takes long.

        The second time, a training stops without a checkpoint. ``patiently``, it is asked again only once it is
        trained: its iterations may be longer than that, and what it has done would be lost in every call.
        """
        while True:
            try:
                call.process.wait(SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                if patiently and not self.store.trained(call.group[0]):
                    continue
                call.process.terminate()
                call.process.wait()
            return

    def _failures(self, group: Sequence[Job]) -> dict[str, Failure | None]:
        return {job.evaluation_key: self.store.failure(job) for job in group}

    def _new_failures(self, jobs: Sequence[Job], before: dict[str, Failure | None]) -> dict[str, Failure]:
        """Return the failures by evaluation key that are new."""
        now = self._failures(jobs)
        return {key: failure for key, failure in now.items() if failure is not None and failure != before.get(key)}

    def _start(self, group: list[Job], lock: IO[str]) -> _Call:
        """Start a group whose lock is held; its output goes to its log."""
        log, before = self.store.log_path(group[0]), self._failures(group)
        log_start = log.stat().st_size if log.exists() else 0
        reached = _reached(self.store, group[0])
        return _Call(group, self.executor.start(self.store, group, lock), log, log_start, before, reached)


def _reached(store: Store, job: Job) -> tuple[int, int, bool]:
    """Return how far a training is: its checkpoint's iteration, the last one logged, and whether it is finished."""
    checkpoint = store.resumes_at(job)
    return checkpoint, max(checkpoint, store.iterations_done(job)), store.trained(job)


def _log_tail(call: _Call) -> str:
    """Return the last lines of a process that left neither a record nor a failure, and how it ended."""
    lines: list[str] = []
    if call.log.exists():  # a task that never got a machine has no log
        with call.log.open("rb") as file:
            file.seek(call.log_start)
            lines = file.read().decode(errors="replace").strip().splitlines()
    status = call.process.returncode
    assert status is not None
    how = (
        f"was ended by signal {-status} ({signal.strsignal(-status)})" if status < 0 else f"ended with status {status}"
    )
    return "\n".join([*lines[-40:], f"the process {how}"])
