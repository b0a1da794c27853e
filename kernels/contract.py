"""The facts that every implementation of corner pooling shares: directions, corners, dtypes, layout of the result."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

__all__ = ["AXIS_AND_REVERSED", "DIRECTIONS_OF", "FLOATS", "Corner", "Direction", "memory_format_of", "widened"]

Direction: TypeAlias = Literal["top", "bottom", "left", "right"]
Corner: TypeAlias = Literal["top_left", "bottom_right"]

FLOATS = ("float64", "float32", "float16", "bfloat16")

# the axis of [N, C, H, W] that the scan runs along, and whether it starts at that axis' end: the running maximum
# of `top` reaches from each row to the bottom, so the scan goes from the bottom row up, as in the authors' code
AXIS_AND_REVERSED = {"top": (2, True), "bottom": (2, False), "left": (3, True), "right": (3, False)}

# the vertical and the horizontal direction whose sum is corner pooling (CornerNet, equations 6 and 7)
DIRECTIONS_OF = {"top_left": ("top", "left"), "bottom_right": ("bottom", "right")}


def memory_format_of(x: Tensor) -> torch.memory_format:
    """Return the layout of the result for ``x``: channels_last where only channels_last describes it, or contiguous."""
    if x.is_contiguous():
        return torch.contiguous_format
    try:
        channels_last = x.is_contiguous(memory_format=torch.channels_last)
    except RuntimeError:  # torch cannot tell inside vmap, where the layout of the result is not ours to choose
        return torch.contiguous_format
    return torch.channels_last if channels_last else torch.contiguous_format


def widened(x: Tensor) -> Tensor:
    """Return ``x`` as float32 where its dtype has 16 bits: exact, and gradients are then summed in float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
