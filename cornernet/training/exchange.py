"""Rows of numbers that the replicas of a training exchange, through shared memory and pipes.

An exchange happens some hundred times in a step, and each one waits for the slowest replica. Where cores are free, the
replicas reach it within microseconds of each other, so a replica that waits first looks for some time, letting others
run in between. After that it sleeps until the pipe wakes it: on a busy machine a replica that kept looking would take
the core that the others need. A pipe also tells at once, and without a timeout, that the process at its other end has
died, in whatever way.
"""

from __future__ import annotations

import mmap
import os
import select
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from multiprocessing.reduction import DupFd
from typing import Any

import torch
from torch import Tensor

from cornernet.data.shared import anonymous_memory

__all__ = ["Exchange", "ReplicaGone", "SharedFloats", "pipes"]

_LOOKING = 200e-6
"""Seconds that a waiting replica looks before it sleeps: about twice what a process that slept takes to go on."""

_ALIGNED = 64
"""Bytes of a cache line: two replicas never write to the same one."""


class ReplicaGone(Exception):
    """The process of another replica has ended. The argument is its number."""

    @property
    def rank(self) -> int:
        """The number of the replica."""
        return int(self.args[0])


class SharedFloats:
    """Memory for numbers that several processes read and write. Pickled to a child process, it is the same memory.

    It has no name in the file system, disappears with the last process that has it, and is zero at first.
    """

    def __init__(self, nbytes: int) -> None:
        self._attach(anonymous_memory("cornernet-replicas", max(nbytes, 1)))

    def _attach(self, handle: int) -> None:
        self._handle = handle
        self._block = mmap.mmap(handle, 0)

    def tensor(self, dtype: torch.dtype, start: int, count: int) -> Tensor:
        """Return ``count`` numbers from byte ``start`` on, as a vector in this memory."""
        return torch.frombuffer(self._block, dtype=dtype, count=count, offset=start)

    def __del__(self) -> None:
        handle, self._handle = getattr(self, "_handle", -1), -1
        if handle >= 0:
            os.close(handle)

    def __reduce__(self) -> tuple[Any, ...]:
        return _attached, (DupFd(self._handle),)


def _attached(handle: Any) -> SharedFloats:
    shared = SharedFloats.__new__(SharedFloats)
    shared._attach(handle.detach())
    return shared


def pipes(context: SpawnContext, count: int) -> list[tuple[dict[int, Connection], dict[int, Connection]]]:
    """Return, for each of ``count`` replicas, the pipes from and to each of the others, by their numbers."""
    ends: list[tuple[dict[int, Connection], dict[int, Connection]]] = [({}, {}) for _ in range(count)]
    for source in range(count):
        for target in range(count):
            if source != target:
                ends[target][0][source], ends[source][1][target] = context.Pipe(duplex=False)
    return ends


class Exchange:
    """Gives every replica the rows of all of them, in the order of the replicas.

    Called with this replica's rows, it returns when every replica has called it, so it is a barrier too. Raises
    :class:`ReplicaGone` when another replica's process has ended.
    """

    def __init__(
        self,
        rank: int,
        memory: SharedFloats,
        capacity: int,
        sources: Mapping[int, Connection],
        targets: Mapping[int, Connection],
    ) -> None:
        self.rank, self.count = rank, len(sources) + 1
        self.capacity = capacity
        """The most numbers that a replica gives."""
        stride = exchange_bytes(1, capacity) // 16
        # arrays of numpy, whose small copies take a third of the time of torch's
        numbers = memory.tensor(torch.float64, 0, 2 * self.count * stride).numpy()
        # two, in turn: no replica writes rows of the next exchange over those that another still reads
        self._slots = numbers.reshape(2, self.count, stride)
        self._ends = (*sources.values(), *targets.values())
        self._sources = {end.fileno(): peer for peer, end in sources.items()}
        self._targets = {end.fileno(): peer for peer, end in targets.items()}
        for file in self._sources:
            os.set_blocking(file, False)
        self._turn = 0
        self._looks = True

    def __call__(self, own: Tensor) -> Tensor:
        """Return the rows of all replicas [count * n, ...] from the rows [n, ...] of each. Both are float64.

        Every replica must give the same number of rows, at most :attr:`capacity` numbers.
        """
        size = own.numel()
        if own.dtype != torch.float64 or size > self.capacity:
            raise ValueError(f"{size} numbers of {own.dtype} were given; use up to {self.capacity} of torch.float64")
        slots = self._slots[self._turn]
        slots[self.rank, :size] = own.numpy().reshape(-1)
        self._turn = 1 - self._turn
        self._meet()
        # a copy: the next exchange but one writes over the rows
        return torch.from_numpy(slots[:, :size].copy().reshape(self.count * own.shape[0], *own.shape[1:]))

    def close(self) -> None:
        """Close the pipes, from which the other replicas learn that this one has ended."""
        for end in self._ends:
            end.close()

    def _meet(self) -> None:
        """Tell every other replica that this one is here, and wait until all are."""
        # every message is one byte, and a pipe holds thousands: writing never waits, and orders the memory written
        for file, peer in self._targets.items():
            try:
                os.write(file, b"\0")
            except BrokenPipeError:
                raise ReplicaGone(peer) from None
        waiting = dict(self._sources)
        self._read(waiting)
        if not waiting:
            return
        if self._looks:
            end = time.perf_counter() + _LOOKING
            while waiting and time.perf_counter() < end:
                os.sched_yield()
                self._read(waiting)
        began = time.perf_counter()
        for file in list(waiting):
            sleeper = select.poll()
            sleeper.register(file, select.POLLIN)
            while file in waiting:
                sleeper.poll()
                self._read(waiting)
        # a replica that took long had no core, and looking for it takes time from whoever has it
        self._looks = time.perf_counter() - began < 10 * _LOOKING

    def _read(self, waiting: dict[int, int]) -> None:
        """Take out of ``waiting`` the replicas that are here."""
        for file, peer in list(waiting.items()):
            try:
                found = os.read(file, 1)
            except BlockingIOError:
                continue
            if not found:
                raise ReplicaGone(peer)
            del waiting[file]


def exchange_bytes(count: int, capacity: int) -> int:
    """Return the bytes of memory that ``count`` replicas need to exchange up to ``capacity`` numbers each."""
    return 2 * count * -(-capacity * 8 // _ALIGNED) * _ALIGNED
