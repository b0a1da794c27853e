"""Runs jobs, several side by side, each in a process of its own with one CPU thread.

A job that is finished is not run again; one that was interrupted goes on from its checkpoint; one that fails leaves
its traceback in its log, and the others go on.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import IO

from ablations.planner import Fingerprints, Job, make_job
from ablations.provenance import provenance
from ablations.store import Store
from cornernet.checkpoints import load_detector
from cornernet.config import Config
from cornernet.data import open_dataset
from cornernet.evaluation import evaluate
from cornernet.progress import Progress
from cornernet.training import finite, train

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
        if not (folder / "model.safetensors").exists():
            train(config, folder, resume=True, final_evaluation=False)
        detector = load_detector(folder)
        trained = time.monotonic()
        evaluation = evaluate(detector, val_set, config)
        store.write_record(
            job,
            {
                "training_key": job.training_key,
                "evaluation_key": job.evaluation_key,
                "config": detector.config.to_dict(),
                "data": {"train": train_set.fingerprint, "val": val_set.fingerprint, "images": evaluation.images},
                "area_bands": list(evaluation.area_bands),
                "metrics": finite(evaluation.metrics),
                "per_class": {name: finite(values) for name, values in evaluation.per_class.items()},
                "seconds": {"training": trained - began, "evaluation": time.monotonic() - trained},
                "provenance": provenance(),
            },
        )


def run_jobs(store: Store, jobs: Sequence[Job], workers: int, quiet: bool = False) -> None:
    """Run the jobs that are not finished, ``workers`` at a time. Raises :class:`JobFailed` after all were tried."""
    waiting = list({job.evaluation_key: job for job in jobs if store.record(job) is None}.values())
    if not waiting:
        return
    running: dict[str, tuple[Job, subprocess.Popen[bytes], IO[bytes]]] = {}
    started: list[Job] = list(waiting)
    failed: list[Job] = []
    total = sum(job.config.training.iterations for job in waiting)
    progress = Progress("ablate", total, start=sum(map(store.iterations_done, waiting)), quiet=quiet)
    with contextlib.closing(progress), _terminate_on_exit(running):
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop(0)
                running[job.evaluation_key] = (job, *_start(store, job))
            time.sleep(0.5)
            for key, (job, process, log) in list(running.items()):
                if process.poll() is not None:
                    log.close()
                    del running[key]
                    if process.returncode != 0 or store.record(job) is None:
                        failed.append(job)
            done = sum(map(store.iterations_done, started))
            progress.update(done, f"{len(running)} running, {len(waiting)} waiting, {len(failed)} failed")
    if failed:
        logs = "\n".join(f"  {store.training(job) / 'log.txt'}: {_last_line(store, job)}" for job in failed)
        raise JobFailed(f"{len(failed)} of {len(started)} jobs failed; the others are kept:\n{logs}")


def _start(store: Store, job: Job) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """Start a process for a job; its output goes to the log beside the training."""
    folder = store.training(job)
    folder.mkdir(parents=True, exist_ok=True)
    log = (folder / "log.txt").open("ab")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ablations.worker", str(store.root.resolve())]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment)
    assert process.stdin is not None
    process.stdin.write(job.config.to_json().encode())
    process.stdin.close()
    return process, log


@contextlib.contextmanager
def _terminate_on_exit(running: dict[str, tuple[Job, subprocess.Popen[bytes], IO[bytes]]]) -> Iterator[None]:
    """Ask the processes that still run to stop when this one leaves early; they write a checkpoint first."""
    try:
        yield
    finally:
        for _, process, _ in running.values():
            process.terminate()
        for _, process, log in running.values():
            process.wait()
            log.close()


def _last_line(store: Store, job: Job) -> str:
    lines = (store.training(job) / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"
