"""How much memory a training step takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.profiler import ProfilerActivity, profile

from cornernet.config import Config
from cornernet.model.detector import Detector
from cornernet.training.timing import step_latency

if TYPE_CHECKING:
    from cornernet.data import DetectionDataset

__all__ = ["step_memory"]


def step_memory(detector: Detector, dataset: DetectionDataset, config: Config) -> float:
    """Return the most memory that tensors take at a time in a training step, in MiB (2^20 bytes).

    That is weights, gradients, Adam's moments, a batch, and what is kept for the way back, of a copy of ``detector``
    that takes the steps of :func:`cornernet.training.timing.step_latency`. What a library takes beside tensors, and the
    program itself, are not in it. Counted by torch's profiler on a CPU, by its allocator on a GPU.
    """
    device = next(detector.parameters()).device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        _two_steps(detector, dataset, config)
        return float(torch.cuda.max_memory_allocated(device) - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        _two_steps(detector, dataset, config)
    assert profiled.profiler is not None
    held = peak = 0
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20


def _two_steps(detector: Detector, dataset: DetectionDataset, config: Config) -> None:
    # in the first the optimiser has no moments yet
    step_latency(detector, dataset, config, warmup=1, steps=1)
