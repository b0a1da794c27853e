"""What all implementations of corner pooling share: directions, corners, dtypes, layout of the result."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

__all__ = ["AXIS_AND_REVERSED", "DIRECTIONS_OF", "FLOATS", "Corner", "Direction", "memory_format_of", "widened"]

Direction: TypeAlias = Literal["top", "bottom", "left", "right"]
Corner: TypeAlias = Literal["top_left", "bottom_right"]

FLOATS = ("float64", "float32", "float16", "bfloat16")

# The axis of [N, C, H, W] that the scan runs along, and whether it starts at the end of that axis. The maximum of
# `top` is over each row and all rows below it, so its scan runs from the bottom row up, as in the authors' code.
AXIS_AND_REVERSED = {"top": (2, True), "bottom": (2, False), "left": (3, True), "right": (3, False)}

# The vertical and the horizontal direction that corner pooling adds up (CornerNet, equations 6 and 7).
DIRECTIONS_OF = {"top_left": ("top", "left"), "bottom_right": ("bottom", "right")}


def memory_format_of(x: Tensor) -> torch.memory_format:
    """Return the layout of the result for ``x``: channels_last if ``x`` is that and not contiguous, else contiguous."""
    if x.is_contiguous():
        return torch.contiguous_format
    try:
        channels_last = x.is_contiguous(memory_format=torch.channels_last)
    except RuntimeError:  # torch cannot tell inside vmap, which chooses the layout of the result itself
        return torch.contiguous_format
    return torch.channels_last if channels_last else torch.contiguous_format


def widened(x: Tensor) -> Tensor:
    """Return ``x`` as float32 if its dtype has 16 bits: this is exact, and gradients are then summed in float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
