"""Training: one loop, on one device or, under torchrun, on many.

A run is a folder::

    config.json            the resolved configuration
    metrics.jsonl          a line every training.log_every iterations, and one for each evaluation
    checkpoints/step-N/    the newest checkpoint (cornernet.training.checkpoints)
    model.safetensors      the finished weights with their configuration; written last but one
    evaluation.json        metrics on val; a run is finished when this is there
    looks/step-N.png       at every evaluation: what is found in the same four images of val
    trained_on.txt         a hash of the content of every image trained on, where images are files
    .training.lock         held while a process trains here: two of them would overwrite each other's files

Everything that is drawn is drawn from (seed, epoch, image), so a run that was stopped or killed and resumed gives the
numbers of one that was not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import json
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing import resource_tracker
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import psutil
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cornernet.config import Config, ConfigError, TrainingConfig
from cornernet.data import (
    DataError,
    DetectionDataset,
    open_dataset,
    require_same_classes,
    shared_images,
    shared_images_warning,
)
from cornernet.data.leakage import write_training_digests
from cornernet.data.loader import Batch, training_loader
from cornernet.evaluation.evaluate import Evaluation, evaluate
from cornernet.files import atomic_write, remove_unfinished, sync
from cornernet.model.detector import Detector, build_detector
from cornernet.progress import Progress
from cornernet.training.checkpoints import newest, read_checkpoint, tidy, write_checkpoint
from cornernet.training.metrics import read_metrics
from cornernet.visualization.sheets import early_look, write_image
from cornernet.weights.checkpoints import CheckpointError, save_detector

__all__ = ["Interrupted", "TrainingError", "learning_rate", "resolve_device", "train"]


class TrainingError(RuntimeError):
    """Training cannot go on. The message says at which iteration, and why."""


class Interrupted(KeyboardInterrupt):
    """A run was asked to stop, and has written a checkpoint to go on from."""


def train(
    config: Config,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    quiet: bool = False,
    final_evaluation: bool = True,
    on_iteration: Callable[[int], None] | None = None,
    on_record: Callable[[dict[str, Any]], None] | None = None,
) -> Evaluation | None:
    """Train a detector into the folder ``out`` and return its evaluation on val.

    It is None on all but the first process, and without ``final_evaluation``.

    The number of classes is set from the data. ``resume`` goes on from the folder's newest checkpoint, or starts where
    there is none; without it a folder that holds a run is an error. ``on_iteration`` is called with the number of
    finished iterations, for tests and schedulers; ``on_record`` with every line of metrics.jsonl as it is written, and
    with the final metrics. Raises :class:`TrainingError` for a loss or a gradient that is not finite, for a folder that
    another process trains in, and where a checkpoint cannot be written; :class:`Interrupted` after Ctrl-C;
    ``ConfigError`` and ``DataError`` for what cannot be trained.
    """
    out = Path(out)
    with _process_group(config.training) as (rank, world_size, device), _telling_how_to_go_on(out), ExitStack() as held:
        if config.training.threads:
            torch.set_num_threads(config.training.threads)
            cv2.setNumThreads(config.training.threads)
        train_set = open_dataset(config.data.source, "train")
        val_set = open_dataset(config.data.source, "val")
        require_same_classes(train_set, val_set)
        shared = shared_images(train_set, val_set)
        config = config.with_("model.num_classes", len(train_set.classes))
        if rank == 0:
            held.enter_context(_open_folder(out, config, resume))
            if not quiet:
                print(train_set.summary(), val_set.summary(), sep="\n")
            if shared:
                print(f"warning: {shared_images_warning(shared, val_set)}", file=sys.stderr)

        torch.manual_seed(config.training.seed)
        detector = build_detector(config)
        detector.classes, detector.category_ids = train_set.classes, train_set.category_ids
        memory_format = torch.channels_last if config.training.channels_last else torch.contiguous_format
        detector.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
        optimiser = torch.optim.Adam(detector.parameters(), lr=config.training.learning_rate, fused=True)
        scaler = _scaler(config.training, device)
        outline = train_set.quick_fingerprint()
        start = _load_checkpoint(out, detector, optimiser, scaler, outline, rank) if resume else 0

        run = _Run(config, out, detector, optimiser, device, rank, world_size, quiet, val_set)
        run.scaler, run.on_record, run.outline = scaler, on_record, outline
        if start < config.training.iterations:
            loader = training_loader(
                train_set,
                config,
                _TargetsAtSize(detector.head.targets, config.data.input_size),
                first_iteration=start,
                rank=rank,
                world_size=world_size,
            )
            with _signals_held_back():  # loader processes inherit that until they ignore signals themselves
                batches = iter(loader)
            try:
                run.loop(batches, start, on_iteration)
            finally:
                # torch does so when the last reference goes, which a traceback holds up to the end of the interpreter
                if config.training.workers:
                    batches._shutdown_workers()  # type: ignore[attr-defined]
        if rank != 0:
            return None
        _write_seen(out, train_set)
        save_detector(detector, out / "model.safetensors")
        if not final_evaluation:
            return None
        evaluation = run.evaluate()
        record = {"iteration": config.training.iterations, **finite(evaluation.metrics)}
        summary = {"metrics": record, "per_class": {k: finite(v) for k, v in evaluation.per_class.items()}}
        run.look(config.training.iterations)
        if on_record is not None:
            on_record(
                {"iteration": record["iteration"], **{f"val/{n}": v for n, v in finite(evaluation.metrics).items()}}
            )
        atomic_write(out / "evaluation.json", json.dumps(summary, indent=2) + "\n")
        return evaluation


def _write_seen(out: Path, train_set: DetectionDataset) -> None:
    """List what was trained on, which reads every image: last, so that the first iteration does not wait for it."""
    try:
        write_training_digests(out, train_set)
    except DataError as error:
        print(f"warning: the images trained on are not listed: {error}", file=sys.stderr)


@dataclasses.dataclass(frozen=True)
class _TargetsAtSize:
    """The head's targets for inputs of one size; loader workers carry it."""

    build: Any
    size: tuple[int, int]

    def __call__(self, boxes: list[Tensor], labels: list[Tensor]) -> Any:
        return self.build(boxes, labels, self.size)


class _Run:
    """The loop and what it keeps hold of."""

    def __init__(
        self,
        config: Config,
        out: Path,
        detector: Detector,
        optimiser: torch.optim.Optimizer,
        device: torch.device,
        rank: int,
        world_size: int,
        quiet: bool,
        val_set: DetectionDataset,
    ) -> None:
        self.config, self.out, self.detector, self.optimiser = config, out, detector, optimiser
        self.device, self.rank, self.world_size = device, rank, world_size
        self.quiet, self.val_set = quiet, val_set
        self.scaler = _scaler(config.training, device)
        self.on_record: Callable[[dict[str, Any]], None] | None = None
        self.outline = ""
        self.unchecked: list[_Step] = []
        """Steps of which nobody has looked yet whether they are finite."""
        self.model: nn.Module = detector
        if world_size > 1:
            self.model = DistributedDataParallel(
                detector,
                device_ids=[device] if device.type == "cuda" else None,
                find_unused_parameters=getattr(detector.head, "leaves_unused", False),
            )
        if config.training.compile:
            # a wrapper around the same weights: evaluation, whose inputs have many sizes, stays as it is
            self.model = torch.compile(self.model)  # type: ignore[assignment]

    def loop(
        self, batches: Iterator[Batch | DataError], start: int, on_iteration: Callable[[int], None] | None
    ) -> None:
        """Run the iterations from ``start`` to the last."""
        settings = self.config.training
        progress = Progress(
            "train",
            settings.iterations,
            start=start,
            unit="img",
            unit_scale=settings.batch_size,
            quiet=self.quiet or self.rank != 0,
        )
        note = ""
        with contextlib.closing(progress), _StopAtBoundary(self.quiet or self.rank != 0) as stop:
            # a run that was stopped while it evaluated has its checkpoint, and not the evaluation
            if self.evaluates_at(start) and not self.evaluated(start) and self.evaluate_and_log(start, stop):
                raise self.interrupted(start)
            for iteration in range(start, settings.iterations):
                for group in self.optimiser.param_groups:
                    group["lr"] = learning_rate(settings, iteration)
                done = iteration + 1
                parts = [_unless_broken(next(batches)) for _ in range(settings.accumulation)]
                losses, norm, stopping = self.step(parts, stop.requested, done)
                last = done == settings.iterations
                save = done % settings.checkpoint_every == 0 or last or stopping
                evaluates = self.evaluates_at(done)
                if done % settings.log_every == 0 or save or evaluates or len(self.unchecked) >= _STEPS_UNCHECKED:
                    self.require_finite()
                if done % settings.log_every == 0 or save:
                    numbers = self.reduce(done, losses)
                    if done % settings.log_every == 0 or last:
                        note = self.log(done, numbers, norm, progress.rate())
                progress.update(done, note)
                if on_iteration is not None:
                    on_iteration(done)
                # before the checkpoint: a run that resumes from it has evaluated already, unless it was stopped there
                if evaluates:
                    with progress.paused():
                        stopping = self.evaluate_and_log(done, stop) or stopping
                if save or stopping:
                    self.save_checkpoint(done)
                if stopping:
                    raise self.interrupted(done)
        if stop.requested:  # after the last step; its checkpoint is written
            raise self.interrupted(settings.iterations)

    def interrupted(self, done: int) -> Interrupted:
        """Return what says where a run was stopped, and how it goes on."""
        return Interrupted(
            f"stopped after iteration {done} of {self.config.training.iterations}; a checkpoint is in "
            f"{self.out}: go on with --resume"
        )

    def step(self, batches: list[Batch], stop: bool, done: int) -> tuple[dict[str, Tensor], Tensor | None, bool]:
        """Take one optimiser step over the parts of a batch, after which ``done`` are done.

        Return this process's share of the batch's losses, the norm of the gradient, and whether any process was asked
        to ``stop``: all of them learn it in the same iteration. Raises ``TrainingError`` for losses or a gradient that
        are not finite; on a GPU, and where several processes share the work, they are looked at later, together with
        others, so that no step waits for it.

        Losses are divided by counts of the whole batch, over parts and processes, so that they and their gradients
        are those of the large batch however it is cut.
        """
        settings = self.config.training
        self.model.train()
        self.optimiser.zero_grad(set_to_none=True)
        targets = [batch.targets.to(self.device) for batch in batches]
        counts = torch.stack([t.counts() for t in targets]).sum(0)
        stopping = stop
        if self.world_size > 1:
            shared = torch.cat([counts, counts.new_tensor([float(stop)])])
            dist.all_reduce(shared)
            counts, stopping = shared[:-1], bool(shared[-1] > 0)
        memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
        dtype = torch.float16 if settings.precision == "float16" else torch.bfloat16
        autocast = torch.autocast(self.device.type, dtype, enabled=settings.precision != "float32")
        parts: list[dict[str, Tensor]] = []
        for index, (batch, target) in enumerate(zip(batches, targets, strict=True)):
            images = batch.images.to(self.device, non_blocking=True, memory_format=memory_format)
            with self.synchronised(index == len(batches) - 1):
                with autocast:
                    outputs = self.model(images)
                losses = self.detector.head.loss(outputs, target, counts)
                # DistributedDataParallel averages gradients over processes; these add up
                self.scaler.scale(losses["total"] * self.world_size).backward()
            parts.append({name: value.detach() for name, value in losses.items()})
        norm = None
        if settings.clip_norm is not None:
            self.scaler.unscale_(self.optimiser)
            norm = nn.utils.clip_grad_norm_(self.detector.parameters(), settings.clip_norm)
        losses = {name: torch.stack([part[name] for part in parts]).sum() for name in parts[0]}
        values = dict(losses)
        if not self.scaler.is_enabled():
            values[_GRADIENT] = _gradient_norm(self.detector) if norm is None else norm
        self.unchecked.append(_Step(done, [each for batch in batches for each in batch.image_ids], values))
        if self.device.type == "cpu" and self.world_size == 1:
            self.require_finite()
        # a step whose gradients overflow float16 is left out, and the scale lowered
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return losses, norm, stopping

    def require_finite(self) -> None:
        """Raise ``TrainingError`` for the first step since the last call whose losses or gradient are not finite."""
        steps, self.unchecked = self.unchecked, []
        if not steps:
            return
        broken = ~torch.stack([torch.stack(list(step.values.values())) for step in steps]).isfinite()
        anywhere = broken.float()
        if self.world_size > 1:
            dist.all_reduce(anywhere)
        if not anywhere.any():
            return
        at = int(anywhere.any(dim=1).int().argmax())
        found: list[Any] = [steps[at].broken()]
        if self.world_size > 1:
            found *= self.world_size
            dist.all_gather_object(found, steps[at].broken())
        raise TrainingError(
            f"at iteration {steps[at].done} {_not_finite(found)}; a lower training.learning_rate or a "
            "training.clip_norm may help; the last checkpoint is kept"
        )

    def synchronised(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Exchange gradients between processes after the last part of a batch alone."""
        if self.world_size > 1 and not last:
            model: Any = self.model
            return model.no_sync()  # type: ignore[no-any-return]
        return contextlib.nullcontext()

    def reduce(self, done: int, losses: dict[str, Tensor]) -> dict[str, float]:
        """Return the losses of the whole batch. Raises ``TrainingError`` for one that is not finite."""
        values = torch.stack(list(losses.values()))
        if self.world_size > 1:
            dist.all_reduce(values)
        numbers = dict(zip(losses, values.tolist(), strict=True))
        broken = [name for name, value in numbers.items() if not math.isfinite(value)]
        if broken:
            raise TrainingError(
                f"at iteration {done} the loss is not finite: {', '.join(f'{n} is {numbers[n]}' for n in broken)}; "
                "a lower training.learning_rate or a training.clip_norm may help; the last checkpoint is kept"
            )
        return numbers

    def log(self, done: int, numbers: dict[str, float], norm: Tensor | None, rate: float) -> str:
        """Write a line of metrics and return the note for the progress line."""
        memory = self.memory_gib()
        if self.rank == 0:
            record = {
                "iteration": done,
                **{f"loss/{name}": value for name, value in numbers.items()},
                "learning_rate": learning_rate(self.config.training, done - 1),
                "gradient_norm": None if norm is None or not torch.isfinite(norm) else norm.item(),
                "images_per_second": rate,
                "memory_gib": memory,
                "time": time.time(),
            }
            self.record(record)
        return "  ".join([*(f"{n} {v:.3f}" for n, v in numbers.items()), f"{memory:.1f} GiB"])

    def memory_gib(self) -> float:
        """Return the most memory held on a GPU, or what the process holds now on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**30
        return float(psutil.Process().memory_info().rss) / 2**30

    def evaluate(self, stop: _StopAtBoundary | None = None) -> Evaluation:
        """Evaluate the detector as it is on val. Raises ``_Stopped`` where ``stop`` was requested meanwhile."""
        progress = Progress("evaluate", len(self.val_set), unit="img", quiet=self.quiet)

        def show(done: int, _total: int) -> None:
            if stop is not None and stop.requested:
                raise _Stopped
            progress.update(done)

        with contextlib.closing(progress):
            return evaluate(self.detector, self.val_set, self.config, progress=show)

    def evaluates_at(self, done: int) -> bool:
        """Tell whether val is evaluated after so many iterations; after the last one it is by whoever trains."""
        every = self.config.training.evaluate_every
        return every > 0 and done > 0 and done % every == 0 and done != self.config.training.iterations

    def evaluated(self, done: int) -> bool:
        """Tell whether the metrics have an evaluation after so many iterations."""
        return any(line["iteration"] == done and "val/AP" in line for line in read_metrics(self.out / "metrics.jsonl"))

    def evaluate_and_log(self, done: int, stop: _StopAtBoundary) -> bool:
        """Evaluate on the first process and write its metrics, unless a stop is asked for meanwhile, in any process.

        Return whether one was.
        """
        if self.rank == 0:
            with contextlib.suppress(_Stopped):
                evaluation = self.evaluate(stop)
                self.look(done)
                metrics = {f"val/{name}": value for name, value in finite(evaluation.metrics).items()}
                self.record({"iteration": done, **metrics, "time": time.time()})
                if not self.quiet:
                    print(f"iteration {done}: AP {100 * evaluation.metrics['AP']:.1f}", flush=True)
        if self.world_size == 1:
            return stop.requested
        asked = torch.tensor(float(stop.requested), device=self.device)
        dist.all_reduce(asked)
        return bool(asked > 0)

    def record(self, record: dict[str, Any]) -> None:
        """Write a line of metrics, and tell whoever asked."""
        _append(self.out / "metrics.jsonl", record)
        if self.on_record is not None:
            self.on_record(record)

    def look(self, done: int) -> None:
        """Draw what is found in the same four images of val."""
        (self.out / "looks").mkdir(exist_ok=True)
        image = early_look(self.detector, self.val_set, self.config, f"iteration {done}")
        write_image(self.out / "looks" / f"step-{done:07d}.png", image)

    def save_checkpoint(self, done: int) -> None:
        """Write a checkpoint beside the last one, whole or not at all, then remove the last one.

        Raises ``TrainingError``, and keeps the last one, when a weight or a statistic is not finite, and when the disk
        takes no more.
        """
        state = self.detector.state_dict()
        broken = [name for name, value in state.items() if not torch.isfinite(value).all()]
        if broken:
            raise TrainingError(
                f"after iteration {done} weights are not finite ({broken[0]} and {len(broken) - 1} more); a lower "
                "training.learning_rate or a training.clip_norm may help; the last checkpoint is kept"
            )
        if self.rank == 0:
            rest = {"optimiser": self.optimiser.state_dict(), "scaler": self.scaler.state_dict()}
            weights = {key: value.contiguous() for key, value in state.items()}
            try:
                if (self.out / "metrics.jsonl").exists():
                    sync(self.out / "metrics.jsonl")  # what a machine that stops must not take from before it
                write_checkpoint(self.out / "checkpoints", done, weights, rest, self.outline)
            except OSError as error:
                raise TrainingError(
                    f"after iteration {done} no checkpoint could be written: {error}; the last one is kept: make room, "
                    "and go on with --resume"
                ) from error
        if self.world_size > 1:
            dist.barrier()


def learning_rate(training: TrainingConfig, iteration: int) -> float:
    """Return the learning rate of an iteration, counted from 0: warm-up, then the step or the cosine schedule."""
    peak = training.learning_rate
    if iteration < training.warmup:
        return peak * (iteration + 1) / training.warmup
    if training.schedule == "step":
        return peak * training.decay_factor ** sum(iteration >= at for at in training.decay_at)
    span = max(training.iterations - training.warmup, 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (iteration - training.warmup) / span))


def resolve_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device that ``training.device`` names; auto is cuda where there is one. Raises ``ConfigError``."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    if match is None:
        raise ConfigError(f"training.device is {name!r}; use auto, cpu, cuda or cuda:N")
    if name == "cpu":
        return torch.device("cpu")
    index = local_rank if match[1] is None else int(match[1])
    if index >= torch.cuda.device_count():
        raise ConfigError(
            f"training.device is {name!r}, and torch finds {torch.cuda.device_count()} CUDA devices here; "
            "use auto or cpu"
        )
    return torch.device("cuda", index)


def _unless_broken(batch: Batch | DataError) -> Batch:
    """Return the batch, or raise what a loader process came to instead of one."""
    if isinstance(batch, DataError):
        raise batch
    return batch


_GRADIENT = "gradient"

_STEPS_UNCHECKED = 100
"""Steps on a GPU between two looks at whether they were finite, at most."""


@dataclasses.dataclass(frozen=True)
class _Step:
    """What is needed to say where numbers ceased to be finite."""

    done: int
    image_ids: list[int]
    """This process's."""
    values: dict[str, Tensor]
    """Losses, and the norm of the gradient."""

    def broken(self) -> tuple[dict[str, float], list[int]]:
        """Return which of the values are not finite, and in which images."""
        values = {name: value.item() for name, value in self.values.items()}
        return {name: value for name, value in values.items() if not math.isfinite(value)}, self.image_ids


def _not_finite(found: list[tuple[dict[str, float], list[int]]]) -> str:
    """Return what is not finite, and in which images, from what each process found in its part of a batch."""
    losses = {name: value for values, _ in found for name, value in values.items() if name != _GRADIENT}
    # every process has the gradient of all, and the losses of its own images
    ids = [each for values, image_ids in found if not losses or values.keys() - {_GRADIENT} for each in image_ids]
    what = "the gradient is not finite, though the loss is"
    if losses:
        what = "the loss is not finite: " + ", ".join(f"{name} is {value}" for name, value in losses.items())
    return f"{what}, in the batch of image ids {', '.join(map(str, ids))}"


def _gradient_norm(module: nn.Module) -> Tensor:
    return nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])


def finite(values: dict[str, float]) -> dict[str, float | None]:
    """Return the values with None for NaN and infinities, which JSON does not have."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


class _Stopped(Exception):
    """An evaluation was left because a stop was requested."""


@contextlib.contextmanager
def _telling_how_to_go_on(out: Path) -> Iterator[None]:
    """Say what becomes of a run that is stopped outside its loop, or at once, by a full disk, or without a loader."""
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt as stop:
        kept = newest(out / "checkpoints")
        if kept is not None:
            done = int(kept.name.removeprefix("step-"))
            raise Interrupted(f"stopped; {out} has the checkpoint of iteration {done}: go on with --resume") from stop
        if (out / "config.json").exists():
            raise Interrupted(f"stopped before the first checkpoint in {out}: begin again with --resume") from stop
        raise Interrupted("stopped before the run began: the same command begins it") from stop
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise TrainingError(
            f"{error}; the last checkpoint in {out}, if there is one, is kept: make room, and go on with --resume"
        ) from error
    except RuntimeError as error:
        # torch raises it wherever this process happens to be
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            f"a loader process was lost (is memory short?): {str(error).splitlines()[0]}; the last checkpoint in {out} "
            "is kept: go on with --resume, with fewer --training.workers if it happens again"
        ) from error


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """Let Ctrl-C and termination wait, in this process; processes that are started meanwhile never get them."""
    resource_tracker.ensure_running()  # else started with the first process, and it ends the holding back
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _StopAtBoundary:
    """Turns the first Ctrl-C or termination signal into a request that the loop answers between iterations."""

    def __init__(self, quiet: bool = True) -> None:
        self.requested = False
        self.quiet = quiet
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> _StopAtBoundary:
        with contextlib.suppress(ValueError):  # signals can be handled in the main thread alone
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self.request)
        return self

    def request(self, _number: int, _frame: FrameType | None) -> None:
        if self.requested:
            # asked twice: stop now
            raise KeyboardInterrupt
        self.requested = True
        if not self.quiet:
            # print may have been interrupted in the middle of a line, and cannot be entered twice
            os.write(2, b"\nstopping after this iteration; once more stops at once\n")

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _process_group(training: TrainingConfig) -> Iterator[tuple[int, int, torch.device]]:
    """Join torchrun's processes where it started this one; yield rank, world size and device."""
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        yield 0, 1, resolve_device(training.device)
        return
    device = resolve_device(training.device, int(os.environ.get("LOCAL_RANK", "0")))
    if dist.is_initialized():
        yield dist.get_rank(), dist.get_world_size(), device
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # the others wait while the first process evaluates, which takes longer than the default of ten minutes on COCO
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=datetime.timedelta(hours=6))
    try:
        world_size = dist.get_world_size()
        if training.batch_size % (world_size * training.accumulation):
            raise ConfigError(
                f"training.batch_size {training.batch_size} does not divide over {world_size} processes with "
                f"training.accumulation {training.accumulation}"
            )
        yield dist.get_rank(), world_size, device
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _open_folder(out: Path, config: Config, resume: bool) -> Iterator[None]:
    """Make the run's folder, or hold that it is this run's, and keep other processes out of it in this context."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".training.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(f"another process is training in {out}; wait for it, or give another folder") from None
        except OSError as error:  # some network file systems have no locks
            print(f"warning: {out} cannot be locked ({error.strerror}); train only once there", file=sys.stderr)
        _begin(out, config, resume)
        yield


def _begin(out: Path, config: Config, resume: bool) -> None:
    """Write the configuration of a run that begins here or goes on. Raises ``ConfigError`` for one of another."""
    path = out / "config.json"
    begun = [name for name in ("metrics.jsonl", "checkpoints", "model.safetensors") if (out / name).exists()]
    if begun and not resume:
        raise ConfigError(f"{out} holds a run already ({begun[0]}); give another folder, or --resume to go on with it")
    if begun and path.exists():
        before = Config.load(path)
        if before.results_dict() != config.results_dict():
            raise ConfigError(
                f"{out} holds a run of another configuration: {', '.join(differences(before, config))}; "
                "resume with the configuration it was started with, or give another folder"
            )
    for folder in (out, out / "looks"):
        remove_unfinished(folder)
    atomic_write(path, config.to_json())


def differences(a: Config, b: Config) -> list[str]:
    """Return the paths of the fields that matter in which two configurations differ, with both values."""

    def walk(x: Any, y: Any, path: str) -> Iterator[str]:
        if isinstance(x, dict) and isinstance(y, dict):
            for key in {**x, **y}:
                yield from walk(x.get(key), y.get(key), f"{path}.{key}" if path else key)
        elif x != y:
            yield f"{path} ({x} there, {y} here)"

    return list(walk(a.results_dict(), b.results_dict(), ""))


def _scaler(training: TrainingConfig, device: torch.device) -> torch.amp.GradScaler:
    """Return what scales the loss under float16, and does nothing under other precisions.

    Raises ``ConfigError`` for bfloat16 on a GPU that does not have it.
    """
    if (
        training.precision == "bfloat16"
        and device.type == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise ConfigError(
            f"training.precision is bfloat16, which {torch.cuda.get_device_name(device)} does not have; "
            "use --training.precision float16"
        )
    return torch.amp.GradScaler(device.type, enabled=training.precision == "float16")


def _load_checkpoint(
    out: Path,
    detector: Detector,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    outline: str,
    rank: int,
) -> int:
    """Load the folder's newest checkpoint and return its iteration; 0 where there is none.

    Raises ``CheckpointError`` for one that is damaged or does not fit, and ``DataError`` where the data is not what it
    was: the result would be that of neither.
    """
    path = newest(out / "checkpoints")
    done = 0
    if path is not None:
        found = read_checkpoint(path)
        done = found.iteration
        if found.data != outline:
            raise DataError(
                f"the training data has changed since {path} was written, in its images or its boxes; go back to what "
                "it was, or begin a run in another folder"
            )
        try:
            detector.load_state_dict(found.weights)
            optimiser.load_state_dict(found.rest["optimiser"])
            if found.rest.get("scaler"):  # checkpoints before float16 have none, and other precisions an empty one
                scaler.load_state_dict(found.rest["scaler"])
        except Exception as error:
            raise CheckpointError(
                f"the checkpoint {path} does not fit the run: {error}; remove it to start again from the beginning"
            ) from error
    if rank == 0:
        if path is not None:
            tidy(out / "checkpoints", path)
        _truncate_metrics(out / "metrics.jsonl", done)
    return done


def _append(path: Path, record: dict[str, Any]) -> None:
    """Add a line to a JSONL file in one write. Raises ``OSError`` that names the file."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
    except OSError as error:
        error.filename = str(path)
        raise


def _truncate_metrics(path: Path, done: int) -> None:
    """Drop the lines that were written after the checkpoint that a run resumes from, and a torn last line."""
    if path.exists():
        atomic_write(path, "".join(json.dumps(line) + "\n" for line in read_metrics(path) if line["iteration"] <= done))
