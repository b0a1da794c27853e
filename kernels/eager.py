"""Corner pooling as a loop over slices of plain differentiable torch: runs wherever torch runs.

The scan goes as in the authors' code, from the side where the running maximum starts; a later value replaces the
maximum only when it is strictly greater, so that the first among equals keeps the gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["corner_pool", "directional_max_pool", "why_unavailable"]

_AXIS_AND_REVERSED = {"top": (2, True), "bottom": (2, False), "left": (3, True), "right": (3, False)}


def why_unavailable() -> str | None:
    """Return None: it runs everywhere."""
    return None


def directional_max_pool(x: Tensor, direction: str) -> Tensor:
    """Return the running maximum of ``x`` [N, C, H, W]; see ``kernels.directional_max_pool``."""
    axis, reverse = _AXIS_AND_REVERSED[direction]
    slices = list(x.unbind(axis))
    if reverse:
        slices.reverse()
    for i in range(1, len(slices)):
        best, new = slices[i - 1], slices[i]
        # NaN compares false with everything: this keeps a NaN once met and takes a new one
        slices[i] = torch.where((best >= new) | best.isnan(), best, new)
    if reverse:
        slices.reverse()
    memory_format = _memory_format(x)
    if not slices:
        return x.clone(memory_format=memory_format)
    return torch.stack(slices, axis).contiguous(memory_format=memory_format)


def corner_pool(vertical: Tensor, horizontal: Tensor, corner: str) -> Tensor:
    """Return the sum of the two pools [N, C, H, W]; see ``kernels.corner_pool``."""
    down, across = ("top", "left") if corner == "top_left" else ("bottom", "right")
    return directional_max_pool(vertical, down) + directional_max_pool(horizontal, across)


def _memory_format(x: Tensor) -> torch.memory_format:
    """channels_last where only channels_last describes ``x``, else contiguous."""
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        return torch.channels_last
    return torch.contiguous_format
