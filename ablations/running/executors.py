"""What starts runs: on this machine, or on a Ray cluster (``ablations.running.ray_executor``)."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Protocol

from cornernet.files import make_folder, open_log

from .planner import Job
from .store import Store

__all__ = ["Executor", "LocalExecutor", "Run", "start_worker"]


class Run(Protocol):
    """A running group of jobs, with the interface of ``subprocess.Popen``."""

    @property
    def returncode(self) -> int | None:
        """The status it ended with, negative for a signal; None if it was still running at the last check."""
        ...

    def poll(self) -> int | None:
        """Check whether it has ended, and return :attr:`returncode`."""
        ...

    def terminate(self) -> None:
        """Ask it to stop; it first writes a checkpoint."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Return the status once it has ended. Raises ``subprocess.TimeoutExpired`` after ``timeout`` seconds."""
        ...


class Executor(Protocol):
    """Starts runs."""

    def slots(self) -> int:
        """Return how many may run at a time at the moment."""
        ...

    def start(self, store: Store, group: Sequence[Job], lock: IO[str]) -> Run:
        """Start a group of jobs that share a training. The caller holds its lock, and closes it afterwards."""
        ...


@dataclass(frozen=True)
class LocalExecutor:
    """Runs on this machine, ``workers`` at a time, each with ``processes`` processes (under torchrun if several)."""

    workers: int
    processes: int = 1

    def slots(self) -> int:
        """Return how many may run at a time."""
        return self.workers

    def start(self, store: Store, group: Sequence[Job], lock: IO[str]) -> Run:
        """Start a process that takes over the lock."""
        return start_worker(store, group, lock, self.processes, self.workers)


def start_worker(
    store: Store,
    group: Sequence[Job],
    lock: IO[str],
    processes: int,
    side_by_side: int,
    *,
    stops_without_parent: bool = False,
) -> subprocess.Popen[bytes]:
    """Start the process of a group of jobs on this machine; it takes over their lock, and its output goes to their log.

    ``side_by_side`` is how many runs share the machine. With ``stops_without_parent`` it is asked to stop when the
    process that started it dies for any reason (on Linux).
    """
    path = store.log_path(group[0])
    make_folder(path.parent, below=store.root)
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    with open_log(path) as log, tempfile.TemporaryFile() as configs:
        configs.write(json.dumps([job.config.to_dict() for job in group]).encode())
        configs.flush()
        return subprocess.Popen(
            [*command, "cornernet.ablations.running.worker", str(store.root.resolve())],
            stdin=configs,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CORNERNET_WORKERS": str(side_by_side)},
            pass_fds=(lock.fileno(),),
            # otherwise Ctrl-C in a terminal reaches it in addition to our request, and at the second it stops at once
            start_new_session=True,
            preexec_fn=_stop_without_parent() if stops_without_parent else None,
        )


def _stop_without_parent() -> Callable[[], None] | None:
    """Return what a new process calls to be asked to stop when its parent dies; None where that is impossible."""
    if sys.platform != "linux":
        return None
    # loaded here, because little may be done between fork and exec
    prctl = ctypes.CDLL(None).prctl
    set_parent_death_signal = 1

    def ask() -> None:
        prctl(set_parent_death_signal, int(signal.SIGTERM))

    return ask
