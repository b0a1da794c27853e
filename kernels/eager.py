"""Corner pooling as a loop over slices, in plain differentiable torch: runs wherever torch runs.

As in the authors' code, the scan starts on the side where the running maximum starts. A later value replaces the
maximum only if it is greater, so the first of equal values keeps the gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .contract import AXIS_AND_REVERSED, DIRECTIONS_OF
from .layout import memory_format_of, widened

__all__ = ["corner_pool", "directional_max_pool", "why_unavailable"]


def why_unavailable() -> str | None:
    """Return None: it runs everywhere."""
    return None


def directional_max_pool(x: Tensor, direction: str) -> Tensor:
    """Return the running maximum of ``x`` [N, C, H, W]; see ``kernels.directional_max_pool``."""
    axis, reverse = AXIS_AND_REVERSED[direction]
    slices = list(widened(x).unbind(axis))
    if reverse:
        slices.reverse()
    for i in range(1, len(slices)):
        best, new = slices[i - 1], slices[i]
        # comparisons with NaN are false: a NaN in `best` stays, and one in `new` is taken
        slices[i] = torch.where((best >= new) | best.isnan(), best, new)
    if reverse:
        slices.reverse()
    if not slices:
        return x.clone(memory_format=memory_format_of(x))
    return torch.stack(slices, axis).to(x.dtype).contiguous(memory_format=memory_format_of(x))


def corner_pool(vertical: Tensor, horizontal: Tensor, corner: str) -> Tensor:
    """Return the sum of the two pools [N, C, H, W]; see ``kernels.corner_pool``."""
    down, across = DIRECTIONS_OF[corner]
    result = directional_max_pool(vertical, down) + directional_max_pool(horizontal, across)
    return result.contiguous(memory_format=memory_format_of(vertical))
