"""What all implementations of corner pooling share: directions, corners, dtypes. Needs no torch."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["AXIS_AND_REVERSED", "DIRECTIONS_OF", "FLOATS", "Corner", "Direction"]

Direction: TypeAlias = Literal["top", "bottom", "left", "right"]
Corner: TypeAlias = Literal["top_left", "bottom_right"]

FLOATS = ("float64", "float32", "float16", "bfloat16")

# The axis of [N, C, H, W] that the scan runs along, and whether it starts at the end of that axis. The maximum of
# `top` is over each row and all rows below it, so its scan runs from the bottom row up, as in the authors' code.
AXIS_AND_REVERSED = {"top": (2, True), "bottom": (2, False), "left": (3, True), "right": (3, False)}

# The vertical and the horizontal direction that corner pooling adds up (CornerNet, equations 6 and 7).
DIRECTIONS_OF = {"top_left": ("top", "left"), "bottom_right": ("bottom", "right")}
