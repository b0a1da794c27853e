"""How long a training step takes, and where the time of testing and of training goes."""

from __future__ import annotations

import copy
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cornernet.config import Config
from cornernet.data.images import DataError
from cornernet.data.loader import Batch, TrainingSet, collate
from cornernet.data.transforms import fit_image
from cornernet.inference.detect import decode, network, testing_mode
from cornernet.inference.placement import prepare, to_photo
from cornernet.inference.suppression import suppress
from cornernet.model.detector import Detector
from cornernet.model.heads.corner.head import CornerPooling

if TYPE_CHECKING:
    from cornernet.data import DetectionDataset

__all__ = ["STAGES", "stage_latency", "step_latency", "step_stages", "training_step"]

STAGES = ("read", "resize", "backbone", "pooling", "heads", "decode", "suppression")
"""Of the test path. Pooling is the corner pooling modules, convolutions included; heads are the rest of the head."""


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
    with _stepping(detector, dataset, config) as (step, device):
        seconds = [_timed(step, device) for _ in range(warmup + steps)]
    return 1000 * statistics.median(seconds[warmup:])


def step_stages(
    detector: Detector, dataset: DetectionDataset, config: Config, warmup: int = 2, steps: int = 5
) -> dict[str, float]:
    """Return where the time of :func:`step_latency` goes: median milliseconds of its stages, in their order.

    On a GPU each stage is waited for, so that they add up to a little more than an undivided step.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; time 1 or more")
    with _stepping(detector, dataset, config) as (step, device):
        found = [_stages_of_step(step, device) for _ in range(warmup + steps)]
    return _medians(found[warmup:])


def _stages_of_step(step: Callable[..., None], device: torch.device) -> dict[str, float]:
    """Return the seconds of each stage of one step."""
    laps = _Laps(device)  # it counts from here on: made before the steps of others, it would hold their time as well
    step(laps.lap)
    return laps.seconds


def stage_latency(detector: Detector, dataset: DetectionDataset, config: Config, images: int = 8) -> dict[str, float]:
    """Return where the time of an image goes: median milliseconds of each of :data:`STAGES`, over some images.

    The first image is gone through once before, and does not count. A head that pools no corners has no such stage.
    Nothing is substituted, whatever ``testing.substitute`` says. Raises ``ValueError`` for no image.
    """
    count = min(images, len(dataset))
    if count < 1:
        raise ValueError("there is no image to time the stages of testing on")
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
    """Seconds by stage, a lap at a time."""

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
        """Count some of a stage's time to another."""
        self.seconds[source] -= seconds
        self.seconds[target] = self.seconds.get(target, 0.0) + seconds


@contextmanager
def _within(detector: Detector, device: torch.device) -> Iterator[dict[str, float]]:
    """Measure the seconds spent in the head, and in its corner pooling modules, in this context."""
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
def _stepping(
    detector: Detector, dataset: DetectionDataset, config: Config
) -> Iterator[tuple[Callable[..., None], torch.device]]:
    """Give a function that takes a training step by a copy of the detector, and the device it is on."""
    model = copy.deepcopy(detector).train()
    device = next(model.parameters()).device
    parts = _batch(model, dataset, config, device)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.training.learning_rate, fused=True)

    def step(lap: Callable[[str], None] = lambda _: None) -> None:
        _step(model, optimiser, parts, config, lap)

    with torch.enable_grad(), model.pooling_by(config.testing.pooling_impl):
        yield step, device


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
    return lambda: _step(model, optimiser, parts, config, forward=forward)


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
    model: Detector,
    optimiser: torch.optim.Optimizer,
    parts: list[Batch],
    config: Config,
    lap: Callable[[str], None] = lambda _: None,
    forward: Any = None,
) -> None:
    """Take one optimiser step over the parts of a batch.

    ``lap`` is called with the name of each stage at its end; ``forward`` is the compiled model where there is one.
    """
    forward = model if forward is None else forward
    training = config.training
    optimiser.zero_grad(set_to_none=True)
    counts: Tensor = torch.stack([part.targets.counts() for part in parts]).sum(0)
    for part in parts:
        with torch.autocast(part.images.device.type, torch.bfloat16, enabled=training.precision == "bfloat16"):
            outputs = forward(part.images)
        lap("forward")
        loss = model.head.loss(outputs, part.targets, counts)["total"]
        lap("loss")
        loss.backward()  # type: ignore[no-untyped-call]
        lap("backward")
    if training.clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
        lap("clipping")
    optimiser.step()
    lap("optimiser")


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
