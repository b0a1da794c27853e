"""The training loader: an endless stream of augmented pictures, the same for any number of workers and after a resume.

Nothing is drawn from a generator that lives on. Position p of the stream is picture ``permutation[p % n]`` of epoch
``p // n``, the permutation drawn from (seed, epoch); its augmentation is drawn from (seed, epoch, image id). Iteration
i takes positions i * batch_size and on, so the last pictures of an epoch and the first of the next may share a batch.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cornernet.config import Config, DataConfig
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
"""Memory for decoded, fitted pictures, over all loader processes together. A data set that does not fit whole is not
cached at all."""

_PERMUTATION = 0x9E3779B9  # keeps the stream of permutations apart from those of augmentations

BuildTargets = Callable[[list[Tensor], list[Tensor]], Any]
"""From the boxes and the labels of a batch to its targets; picklable where there are loader processes."""


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
    """Training inputs together, with what the head learns from."""

    images: Tensor
    """[B, 3, H, W] float32, normalised."""
    boxes: list[Tensor]
    labels: list[Tensor]
    image_ids: list[int]
    targets: Any = None


class TrainingSet(Dataset[Example]):
    """Augmented pictures of a data set, by (epoch, index): the same key gives the same example, bit for bit."""

    def __init__(
        self, dataset: DetectionDataset, data_config: DataConfig, seed: int, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.dataset = dataset
        self.config = data_config
        self.seed = seed
        sizes = (fitted_size(dataset.size(index), data_config.fit) for index in range(len(dataset)))
        self.caches = dataset.pixels is None and sum(3 * h * w for h, w in sizes) <= cache_bytes
        """Whether decoded, fitted pictures are kept in memory."""
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
        """Return picture ``index`` as epoch ``epoch`` sees it, not yet normalised, with its boxes and their labels.

        See ``transforms.augment``. Raises ``DataError`` where the picture cannot be read, and where it shows more than
        ``CROWDED`` objects.
        """
        record = self.dataset.records[index]
        image, (sx, sy) = self._fitted(index)
        boxes = record.boxes * np.array([sx, sy, sx, sy], np.float64)
        rng = np.random.default_rng([word % 2**64 for word in (self.seed, epoch, record.image_id)])
        pixels, boxes, labels = augment(image, boxes, record.labels, self.config, rng)
        if len(boxes) > CROWDED:
            raise DataError(
                f"a crop of the image {record.path} shows {len(boxes)} objects; training compares each with each, and "
                f"takes {CROWDED} at most: cut the image into tiles, or take it out of the annotations"
            )
        return pixels, boxes, labels

    def __getitem__(self, key: tuple[int, int]) -> Example:
        """Return the example of (epoch, index). Raises ``DataError`` where the picture cannot be read."""
        epoch, index = key
        pixels, boxes, labels = self.augmented(epoch, index)
        return Example(
            image=torch.from_numpy(normalise(pixels, self.config)),
            boxes=torch.from_numpy(boxes),
            labels=torch.from_numpy(labels),
            image_id=self.dataset.image_id(index),
        )


class BatchSampler(Sampler[list[tuple[int, int]]]):
    """Lists of (epoch, index) for one rank: ``accumulation`` lists an iteration.

    An iteration's pictures are cut into ``accumulation * world_size`` equal pieces; piece a * world_size + r is part a
    of rank r. Two ranks without accumulation and one rank that accumulates twice therefore see the same pieces.
    Starts at ``first_iteration`` and ends before ``iterations``. Raises ``ValueError`` for a batch that the pieces
    do not divide.
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
            raise ValueError(f"num_images is {num_images}; there is nothing to draw from")
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


class _Told(Dataset["Example | DataError"]):
    """A training set that returns its ``DataError`` instead of raising it.

    What a loader process raises reaches the user as a traceback; what it returns can be raised where it is read.
    """

    def __init__(self, training_set: TrainingSet) -> None:
        self.training_set = training_set

    def __getitem__(self, key: tuple[int, int]) -> Example | DataError:
        try:
            return self.training_set[key]
        except DataError as error:
            return error


def collate(examples: Sequence[Example | DataError], build_targets: BuildTargets | None = None) -> Batch | DataError:
    """Return examples as one batch, with ``build_targets(boxes, labels)`` as its targets; or their first error."""
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
    cv2.setNumThreads(1)  # a loader process is one thread: several of them would fight over the cores
    # a terminal's Ctrl-C and a scheduler's termination reach every process; it is the one that trains that stops, and
    # it may need a batch more. A loader process ends with it, however that comes about
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def training_loader(
    dataset: DetectionDataset,
    config: Config,
    build_targets: BuildTargets | None,
    first_iteration: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader[Any]:
    """Return the loader of this rank's batches from ``first_iteration`` to the last of ``config.training``.

    It yields ``accumulation`` batches an iteration (see :class:`BatchSampler`), and in the place of a batch whose
    pictures cannot be read the ``DataError`` that says so, for the reader to raise. ``build_targets`` is called as
    batches are put together, in the ``config.training.workers`` processes where there are any; these are spawned, so
    that ``build_targets`` must be picklable and a script that trains needs its ``if __name__ == "__main__"``. Raises
    ``DataError`` for a data set without images and ``ValueError`` for a batch size that devices and accumulation do
    not divide.
    """
    if len(dataset) == 0:
        raise DataError(f"{dataset.name} {dataset.split} has no images; training needs one or more")
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
    return DataLoader(
        _Told(TrainingSet(dataset, config.data, training.seed, CACHE_BYTES // max(1, workers))),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=functools.partial(collate, build_targets=build_targets),
        pin_memory=training.device != "cpu" and torch.cuda.is_available(),
        worker_init_fn=_start_worker,
        # spawned: torch and OpenCV hold threads, with which forking is unsafe and warned about
        multiprocessing_context="spawn" if workers else None,
        # the loader's own draw for worker seeds, which nothing here uses, leaves torch's generator alone
        generator=torch.Generator(),
    )
