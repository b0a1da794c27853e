"""Torch's OpenMP threads: the library they belong to, and how they wait when other programs want the cores.

The threads of a team wait for each other after every loop. GNU's OpenMP, which torch's wheels contain, lets a thread
spin for 300,000 rounds, some 15 ms, before it sleeps. That is fastest while each thread has a core to itself: a core
that slept takes its time to wake. On a busy machine it is the worst: the thread that all others wait for waits itself,
for a core that one of them or of another program keeps by spinning.

No fixed number of rounds is right in both cases. Measured on two cores with a step of the recipe ``small``, alone and
beside a second such process, as a share of the speed that spinning gives alone: 300,000 rounds 1 and 0.11, 10,000
rounds 0.99 and 0.28, 1,000 rounds 0.87 and 0.39, none (OMP_WAIT_POLICY=passive) 0.74 and 0.32.

But the library itself spins for 100 rounds only while it has more threads than the process may use cores (its manual:
GOMP_SPINCOUNT), and it counts the threads of all teams of the process. So :func:`make_way` looks several times a second
at how long this process's threads were ready to run and had no core. As long as that is more than a little, a second
team exists, whose threads sleep. Neither the number of threads that share a loop nor any result depends on it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
import time
from pathlib import Path
from typing import Any

import torch

from . import ops

__all__ = ["VARIABLES", "Crowding", "make_way", "parallel", "ways_made"]

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""Environment variables that say how threads wait. Where the user set one, :func:`make_way` does nothing."""

_EVERY = 0.2
_TASKS = Path("/proc/self/task")


def parallel() -> Any:
    """Return OpenMP's function that runs another one on several threads, or None if it cannot be used.

    It is ``GOMP_parallel(function, argument, threads, 0)`` of the library that torch has loaded; GNU's, LLVM's and
    Intel's all have it. A forked child cannot use it, because OpenMP does not survive a fork.
    """
    library = _library() if os.getpid() == ops.LOADED_IN else None
    return None if library is None else library.GOMP_parallel


@functools.cache
def _library() -> ctypes.CDLL | None:
    maps = Path("/proc/self/maps")
    if not maps.exists() or not torch.backends.openmp.is_available():  # type: ignore[no-untyped-call]
        return None
    files = {
        line.split(maxsplit=5)[-1].strip()
        for line in maps.read_text(encoding="utf-8", errors="replace").splitlines()
        if "omp" in line
    }
    for file in sorted(files):
        if Path(file).name.startswith(("libgomp", "libomp", "libiomp")):
            library = ctypes.CDLL(file)
            found = getattr(library, "GOMP_parallel", None)
            if found is not None:
                found.argtypes, found.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
                return library
    return None


class Crowding:
    """Tells from the time that threads wait for a core whether other work wants the cores.

    Alone on a machine, threads wait for 0 to 0.05 s in a second, all together; beside another program that computes,
    for 0.4 to 0.9 s, whether they spin or sleep.
    """

    FROM = 0.15
    """Seconds of waiting in a second from which on the cores count as wanted."""
    UNTIL = 1.0
    """Seconds with less waiting than that, after which they do not any more."""

    def __init__(self) -> None:
        self.crowded = False
        self._waited_at = 0.0

    def look(self, now: float, waited: float) -> bool:
        """Return whether the cores are wanted at the time ``now``, in s, after ``waited`` s of waiting per second."""
        if waited >= self.FROM:
            self.crowded, self._waited_at = True, now
        elif self.crowded and now - self._waited_at >= self.UNTIL:
            self.crowded = False
        return self.crowded


def make_way() -> bool:
    """Let OpenMP's threads sleep instead of spin while other programs want the cores; return whether that is so.

    The first call starts a thread that lasts as long as the process; more calls change nothing. It is not so where the
    user has set one of :data:`VARIABLES`, where torch computes on one thread or by another library than GNU's, where
    the system does not say how long threads wait for a core (only Linux does), and in a forked child.
    """
    if (
        any(name in os.environ for name in VARIABLES)
        or torch.get_num_threads() == 1
        or parallel() is None
        or hasattr(_library(), "kmp_set_blocktime")  # LLVM's or Intel's, under its own name or under GNU's
        or not Path("/proc/self/schedstat").exists()
    ):
        return False
    with _LOCK:
        if not _STARTED:
            _STARTED.append(threading.Thread(target=_watch, name="make-way", daemon=True))
            _STARTED[0].start()
    return True


_LOCK = threading.Lock()
_STARTED: list[threading.Thread] = []
_SPARE: list[_SpareTeam] = []


def ways_made() -> bool:
    """Return whether threads of this process sleep when they wait, because others want the cores just now."""
    return bool(_SPARE)


def _watch() -> None:
    crowding = Crowding()
    then, before = time.monotonic(), _waiting()
    while True:
        time.sleep(_EVERY)
        now, waiting = time.monotonic(), _waiting()
        # a thread that ended takes its time out of the sum
        crowded = crowding.look(now, max(0.0, waiting - before) / (now - then))
        if crowded and not _SPARE:
            _SPARE.append(_SpareTeam())
            _SPARE[0].start()
        elif _SPARE and not crowded:
            _SPARE.pop().over.set()
        then, before = now, waiting


def _waiting() -> float:
    """Return how long the threads of this process have waited for a core so far, in s."""
    total = 0
    for task in _TASKS.iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            # nanoseconds on a core, nanoseconds waiting for one, turns
            total += int((task / "schedstat").read_bytes().split()[1])
    return total / 1e9


class _SpareTeam(threading.Thread):
    """A thread with a team of its own that makes OpenMP count more threads than cores, until ``over`` is set.

    Its team does nothing but sleep, and ends with the thread.
    """

    def __init__(self) -> None:
        super().__init__(name="make-way: spare team", daemon=True)
        self.over = threading.Event()

    def run(self) -> None:
        threads = torch.get_num_threads()  # here: a thread that starts has torch's latest number
        run = parallel()
        if threads > 1 and run is not None:
            nothing = ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p)  # free(NULL) does nothing
            run(nothing, None, max(2, _CORES - threads + 2), 0)
        self.over.wait()


_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""The cores that this process may use, counted like OpenMP's once, at the start."""
