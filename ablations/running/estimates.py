"""How long jobs will take, from measured speeds: of runs in the store, or of a few steps taken now."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import heapq
import io
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cornernet.config import Config, SourceConfig
from cornernet.data import DetectionDataset

from .planner import Job
from .store import Store

__all__ = ["CALIBRATION_SECONDS", "Estimate", "Speeds", "calibrate", "estimate", "speeds_of_store"]

CALIBRATION_SECONDS = 20.0
"""Time limit for all measurements before a plan is printed."""

SECONDS_EACH = 3.0
"""Time limit for each configuration: more time adds little precision."""

START_SECONDS = 4.0
"""From the start of a process to its first iteration: mostly the import of torch, 3 to 5 s where it was timed."""

Kind: TypeAlias = Literal["training", "testing"]

ValSet: TypeAlias = Callable[[SourceConfig], DetectionDataset]

_PACE = ("batch_size", "accumulation", "precision", "channels_last", "device", "threads")
"""The fields of ``training`` that the speed depends on."""


class Speeds:
    """Seconds per iteration, or per test image, by what they depend on."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {}

    def add(self, kind: Kind, config: dict[str, Any], seconds: float) -> None:
        """Add a measurement under a configuration in the form of ``Config.to_dict``, as in a record."""
        for key in _keys(kind, config):
            self._seconds.setdefault(key, []).append(seconds)

    def exactly(self, kind: Kind, config: dict[str, Any]) -> float | None:
        """Return the mean for the same model, data and batch or test path; None where nothing was measured."""
        return self._mean(_keys(kind, config)[0])

    def nearly(self, kind: Kind, config: dict[str, Any]) -> float | None:
        """Return the mean where the head may differ, because the arms of most studies differ only in the head."""
        return self._mean(_keys(kind, config)[1])

    def _mean(self, key: str) -> float | None:
        found = self._seconds.get(key)
        return None if not found else sum(found) / len(found)


def _keys(kind: Kind, config: dict[str, Any]) -> tuple[str, str]:
    """Return hashes of what a speed depends on: of everything, and of everything except the head."""
    part: dict[str, Any] = {"kind": kind, "model": dict(config["model"]), "data": copy.copy(config["data"])}
    part["data"]["source"] = {k: v for k, v in config["data"]["source"].items() if k != "root"}
    if kind == "training":
        part["pace"] = [config["training"].get(name) for name in _PACE]
    else:
        part["testing"], part["device"] = config["testing"], config["training"]["device"]
    exact = json.dumps(part, sort_keys=True)
    del part["model"]["head"]
    nearly = json.dumps(part, sort_keys=True)
    return hashlib.sha256(exact.encode()).hexdigest(), hashlib.sha256(nearly.encode()).hexdigest()


def speeds_of_store(store: Store) -> Speeds:
    """Return the speeds of a store's finished runs, and of unfinished trainings where none of the kind is finished.

    They are the speeds of then: of that machine, with that many runs side by side.
    """
    speeds = Speeds()
    for record in store.finished_records():
        # a configuration of another version tells no speed
        with contextlib.suppress(KeyError, TypeError, ZeroDivisionError):
            speeds.add("testing", record.config, record.seconds.evaluation / record.data.images)
            if record.seconds.training is not None:
                speeds.add("training", record.config, record.seconds.training / record.iterations)
    begun = Speeds()
    for folder in sorted((store.root / "trainings").glob("*")):
        with contextlib.suppress(OSError, ValueError, LookupError, RecursionError, TypeError, ZeroDivisionError):
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            line = json.loads((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
            if speeds.exactly("training", config) is None:
                begun.add("training", config, config["training"]["batch_size"] / line["images_per_second"])
    for key, seconds in begun._seconds.items():
        speeds._seconds.setdefault(key, seconds)
    return speeds


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """How long the unfinished jobs take, in seconds.

    ``trainings`` and ``evaluations`` hold the time of each that is still to do, by key; None where no speed is known.
    ``origins`` counts where the speeds come from.
    """

    seconds: float
    trainings: dict[str, float | None]
    evaluations: dict[str, float | None]
    origins: Counter[str]
    workers: int

    @property
    def unknown(self) -> int:
        """How many trainings and evaluations have no known speed."""
        return sum(seconds is None for part in (self.trainings, self.evaluations) for seconds in part.values())

    def to_text(self) -> str:
        """Return the estimate in a sentence that says where it comes from."""
        parts = len(self.trainings) + len(self.evaluations)
        if not parts:
            return "estimated time: 0 minutes, everything is finished"
        if self.unknown == parts:
            return "estimated time: unknown, because this store has no similar runs yet"
        least = "at least " if self.unknown else ""
        origins = ", ".join(f"{number} {origin}" for origin, number in self.origins.most_common())
        return (
            f"estimated time: {least}{minutes(self.seconds)} minutes, {self.workers} at a time (speeds of {parts} "
            f"trainings and evaluations: {origins})"
        )


def minutes(seconds: float) -> str:
    """Return seconds as minutes, with about two digits."""
    digits = 2 if seconds < 60 else 1 if seconds < 600 else 0
    return f"{seconds / 60:.{digits}f}"


def estimate(
    store: Store, groups: Sequence[Sequence[Job]], workers: int, known: Speeds, now: Speeds | None, val_set: ValSet
) -> Estimate:
    """Return how long it takes to run groups of jobs, each sharing a training, ``workers`` at a time.

    ``known`` are the store's speeds, and ``now`` those just measured. Where neither has the configuration, one that
    differs only in its head is used.
    """
    origins: Counter[str] = Counter()
    trainings: dict[str, float | None] = {}
    evaluations: dict[str, float | None] = {}
    spans: list[float] = []
    for group in groups:
        waiting = [job for job in group if store.record(job) is None]
        if not waiting:
            continue
        span = START_SECONDS
        left = waiting[0].config.training.iterations - store.resumes_at(waiting[0])
        if left:
            each, origin = _speed("training", waiting[0].config, known, now)
            origins[origin] += 1
            trainings[waiting[0].training_key] = None if each is None else each * left
            span += (each or 0.0) * left
        for job in waiting:
            each, origin = _speed("testing", job.config, known, now)
            origins[origin] += 1
            images = len(val_set(job.config.data.source))
            evaluations[job.evaluation_key] = None if each is None else each * images
            span += (each or 0.0) * images
        spans.append(span)
    return Estimate(
        seconds=_side_by_side(spans, workers),
        trainings=trainings,
        evaluations=evaluations,
        origins=origins,
        workers=workers,
    )


def _speed(kind: Kind, config: Config, known: Speeds, now: Speeds | None) -> tuple[float | None, str]:
    """Return the seconds per iteration or image, and where they come from."""
    tree = config.to_dict()
    found = known.exactly(kind, tree)
    if found is not None:
        return found, "from runs in this store"
    found = None if now is None else now.exactly(kind, tree)
    if found is not None:
        return found, "measured now"
    for speeds in (known, now):
        found = None if speeds is None else speeds.nearly(kind, tree)
        if found is not None:
            return found, "from runs with another head"
    return None, "not measured"


def _side_by_side(spans: Sequence[float], workers: int) -> float:
    """Return when the last job is done, where each in order goes to the worker that is free first."""
    free = [0.0] * workers
    for span in spans:
        heapq.heapreplace(free, free[0] + span)
    return max(free)


class _Enough(Exception):
    """Ends a training that was timed."""


def calibrate(
    store: Store,
    groups: Sequence[Sequence[Job]],
    known: Speeds,
    val_set: ValSet,
    seconds: float = CALIBRATION_SECONDS,
) -> Speeds:
    """Measure a few training steps and test images of each configuration whose speed is not ``known``, on one thread.

    Stops after about ``seconds``, even where something is not measured yet. Writes nothing to the store.
    """
    now = Speeds()
    todo: list[tuple[Kind, Config]] = []
    for kind in ("training", "testing"):
        distinct: dict[str, Config] = {}
        for group in groups:
            for job in (job for job in group if store.record(job) is None):
                tree = job.config.to_dict()
                left = job.config.training.iterations - store.resumes_at(job)
                if known.exactly(kind, tree) is None and (left or kind == "testing"):
                    distinct.setdefault(_keys(kind, tree)[0], job.config)
        todo += [(kind, config) for config in distinct.values()]
    end = time.monotonic() + seconds
    with _one_thread(), contextlib.redirect_stderr(io.StringIO()):
        for index, (kind, config) in enumerate(todo):
            share = min((end - time.monotonic()) / (len(todo) - index), SECONDS_EACH)
            if share <= 0:
                break
            if kind == "training":
                now.add(kind, config.to_dict(), _seconds_an_iteration(config, share))
            else:
                now.add(kind, config.to_dict(), _seconds_an_image(config, val_set(config.data.source), share))
    return now


def _seconds_an_iteration(config: Config, share: float) -> float:
    """Train for ``share`` seconds, at least two iterations, and return the mean time of one, without the first."""
    import torch

    from cornernet.training.loop import train

    began = time.perf_counter()
    times: list[float] = []

    def on_iteration(_done: int) -> None:
        if config.training.device != "cpu" and torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter())
        if len(times) >= 2 and times[-1] - began > share:
            raise _Enough

    for name in ("iterations", "log_every", "checkpoint_every"):
        config = config.with_(f"training.{name}", 1_000_000)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_Enough):
        train(config, Path(folder) / "run", quiet=True, final_evaluation=False, on_iteration=on_iteration)
    return (times[-1] - times[0]) / (len(times) - 1)


def _seconds_an_image(config: Config, val_set: DetectionDataset, share: float) -> float:
    """Test images for ``share`` seconds with random weights; return the mean time of one, without the first."""
    from cornernet.evaluation.evaluate import detect_all
    from cornernet.model.detector import build_detector
    from cornernet.training.devices import resolve_device

    began = time.perf_counter()
    times: list[float] = []
    detector = build_detector(config).to(resolve_device(config.training.device))
    for _ in detect_all(detector, val_set, config):
        times.append(time.perf_counter())
        if len(times) >= 2 and times[-1] - began > share:
            break
    return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else times[0] - began


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread, as a worker does; restore the threads of torch and OpenCV afterwards."""
    import cv2
    import torch

    before, before_cv2 = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        cv2.setNumThreads(before_cv2)
