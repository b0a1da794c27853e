"""What is measured: sizes, dtypes and layouts of the maps that corner pooling meets."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
DTYPES = ("float32", "bfloat16", "float16", "float64")
MODES = ("forward", "backward", "both")


@dataclass(frozen=True)
class Workload:
    """A vertical and a horizontal map of one shape [N, C, H, W], dtype and layout."""

    name: str
    shape: tuple[int, int, int, int]
    dtype: str
    layout: str

    def __str__(self) -> str:
        return f"{self.name}-{self.dtype}-{self.layout}"

    @property
    def nbytes(self) -> int:
        """Bytes of one map."""
        return int(torch.Size(self.shape).numel() * getattr(torch, self.dtype).itemsize)

    def maps(self, device: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return the two maps and a gradient: rectified normal values, as after a ReLU, and small whole numbers.

        Whole numbers, so that sums of gradients are exact and every implementation must agree to the last bit.
        """
        generator = torch.Generator().manual_seed(0)
        dtype, layout = getattr(torch, self.dtype), LAYOUTS[self.layout]
        vertical, horizontal = (torch.randn(self.shape, generator=generator).relu() for _ in range(2))
        grad = torch.randint(-2, 3, self.shape, generator=generator)
        first, second, third = (
            tensor.to(device, dtype).contiguous(memory_format=layout) for tensor in (vertical, horizontal, grad)
        )
        return first, second, third


_SHAPES = {
    "paper-1": (1, 128, 128, 128),  # the authors' network: 511 pixels, stride 4, 128 channels in the pooling module
    "paper-4": (4, 128, 128, 128),
    "batch-32": (32, 128, 128, 128),
    "small": (8, 128, 24, 32),
    "large": (1, 256, 192, 256),
}


def workloads() -> list[Workload]:
    """Return what to measure: everything, or one tiny workload with ``BENCHMARK_PROFILE=smoke``."""
    profile = os.environ.get("BENCHMARK_PROFILE", "full")
    if profile not in ("full", "smoke"):
        raise ValueError(f"BENCHMARK_PROFILE must be full or smoke, not {profile!r}")
    shapes = {"smoke": (1, 4, 16, 17)} if profile == "smoke" else _SHAPES
    dtypes = DTYPES[:1] if profile == "smoke" else DTYPES
    return [
        Workload(name, shape, dtype, layout) for name, shape in shapes.items() for dtype in dtypes for layout in LAYOUTS
    ]
