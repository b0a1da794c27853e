"""The batches of one of the processes that train together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

from cornernet.config import Config
from cornernet.data import DataError, DetectionDataset
from cornernet.data.loader import Batch, training_loader
from cornernet.model.detector import Detector
from cornernet.training.signals import signals_blocked

__all__ = ["training_batches"]


@contextlib.contextmanager
def training_batches(
    config: Config, train_set: DetectionDataset, detector: Detector, start: int, rank: int, count: int
) -> Iterator[Iterator[list[Batch]]]:
    """Yield the batches of process ``rank`` of ``count``, after ``start`` iterations; end loader processes on leaving.

    A batch is a list of its ``training.accumulation`` parts, with the targets of the detector's head. The iterator
    raises ``DataError`` for an image that cannot be read.
    """
    loader = training_loader(
        train_set,
        config,
        # picklable, for the loader processes
        partial(detector.head.targets, image_size=config.data.input_size),
        first_iteration=start,
        rank=rank,
        world_size=count,
    )
    with signals_blocked():  # loader processes inherit the block until they ignore the signals themselves
        parts = iter(loader)
    try:
        yield _in_steps(parts, config.training.accumulation)
    finally:
        # torch does this when the last reference goes, but a traceback keeps one until the interpreter ends
        if config.training.workers:
            parts._shutdown_workers()  # type: ignore[attr-defined]


def _in_steps(parts: Iterator[Batch | DataError], accumulation: int) -> Iterator[list[Batch]]:
    for first in parts:
        yield [_unless_broken(first), *(_unless_broken(next(parts)) for _ in range(accumulation - 1))]


def _unless_broken(batch: Batch | DataError) -> Batch:
    """Return the batch, or raise the error that a loader process returned instead."""
    if isinstance(batch, DataError):
        raise batch
    return batch
