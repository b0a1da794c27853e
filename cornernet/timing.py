"""How long a training step takes, beside the time of testing that an evaluation measures."""

from __future__ import annotations

import copy
import itertools
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cornernet.config import Config
from cornernet.data.images import DataError
from cornernet.data.loader import Batch, TrainingSet, collate
from cornernet.detector import Detector

if TYPE_CHECKING:
    from cornernet.data import DetectionDataset

__all__ = ["step_latency", "training_step"]


def step_latency(
    detector: Detector, dataset: DetectionDataset, config: Config, warmup: int = 2, steps: int = 7
) -> float:
    """Return the median time of a training step in milliseconds, over ``steps`` after ``warmup`` that do not count.

    A step is what ``config.training`` takes over one batch that is on the device already: forward, loss, backward,
    clipping and the optimiser, with corners pooled by ``testing.pooling_impl``. It is taken by a copy of ``detector``,
    whose weights, modes and gradients stay as they are. The batch is drawn from ``dataset`` as in training. Raises
    ``ValueError`` for no steps and ``DataError`` for a picture that cannot be read.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; time 1 or more")
    model = copy.deepcopy(detector).train()
    device = next(model.parameters()).device
    parts = _batch(model, dataset, config, device)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.training.learning_rate, fused=True)
    with torch.enable_grad(), model.pooling_by(config.testing.pooling_impl):
        seconds = [_timed(lambda: _step(model, optimiser, parts, config), device) for _ in range(warmup + steps)]
    return 1000 * statistics.median(seconds[warmup:])


def training_step(detector: Detector, dataset: DetectionDataset, config: Config) -> Callable[[], None]:
    """Return a function that takes one step of ``config.training`` with ``detector`` over one batch of ``dataset``.

    The detector learns: give a copy where it should not. Compiled and with activations computed twice as configured.
    Raises ``DataError`` for a picture that cannot be read.
    """
    model = detector.train()
    model.config = config
    if config.training.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parts = _batch(model, dataset, config, next(model.parameters()).device)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.training.learning_rate, fused=True)
    forward: Any = torch.compile(model) if config.training.compile else model
    return lambda: _step(model, optimiser, parts, config, forward)


def _batch(model: Detector, dataset: DetectionDataset, config: Config, device: torch.device) -> list[Batch]:
    """Return one batch of training on the device, in as many parts as training accumulates over."""
    training_set = TrainingSet(dataset, config.data, config.training.seed)
    keys = (divmod(position, len(dataset)) for position in itertools.count())
    memory_format = torch.channels_last if config.training.channels_last else torch.contiguous_format
    parts = []
    for _ in range(config.training.accumulation):
        count = config.training.batch_size // config.training.accumulation
        batch = collate([training_set[key] for key in itertools.islice(keys, count)])
        if isinstance(batch, DataError):
            raise batch
        targets = model.head.targets(batch.boxes, batch.labels, config.data.input_size).to(device)
        parts.append(batch._replace(images=batch.images.to(device, memory_format=memory_format), targets=targets))
    return parts


def _step(
    model: Detector, optimiser: torch.optim.Optimizer, parts: list[Batch], config: Config, forward: Any = None
) -> None:
    """Take one optimiser step over the parts of a batch; ``forward`` is the compiled model where there is one."""
    forward = model if forward is None else forward
    training = config.training
    optimiser.zero_grad(set_to_none=True)
    counts: Tensor = torch.stack([part.targets.counts() for part in parts]).sum(0)
    for part in parts:
        with torch.autocast(part.images.device.type, torch.bfloat16, enabled=training.precision == "bfloat16"):
            outputs = forward(part.images)
        model.head.loss(outputs, part.targets, counts)["total"].backward()
    if training.clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
    optimiser.step()


def _timed(function: Callable[[], None], device: torch.device) -> float:
    """Return the seconds that ``function`` takes, its work on a GPU included."""
    _finish(device)
    began = time.perf_counter()
    function()
    _finish(device)
    return time.perf_counter() - began


def _finish(device: torch.device) -> None:
    """Wait for what is queued on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
