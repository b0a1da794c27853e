"""The workloads: sizes, dtypes and layouts of the maps that corner pooling processes."""

from __future__ import annotations

import functools
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
        """Return the two maps, with normal values after a ReLU, and a gradient of small integers.

        With integers, sums of gradients are exact, so every implementation must agree to the last bit. Every call
        returns the same memory; do not write to it.
        """
        vertical, horizontal, grad = (tensor.detach() for tensor in _maps(self, device))
        return vertical, horizontal, grad


@functools.lru_cache(maxsize=1)
def _maps(workload: Workload, device: str) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    dtype, layout = getattr(torch, workload.dtype), LAYOUTS[workload.layout]
    vertical, horizontal = (torch.randn(workload.shape, generator=generator).relu() for _ in range(2))
    grad = torch.randint(-2, 3, workload.shape, generator=generator)
    return tuple(tensor.to(device, dtype).contiguous(memory_format=layout) for tensor in (vertical, horizontal, grad))


_SHAPES = {
    "paper-1": (1, 128, 128, 128),  # the authors' network: 511 pixels, stride 4, 128 channels in the pooling module
    "paper-4": (4, 128, 128, 128),
    "batch-32": (32, 128, 128, 128),
    "small": (8, 128, 24, 32),
    "large": (1, 256, 192, 256),
}


def profile_name() -> str:
    """Return BENCHMARK_PROFILE: full, thorough (also runs the slow cases that full leaves out) or smoke."""
    profile = os.environ.get("BENCHMARK_PROFILE", "full")
    if profile not in ("full", "thorough", "smoke"):
        raise ValueError(f"BENCHMARK_PROFILE must be full, thorough or smoke, not {profile!r}")
    return profile


def workloads() -> list[Workload]:
    """Return every workload, or one tiny workload with ``BENCHMARK_PROFILE=smoke``."""
    profile = profile_name()
    shapes = {"smoke": (1, 4, 16, 17)} if profile == "smoke" else _SHAPES
    dtypes = DTYPES[:1] if profile == "smoke" else DTYPES
    return [
        Workload(name, shape, dtype, layout) for name, shape in shapes.items() for dtype in dtypes for layout in LAYOUTS
    ]
