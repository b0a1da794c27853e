"""Layout and precision of the result, the same in all implementations of corner pooling."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["memory_format_of", "widened"]


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
