"""Corner pooling on the CPU: one pass over memory, on as many threads as torch uses, and no compiler to install.

The loops are in ``cpu_kernels`` (numba). This file shares the work out: numba's own parallel layers abort in a forked
child or on concurrent calls and do not know torch's thread count, so a few Python threads call the serial loops, which
release the GIL and take piece after piece from a common counter until none is left. The calling thread takes pieces
too and waits for no helper that has not started, so any number of threads may call at once.

Backward follows records, two bits per element noted during forward, and needs no input. Measured on two cores
(Sapphire Rapids, float32, one thread, forward + backward, in units of three additions; the interquartile range is
below 0.1): [1, 128, 128, 128] contiguous 0.80, against 1.3 where backward scans the inputs again; [4, 128, 128, 128]
channels_last 1.01 against 1.39. Noting the records costs forward 0 to 5%, and autograd holds a sixteenth of the two
inputs instead of the inputs. (An int8 or int16 index map would be four to eight times the size of the records.)
"""

from __future__ import annotations

import functools
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels import ops
from kernels.contract import AXIS_AND_REVERSED, DIRECTIONS_OF, memory_format_of

__all__ = [
    "corner_backward",
    "corner_forward",
    "corner_records",
    "pool_backward",
    "pool_forward",
    "pool_records",
    "why_unavailable",
]

_LANES = 16
_VERTICAL, _HORIZONTAL, _BOTH = 1, 2, 3

# fewer elements than this are pooled by the calling thread alone: waking a helper takes longer than their half
_SHARED_FROM = 1 << 19

# How often to look whether the others are done, a nanosecond each: the caller for as long as a piece may take, before
# it sleeps; a helper until the caller has gone on
_CALLER_LOOKS, _HELPER_LOOKS = 1_000_000, 20_000


@functools.cache
def why_unavailable() -> str | None:
    """Return None where numba can be imported, or why not."""
    try:
        import kernels.cpu_kernels  # noqa: F401
    except ImportError as error:
        return f"it needs numba and llvmlite, which cannot be imported ({error}); pip install 'numba>=0.61'"
    return None


# ------------------------------------------------------------------------------------------- what kernels.ops calls
def pool_forward(x: Tensor, direction: str) -> Tensor:
    """Return the pool of a dense ``x``."""
    axis, reverse = AXIS_AND_REVERSED[direction]
    return _forward((x, x), reverse, _VERTICAL if axis == 2 else _HORIZONTAL, None)


def pool_records(x: Tensor, direction: str) -> tuple[Tensor, Tensor]:
    """Return the pool of a dense ``x`` and the records that its backward needs."""
    axis, reverse = AXIS_AND_REVERSED[direction]
    records = torch.empty(ops.records_shape(x), dtype=torch.int16)
    return _forward((x, x), reverse, _VERTICAL if axis == 2 else _HORIZONTAL, (records, records)), records


def pool_backward(grad: Tensor, records: Tensor, direction: str) -> Tensor:
    """Return the gradient of the pool's input."""
    axis, reverse = AXIS_AND_REVERSED[direction]
    grad_x = torch.empty_like(grad)
    _backward(grad, (grad_x, grad_x), reverse, _VERTICAL if axis == 2 else _HORIZONTAL, (records, records))
    return grad_x


def corner_forward(vertical: Tensor, horizontal: Tensor, corner: str) -> Tensor:
    """Return the fused sum of the pools of dense tensors."""
    return _forward((vertical, horizontal), _is_reversed(corner), _BOTH, None)


def corner_records(vertical: Tensor, horizontal: Tensor, corner: str) -> tuple[Tensor, Tensor]:
    """Return the fused sum of the pools of dense tensors and the records [2, ...] that its backward needs."""
    records = torch.empty((2, *ops.records_shape(vertical)), dtype=torch.int16)
    return _forward((vertical, horizontal), _is_reversed(corner), _BOTH, (records[0], records[1])), records


def corner_backward(grad: Tensor, records: Tensor, corner: str) -> tuple[Tensor, Tensor]:
    """Return the gradients of both inputs of the fused sum."""
    grads = torch.empty_like(grad), torch.empty_like(grad)
    _backward(grad, grads, _is_reversed(corner), _BOTH, (records[0], records[1]))
    return grads


def _is_reversed(corner: str) -> bool:
    return AXIS_AND_REVERSED[DIRECTIONS_OF[corner][0]][1]


# ------------------------------------------------------------------------------------------------ calling the loops
def _flat(x: Tensor, channels_last: bool) -> Any:
    """Return the memory of a dense tensor as a flat array; 16-bit floats as the integers cpu_kernels knows them by."""
    if x.dtype == torch.float16:
        x = x.view(torch.int16)
    elif x.dtype == torch.bfloat16:
        x = x.view(torch.uint16)
    if channels_last:
        x = x.permute(0, 2, 3, 1)
    return x.view(-1).numpy()


_NO_WORDS = np.empty(1, np.uint16)


def _words(records: tuple[Tensor, Tensor] | None) -> tuple[Any, Any]:
    if records is None:
        return _NO_WORDS, _NO_WORDS
    down, across = (record.view(torch.uint16).view(-1).numpy() for record in records)
    return down, across


def _forward(inputs: tuple[Tensor, Tensor], reverse: bool, parts: int, records: tuple[Tensor, Tensor] | None) -> Tensor:
    from kernels import cpu_kernels

    result = torch.empty_like(inputs[0])
    loops = cpu_kernels.rows_forward, cpu_kernels.channels_forward
    _run(loops, (*inputs, result), records, (reverse, parts, records is not None))
    return result


def _backward(
    grad: Tensor, grads: tuple[Tensor, Tensor], reverse: bool, parts: int, records: tuple[Tensor, Tensor]
) -> None:
    from kernels import cpu_kernels

    _run((cpu_kernels.rows_backward, cpu_kernels.channels_backward), (grad, *grads), records, (reverse, parts))


def _run(
    loops: tuple[Any, Any],
    tensors: tuple[Tensor, Tensor, Tensor],
    records: tuple[Tensor, Tensor] | None,
    options: tuple[Any, ...],
) -> None:
    """Run one of the loops, for contiguous tensors or for channels_last ones, over all of its units of work."""
    like = tensors[0]
    images, channels, height, width = like.shape
    threads = torch.get_num_threads() if like.numel() >= _SHARED_FROM else 1
    channels_last = memory_format_of(like) == torch.channels_last
    arrays = *(_flat(tensor, channels_last) for tensor in tensors), *_words(records)
    sizes: tuple[int, ...]
    if channels_last:
        loop, lanes = loops[1], -(-channels // _LANES)
        # blocks of channels, only as many as keep every thread busy: long runs of memory are read faster
        blocks = min(lanes, -(-threads // images))
        units, sizes = images * blocks, (height, width, channels, blocks)
        scratch_size = (width + 1) * -(-lanes // blocks) * _LANES
    else:
        loop, units, sizes = loops[0], images * channels, (height, width)
        scratch_size = -(-width // _LANES) * _LANES
    wide = np.float64 if like.dtype == torch.float64 else np.float32

    # more pieces than threads: a thread that was delayed takes fewer
    pieces = min(units, 6 * threads) if threads > 1 else 1
    tickets = np.zeros(2, np.int64)

    def take_part(looks: int) -> None:
        loop(*arrays, np.empty(scratch_size, wide), tickets, pieces, looks, units, *sizes, *options)

    _helpers.call(take_part, min(threads, pieces) - 1)
    take_part(0)
    _wait(tickets, pieces)


# --------------------------------------------------------------------------------------------------------- threads
class _Helpers:
    """The threads that lend a hand, started when first needed and anew in a forked child, which inherits none."""

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        self.lock, self.count = threading.Lock(), 0
        self.calls: queue.SimpleQueue[Callable[[int], None]] = queue.SimpleQueue()

    def call(self, take_part: Callable[[int], None], times: int) -> None:
        if self.count < times:
            with self.lock:
                while self.count < times:
                    name = f"corner-pool-{self.count}"
                    threading.Thread(target=self._serve, args=(self.calls,), name=name, daemon=True).start()
                    self.count += 1
        for _ in range(times):
            self.calls.put(take_part)

    @staticmethod
    def _serve(calls: queue.SimpleQueue[Callable[[int], None]]) -> None:
        while True:
            calls.get()(_HELPER_LOOKS)


_helpers = _Helpers()


def _wait(tickets: Any, pieces: int) -> None:
    """Wait for the pieces that helpers still work on, at most one each."""
    from kernels import cpu_kernels

    # looking sees the end at once, where waking up costs 40 to 90 microseconds; but not for ever: on a busy machine a
    # helper may have lost its core to someone, perhaps to this very loop
    while not cpu_kernels.all_done(tickets, pieces, _CALLER_LOOKS):
        time.sleep(50e-6)
