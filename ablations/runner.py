"""Runs jobs, several side by side, each in a process of its own with one CPU thread.

A job that is finished is not run again; one that was interrupted goes on from its checkpoint; one that fails leaves
its traceback in its log, and the others go on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from ablations.planner import Fingerprints, Job, make_job
from ablations.provenance import provenance
from ablations.store import Store
from cornernet.checkpoints import load_detector
from cornernet.config import Config
from cornernet.data import open_dataset
from cornernet.evaluation import evaluate
from cornernet.progress import Progress
from cornernet.training import finite, resolve_device, train

__all__ = ["JobFailed", "run_job", "run_jobs"]


class JobFailed(RuntimeError):
    """Jobs that failed. The message names each and its log."""


def run_job(store: Store, config: Config) -> None:
    """Train and evaluate one job in this process, from where it stands, and write its record."""
    train_set = open_dataset(config.data.source, "train")
    val_set = open_dataset(config.data.source, "val")
    job = make_job(config, Fingerprints(train_set.fingerprint, val_set.fingerprint))
    with store.lock(job):
        if store.record(job) is not None:
            return
        began = time.monotonic()
        folder = store.training(job)
        begun = (folder / "metrics.jsonl").exists()
        if not (folder / "model.safetensors").exists():
            train(config, folder, resume=True, final_evaluation=False)
        device = resolve_device(config.training.device)
        detector = load_detector(folder, device=device)
        trained = time.monotonic()
        evaluation = evaluate(detector, val_set, config)
        store.write_record(
            job,
            {
                "training_key": job.training_key,
                "evaluation_key": job.evaluation_key,
                "config": _without_places(detector.config),
                "data": {"train": train_set.fingerprint, "val": val_set.fingerprint, "images": evaluation.images},
                "area_bands": list(evaluation.area_bands),
                "metrics": finite(evaluation.metrics),
                "per_class": {name: finite(values) for name, values in evaluation.per_class.items()},
                # a training that was stopped in between has no time of its own
                "seconds": {"training": None if begun else trained - began, "evaluation": time.monotonic() - trained},
                "provenance": provenance(device),
            },
        )


def _without_places(config: Config) -> dict[str, Any]:
    """Return the configuration as data, the folder of its photographs by name alone: records are published."""
    tree = config.to_dict()
    source = tree["data"]["source"]
    if "root" in source:
        source["root"] = Path(source["root"]).resolve().name
    return tree


def run_jobs(store: Store, jobs: Sequence[Job], workers: int, quiet: bool = False) -> None:
    """Run the jobs that are not finished, ``workers`` at a time. Raises :class:`JobFailed` after all were tried.

    Jobs that share a training wait for each other. When this process is interrupted or terminated the jobs are asked to
    stop; they write a checkpoint first.
    """
    waiting = list({job.evaluation_key: job for job in jobs if store.record(job) is None}.values())
    if not waiting:
        return
    running: dict[str, tuple[Job, subprocess.Popen[bytes], IO[bytes]]] = {}
    started: list[Job] = list(waiting)
    failed: list[Job] = []
    trainings = list({job.training_key: job for job in waiting}.values())
    total = sum(job.config.training.iterations for job in trainings)
    progress = Progress("ablate", total, start=sum(map(store.iterations_done, trainings)), quiet=quiet)
    with contextlib.closing(progress), _terminate_on_exit(running):
        while waiting or running:
            busy = {job.training_key for job, _, _ in running.values()}
            ready = [job for job in waiting if job.training_key not in busy]
            if ready and len(running) < workers:
                job = ready[0]
                waiting.remove(job)
                running[job.evaluation_key] = (job, *_start(store, job))
                continue
            time.sleep(0.5)
            for key, (job, process, log) in list(running.items()):
                if process.poll() is not None:
                    log.close()
                    del running[key]
                    if process.returncode != 0 or store.record(job) is None:
                        failed.append(job)
            done = sum(map(store.iterations_done, trainings))
            progress.update(done, f"{len(running)} running, {len(waiting)} waiting, {len(failed)} failed")
    if failed:
        logs = "\n".join(f"  {store.log_path(job)}: {_last_line(store, job)}" for job in failed)
        raise JobFailed(f"{len(failed)} of {len(started)} jobs failed; the others are kept:\n{logs}")


def _start(store: Store, job: Job) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """Start a process for a job; its output goes to the log beside the training."""
    path = store.log_path(job)
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
    process.stdin.write(job.config.to_json().encode())
    process.stdin.close()
    return process, log


@contextlib.contextmanager
def _terminate_on_exit(running: dict[str, tuple[Job, subprocess.Popen[bytes], IO[bytes]]]) -> Iterator[None]:
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


def _last_line(store: Store, job: Job) -> str:
    lines = store.log_path(job).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"
