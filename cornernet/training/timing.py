"""How long a training step takes, and where the time of testing and training is spent."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cornernet.config import Config
from cornernet.data.images import DataError
from cornernet.data.loader import Batch, TrainingSet, collate
from cornernet.data.transforms import fit_image
from cornernet.inference.detect import Truth, decode, examine, network, testing_mode
from cornernet.inference.placement import prepare, to_photo
from cornernet.inference.suppression import suppress
from cornernet.model.detector import Detector
from cornernet.model.heads.corner.head import CornerPooling
from cornernet.training.devices import Processes
from cornernet.training.gradients import Lap, memory_format, no_lap
from cornernet.training.step import TrainStep

if TYPE_CHECKING:
    from cornernet.data import DetectionDataset

__all__ = [
    "STAGES",
    "InTurn",
    "images_in_turn",
    "in_turn",
    "stage_latency",
    "step_latency",
    "step_stages",
    "steps_in_turn",
    "training_step",
]

STAGES = ("read", "resize", "backbone", "pooling", "heads", "decode", "suppression")
"""Stages of the test path. ``pooling`` is the corner pooling modules with their convolutions, ``heads`` the rest of the
head."""

TakeStep = Callable[[Lap], None]
"""Takes one training step, and calls its argument at the end of each stage."""


def step_latency(
    detector: Detector, dataset: DetectionDataset, config: Config, warmup: int = 2, steps: int = 7
) -> float:
    """Return the median time of a training step in milliseconds, over ``steps`` steps after ``warmup`` untimed ones.

    The step is :class:`cornernet.training.step.TrainStep`, as ``config.training`` describes it, with the whole batch on
    the device already. Loading data is not included. Corners are pooled by ``testing.pooling_impl``. A copy of
    ``detector`` takes the steps: the weights, modes and gradients of the original do not change. The batch is drawn
    from ``dataset`` as in training. Raises ``ValueError`` if ``steps`` is less than 1, ``DataError`` for an image that
    cannot be read, and ``TrainingError`` if the loss or the gradient is not finite.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; it must be 1 or more")
    with _stepping(detector, dataset, config) as (take, device):
        seconds = [_timed(lambda: take(no_lap), device) for _ in range(warmup + steps)]
    return 1000 * statistics.median(seconds[warmup:])


def step_stages(
    detector: Detector, dataset: DetectionDataset, config: Config, warmup: int = 2, steps: int = 5
) -> dict[str, float]:
    """Return where the time of :func:`step_latency` is spent: median milliseconds of each stage, in order.

    The stages are forward, loss, backward, clipping (with ``training.clip_norm`` only) and optimiser, which includes
    the check that losses and gradients are finite. On a GPU every stage waits for the device, so they add up to a
    little more than one undivided step. Raises what :func:`step_latency` raises.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; it must be 1 or more")
    with _stepping(detector, dataset, config) as (take, device):
        found = [_stages_of_step(take, device) for _ in range(warmup + steps)]
    return _medians(found[warmup:])


class InTurn(NamedTuple):
    """Seconds of several functions that were called in turn: float64 [rounds, functions] each."""

    wall: NDArray[np.float64]
    cpu: NDArray[np.float64]
    """Of this process, over all its threads."""


def in_turn(
    functions: Sequence[Callable[[int], object]], rounds: int, device: torch.device, progress: Callable[[], None]
) -> InTurn:
    """Call each function with the number of the round, in every round, and return how long each call took.

    A first round is not timed. Every round begins with another function, so that none always follows the same one.
    ``progress`` is called after every round. Raises ``ValueError`` without a function or a round.
    """
    if not functions or rounds < 1:
        raise ValueError(f"there are {len(functions)} functions and {rounds} rounds; both must be 1 or more")
    for function in functions:
        function(0)
    wall, cpu = np.zeros((2, rounds, len(functions)))
    for number in range(rounds):
        for step in range(len(functions)):
            at = (number + step) % len(functions)
            _finish(device)
            began, used = time.perf_counter(), time.process_time()
            functions[at](number)
            _finish(device)
            wall[number, at], cpu[number, at] = time.perf_counter() - began, time.process_time() - used
        progress()
    return InTurn(wall, cpu)


def images_in_turn(
    variants: Sequence[tuple[Detector, Config]],
    dataset: DetectionDataset,
    images: int,
    progress: Callable[[], None] = lambda: None,
) -> InTurn:
    """Time the test path of detectors and their configurations on the same images, in turn, image by image.

    The time is from a photograph in memory to its boxes. The images, up to ``images``, are spread evenly over
    ``dataset``. Raises ``ValueError`` if there is none, and ``DataError`` for one that cannot be read.
    """
    count = min(images, len(dataset))
    chosen = [index * len(dataset) // count for index in range(count)]
    photographs = [dataset.read(index) for index in chosen]
    truths = [Truth(dataset.records[index].boxes, dataset.records[index].labels) for index in chosen]

    def detecting(detector: Detector, config: Config) -> Callable[[int], object]:
        return lambda number: examine(detector, photographs[number], config, truths[number])

    functions = [detecting(detector, config) for detector, config in variants]
    with contextlib.ExitStack() as stack:
        for detector, _ in variants:
            stack.enter_context(testing_mode(detector))
        return in_turn(functions, count, next(variants[0][0].parameters()).device, progress)


def steps_in_turn(
    variants: Sequence[tuple[Detector, Config]],
    dataset: DetectionDataset,
    steps: int,
    progress: Callable[[], None] = lambda: None,
) -> InTurn:
    """Time ``steps`` training steps of copies of detectors, in turn. The step is that of :func:`step_latency`."""
    with contextlib.ExitStack() as stack:
        takes = [stack.enter_context(_stepping(detector, dataset, config)) for detector, config in variants]

        def stepping(take: TakeStep) -> Callable[[int], object]:
            return lambda _number: take(no_lap)

        return in_turn([stepping(take) for take, _ in takes], steps, takes[0][1], progress)


def training_step(detector: Detector, dataset: DetectionDataset, config: Config) -> Callable[[], None]:
    """Return a function that takes one training step each time it is called, always over the same batch.

    It is the step of :func:`step_latency`, on the device of the detector, but with the detector's own pooling. The
    detector itself learns; pass a copy if it must not change. Raises ``DataError`` for an image that cannot be read.
    """
    take, _ = _step_over_a_batch(detector, dataset, config)
    return lambda: take(no_lap)


def _stages_of_step(take: TakeStep, device: torch.device) -> dict[str, float]:
    """Return the seconds of each stage of one step."""
    laps = _Laps(device)  # a new one for each step: it counts from its creation
    take(laps.lap)
    return laps.seconds


def stage_latency(detector: Detector, dataset: DetectionDataset, config: Config, images: int = 8) -> dict[str, float]:
    """Return where the time of an image is spent: the median milliseconds of each of :data:`STAGES`.

    The median is over up to ``images`` images of ``dataset``, after one untimed pass over the first. A head without
    corner pooling has no stage ``pooling``. ``testing.substitute`` is ignored. Raises ``ValueError`` if there is no
    image.
    """
    count = min(images, len(dataset))
    if count < 1:
        raise ValueError("there is no image to time the stages of testing with")
    device = next(detector.parameters()).device
    with testing_mode(detector), detector.pooling_by(config.testing.pooling_impl):
        _stages_of(detector, dataset, 0, config, device)
        found = [_stages_of(detector, dataset, index, config, device) for index in range(count)]
    medians = _medians(found)
    return {stage: medians[stage] for stage in STAGES if stage in medians}


def _stages_of(
    detector: Detector, dataset: DetectionDataset, index: int, config: Config, device: torch.device
) -> dict[str, float]:
    """Return the seconds of each stage for one image."""
    laps, restored = _Laps(device), []
    image = dataset.read(index)
    laps.lap("read")
    fitted, _ = fit_image(image, config.data.fit)
    for scale in config.testing.scales:
        batch, placement = prepare(
            fitted, config.data, scale, config.testing.flip, detector.total_stride, detector.output_stride
        )
        laps.lap("resize")
        with _within(detector, device) as inside:
            predictions = network(detector, batch, config.training.channels_last)
        laps.lap("backbone")
        laps.move("backbone", "heads", inside["head"] - inside["pooling"])
        if inside["pooling"]:
            laps.move("backbone", "pooling", inside["pooling"])
        for at, candidates in enumerate(decode(detector, predictions, config.testing)):
            restored.append(to_photo(candidates, placement, mirrored=at == 1))
        laps.lap("decode")
    suppress(restored, config.testing)
    laps.lap("suppression")
    return laps.seconds


class _Laps:
    """A stopwatch with laps: seconds by stage, from the moment that it is created."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, dict[str, float]()
        _finish(device)
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to a stage."""
        _finish(self.device)
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def move(self, source: str, target: str, seconds: float) -> None:
        """Move some of the time of one stage to another."""
        self.seconds[source] -= seconds
        self.seconds[target] = self.seconds.get(target, 0.0) + seconds


@contextmanager
def _within(detector: Detector, device: torch.device) -> Iterator[dict[str, float]]:
    """Measure the seconds that the head and its corner pooling modules take while the context lasts."""
    spent, began = {"head": 0.0, "pooling": 0.0}, dict[str, float]()
    named: list[tuple[str, nn.Module]] = [("head", detector.head)]
    named += [("pooling", part) for part in detector.head.modules() if isinstance(part, CornerPooling)]

    def enter(name: str) -> None:
        _finish(device)
        began[name] = time.perf_counter()

    def leave(name: str) -> None:
        _finish(device)
        spent[name] += time.perf_counter() - began[name]

    handles: list[Any] = []
    for name, part in named:
        handles.append(part.register_forward_pre_hook(lambda *_, name=name: enter(name)))
        handles.append(part.register_forward_hook(lambda *_, name=name: leave(name)))
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()


def _medians(found: list[dict[str, float]]) -> dict[str, float]:
    return {stage: 1000 * statistics.median(each[stage] for each in found) for stage in found[0]}


@contextmanager
def _stepping(detector: Detector, dataset: DetectionDataset, config: Config) -> Iterator[tuple[TakeStep, torch.device]]:
    """Yield a function that takes a training step with a copy of the detector, and the copy's device."""
    model = copy.deepcopy(detector)
    with torch.enable_grad(), model.pooling_by(config.testing.pooling_impl):
        yield _step_over_a_batch(model, dataset, config)


def _step_over_a_batch(detector: Detector, dataset: DetectionDataset, config: Config) -> tuple[TakeStep, torch.device]:
    """Return a function that takes a training step over the same batch each time, and the device."""
    device = next(detector.parameters()).device
    detector.config = config  # says whether activations are computed twice
    step = TrainStep(detector, config.training, Processes(0, 1, device))
    parts = _batch(detector, dataset, config, device)
    iterations = itertools.count(1)

    def take(lap: Lap) -> None:
        step(parts, next(iterations), lap=lap)

    return take, device


def _batch(detector: Detector, dataset: DetectionDataset, config: Config, device: torch.device) -> list[Batch]:
    """Return one batch of training on the device, in as many parts as training accumulates over."""
    training_set = TrainingSet(dataset, config.data, config.training.seed)
    build_targets = functools.partial(detector.head.targets, image_size=config.data.input_size)
    keys = (divmod(position, len(dataset)) for position in itertools.count())
    count = config.training.batch_size // config.training.accumulation
    parts = []
    for _ in range(config.training.accumulation):
        batch = collate([training_set[key] for key in itertools.islice(keys, count)], build_targets)
        if isinstance(batch, DataError):
            raise batch
        images = batch.images.to(device, memory_format=memory_format(config.training))
        parts.append(batch._replace(images=images, targets=batch.targets.to(device)))
    return parts


def _timed(function: Callable[[], None], device: torch.device) -> float:
    """Return the seconds that ``function`` takes, including its work on a GPU."""
    _finish(device)
    began = time.perf_counter()
    function()
    _finish(device)
    return time.perf_counter() - began


def _finish(device: torch.device) -> None:
    """Wait until a GPU has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
