"""Corner pooling in log2(n) steps, in plain differentiable torch: the implementation for export.

After step k every position holds the maximum of the 2^k positions up to itself (Hillis and Steele's scan). A line of n
takes ceil(log2(n)) steps, against n - 1 in a loop over slices. It only pads, slices, compares and selects, so it needs
no custom operator and can be exported with dynamic sizes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from .contract import AXIS_AND_REVERSED, DIRECTIONS_OF
from .layout import memory_format_of, widened

__all__ = ["LONGEST_EXPORTED", "corner_pool", "directional_max_pool", "why_unavailable"]

# An exported graph has a fixed number of steps for all sizes. A loop that depends on the size would limit the graph to
# sizes that need the same number of steps. 12 steps are enough for maps of 4096 cells: images of 16384 pixels.
_EXPORTED_STEPS = 12
LONGEST_EXPORTED = 2**_EXPORTED_STEPS


def why_unavailable() -> str | None:
    """Return None: it runs everywhere."""
    return None


def directional_max_pool(x: Tensor, direction: str) -> Tensor:
    """Return the running maximum of ``x`` [N, C, H, W]; see ``kernels.directional_max_pool``.

    A graph exported with dynamic sizes supports lines of up to ``LONGEST_EXPORTED`` positions, and checks that.
    """
    axis, reverse = AXIS_AND_REVERSED[direction]
    size = x.shape[axis]
    result, by = widened(x), 1
    if torch.compiler.is_exporting():
        torch._check(size <= LONGEST_EXPORTED)  # type: ignore[no-untyped-call]
        for step in range(_EXPORTED_STEPS):
            result = _step(result, axis, reverse, 2**step)
    else:
        while by < size:
            result = _step(result, axis, reverse, by)
            by *= 2
    result = result.to(x.dtype).contiguous(memory_format=memory_format_of(x))
    return result if result is not x else x.clone()


def _step(x: Tensor, axis: int, reverse: bool, by: int) -> Tensor:
    """Return the maximum of each position of ``x`` and the position ``by`` earlier in the scan, if there is one."""
    size = x.shape[axis]
    before, after = (0, by) if reverse else (by, 0)
    padded = pad(x, (0, 0, before, after) if axis == 2 else (before, after))
    earlier = padded.narrow(axis, by if reverse else 0, size)
    position = torch.arange(size, device=x.device).view((-1, 1) if axis == 2 else (-1,))
    exists = position + by < size if reverse else position >= by
    # of equal values the earlier keeps the gradient; comparisons with NaN are false, so NaN stays
    return torch.where(((earlier >= x) | earlier.isnan()) & exists, earlier, x)


def corner_pool(vertical: Tensor, horizontal: Tensor, corner: str) -> Tensor:
    """Return the sum of the two pools [N, C, H, W]; see ``kernels.corner_pool``."""
    down, across = DIRECTIONS_OF[corner]
    result = directional_max_pool(vertical, down) + directional_max_pool(horizontal, across)
    return result.contiguous(memory_format=memory_format_of(vertical))
