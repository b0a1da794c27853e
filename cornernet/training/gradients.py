"""The gradients of a batch, or of one process's share of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cornernet.config import TrainingConfig
from cornernet.data.loader import Batch
from cornernet.model.detector import Detector

__all__ = ["Lap", "accumulate_gradients", "memory_format", "no_lap"]

Lap = Callable[[str], None]
"""Called with the name of a stage when it ends: forward, loss, backward, clipping, optimiser."""


def no_lap(_stage: str) -> None:
    """Do nothing at the end of a stage."""


def memory_format(training: TrainingConfig) -> torch.memory_format:
    """Return the memory format of weights and images."""
    return torch.channels_last if training.channels_last else torch.contiguous_format


def accumulate_gradients(
    model: nn.Module,
    detector: Detector,
    training: TrainingConfig,
    device: torch.device,
    parts: Sequence[Batch],
    targets: Sequence[Any],
    counts: Tensor,
    *,
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
    lap: Lap = no_lap,
) -> dict[str, Tensor]:
    """Add the gradients of the parts of a batch to those of ``detector``, and return the sums of the parts' losses.

    ``model`` is the detector as training calls it, perhaps distributed or compiled. ``targets`` are those of the parts,
    on ``device``, and ``counts`` those of the whole batch, by which losses are divided. Backward starts from
    ``scale(total loss)``.
    """
    dtype = torch.float16 if training.precision == "float16" else torch.bfloat16
    autocast = torch.autocast(device.type, dtype, enabled=training.precision != "float32")
    found: list[dict[str, Tensor]] = []
    for index, (part, target) in enumerate(zip(parts, targets, strict=True)):
        images = part.images.to(device, non_blocking=True, memory_format=memory_format(training))
        with _synchronised(model, last=index == len(parts) - 1):
            with autocast:
                outputs = model(images)
            lap("forward")
            losses = detector.head.loss(outputs, target, counts)
            lap("loss")
            scale(losses["total"]).backward()  # type: ignore[no-untyped-call]
            lap("backward")
        found.append({name: value.detach() for name, value in losses.items()})
    return {name: torch.stack([each[name] for each in found]).sum() for name in found[0]}


def _synchronised(model: Any, *, last: bool) -> contextlib.AbstractContextManager[None]:
    """Exchange gradients between torchrun's processes only after the last part of a batch."""
    if last or not hasattr(model, "no_sync"):
        return contextlib.nullcontext()
    return model.no_sync()  # type: ignore[no-any-return]
