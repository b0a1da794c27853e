"""Training: one loop, on one device, on the cores of a CPU in replicas or, under torchrun, on several devices.

A run is a folder (:mod:`cornernet.training.run_folder`). All random numbers are drawn from (seed, epoch, image), so a
run that was stopped or killed and then resumed gives the same numbers as one that was never interrupted.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist

from cornernet.config import CocoSource, Config, Orientation, TrainingConfig
from cornernet.console import Progress, count, printable
from cornernet.data import (
    DataError,
    DetectionDataset,
    open_dataset,
    require_boxes,
    require_same_classes,
    shared_images,
    shared_images_warning,
)
from cornernet.data.leakage import write_training_digests
from cornernet.data.origin import read_origin, write_origin
from cornernet.data.survey import Survey, survey
from cornernet.evaluation.evaluate import READERS, Evaluation, evaluate
from cornernet.files import atomic_write, make_folder, sync
from cornernet.kernels.openmp import make_way
from cornernet.model.detector import Detector, build_detector
from cornernet.training.batches import training_batches
from cornernet.training.checkpoints import (
    load_newest,
    newest,
    remove_others,
    require_finite_weights,
    write_checkpoint,
)
from cornernet.training.devices import Processes, chosen_replicas, in_replicas, process_group
from cornernet.training.errors import Interrupted, TrainingError
from cornernet.training.metrics import append_metrics, finite, read_metrics, truncate_metrics
from cornernet.training.replicas import Replicas, use_threads
from cornernet.training.run_folder import RunFolder, explain_resume, open_folder, resume_command
from cornernet.training.signals import StopAtBoundary
from cornernet.training.step import StepResult, TrainStep
from cornernet.visualization.sheets import preview, write_image
from cornernet.weights.checkpoints import header, save_detector

__all__ = ["Interrupted", "TrainingError", "learning_rate", "train"]


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

    Returns None without ``final_evaluation``, and on all processes but the first. The number of classes comes from the
    data. ``resume`` continues from the newest checkpoint in the folder, or starts if there is none; without it, a
    folder that holds a run is an error. ``on_iteration`` is called with the number of finished iterations, for tests
    and schedulers. ``on_record`` is called with every line of metrics.jsonl as it is written, and with the final
    metrics. Replicas are spawned, so a script that trains with several needs ``if __name__ == "__main__"``.

    Raises :class:`TrainingError` for a loss, a gradient or a weight that is not finite, for a folder in which another
    process is training, for a checkpoint that cannot be written, and for a loader process or a replica that died.
    Raises :class:`Interrupted` after Ctrl-C, and ``ConfigError``, ``DataError`` or ``CheckpointError`` for a
    configuration, data or a checkpoint that cannot be used.
    """
    folder = RunFolder(Path(out))
    config = _with_replicas(config, folder, resume)
    with process_group(config.training) as processes, explain_resume(folder), ExitStack() as held:
        use_threads(config.training.threads_each)
        train_set, val_set = open_dataset(config.data, "train"), open_dataset(config.data, "val")
        require_same_classes(train_set, val_set)
        require_boxes(train_set, val_set)
        config = config.with_("model.num_classes", len(train_set.classes))
        found = survey(train_set, val_set)
        config = _with_orientation(config, found, folder, resume)
        train_set.orientation = val_set.orientation = config.data.orientation
        if processes.first:
            held.enter_context(open_folder(folder, config, resume))
            _introduce(config, train_set, val_set, found, quiet)
        step = TrainStep(_new_detector(config, train_set), config.training, processes)
        trainer = Trainer(config, folder, train_set, val_set, step, quiet, on_iteration, on_record)
        start = trainer.resume() if resume else 0
        with trainer.replicas(start):
            trainer.record_data()
            trainer.run(start)
        if not processes.first:
            return None
        trainer.save_weights()
        return trainer.final_evaluation() if final_evaluation else None


def learning_rate(training: TrainingConfig, iteration: int) -> float:
    """Return the learning rate of an iteration, counted from 0: warm-up, then the step or the cosine schedule."""
    peak = training.learning_rate
    if iteration < training.warmup:
        return peak * (iteration + 1) / training.warmup
    if training.schedule == "step":
        return peak * training.decay_factor ** sum(iteration >= at for at in training.decay_at)
    span = max(training.iterations - training.warmup, 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (iteration - training.warmup) / span))


@dataclass
class Trainer:
    """One run: its parts, its loop, and the files that it writes."""

    config: Config
    folder: RunFolder
    train_set: DetectionDataset
    val_set: DetectionDataset
    step: TrainStep
    quiet: bool
    on_iteration: Callable[[int], None] | None = None
    on_record: Callable[[dict[str, Any]], None] | None = None

    def __post_init__(self) -> None:
        self.processes: Processes = self.step.processes
        self.detector: Detector = self.step.detector
        self.data = self.train_set.quick_fingerprint()
        """Identifies the training data in checkpoints."""

    def resume(self) -> int:
        """Load the newest checkpoint, drop what was written after it, and return its iteration; 0 if there is none."""
        start = load_newest(self.folder.checkpoints, self.step, self.data)
        if self.processes.first:
            kept = newest(self.folder.checkpoints)
            if kept is not None:
                remove_others(self.folder.checkpoints, kept)
            truncate_metrics(self.folder.metrics, start)
        return start

    @contextlib.contextmanager
    def replicas(self, start: int) -> Iterator[None]:
        """Train with the other replicas from iteration ``start`` on while the context lasts, if there are any."""
        training = self.config.training
        if training.replicas == 1 or start >= training.iterations:
            yield
            return
        with Replicas(self.config, self.train_set, self.detector, start) as self.step.replicas:
            try:
                yield
            finally:
                self.step.replicas = None

    def record_data(self) -> None:
        """Note where the data lies and its digests, in the folder and for the weights. Warns if val has changed."""
        source = self.config.data.source
        if not self.processes.first or not isinstance(source, CocoSource):
            return
        digests = {"train": self.data, "val": self.val_set.quick_fingerprint()}
        before = read_origin(self.folder.path)
        # that train is the same, the checkpoint has told
        if before is not None and before.digests["val"] != digests["val"] and self.folder.metrics.exists():
            print(
                f"warning: {printable(self.val_set.name)} {printable(self.val_set.split)} has changed since the run in "
                f"{printable(self.folder)} began: its metrics before and after this point are of different data",
                file=sys.stderr,
            )
        self.detector.data_digests = digests
        write_origin(self.folder.path, source, digests)

    def run(self, start: int) -> None:
        """Train from iteration ``start`` to the last. Raises :class:`Interrupted` after Ctrl-C."""
        settings = self.config.training
        if start >= settings.iterations:
            return
        note = ""
        with (
            training_batches(self.config, self.train_set, self.detector, start, *self._share) as batches,
            contextlib.closing(self._progress(start)) as progress,
            StopAtBoundary(quiet=not self._prints) as stop,
        ):
            self._catch_up(start, stop)
            for done in range(start + 1, settings.iterations + 1):
                last = done == settings.iterations
                logs = done % settings.log_every == 0
                evaluates = self._evaluates_after(done)

                self.step.set_learning_rate(learning_rate(settings, done - 1))
                result = self.step(next(batches), done, stop=stop.requested)
                saves = last or result.stopping or done % settings.checkpoint_every == 0

                if logs or saves or evaluates:
                    self.step.require_finite()
                if logs or saves:
                    losses = self.step.total_losses(result, done)
                    if logs or last:
                        note = self._log(done, losses, result, progress.rate())
                progress.update(done, note)
                if self.on_iteration is not None:
                    self.on_iteration(done)

                stopping = result.stopping
                # before the checkpoint, so that a run that resumes from it has its evaluation already
                if evaluates:
                    with progress.paused():
                        stopping = self._evaluate_and_log(done, stop) or stopping
                if saves or stopping:
                    self._save_checkpoint(done)
                if stopping:
                    raise self._interrupted(done)
        if stop.requested:  # during the last iteration, whose checkpoint is written
            raise self._interrupted(settings.iterations)

    def save_weights(self) -> None:
        """Write the trained weights, and the list of the images trained on."""
        # the list reads every image: it comes last, so that the first iteration does not wait for it
        try:
            write_training_digests(self.folder.path, self.train_set)
        except DataError as error:
            print(f"warning: cannot list the images trained on: {error}", file=sys.stderr)
        save_detector(self.detector, self.folder.weights)

    def final_evaluation(self) -> Evaluation:
        """Evaluate the trained detector, and write the file that marks the run as finished."""
        done = self.config.training.iterations
        evaluation = self._evaluate()
        metrics = finite(evaluation.metrics)
        per_class = {name: finite(values) for name, values in evaluation.per_class.items()}
        self._preview(done)
        if self.on_record is not None:
            self.on_record({"iteration": done, **{f"val/{name}": value for name, value in metrics.items()}})
        summary = {
            "metrics": {"iteration": done, **metrics},
            "per_class": per_class,
            "evaluator": evaluation.evaluator,
        }
        atomic_write(self.folder.evaluation, json.dumps(summary, indent=2) + "\n")
        return evaluation

    @property
    def _prints(self) -> bool:
        return self.processes.first and not self.quiet

    @property
    def _share(self) -> tuple[int, int]:
        """Which share of every batch this process computes, and of how many."""
        return (self.processes.rank, self.processes.count) if self.step.replicas is None else self.step.replicas.share

    def _progress(self, start: int) -> Progress:
        settings = self.config.training
        return Progress(
            "train",
            settings.iterations,
            start=start,
            unit="img",
            unit_scale=settings.batch_size,
            quiet=not self._prints,
        )

    def _interrupted(self, done: int) -> Interrupted:
        return Interrupted(
            f"stopped after iteration {done} of {self.config.training.iterations}; a checkpoint is in {self.folder}; "
            f"continue with: {resume_command(self.folder)}"
        )

    def _log(self, done: int, losses: dict[str, float], result: StepResult, rate: float) -> str:
        """Write a line of metrics, and return the note for the progress line."""
        norm, memory = result.gradient_norm, self._memory_gib()
        if self.processes.first:
            self._record(
                {
                    "iteration": done,
                    **{f"loss/{name}": value for name, value in losses.items()},
                    "learning_rate": learning_rate(self.config.training, done - 1),
                    "gradient_norm": None if norm is None or not torch.isfinite(norm) else norm.item(),
                    "images_per_second": rate,
                    "memory_gib": memory,
                    "time": time.time(),
                }
            )
        return "  ".join([*(f"{n} {v:.3f}" for n, v in losses.items()), f"{memory:.1f} GiB"])

    def _memory_gib(self) -> float:
        """Return the peak memory allocated on a GPU, or what the process and its replicas hold now on a CPU."""
        if self.processes.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.processes.device) / 2**30
        beside = 0 if self.step.replicas is None else self.step.replicas.resident_bytes()
        return float(psutil.Process().memory_info().rss + beside) / 2**30

    def _record(self, record: dict[str, Any]) -> None:
        append_metrics(self.folder.metrics, record)
        if self.on_record is not None:
            self.on_record(record)

    def _evaluates_after(self, done: int) -> bool:
        """Return whether val is evaluated after ``done`` iterations. The final evaluation is separate."""
        every = self.config.training.evaluate_every
        return every > 0 and done > 0 and done % every == 0 and done != self.config.training.iterations

    def _catch_up(self, start: int, stop: StopAtBoundary) -> None:
        """Make up for an evaluation that a stop cut short: its checkpoint is there, its metrics are not."""
        if not self._evaluates_after(start):
            return
        lines = read_metrics(self.folder.metrics)
        if any(line["iteration"] == start and "val/AP" in line for line in lines):
            return
        if self._evaluate_and_log(start, stop):
            raise self._interrupted(start)

    def _evaluate(self, stop: StopAtBoundary | None = None) -> Evaluation:
        """Evaluate the detector on val. Raises :class:`_Stopped` if a stop is requested meanwhile."""
        progress = Progress("evaluate", len(self.val_set), unit="img", quiet=self.quiet)

        def show(done: int, _total: int) -> None:
            if stop is not None and stop.requested:
                raise _Stopped
            progress.update(done)

        with contextlib.closing(progress), self._all_threads():
            return evaluate(self.detector, self.val_set, self.config, progress=show, readers=READERS)

    def _evaluate_and_log(self, done: int, stop: StopAtBoundary) -> bool:
        """Evaluate on the first process and write its metrics, unless any process is asked to stop meanwhile.

        Returns whether one was.
        """
        if self.processes.first:
            with contextlib.suppress(_Stopped):
                evaluation = self._evaluate(stop)
                self._preview(done)
                metrics = {f"val/{name}": value for name, value in finite(evaluation.metrics).items()}
                self._record({"iteration": done, **metrics, "time": time.time()})
                if not self.quiet:
                    print(f"iteration {done}: AP {100 * evaluation.metrics['AP']:.1f}", flush=True)
        if self.processes.count == 1:
            return stop.requested
        requested = torch.tensor(float(stop.requested), device=self.processes.device)
        dist.all_reduce(requested)
        return bool(requested > 0)

    @contextlib.contextmanager
    def _all_threads(self) -> Iterator[None]:
        """Compute on as many threads as all replicas together train on: the others wait in this context."""
        training = self.config.training
        if training.replicas > 1:
            use_threads(training.replicas * training.threads_each)
            make_way()
        try:
            yield
        finally:
            use_threads(training.threads_each)

    def _preview(self, done: int) -> None:
        """Draw the detections in the same four images of val as at every evaluation."""
        make_folder(self.folder.previews, below=self.folder.path)
        image = preview(self.detector, self.val_set, self.config, f"iteration {done}")
        write_image(self.folder.previews / f"step-{done:07d}.png", image)

    def _save_checkpoint(self, done: int) -> None:
        """Write a checkpoint beside the previous one, complete or not at all, then remove the previous one.

        Raises :class:`TrainingError`, and keeps the previous one, if a weight or a statistic is not finite, or if the
        disk is full.
        """
        state = self.detector.state_dict()
        require_finite_weights(state, done)
        if self.processes.first:
            weights = {key: value.contiguous() for key, value in state.items()}
            try:
                if self.folder.metrics.exists():
                    sync(self.folder.metrics)  # a crash of the machine must not lose lines from before the checkpoint
                write_checkpoint(
                    self.folder.checkpoints, done, weights, self.step.state_dict(), self.data, header(self.detector)
                )
            except OSError as error:
                raise TrainingError(
                    f"after iteration {done} no checkpoint could be written: {error}; the last one is kept; "
                    f"free some disk space, then continue with: {resume_command(self.folder)}"
                ) from error
        if self.processes.count > 1:
            dist.barrier()


class _Stopped(Exception):
    """A stop was requested during an evaluation."""


def _with_replicas(config: Config, folder: RunFolder, resume: bool) -> Config:
    """Return ``config`` with the number of replicas, and of their threads, if it leaves them open.

    A run that resumes keeps those that it began with, on whatever machine.
    """
    training = config.training
    if resume and training.replicas == 0 and folder.config.exists():
        before = Config.load(folder.config).training
        training = replace(training, replicas=before.replicas, threads=training.threads or before.threads)
    return replace(config, training=chosen_replicas(training))


def _with_orientation(config: Config, found: Survey, folder: RunFolder, resume: bool) -> Config:
    """Return ``config`` with the rule about EXIF orientation that the annotations follow, for all that use the run.

    A run that resumes keeps its rule: runs that began before there was one have none.
    """
    if config.data.orientation != "annotations" or found.orientation == "annotations":
        return config
    orientation: Orientation = found.orientation
    if resume and folder.config.exists():
        orientation = Config.load(folder.config).data.orientation
    return config.with_("data.orientation", orientation)


def _introduce(
    config: Config, train_set: DetectionDataset, val_set: DetectionDataset, found: Survey, quiet: bool
) -> None:
    """Print what the run trains and evaluates on, what is doubtful, and a warning if the two share images."""
    if not quiet:
        print(train_set.summary(), val_set.summary(), sep="\n")
        if train_set.orientation == "stored":
            print(
                f"EXIF orientation: images are used as stored, as the annotations of {count(found.stored, 'image')} "
                "are, and detection with this run does so too"
            )
        if config.training.replicas > 1:
            print(f"training in {in_replicas(config.training)}")
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    shared = shared_images(train_set, val_set)
    if shared:
        print(f"warning: {shared_images_warning(shared, val_set)}", file=sys.stderr)


def _new_detector(config: Config, train_set: DetectionDataset) -> Detector:
    """Return a detector for the classes of the data, with weights drawn from the seed."""
    torch.manual_seed(config.training.seed)
    detector = build_detector(config)
    detector.classes, detector.category_ids = train_set.classes, train_set.category_ids
    return detector
