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
    """Return the peak memory of tensors in a training step, in MiB (2^20 bytes).

    This covers weights, gradients, Adam's moments, a batch, and the activations kept for the backward pass, of a copy
    of ``detector`` that takes the steps of :func:`cornernet.training.timing.step_latency`. It does not cover the
    program itself and what libraries allocate outside tensors. It is counted by torch's profiler on a CPU, by its
    allocator on a GPU. Raises what ``step_latency`` raises.
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
    # Adam allocates its moments in the first step, so the second one is the larger
    step_latency(detector, dataset, config, warmup=1, steps=1)
