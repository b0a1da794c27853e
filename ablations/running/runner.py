"""Runs jobs, several side by side: a process with one CPU thread for each training and the evaluations that share it.

A job that is finished is not run again; one that was interrupted goes on from its checkpoint; one that fails leaves
its traceback in the store, and the others go on. Jobs that another live process holds are left to it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import cv2
import torch
from msgspec import UNSET

from cornernet.config import Config
from cornernet.data import DetectionDataset, open_dataset
from cornernet.evaluation.corners import corner_counts
from cornernet.evaluation.evaluate import Evaluation, evaluate
from cornernet.model.detector import Detector
from cornernet.progress import Progress
from cornernet.training.loop import finite, resolve_device, train
from cornernet.training.timing import stage_latency, step_stages
from cornernet.weights.checkpoints import load_detector

from ..records.curves import curves
from ..records.provenance import provenance
from ..records.record import Data, Latency, Memory, Record, Seconds, StoredResamples
from ..statistics.resampling import bootstrap, corner_bootstrap
from .executors import Executor, LocalExecutor, Run
from .planner import Fingerprints, Job, grouped, make_job
from .store import Failure, Store

__all__ = ["Outcome", "run_group", "run_jobs"]

SECONDS_BETWEEN_LOOKS = 0.5

SECONDS_TO_STOP = 60.0
"""A process that was asked to stop is asked again after this long: it may have begun to evaluate just then."""


def run_group(store: Store, configs: Sequence[Config]) -> int:
    """Train once and evaluate with each configuration in this process, from where it stands; write a record each.

    The configurations differ in their testing part alone. An evaluation that fails prints its traceback and the others
    go on; returns how many did. Whoever calls this holds the training's lock. Under torchrun all processes train and
    the first evaluates.
    """
    config = configs[0]
    train_set = open_dataset(config.data.source, "train")
    val_set = open_dataset(config.data.source, "val")
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
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            store.write_failure(job, traceback.format_exc())
            traceback.print_exc()
            print(f"evaluation {job.evaluation_key}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            failed += 1
    return failed


def _trained(store: Store, job: Job) -> tuple[Detector, float | None] | None:
    """Train where that is not done, and return the detector and the seconds it took; None on all but the first process.

    A training that was stopped in between has no time of its own.
    """
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
    began = time.monotonic()
    evaluation = evaluate(detector, val_set, job.config)
    matches = evaluation.corner_matches
    seconds = Seconds(training=training, evaluation=time.monotonic() - began)
    small, medium, large = val_set.area_counts()
    return Record(
        training_key=job.training_key,
        evaluation_key=job.evaluation_key,
        config=_without_places(job.config),
        data=Data(train=train_set.fingerprint, val=val_set.fingerprint, images=evaluation.images),
        area_bands=list(evaluation.area_bands),
        metrics=finite(evaluation.metrics),
        per_class={name: finite(values) for name, values in evaluation.per_class.items()},
        true_corners=None if matches is None else corner_counts(matches),
        latency=_latency(job, detector, val_set, evaluation),
        memory=Memory(step_mebibytes=evaluation.step_memory),
        resamples=_resamples(val_set, evaluation),
        objects=(small, medium, large),
        curves=curves(evaluation, folder / "metrics.jsonl"),
        seconds=seconds,
        provenance=provenance(next(detector.parameters()).device),
    )


def _latency(job: Job, detector: Detector, val_set: DetectionDataset, evaluation: Evaluation) -> Latency:
    """Return the times of the evaluation, and measure those of its stages."""
    assert evaluation.latency is not None
    step = job.config.testing.measure_step
    return Latency(
        milliseconds=evaluation.latency,
        step_milliseconds=evaluation.step_latency,
        workers=int(os.environ.get("CORNERNET_WORKERS", "1")),
        stages=_rounded(stage_latency(detector, val_set, job.config)),
        step_stages=_rounded(step_stages(detector, val_set, job.config)) if step else UNSET,
    )


def _rounded(stages: Mapping[str, float]) -> list[tuple[str, float]]:
    return [(name, round(milliseconds, 3)) for name, milliseconds in stages.items()]


def _resamples(val_set: DetectionDataset, evaluation: Evaluation) -> StoredResamples:
    """Return the metrics that tables compare, under resamples of the images.

    Where corners are evaluated too, only the corner metrics and AP: more would not fit into a published record.
    """
    if evaluation.corner_matches is None:
        resamples = bootstrap(val_set, evaluation.results)
    else:
        boxes = bootstrap(val_set, evaluation.results, ("AP",))
        resamples = boxes.joined(corner_bootstrap(val_set, evaluation.corner_matches))
    return StoredResamples(**resamples.to_record())


def _without_places(config: Config) -> dict[str, Any]:
    """Return the configuration as data, the folder of its photographs by name alone: records are published."""
    tree = config.to_dict()
    source = tree["data"]["source"]
    if "root" in source:
        source["root"] = Path(source["root"]).resolve().name
    return tree


@dataclass(frozen=True)
class Outcome:
    """What became of the jobs of a call."""

    failed: tuple[Failure, ...]
    """Those that were tried and failed."""
    left: tuple[Job, ...]
    """Those that the time did not suffice for."""
    tried: int
    """How many there were to do."""


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

    Jobs that share a training share its process; those that failed before come last. A training that another process
    holds is left to it, and waited for once nothing else is to do. ``processes`` is how many GPUs share one training,
    under torchrun. With an ``executor`` it says how many run at a time and where, and ``workers`` and ``processes`` do
    not. At ``deadline``, in the seconds of ``time.monotonic``, or when this process is interrupted or
    terminated, what runs is asked to stop, and writes a checkpoint first.
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
            if deadline is not None and time.monotonic() >= deadline:
                break
            if calls.start_next():
                continue
            time.sleep(SECONDS_BETWEEN_LOOKS)
            calls.collect()
            progress.update(sum(map(store.iterations_done, trainings)), calls.note())
    calls.collect(stopped=True)
    left = tuple(job for group in calls.queue for job in group if store.record(job) is None)
    return Outcome(tuple(calls.failed), left, tried)


@dataclass
class _Call:
    """A process at work on a group of jobs that share a training."""

    group: list[Job]
    process: Run
    log: Path
    log_start: int
    """Where in the log this call begins."""
    before: dict[str, Failure | None]
    """Why each job failed the time before."""


class _Calls:
    """The groups of jobs that wait, the processes that run, and the failures so far."""

    def __init__(self, store: Store, executor: Executor, queue: list[list[Job]]) -> None:
        self.store, self.executor = store, executor
        self.queue = queue
        self.running: list[_Call] = []
        self.failed: list[Failure] = []
        self.elsewhere: dict[str, dict[str, Failure | None]] = {}
        """The groups that another process was seen to hold, and how their jobs had failed before."""

    def note(self) -> str:
        """Return the note of the progress line."""
        held = sum(self.store.held(group[0]) for group in self.queue)
        parts = [f"{len(self.running)} running", f"{len(self.queue) - held} waiting", f"{len(self.failed)} failed"]
        return ", ".join([*parts, *([f"{held} run by another process"] if held else [])])

    def start_next(self) -> bool:
        """Start the first group that is free, or drop one that has become finished; return whether there was one."""
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
                # what has just failed elsewhere is not tried again by this call
                self.failed += tried.values()
                group = [job for job in group if job.evaluation_key not in tried]
                if group:
                    self.running.append(self._start(group, lock))
            return True
        return False

    def collect(self, stopped: bool = False) -> None:
        """Take note of the processes that have ended; those that were ``stopped`` go back to the queue."""
        for call in [call for call in self.running if call.process.poll() is not None]:
            self.running.remove(call)
            missing = [job for job in call.group if self.store.record(job) is None]
            told = self._new_failures(missing, call.before)
            self.failed += told.values()
            silent = [job for job in missing if job.evaluation_key not in told]
            if stopped and silent:
                self.queue.insert(0, silent)
                continue
            for job in silent:
                self.store.write_failure(job, _last_words(call))
                failure = self.store.failure(job)
                assert failure is not None
                self.failed.append(failure)

    @contextlib.contextmanager
    def stopped_at_the_end(self) -> Iterator[None]:
        """Ask the processes that still run to stop when this one leaves; they write a checkpoint first."""
        previous = None
        with contextlib.suppress(ValueError):  # signals can be handled in the main thread alone
            previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            yield
        finally:
            if previous is not None:
                signal.signal(signal.SIGTERM, previous)
            for call in self.running:
                call.process.terminate()
            for call in self.running:
                try:
                    call.process.wait(SECONDS_TO_STOP)
                except subprocess.TimeoutExpired:
                    call.process.terminate()
                    call.process.wait()

    def _failures(self, group: Sequence[Job]) -> dict[str, Failure | None]:
        return {job.evaluation_key: self.store.failure(job) for job in group}

    def _new_failures(self, jobs: Sequence[Job], before: dict[str, Failure | None]) -> dict[str, Failure]:
        """Return the failures by evaluation key that were not there before."""
        now = self._failures(jobs)
        return {key: failure for key, failure in now.items() if failure is not None and failure != before.get(key)}

    def _start(self, group: list[Job], lock: IO[str]) -> _Call:
        """Start a group whose lock is held; what it says goes to its log."""
        log, before = self.store.log_path(group[0]), self._failures(group)
        log_start = log.stat().st_size if log.exists() else 0
        return _Call(group, self.executor.start(self.store, group, lock), log, log_start, before)


def _last_words(call: _Call) -> str:
    """Return the end of what a process said that left neither a record nor a failure, and how it ended."""
    said: list[str] = []
    if call.log.exists():  # a task that never found a machine has none
        with call.log.open("rb") as file:
            file.seek(call.log_start)
            said = file.read().decode(errors="replace").strip().splitlines()
    status = call.process.returncode
    assert status is not None
    how = (
        f"was ended by signal {-status} ({signal.strsignal(-status)})" if status < 0 else f"ended with status {status}"
    )
    return "\n".join([*said[-40:], f"the process {how}"])
