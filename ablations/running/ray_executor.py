"""Runs on a Ray cluster: one task a run, tried again when its worker is lost (extra ``cornernet-lab[ray]``).

Every machine of the cluster needs this package, the store and the data under the same paths: a file system that all
share. A task starts the process that a local run would be, so the numbers are the same; the training's lock and its
checkpoints in the store tell a task that is tried again, on whatever machine, where to go on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from cornernet.config import CocoSource, ConfigError

from .executors import Run, start_worker
from .planner import Job
from .store import Store

__all__ = ["RETRIES", "RayExecutor", "on_ray"]

RETRIES = 3
"""How often a run is started again whose worker was lost. A run that fails by itself is not."""

SECONDS_BETWEEN_LOOKS = 0.2


@contextlib.contextmanager
def on_ray(address: str | None, workers: int | None, gpus: int) -> Iterator[RayExecutor]:
    """Connect to a cluster in this context, or start one on this machine for ``address`` None, and yield its executor.

    ``workers`` is the most runs at a time, None as many as the cluster has CPUs for (GPUs, where a run takes ``gpus``
    of them); one that is started here has so many CPUs. Raises ``ConfigError`` without Ray, for a cluster that cannot
    be reached, and for one without room for a single run.
    """
    ray = _ray()
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address is None:
            ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"--address {address}: cannot reach a Ray cluster: {error}") from error
    try:
        executor = RayExecutor(ray, workers, gpus)
        if executor.slots() < 1:
            what = f"{gpus} GPUs on one machine" if gpus else "one CPU"
            raise ConfigError(f"a run takes {what}, and the Ray cluster has {_words(ray.cluster_resources())}")
        yield executor
    finally:
        ray.shutdown()


class RayExecutor:
    """Starts runs as Ray tasks (see ``ablations.running.executors``)."""

    def __init__(self, ray: Any, workers: int | None, gpus: int) -> None:
        self.ray, self.workers, self.gpus = ray, workers, gpus
        self._task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(run_here)

    def slots(self) -> int:
        """Return how many may run at a time on the machines that the cluster has now."""
        room = sum(self._room())
        return room if self.workers is None else min(self.workers, room)

    def start(self, store: Store, group: Sequence[Job], lock: IO[str]) -> Run:  # noqa: ARG002 - as every executor's
        """Start a task, which takes the lock itself, wherever it runs, once the caller has closed it."""
        side_by_side = min(max(self._room()), self.slots())
        root = store.root.resolve()
        task = self._task.remote(root, [_with_absolute_places(job) for job in group], max(1, self.gpus), side_by_side)
        return RayRun(self.ray, task, store.log_path(group[0]))

    def _room(self) -> list[int]:
        """Return how many runs fit onto each machine."""
        room = [0]
        for node in self.ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                cpus = int(has.get("CPU", 0))
                room.append(min(cpus, int(has.get("GPU", 0)) // self.gpus) if self.gpus else cpus)
        return room


class RayRun:
    """A Ray task as a process (``ablations.running.executors.Run``)."""

    def __init__(self, ray: Any, task: Any, log: Path) -> None:
        self.ray, self.task, self.log = ray, task, log
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Look whether the task has ended, and return its process's status."""
        if self.returncode is None and self.ray.wait([self.task], timeout=0)[0]:
            self.returncode = self._status()
        return self.returncode

    def terminate(self) -> None:
        """Cancel the task: it asks its process to stop, and waits for it."""
        self.ray.cancel(self.task)

    def wait(self, timeout: float | None = None) -> int:
        """Return the status once the task has ended. Raises ``subprocess.TimeoutExpired``."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("a Ray task", timeout or 0.0)
            time.sleep(SECONDS_BETWEEN_LOOKS)
        assert self.returncode is not None
        return self.returncode

    def _status(self) -> int:
        """Return what the task returned; what Ray has to say of one that is lost goes to the log."""
        try:
            return int(self.ray.get(self.task))
        except self.ray.exceptions.TaskCancelledError:
            return -int(signal.SIGTERM)
        except self.ray.exceptions.RayError as error:
            with self.log.open("a", encoding="utf-8") as log:
                log.write(f"Ray: {type(error).__name__}: {error}\n")
            return 1


def run_here(root: Path, group: Sequence[Job], processes: int, side_by_side: int) -> int:
    """Run a group of jobs in a process on the machine that this is called on, and return its status.

    While another process holds the training, of a task that was lost for example, it is waited for. Jobs whose records
    it left are not run again.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # what a script runs in the background ignores interrupts, and so does the Ray that it starts; but Ray cancels a
        # task by one
        signal.signal(signal.SIGINT, signal.default_int_handler)
    store = Store(root)
    while (lock := store.acquire(group[0])) is None:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    with lock:
        if all(store.record(job) is not None for job in group):
            return 0
        process = start_worker(store, group, lock, processes, side_by_side, stops_without_parent=True)
        try:
            # a cancelled task is interrupted between Python's own steps, not in a wait
            while process.poll() is None:
                time.sleep(SECONDS_BETWEEN_LOOKS)
        finally:
            if process.poll() is None:
                process.terminate()
            # whoever cancels again must not leave it behind with the training's lock
            while process.poll() is None:
                with contextlib.suppress(KeyboardInterrupt):
                    process.wait()
        return process.returncode


def _with_absolute_places(job: Job) -> Job:
    """Return a job whose data is found from any working directory."""
    source = job.config.data.source
    if not isinstance(source, CocoSource):
        return job
    return dataclasses.replace(job, config=job.config.with_("data.source.root", str(Path(source.root).resolve())))


def _words(resources: dict[str, float]) -> str:
    return ", ".join(f"{resources.get(name, 0):g} {name}s" for name in ("CPU", "GPU"))


def _ray() -> Any:
    """Return the module. Raises ``ConfigError`` where it is not installed."""
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise ConfigError("--executor ray needs Ray: pip install 'cornernet-lab[ray]'") from error
