"""Corner pooling as flip, torch.cummax, flip, which is how mmcv does it; for comparison.

Forward is the same as in every other implementation. Backward is not: of equal values, ``torch.cummax`` gives the
gradient to the last in scan order, the authors' code to the first. So ``impl="auto"`` never picks it.
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
    wide = widened(x)
    result = torch.cummax(wide.flip(axis), axis).values.flip(axis) if reverse else torch.cummax(wide, axis).values
    return result.to(x.dtype).contiguous(memory_format=memory_format_of(x))


def corner_pool(vertical: Tensor, horizontal: Tensor, corner: str) -> Tensor:
    """Return the sum of the two pools [N, C, H, W]; see ``kernels.corner_pool``."""
    down, across = DIRECTIONS_OF[corner]
    result = directional_max_pool(vertical, down) + directional_max_pool(horizontal, across)
    return result.contiguous(memory_format=memory_format_of(vertical))
