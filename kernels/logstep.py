"""Corner pooling in log2(n) steps of plain differentiable torch: the one to export.

After step k every position holds the maximum of the 2^k positions up to itself (Hillis and Steele's scan), so a line
of n takes ceil(log2(n)) steps where the loop over slices takes n - 1. Only padding, slicing, comparing and selecting:
no custom operator, and dynamic sizes export.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from .contract import AXIS_AND_REVERSED, DIRECTIONS_OF, memory_format_of, widened

__all__ = ["LONGEST_EXPORTED", "corner_pool", "directional_max_pool", "why_unavailable"]

# An exported graph has a fixed number of steps, whatever the size: a loop that looks at the size would tie the graph
# to the range of sizes that need as many steps. 12 steps serve maps of up to 4096 cells, images of 16384 pixels.
_EXPORTED_STEPS = 12
LONGEST_EXPORTED = 2**_EXPORTED_STEPS


def why_unavailable() -> str | None:
    """Return None: it runs everywhere."""
    return None


def directional_max_pool(x: Tensor, direction: str) -> Tensor:
    """Return the running maximum of ``x`` [N, C, H, W]; see ``kernels.directional_max_pool``.

    A graph exported with dynamic sizes serves lines of up to ``LONGEST_EXPORTED``, which it checks.
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
    """Return the maximum of each position of ``x`` and the one ``by`` positions earlier in the scan, where there is."""
    size = x.shape[axis]
    before, after = (0, by) if reverse else (by, 0)
    padded = pad(x, (0, 0, before, after) if axis == 2 else (before, after))
    earlier = padded.narrow(axis, by if reverse else 0, size)
    position = torch.arange(size, device=x.device).view((-1, 1) if axis == 2 else (-1,))
    exists = position + by < size if reverse else position >= by
    # among equals the earlier keeps the gradient; a NaN compares false with everything, and stays
    return torch.where(((earlier >= x) | earlier.isnan()) & exists, earlier, x)


def corner_pool(vertical: Tensor, horizontal: Tensor, corner: str) -> Tensor:
    """Return the sum of the two pools [N, C, H, W]; see ``kernels.corner_pool``."""
    down, across = DIRECTIONS_OF[corner]
    result = directional_max_pool(vertical, down) + directional_max_pool(horizontal, across)
    return result.contiguous(memory_format=memory_format_of(vertical))
