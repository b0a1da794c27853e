"""Objects whose arrays child processes map instead of copying, and strings stored in one array.

A spawned loader process receives its data set pickled. The arrays are put once into a block of anonymous memory, which
every process maps, so that a worker costs the same memory for a thousand boxes as for a million. Strings are stored as
one array of UTF-8 for the same reason: every process would build its own list of Python strings.
"""

from __future__ import annotations

import mmap
import multiprocessing.context
import os
import pickle
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.reduction import DupFd
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

__all__ = ["SharedState", "Texts", "anonymous_memory", "spawning"]

_ALIGNED = 64


class Texts(Sequence[str]):
    """Strings in two arrays: their concatenated UTF-8, and the end of each."""

    def __init__(self, content: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self.content = content
        self.ends = ends

    @staticmethod
    def of(texts: Iterable[str]) -> Texts:
        """Return strings packed. Raises ``UnicodeEncodeError`` for one that is not valid Unicode (a lone surrogate)."""
        parts = [text.encode() for text in texts]
        content = np.frombuffer(b"".join(parts), np.uint8)
        return Texts(content, np.cumsum([len(part) for part in parts], dtype=np.int64))

    def take(self, rows: NDArray[np.int64]) -> Texts:
        """Return the strings at the indices ``rows``."""
        return self if len(rows) == len(self) else Texts.of(self[int(row)] for row in rows)

    def __iter__(self) -> Iterator[str]:
        content, start = self.content.tobytes(), 0
        for end in self.ends.tolist():
            yield content[start:end].decode()
            start = end

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        start = int(self.ends[at - 1]) if at else 0
        return self.content[start : int(self.ends[at])].tobytes().decode()


def spawning() -> bool:
    """Return whether the current pickling is for a child process being spawned."""
    return multiprocessing.context.get_spawning_popen() is not None


class SharedState:
    """An object's state, with its arrays in one read-only block of memory that child processes map.

    The block is anonymous memory (``memfd_create``), to which the limits on /dev/shm in containers do not apply, or an
    unlinked temporary file where the system has no such call. It disappears with the last process that maps it.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        buffers: list[pickle.PickleBuffer] = []
        self._pickled = pickle.dumps(state, protocol=5, buffer_callback=buffers.append)
        raws = [buffer.raw() for buffer in buffers]
        self._spans: list[tuple[int, int]] = []
        end = 0
        for raw in raws:
            start = -(-end // _ALIGNED) * _ALIGNED
            end = start + raw.nbytes
            self._spans.append((start, end))
        self._handle = anonymous_memory("cornernet-index", max(end, 1))
        with mmap.mmap(self._handle, max(end, 1)) as block:
            for (start, stop), raw in zip(self._spans, raws, strict=True):
                block[start:stop] = raw
        self._block = mmap.mmap(self._handle, 0, access=mmap.ACCESS_READ)

    def state(self) -> dict[str, Any]:
        """Return the state; its arrays are views of the block."""
        whole = memoryview(self._block)
        # safe to unpickle: written by this process or by the one that spawned it
        state: dict[str, Any] = pickle.loads(self._pickled, buffers=[whole[start:stop] for start, stop in self._spans])
        return state

    def __del__(self) -> None:
        handle, self._handle = getattr(self, "_handle", -1), -1
        if handle >= 0:
            os.close(handle)

    def __reduce__(self) -> tuple[Any, ...]:
        return _attached, (DupFd(self._handle), self._pickled, self._spans)


def _attached(handle: Any, pickled: bytes, spans: list[tuple[int, int]]) -> SharedState:
    shared = SharedState.__new__(SharedState)
    shared._handle = handle.detach()
    shared._pickled, shared._spans = pickled, spans
    shared._block = mmap.mmap(shared._handle, 0, access=mmap.ACCESS_READ)
    return shared


def anonymous_memory(purpose: str, size: int) -> int:
    """Return a file descriptor of ``size`` bytes of memory, all zero, that has no name in the file system.

    Listings of open files show ``purpose``.
    """
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create(purpose, os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    os.ftruncate(handle, size)
    return handle
