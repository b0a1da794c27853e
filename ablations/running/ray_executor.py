"""Runs on a Ray cluster: one task per run, retried when its worker is lost (extra ``cornernet-lab[ray]``).

Every machine of the cluster needs this package, and the store and the data under the same paths: a shared file system.
A task starts the same process as a local run, so the numbers are the same. A task that is retried, on any machine,
resumes from the checkpoints in the store, under the training's lock.

Whoever reaches the ports of a Ray cluster can run code on it. A cluster that is started here listens on the machine's
loopback only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import ipaddress
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from cornernet.config import CocoSource, ConfigError
from cornernet.console import count
from cornernet.files import open_log

from .executors import Run, start_worker
from .planner import Job
from .store import Store

__all__ = ["RETRIES", "RayExecutor", "on_ray"]

RETRIES = 3
"""How often a run is restarted after its worker was lost. A run that fails by itself is not restarted."""

POLL_SECONDS = 0.2


@contextlib.contextmanager
def on_ray(address: str | None, workers: int | None, gpus: int) -> Iterator[RayExecutor]:
    """Connect to a cluster, or start one on this machine for ``address`` None, and yield its executor.

    ``workers`` is the maximum of runs at a time. None means as many as the cluster has CPUs for, or GPUs where a run
    takes ``gpus`` of them. A cluster that is started here has ``workers`` CPUs. Raises ``ConfigError`` without Ray, for
    a cluster that cannot be reached, for one without room for a single run, and for one that was started here and
    listens on more than the loopback.
    """
    ray = _ray()
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    with contextlib.ExitStack() as until_the_end:
        try:
            if address is None:
                until_the_end.enter_context(_on_loopback())
                ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)
            else:
                ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"--address {address}: cannot reach a Ray cluster: {error}") from error
        until_the_end.callback(ray.shutdown)
        if address is None:
            _require_loopback(ray)
        executor = RayExecutor(ray, workers, gpus)
        if executor.slots() < 1:
            what = f"{count(gpus, 'GPU')} on one machine" if gpus else "one CPU"
            raise ConfigError(f"a run takes {what}, and the Ray cluster has {_described(ray.cluster_resources())}")
        yield executor


_CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Let a Ray that is started in this context listen on the loopback only.

    Ray does so where the node's address is the loopback's, and replaces a loopback address that it is given by the
    machine's own. It uses the loopback by itself where clusters of several machines are turned off, as they are by
    default on macOS and Windows. The variable is read when Ray is imported, which may have been before.
    """
    constants = importlib.import_module("ray._private.ray_constants")
    variable, constant = os.environ.get(_CLUSTERS), getattr(constants, "ENABLE_RAY_CLUSTER", None)
    os.environ[_CLUSTERS], constants.ENABLE_RAY_CLUSTER = "0", False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = constant  # type: ignore[attr-defined]
        if variable is None:
            del os.environ[_CLUSTERS]
        else:
            os.environ[_CLUSTERS] = variable


def _require_loopback(ray: Any) -> None:
    """Raise ``ConfigError`` if the Ray that was started here uses an address that other machines may reach."""
    for node in ray.nodes():
        address = node["NodeManagerAddress"]
        if not ipaddress.ip_address(address).is_loopback:
            raise ConfigError(
                f"Ray {ray.__version__} listens on {address}, not on the loopback alone, and whoever reaches it can "
                "run code here; start Ray yourself, in a network that you trust, and give its --address"
            )


class RayExecutor:
    """Starts runs as Ray tasks (see ``ablations.running.executors``)."""

    def __init__(self, ray: Any, workers: int | None, gpus: int) -> None:
        self.ray, self.workers, self.gpus = ray, workers, gpus
        self._task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(run_here)

    def slots(self) -> int:
        """Return how many may run at a time on the cluster's present machines."""
        room = sum(self._room())
        return room if self.workers is None else min(self.workers, room)

    def start(self, store: Store, group: Sequence[Job], lock: IO[str]) -> Run:  # noqa: ARG002 - as every executor's
        """Start a task. It takes the lock itself, once the caller has closed it."""
        side_by_side = min(max(self._room()), self.slots())
        root = store.root.resolve()
        task = self._task.remote(root, [_with_absolute_places(job) for job in group], max(1, self.gpus), side_by_side)
        return RayRun(self.ray, task, store.log_path(group[0]))

    def _room(self) -> list[int]:
        """Return how many runs each machine has room for."""
        room = [0]
        for node in self.ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                cpus = int(has.get("CPU", 0))
                room.append(min(cpus, int(has.get("GPU", 0)) // self.gpus) if self.gpus else cpus)
        return room


class RayRun:
    """A Ray task with the interface of a process (``ablations.running.executors.Run``)."""

    def __init__(self, ray: Any, task: Any, log: Path) -> None:
        self.ray, self.task, self.log = ray, task, log
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Check whether the task has ended, and return the status of its process."""
        if self.returncode is None and self.ray.wait([self.task], timeout=0)[0]:
            self.returncode = self._status()
        return self.returncode

    def terminate(self) -> None:
        """Cancel the task, which asks its process to stop and waits for it."""
        self.ray.cancel(self.task)

    def wait(self, timeout: float | None = None) -> int:
        """Return the status once the task has ended. Raises ``subprocess.TimeoutExpired``."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("a Ray task", timeout or 0.0)
            time.sleep(POLL_SECONDS)
        assert self.returncode is not None
        return self.returncode

    def _status(self) -> int:
        """Return what the task returned. Ray's reason for losing a task goes to the log."""
        try:
            return int(self.ray.get(self.task))
        except self.ray.exceptions.TaskCancelledError:
            return -int(signal.SIGTERM)
        except self.ray.exceptions.RayError as error:
            with open_log(self.log) as log:
                log.write(f"Ray: {type(error).__name__}: {error}\n".encode())
            return 1


def run_here(root: Path, group: Sequence[Job], processes: int, side_by_side: int) -> int:
    """Run a group of jobs in a process on the machine that this is called on, and return its status.

    While another process holds the training, for example that of a lost task, wait for it. Jobs for which it left
    records are not run again.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # a background job of a script ignores interrupts, and so does the Ray that it starts; but Ray cancels a task by
        # an interrupt
        signal.signal(signal.SIGINT, signal.default_int_handler)
    store = Store(root)
    while (lock := store.acquire(group[0])) is None:
        time.sleep(POLL_SECONDS)
    with lock:
        if all(store.record(job) is not None for job in group):
            return 0
        process = start_worker(store, group, lock, processes, side_by_side, stops_without_parent=True)
        try:
            # a cancelled task is interrupted between Python instructions, not inside a wait
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
        finally:
            if process.poll() is None:
                process.terminate()
            # a second cancellation must not leave it behind with the training's lock
            while process.poll() is None:
                with contextlib.suppress(KeyboardInterrupt):
                    process.wait()
        return process.returncode


def _with_absolute_places(job: Job) -> Job:
    """Return the job with an absolute path to its data, valid in any working directory."""
    source = job.config.data.source
    if not isinstance(source, CocoSource):
        return job
    return dataclasses.replace(job, config=job.config.with_("data.source.root", str(Path(source.root).resolve())))


def _described(resources: dict[str, float]) -> str:
    return ", ".join(count(int(resources.get(name, 0)), name) for name in ("CPU", "GPU"))


def _ray() -> Any:
    """Return the module. Raises ``ConfigError`` where it is not installed."""
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise ConfigError("--executor ray needs Ray: pip install 'cornernet-lab[ray]'") from error
