"""The training loader: a stream of augmented images that does not depend on the number of workers or on resuming.

No random generator outlives a draw. Position p of the stream is image ``permutation[p % n]`` of epoch ``p // n``; the
permutation is drawn from (seed, epoch), and the augmentation from (seed, epoch, image id). Iteration i takes the
``batch_size`` positions from i * batch_size on, so that a batch may contain the end of one epoch and the start of the
next.
"""

from __future__ import annotations

import functools
import os
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cornernet.config import Config, ConfigError, DataConfig
from cornernet.console import survive_any_encoding
from cornernet.data.dataset import CROWDED, DataError, DetectionDataset
from cornernet.data.transforms import augment, fitted_size, normalise, read_fitted

__all__ = [
    "CACHE_BYTES",
    "Batch",
    "BatchSampler",
    "BuildTargets",
    "Example",
    "TrainingSet",
    "collate",
    "training_loader",
]

CACHE_BYTES = 512 * 2**20
"""Memory for decoded, fitted images in all processes that load them together. A data set that does not fit completely
is not cached at all."""

_TENSORS_BESIDE = 16
"""Tensors of a batch beside the boxes and the labels of each image, at most: the images and the targets."""
_SPARE_DESCRIPTORS = 32
"""Files that training opens for other purposes."""

_PERMUTATION = 0x9E3779B9  # separates the permutations' random numbers from the augmentations'

BuildTargets = Callable[[list[Tensor], list[Tensor]], Any]
"""From the boxes and labels of a batch to its targets; must be picklable if there are loader processes."""


class Example(NamedTuple):
    """One training input."""

    image: Tensor
    """[3, H, W] float32, normalised."""
    boxes: Tensor
    """[N, 4] float64 x1 y1 x2 y2 in pixels of the input."""
    labels: Tensor
    """[N] int64."""
    image_id: int


class Batch(NamedTuple):
    """A batch of training inputs with the head's targets."""

    images: Tensor
    """[B, 3, H, W] float32, normalised."""
    boxes: list[Tensor]
    labels: list[Tensor]
    image_ids: list[int]
    targets: Any = None


class TrainingSet(Dataset[Example]):
    """Augmented images of a data set by (epoch, index): the same key gives the same example, bit for bit."""

    def __init__(
        self, dataset: DetectionDataset, data_config: DataConfig, seed: int, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.dataset = dataset
        self.config = data_config
        self.seed = seed
        sizes = (fitted_size(dataset.size(index), data_config.fit) for index in range(len(dataset)))
        self.caches = dataset.pixels is None and sum(3 * h * w for h, w in sizes) <= cache_bytes
        """Whether decoded, fitted images are kept in memory."""
        self._cache: dict[int, tuple[NDArray[np.uint8], tuple[float, float]]] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}

    def _fitted(self, index: int) -> tuple[NDArray[np.uint8], tuple[float, float]]:
        if index in self._cache:
            return self._cache[index]
        fitted = read_fitted(self.dataset, index, self.config.fit)
        if self.caches:
            self._cache[index] = fitted
        return fitted

    def augmented(self, epoch: int, index: int) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.int64]]:
        """Return image ``index`` as augmented in epoch ``epoch``, not yet normalised, with its boxes and their labels.

        See ``transforms.augment``. Raises ``DataError`` where the image cannot be read, and where the result contains
        more than ``CROWDED`` objects.
        """
        record = self.dataset.records[index]
        image, (sx, sy) = self._fitted(index)
        boxes = record.boxes * np.array([sx, sy, sx, sy], np.float64)
        rng = np.random.default_rng([word % 2**64 for word in (self.seed, epoch, record.image_id)])
        pixels, boxes, labels = augment(image, boxes, record.labels, self.config, rng)
        if len(boxes) > CROWDED:
            raise DataError(
                f"a crop of the image {record.path} contains {len(boxes)} objects; training compares all pairs, so the "
                f"limit is {CROWDED}: cut the image into tiles or remove it from the annotations"
            )
        return pixels, boxes, labels

    def __getitem__(self, key: tuple[int, int]) -> Example:
        """Return the example of (epoch, index). Raises ``DataError`` where the image cannot be read."""
        epoch, index = key
        pixels, boxes, labels = self.augmented(epoch, index)
        return Example(
            image=torch.from_numpy(normalise(pixels, self.config)),
            boxes=torch.from_numpy(boxes),
            labels=torch.from_numpy(labels),
            image_id=self.dataset.image_id(index),
        )


class BatchSampler(Sampler[list[tuple[int, int]]]):
    """Lists of (epoch, index) for one rank, ``accumulation`` lists per iteration.

    An iteration's images are cut into ``accumulation * world_size`` equal pieces; piece a * world_size + r is part a
    of rank r. Two ranks without accumulation and one rank that accumulates twice therefore see the same pieces.
    Starts at ``first_iteration`` and ends before ``iterations``. Raises ``ValueError`` if the batch size is not a
    multiple of the number of pieces.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        seed: int,
        first_iteration: int,
        iterations: int,
        accumulation: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        pieces = accumulation * world_size
        if num_images < 1:
            raise ValueError(f"num_images is {num_images}; it must be 1 or more")
        if batch_size % pieces:
            raise ValueError(
                f"training.batch_size {batch_size} is not a multiple of {pieces} ({accumulation} accumulation steps "
                f"times {world_size} devices); use {max(1, round(batch_size / pieces)) * pieces}"
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}; it must be from 0 to {world_size - 1}")
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.first_iteration = first_iteration
        self.iterations = iterations
        self.accumulation = accumulation
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return max(0, self.iterations - self.first_iteration) * self.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        @functools.lru_cache(maxsize=2)
        def permutation(epoch: int) -> NDArray[np.int64]:
            rng = np.random.default_rng([self.seed % 2**64, epoch, 0, _PERMUTATION])
            return rng.permutation(self.num_images)

        piece = self.batch_size // (self.accumulation * self.world_size)
        for iteration in range(self.first_iteration, self.iterations):
            for part in range(self.accumulation):
                first = iteration * self.batch_size + (part * self.world_size + self.rank) * piece
                keys = (divmod(position, self.num_images) for position in range(first, first + piece))
                yield [(epoch, int(permutation(epoch)[at])) for epoch, at in keys]


class _ErrorsAsValues(Dataset["Example | DataError"]):
    """A training set that returns its ``DataError`` instead of raising it.

    An exception in a loader process reaches the user as a traceback. A returned error can be raised by the reader.
    """

    def __init__(self, training_set: TrainingSet) -> None:
        self.training_set = training_set

    def __getitem__(self, key: tuple[int, int]) -> Example | DataError:
        try:
            return self.training_set[key]
        except DataError as error:
            return error


def collate(examples: Sequence[Example | DataError], build_targets: BuildTargets | None = None) -> Batch | DataError:
    """Return examples as one batch with the targets ``build_targets(boxes, labels)``, or the first error among them."""
    for example in examples:
        if isinstance(example, DataError):
            return example
    return _batch([example for example in examples if isinstance(example, Example)], build_targets)


def _batch(examples: list[Example], build_targets: BuildTargets | None) -> Batch:
    boxes, labels = [example.boxes for example in examples], [example.labels for example in examples]
    return Batch(
        images=torch.stack([example.image for example in examples]),
        boxes=boxes,
        labels=labels,
        image_ids=[example.image_id for example in examples],
        targets=None if build_targets is None else build_targets(boxes, labels),
    )


def _start_worker(_worker: int) -> None:
    survive_any_encoding()
    cv2.setNumThreads(1)  # one thread per loader process: more would compete for the cores
    # Ctrl-C and a scheduler's SIGTERM reach every process. The training process handles them, and may still need a
    # batch; loader processes end when it ends, in whatever way
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _require_descriptors(workers: int, images: int, parts: int) -> None:
    """Let this process open as many files as ``workers`` loader processes need, for batches of ``images``.

    A tensor from a loader process takes a file descriptor until it is freed. Without enough of them, torch waits for
    ever and fills the terminal with tracebacks. The soft limit, often 1024, is raised up to the hard one. Raises
    ``ConfigError`` if that is too low. The limit is inherited by the loader processes, which need less.
    """
    tensors = 2 * images + _TENSORS_BESIDE
    # torch fetches two batches for each worker ahead; the parts of a step are held until those of the next have come
    batches = 2 * (workers + parts) - 1
    needed = _open_files() + _SPARE_DESCRIPTORS + 6 * workers + batches * tensors
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigError(
            f"training.workers is {workers}, for which this process may have to open {needed:,} files at a time, and "
            f"its limit is {hard:,}: raise it (ulimit -n {needed}; in a container or under a scheduler, its own "
            "setting), or use fewer --training.workers; 0 needs none"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names only
    except OSError:  # not Linux
        return _SPARE_DESCRIPTORS


def training_loader(
    dataset: DetectionDataset,
    config: Config,
    build_targets: BuildTargets | None,
    first_iteration: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader[Any]:
    """Return the loader of this rank's batches from ``first_iteration`` to the last of ``config.training``.

    It yields ``accumulation`` batches per iteration (see :class:`BatchSampler`). In place of a batch whose images
    cannot be read, it yields the ``DataError``, for the reader to raise. ``build_targets`` is called when a batch is
    assembled, in the ``config.training.workers`` loader processes if there are any. These are spawned, so that
    ``build_targets`` must be picklable and a script that trains needs ``if __name__ == "__main__"``. Raises
    ``DataError`` for a data set without images, ``ConfigError`` if this process may not open enough files for the
    loader processes, and ``ValueError`` if the batch size is not a multiple of devices times accumulation.
    """
    if len(dataset) == 0:
        raise DataError(f"{dataset.name} {dataset.split} has no images; training needs at least one")
    training = config.training
    sampler = BatchSampler(
        len(dataset),
        training.batch_size,
        training.seed,
        first_iteration,
        training.iterations,
        training.accumulation,
        rank,
        world_size,
    )
    workers = training.workers
    loading = max(1, workers) * training.replicas  # processes
    if workers:
        images = training.batch_size // (training.accumulation * world_size)
        _require_descriptors(workers, images, training.accumulation)
    return DataLoader(
        _ErrorsAsValues(TrainingSet(dataset, config.data, training.seed, CACHE_BYTES // loading)),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=functools.partial(collate, build_targets=build_targets),
        pin_memory=training.device != "cpu" and torch.cuda.is_available(),
        worker_init_fn=_start_worker,
        # spawned: torch and OpenCV have threads, which makes forking unsafe
        multiprocessing_context="spawn" if workers else None,
        # so that the loader's draw of worker seeds, unused here, does not advance torch's global generator
        generator=torch.Generator(),
    )
