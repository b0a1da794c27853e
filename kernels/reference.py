"""Corner pooling by its definition, by brute force: the oracle of the tests, slow on purpose.

Each output position looks at all of its candidates again, in scan order. It keeps no running maximum, so it shares no
code and no method with the implementations that it checks. Autograd passes through the selection: each position's
gradient goes to the one selected element, and sums are accumulated in float64 before they are rounded.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .contract import AXIS_AND_REVERSED, DIRECTIONS_OF
from .layout import memory_format_of

__all__ = ["corner_pool", "directional_max_pool", "selected_index", "why_not", "why_unavailable"]


def why_unavailable() -> str | None:
    """Return None: it runs everywhere."""
    return None


def why_not(device_type: str, auto: bool) -> str | None:  # noqa: ARG001 - as every row's
    """Return a reason on the device meta, whose tensors have no values to look at."""
    return "it reads values, and tensors on meta have none" if device_type == "meta" else None


def _first_maximum(values: list[float], order: range) -> int:
    """Return the index of the first maximum of ``values`` in ``order``; NaN is greater than everything."""
    for i in order:
        if math.isnan(values[i]):
            return i
    largest = max(values[i] for i in order)
    return next(i for i in order if values[i] == largest)


def selected_index(x: Tensor, direction: str) -> Tensor:
    """Return the int64 index along the scan's axis that each position of ``x`` [N, C, H, W] selects."""
    axis, reverse = AXIS_AND_REVERSED[direction]
    lines = x.detach().movedim(axis, -1)
    size = lines.shape[-1]
    rows = lines.reshape(-1, size).double().tolist() if x.numel() else []
    picked = [
        [_first_maximum(row, range(size - 1, i - 1, -1) if reverse else range(i + 1)) for i in range(size)]
        for row in rows
    ]
    index = torch.tensor(picked, dtype=torch.int64, device=x.device).reshape(lines.shape)
    return index.movedim(-1, axis)


class _Select(torch.autograd.Function):
    """Take ``x`` at ``index`` along ``axis``; the gradient is summed in float64 and rounded once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, axis: int) -> Tensor:
        ctx.save_for_backward(index)
        ctx.axis = axis
        return x.gather(axis, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return _Spread.apply(grads[0], index, ctx.axis), None, None  # type: ignore[no-untyped-call]


class _Spread(torch.autograd.Function):
    """The transpose of :class:`_Select`, which makes second derivatives correct."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, index: Tensor, axis: int) -> Tensor:
        ctx.save_for_backward(index)
        ctx.axis = axis
        wide = torch.zeros(grad.shape, dtype=torch.float64, device=grad.device)
        return wide.scatter_add(axis, index, grad.double()).to(grad.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return _Select.apply(grads[0], index, ctx.axis), None, None  # type: ignore[no-untyped-call]


def directional_max_pool(x: Tensor, direction: str) -> Tensor:
    """Return the maximum over each position's candidates [N, C, H, W]; see ``kernels.directional_max_pool``."""
    axis, _ = AXIS_AND_REVERSED[direction]
    result: Tensor = _Select.apply(x, selected_index(x, direction), axis)  # type: ignore[no-untyped-call]
    return result.contiguous(memory_format=memory_format_of(x))


def corner_pool(vertical: Tensor, horizontal: Tensor, corner: str) -> Tensor:
    """Return the sum of the two pools [N, C, H, W]; see ``kernels.corner_pool``."""
    down, across = DIRECTIONS_OF[corner]
    result = directional_max_pool(vertical, down) + directional_max_pool(horizontal, across)
    return result.contiguous(memory_format=memory_format_of(vertical))
