"""The public functions: corner pooling under one contract for all implementations.

The contract (CornerNet, section 3.3, in exact terms):

* ``top: out[.., i, j] = max(x[.., i:, j])``, ``bottom: max(x[.., :i+1, j])``, ``left: max(x[.., i, j:])``,
  ``right: max(x[.., i, :j+1])``.
* Values are selected, never computed; the fused sum is one addition in the input's dtype.
* NaN wins and stays. Of equal values, the first in scan order is the maximum and gets the whole gradient. ``top`` scans
  from the bottom row up, ``left`` from the right column to the left, as in the authors' code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import registry
from .contract import AXIS_AND_REVERSED, DIRECTIONS_OF, FLOATS, Corner, Direction

__all__ = ["Corner", "Direction", "corner_pool", "directional_max_pool", "implementations"]

LARGEST_EXPANDED = 2**34
"""Bytes of an expanded tensor after it is copied."""

_DTYPES = tuple(getattr(torch, name) for name in FLOATS)


def _check(name: str, x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, not {type(x).__name__}")
    if x.is_nested or x.layout != torch.strided:
        kind = "nested" if x.is_nested else str(x.layout).removeprefix("torch.")
        raise TypeError(f"{name} must be a dense tensor, not {kind}; convert it first")
    if x.dim() != 4:
        raise ValueError(f"{name} must have 4 dimensions [N, C, H, W], not shape {list(x.shape)}")
    if x.dtype not in _DTYPES:
        raise TypeError(f"{name} must be one of {', '.join(FLOATS)}, not {str(x.dtype).removeprefix('torch.')}")
    _check_size(name, x)


def _check_size(name: str, x: Tensor) -> None:
    """Raise ``ValueError`` for a huge expanded tensor: it takes no memory itself, and its pool would take it all."""
    if torch.compiler.is_compiling() or x.device.type == "meta" or type(x.numel()) is not int:
        return
    needed = x.numel() * x.element_size()
    if needed > LARGEST_EXPANDED and needed > x.untyped_storage().nbytes():
        raise ValueError(
            f"{name} is expanded to shape {list(x.shape)}, and its pool would take {needed:,} bytes; for tensors that "
            f"repeat their memory the limit is {LARGEST_EXPANDED:,}"
        )


def directional_max_pool(x: Tensor, direction: Direction, impl: str = "auto") -> Tensor:
    """Return the running maximum of ``x`` [N, C, H, W] in one direction, with its shape and dtype.

    ``direction`` is top, bottom, left or right, the side that the maximum runs towards. ``impl`` is a name from
    :func:`implementations`, or 'auto' for the fastest that supports ``x``. The result is channels_last if ``x`` is,
    otherwise contiguous. Raises ``ValueError`` or ``TypeError`` for wrong arguments, and ``UnavailableError`` if the
    named implementation does not support ``x`` or cannot run on this machine. CornerNet, section 3.3.
    """
    _check("x", x)
    if direction not in AXIS_AND_REVERSED:
        raise ValueError(f"direction must be one of {', '.join(AXIS_AND_REVERSED)}, not {direction!r}")
    result: Tensor = registry.choose(impl, x.device.type, x.dtype).directional_max_pool(x, direction)
    return result


def corner_pool(vertical: Tensor, horizontal: Tensor, corner: Corner, impl: str = "auto") -> Tensor:
    """Return corner pooling: the vertical pool of one map plus the horizontal pool of another [N, C, H, W].

    ``corner`` is top_left (top of ``vertical`` + left of ``horizontal``) or bottom_right (bottom + right). Both inputs
    have the same shape, dtype and device; under autocast, which can mix dtypes, both are converted to the wider dtype.
    The result has the layout of ``vertical``. ``impl`` and errors are as in :func:`directional_max_pool`.
    CornerNet, section 3.3, equations 6 and 7 and figure 6.
    """
    _check("vertical", vertical)
    _check("horizontal", horizontal)
    if corner not in DIRECTIONS_OF:
        raise ValueError(f"corner must be one of {', '.join(DIRECTIONS_OF)}, not {corner!r}")
    if vertical.dtype != horizontal.dtype and torch.is_autocast_enabled(vertical.device.type):
        wider = torch.promote_types(vertical.dtype, horizontal.dtype)
        vertical, horizontal = vertical.to(wider), horizontal.to(wider)
    for what in ("shape", "dtype", "device"):
        a, b = getattr(vertical, what), getattr(horizontal, what)
        if a != b:
            raise ValueError(f"vertical and horizontal must have the same {what}, not {a} and {b}")
    chosen = registry.choose(impl, vertical.device.type, vertical.dtype)
    result: Tensor = chosen.corner_pool(vertical, horizontal, corner)
    return result


def implementations() -> list[dict[str, Any]]:
    """Return a row per implementation: name, devices, dtypes, available, reason (if not available), note."""
    rows = []
    for row in registry.ROWS:
        reason = row.why_unavailable()
        rows.append(
            {
                "name": row.name,
                "devices": row.devices,
                "dtypes": row.dtypes,
                "available": reason is None,
                "reason": reason or "",
                "note": row.note,
            }
        )
    return rows
