"""Lets Triton's interpreter apply a scan's or reduction's function to whole slices, where it goes element by element.

The interpreter calls the combining function once for each element, some tenths of a millisecond each. This calls it
once for each position along the axis, on all lines together: the same function, in the same order, on the same values.
Call :func:`install` before a kernel runs; it does nothing to compiled kernels. tests/unit/kernels/test_triton_pool.py
holds that results are those of the interpreter as it comes.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def _scan(operation: Any, inputs: tuple[Any, ...]) -> list[Any]:
    """Return the running combination of ``inputs`` along the operation's axis."""
    arrays = [np.moveaxis(tensor.handle.data, operation.axis, 0) for tensor in inputs]
    results = [np.empty_like(array) for array in arrays]
    running: tuple[Any, ...] = ()
    for i in range(arrays[0].shape[0]):
        here = [operation.to_tensor(array[i], tensor.dtype) for array, tensor in zip(arrays, inputs, strict=True)]
        combined = operation.combine_fn.fn(*running, *here) if i else tuple(here)
        running = combined if isinstance(combined, tuple) else (combined,)
        for result, value in zip(results, running, strict=True):
            result[i] = value.handle.data.reshape(result[i].shape)
    moved = (np.moveaxis(result, 0, operation.axis) for result in results)
    return [operation.to_tensor(array, tensor.dtype) for array, tensor in zip(moved, inputs, strict=True)]


def _reduce(operation: Any, inputs: tuple[Any, ...]) -> list[Any]:
    if operation.axis is None or operation.keep_dims:
        result: list[Any] = _ORIGINAL["reduce"](operation, inputs)
        return result
    last = (np.take(tensor.handle.data, -1, axis=operation.axis) for tensor in _scan(operation, inputs))
    return [operation.to_tensor(array, tensor.dtype) for array, tensor in zip(last, inputs, strict=True)]


_ORIGINAL: dict[str, Any] = {}


def install() -> None:
    """Replace the interpreter's generic scan and reduction."""
    from triton.runtime import interpreter

    if not _ORIGINAL:
        _ORIGINAL["scan"] = interpreter.ScanOps.generic_scan
        _ORIGINAL["reduce"] = interpreter.ReduceOps.generic_reduce
    interpreter.ScanOps.generic_scan = _scan
    interpreter.ReduceOps.generic_reduce = _reduce


def uninstall() -> None:
    """Give the interpreter back its own."""
    from triton.runtime import interpreter

    if _ORIGINAL:
        interpreter.ScanOps.generic_scan = _ORIGINAL["scan"]
        interpreter.ReduceOps.generic_reduce = _ORIGINAL["reduce"]
