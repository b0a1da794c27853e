"""Corner pooling on the CPU: one pass over memory, on as many threads as torch uses, and no compiler to install.

The loops are in ``cpu_kernels`` (numba). They run on torch's own OpenMP threads, through the library that torch has
loaded. numba's parallel layers abort in a forked child or on concurrent calls, and ignore torch's thread count. Threads
of our own would wait for a core, because OpenMP's keep spinning for milliseconds after every operation of torch (tried:
at [1, 128, 128, 128], alternating with additions, two such threads were no faster than one). A forked child uses one
thread, because OpenMP does not survive a fork. So does a torch that was built without OpenMP.

Backward follows records, two bits per element that forward writes, and does not need the inputs. Measured on two cores
(Sapphire Rapids, float32, one thread, forward + backward, in units of three additions; the interquartile range is
below 0.1): [1, 128, 128, 128] contiguous 0.80, against 1.3 if backward scans the inputs again; [4, 128, 128, 128]
channels_last 1.01 against 1.39. Writing the records costs forward 0 to 5%, and autograd keeps a sixteenth of the size
of the two inputs instead of the inputs. (An int8 or int16 index map would be four to eight times as large.)
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import openmp, ops
from .contract import AXIS_AND_REVERSED, DIRECTIONS_OF
from .layout import memory_format_of

__all__ = [
    "corner_backward",
    "corner_forward",
    "corner_records",
    "on_threads",
    "pool_backward",
    "pool_forward",
    "pool_records",
    "threads_to_use",
    "why_unavailable",
]

_LANES = 16
_CACHE_LINE = 64
_VERTICAL, _HORIZONTAL, _BOTH = 1, 2, 3

# The share of a row's memory traffic that a band repeats to replay the vertical scan: one map of two, none, or one of
# three. At [1, 128, 128, 128] float32 on two cores, two such bands take 1.5 times as long as an addition; shares from
# 0.15 to 0.5 differ by a tenth. Alternatives were not better. Threads that share rows and split channels prefetch each
# other's memory: 3.3 times, slower than one thread. Tiles that continue each other's scans, without replay: 1.5 to 1.6.
_REPLAY_SHARE = {_VERTICAL: 1 / 2, _HORIZONTAL: 0.0, _BOTH: 1 / 3}

# A band shorter than this fraction of the first is not worth a thread: it would replay nearly all of the image.
_SHORTEST_BAND = 0.05

# Tensors with fewer elements are pooled in the calling thread only, as torch does in its own operations.
_SHARED_FROM = 1 << 15


@functools.cache
def why_unavailable() -> str | None:
    """Return None if numba can be imported, otherwise the reason."""
    try:
        from . import cpu_kernels  # noqa: F401
    except ImportError as error:
        return f"it needs numba and llvmlite, which cannot be imported ({error}); pip install 'numba>=0.61'"
    return None


# ------------------------------------------------------------------------------------ the functions for kernels.ops
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
def _forward(inputs: tuple[Tensor, Tensor], reverse: bool, parts: int, records: tuple[Tensor, Tensor] | None) -> Tensor:
    result = torch.empty_like(inputs[0])
    _run("forward", (*inputs, result), records, reverse, parts)
    return result


def _backward(
    grad: Tensor, grads: tuple[Tensor, Tensor], reverse: bool, parts: int, records: tuple[Tensor, Tensor]
) -> None:
    _run("backward", (grad, *grads), records, reverse, parts)


def _run(
    mode: str,
    tensors: tuple[Tensor, Tensor, Tensor],
    records: tuple[Tensor, Tensor] | None,
    reverse: bool,
    parts: int,
) -> None:
    """Run the loops over all units of work: planes, or bands of rows of a channels_last image."""
    like = tensors[0]
    images, channels, height, width = like.shape
    threads = threads_to_use() if like.numel() >= _SHARED_FROM else 1
    channels_last = memory_format_of(like) == torch.channels_last
    starts: tuple[int, ...] = (0, height)
    if channels_last:
        # images are cut into bands only if there are more threads than images
        starts = band_starts(height, -(-threads // images), _REPLAY_SHARE[parts])
        units, scratch_size = images * (len(starts) - 1), (width + 1) * -(-channels // _LANES) * _LANES
    else:
        units, scratch_size = images * channels, -(-width // _LANES) * _LANES
    # bytes per thread, and a gap, because two threads that write to one cache line wait for each other
    scratch_size = scratch_size * (8 if like.dtype == torch.float64 else 4) + 256
    # more pieces than threads, so that a delayed thread takes fewer
    pieces = min(units, 6 * threads) if threads > 1 else 1
    scratch, tickets = np.empty(scratch_size * threads + _CACHE_LINE, np.uint8), np.zeros(2, np.int64)
    aligned = -(-scratch.ctypes.data // _CACHE_LINE) * _CACHE_LINE  # a vector across two cache lines costs two accesses
    limits = np.array(starts, np.int64)
    words = (0, 0) if records is None else (records[0].data_ptr(), records[1].data_ptr())
    parameters = np.array(
        (
            *(tensor.data_ptr() for tensor in tensors), *words, aligned, scratch_size,
            tickets.ctypes.data, pieces, units, height, width, channels, len(starts) - 1,
            limits.ctypes.data, reverse, parts, records is not None,
        ),
        np.int64,
    )  # fmt: skip
    on_threads(_function(mode, channels_last, like.dtype), parameters, threads)


@functools.lru_cache
def band_starts(height: int, bands: int, replay_share: float) -> tuple[int, ...]:
    """Cut ``height`` rows into at most ``bands`` bands of equal run time; return their first rows, and ``height``.

    A band first replays the rows before its own. A replayed row costs ``replay_share`` of an own row, so each band is
    shorter than the one before by that share. Bands without a row, or with almost nothing but replay, are left out.
    """
    lengths = [(1 - replay_share) ** band for band in range(min(bands, height))]
    ends = np.cumsum([length for length in lengths if length >= _SHORTEST_BAND])
    return tuple(sorted({0, *(round(height * end / ends[-1]) for end in ends)}))


@functools.cache
def _function(mode: str, channels_last: bool, dtype: torch.dtype) -> int:
    """Return the address of the C function for a layout and ``dtype``."""
    from . import cpu_kernels

    address: int = cpu_kernels.entry(mode, channels_last, str(dtype).removeprefix("torch.")).address
    return address


@functools.cache
def _as_c(function: int) -> Any:
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(function)


# --------------------------------------------------------------------------------------------------------- threads
def threads_to_use() -> int:
    """Return the number of threads for the loops: torch's, or 1 if its OpenMP library cannot be used."""
    return 1 if openmp.parallel() is None else torch.get_num_threads()


def on_threads(function: int, parameters: NDArray[np.int64], threads: int) -> None:
    """Call the C function ``void(int64 *)`` at an address with ``parameters``, on several threads at the same time.

    The threads share the work among themselves, with tickets. One thread needs no OpenMP.
    """
    run = openmp.parallel()
    if threads == 1 or run is None:
        _as_c(function)(parameters.ctypes.data)
    else:
        run(function, parameters.ctypes.data, threads, 0)
