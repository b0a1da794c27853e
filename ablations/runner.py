"""Runs jobs, several side by side: a process with one CPU thread for each training and the evaluations that share it.

A job that is finished is not run again; one that was interrupted goes on from its checkpoint; one that fails leaves
its traceback in its log, and the others go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import cv2
import torch

from ablations.planner import Fingerprints, Job, make_job
from ablations.provenance import provenance
from ablations.resampling import Resamples, bootstrap, corner_bootstrap
from ablations.store import Store
from cornernet.checkpoints import load_detector
from cornernet.config import Config
from cornernet.corner_evaluation import corner_counts
from cornernet.data import DetectionDataset, open_dataset
from cornernet.detector import Detector
from cornernet.evaluation import Evaluation, evaluate
from cornernet.progress import Progress
from cornernet.training import finite, resolve_device, train

__all__ = ["JobFailed", "run_group", "run_jobs"]


class JobFailed(RuntimeError):
    """Jobs that failed. The message names each and its log."""


def run_group(store: Store, configs: Sequence[Config]) -> int:
    """Train once and evaluate with each configuration in this process, from where it stands; write a record each.

    The configurations differ in their testing part alone. An evaluation that fails prints its traceback and the others
    go on; returns how many did.
    """
    config = configs[0]
    train_set = open_dataset(config.data.source, "train")
    val_set = open_dataset(config.data.source, "val")
    jobs = [make_job(each, Fingerprints(train_set.fingerprint, val_set.fingerprint)) for each in configs]
    if len({job.training_key for job in jobs}) > 1:
        raise ValueError("the configurations of a group must share one training")
    failed = 0
    with store.lock(jobs[0]):
        jobs = [job for job in jobs if store.record(job) is None]
        if not jobs:
            return 0
        began = time.monotonic()
        folder = store.training(jobs[0])
        begun = (folder / "metrics.jsonl").exists()
        if not (folder / "model.safetensors").exists():
            train(jobs[0].training_config, folder, resume=True, final_evaluation=False)
        if config.training.threads:
            torch.set_num_threads(config.training.threads)
            cv2.setNumThreads(config.training.threads)
        device = resolve_device(config.training.device)
        detector = load_detector(folder, device=device)
        # a training that was stopped in between has no time of its own
        spent = None if begun else time.monotonic() - began
        for job in jobs:
            try:
                store.write_record(job, _evaluated(job, detector, train_set, val_set, spent))
            except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
                traceback.print_exc()
                print(f"evaluation {job.evaluation_key}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                failed += 1
    return failed


def _evaluated(
    job: Job, detector: Detector, train_set: DetectionDataset, val_set: DetectionDataset, training: float | None
) -> dict[str, Any]:
    """Evaluate a job's detector and return its record; ``training`` took so many seconds."""
    began = time.monotonic()
    evaluation = evaluate(detector, val_set, job.config)
    assert evaluation.latency is not None
    matches = evaluation.corner_matches
    spent = time.monotonic() - began
    return {
        "training_key": job.training_key,
        "evaluation_key": job.evaluation_key,
        "config": _without_places(job.config),
        "data": {"train": train_set.fingerprint, "val": val_set.fingerprint, "images": evaluation.images},
        "area_bands": list(evaluation.area_bands),
        "metrics": finite(evaluation.metrics),
        "per_class": {name: finite(values) for name, values in evaluation.per_class.items()},
        "true_corners": None if matches is None else corner_counts(matches),
        # apart from metrics: it differs from run to run
        "latency": {
            "milliseconds": evaluation.latency,
            "step_milliseconds": evaluation.step_latency,
            "workers": int(os.environ.get("CORNERNET_WORKERS", "1")),
        },
        "resamples": _resamples(val_set, evaluation).to_record(),
        "seconds": {"training": training, "evaluation": spent},
        "provenance": provenance(next(detector.parameters()).device),
    }


def _resamples(val_set: DetectionDataset, evaluation: Evaluation) -> Resamples:
    """Return the metrics that tables compare, under resamples of the images.

    Where corners are evaluated by themselves, theirs and AP alone: more would not fit into a published record.
    """
    if evaluation.corner_matches is None:
        return bootstrap(val_set, evaluation.results)
    boxes = bootstrap(val_set, evaluation.results, ("AP",))
    return boxes.joined(corner_bootstrap(val_set, evaluation.corner_matches))


def _without_places(config: Config) -> dict[str, Any]:
    """Return the configuration as data, the folder of its photographs by name alone: records are published."""
    tree = config.to_dict()
    source = tree["data"]["source"]
    if "root" in source:
        source["root"] = Path(source["root"]).resolve().name
    return tree


def run_jobs(store: Store, jobs: Sequence[Job], workers: int, quiet: bool = False) -> None:
    """Run the jobs that are not finished, ``workers`` at a time. Raises :class:`JobFailed` after all were tried.

    Jobs that share a training share its process. When this process is interrupted or terminated the jobs are asked to
    stop; they write a checkpoint first.
    """
    waiting = list({job.evaluation_key: job for job in jobs if store.record(job) is None}.values())
    if not waiting:
        return
    groups: dict[str, list[Job]] = {}
    for job in waiting:
        groups.setdefault(job.training_key, []).append(job)
    queue = list(groups.values())
    running: dict[str, tuple[list[Job], subprocess.Popen[bytes], IO[bytes]]] = {}
    failed: list[Job] = []
    trainings = [group[0] for group in queue]
    total = sum(job.config.training.iterations for job in trainings)
    progress = Progress("ablate", total, start=sum(map(store.iterations_done, trainings)), quiet=quiet)
    with contextlib.closing(progress), _terminate_on_exit(running):
        while queue or running:
            if queue and len(running) < workers:
                group = queue.pop(0)
                running[group[0].training_key] = (group, *_start(store, group))
                continue
            time.sleep(0.5)
            for key, (group, process, log) in list(running.items()):
                if process.poll() is not None:
                    log.close()
                    del running[key]
                    failed += [job for job in group if store.record(job) is None]
            done = sum(map(store.iterations_done, trainings))
            progress.update(done, f"{len(running)} running, {len(queue)} waiting, {len(failed)} failed")
    if failed:
        logs = "\n".join(f"  {path}: {_last_line(path)}" for path in dict.fromkeys(map(store.log_path, failed)))
        raise JobFailed(f"{len(failed)} of {len(waiting)} jobs failed; the others are kept:\n{logs}")


def _start(store: Store, group: Sequence[Job]) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """Start a process for jobs that share a training; its output goes to their log."""
    path = store.log_path(group[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    log = path.open("ab")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ablations.worker", str(store.root.resolve())]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        # Ctrl-C in a terminal would reach it beside our own request to stop, and asked twice it stops at once
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps([job.config.to_dict() for job in group]).encode())
    process.stdin.close()
    return process, log


@contextlib.contextmanager
def _terminate_on_exit(running: dict[str, tuple[list[Job], subprocess.Popen[bytes], IO[bytes]]]) -> Iterator[None]:
    """Ask the processes that still run to stop when this one leaves early; they write a checkpoint first."""
    previous = None
    with contextlib.suppress(ValueError):  # signals can be handled in the main thread alone
        previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
        for _, process, _ in running.values():
            process.terminate()
        for _, process, log in running.values():
            process.wait()
            log.close()


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"
