"""Times of a study's variants, measured in turn on the same images in one process, while nothing else runs here.

The weights are those of the first seed under which every variant that runs on this machine is trained in the store. A
study is timed once, and again by the command ``time``, also where a time was refused because the machine was not quiet.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from cornernet.console import Progress, error_text, printable
from cornernet.model.detector import Detector
from cornernet.training.devices import resolve_device
from cornernet.training.timing import InTurn, images_in_turn, steps_in_turn
from cornernet.weights.checkpoints import load_detector

from ..records.provenance import provenance
from ..records.timing import MAX_WALL_OVER_CPU, Timed, Timing
from ..studies.study import Study
from .planner import Job, timing_key
from .work import Work, program

__all__ = ["IMAGES", "STEPS", "measure_timings", "timed", "wanted"]

IMAGES = 40
STEPS = 9


@dataclass(frozen=True)
class _Wanted:
    """A study to time: its jobs by variant under one seed, all of them, and those that run here."""

    study: Study
    seed: int
    key: str
    jobs: dict[str, Job]


def wanted(work: Work, again: bool = False) -> tuple[list[_Wanted], list[str]]:
    """Return the studies of a call to be timed, and a sentence for each that cannot be.

    With ``again``, also those that have a timing.
    """
    found, why_not = [], []
    for study in work.studies:
        if not study.timed:
            continue
        by_seed = {seed: _keys(work, study, seed) for seed in work.seeds}
        if not again and any(work.store.timing(key) is not None for key in by_seed.values()):
            continue
        here = [variant.name for variant in study.variants if (study.name, variant.name) not in work.unavailable]
        if study.time_base_name not in here:
            why_not.append(f"{study.name} is not timed: its base {study.time_base_name} does not run here")
            continue
        for seed, key in by_seed.items():
            jobs = {name: work.jobs[study.name, name, seed] for name in here}
            if all(work.store.trained(job) for job in jobs.values()):
                found.append(_Wanted(study, seed, key, jobs))
                break
        else:
            why_not.append(
                f"{study.name} is not timed: {printable(work.store.root)} has the weights of all its variants under "
                "no seed; published records have none"
            )
    return found, why_not


def _keys(work: Work, study: Study, seed: int) -> str:
    return timing_key([work.jobs[study.name, variant.name, seed] for variant in study.variants])


def measure_timings(work: Work, *, again: bool = False, quiet: bool = False) -> list[Timing]:
    """Measure the times of the studies of a call that lack them, write them to the store, and return them.

    Nothing is measured while a training holds its lock in the store, or another process measures. What is not measured,
    and what is refused, is told on standard error.
    """
    studies, notes = wanted(work, again)
    measured = []
    with work.store.alone() if studies else contextlib.nullcontext() as why_not:
        if why_not is not None:
            notes.append(f"no times are measured: {why_not}; {program()} time measures them later")
            studies = []
        for each in studies:
            try:
                timing = _measured(work, each, quiet)
            except (OSError, RuntimeError, ValueError) as error:
                # such as a GPU that only the machines of the trainings have; the tables go without these times
                notes.append(f"{each.study.name} is not timed: {error_text(error)}")
                continue
            work.store.write_timing(timing)
            measured.append(timing)
            notes += [f"{each.study.name}: {line}" for line in _refusals(timing)]
    for note in notes:
        print(f"ablations: {note}", file=sys.stderr)
    return measured


def _refusals(timing: Timing) -> Iterator[str]:
    for part, what in ((timing.image, "an image"), (timing.step, "a training step")):
        for name, found in part.items():
            if found.refused:
                yield (
                    f"the time of {what} with {printable(name)} is refused: wall time was {found.wall_over_cpu:.2f} "
                    f"times CPU time, and up to {MAX_WALL_OVER_CPU:g} is accepted; {program()} time measures again"
                )


def _measured(work: Work, wanted: _Wanted, quiet: bool) -> Timing:
    base = wanted.study.time_base_name
    # the base first: ratios are of the first column
    jobs = {base: wanted.jobs[base], **wanted.jobs}
    dataset = work.sources.val(jobs[base].config.data.source)
    images, steps = min(IMAGES, len(dataset)), STEPS if wanted.study.step_latency else 0
    progress = Progress(f"timing {wanted.study.name}", images + steps, quiet=quiet)
    done = iter(range(1, images + steps + 1))

    def advance() -> None:
        progress.update(next(done))

    detectors: dict[str, Detector] = {}
    for job in jobs.values():
        if job.training_key not in detectors:
            device = resolve_device(job.config.training.device)
            detectors[job.training_key] = load_detector(work.store.training(job), device=device)
    variants = [(detectors[job.training_key], job.config) for job in jobs.values()]
    device = next(variants[0][0].parameters()).device
    with contextlib.closing(progress), _one_thread():
        image = images_in_turn(variants, dataset, images, advance)
        step = steps_in_turn(variants, dataset, steps, advance) if steps else None
    return Timing(
        timing_key=wanted.key,
        study=wanted.study.name,
        base=base,
        seed=wanted.seed,
        images=images,
        image=timed(list(jobs), image, device),
        step={} if step is None else timed(list(jobs), step, device),
        provenance=provenance(device),
    )


def timed(names: Sequence[str], seconds: InTurn, device: torch.device) -> dict[str, Timed]:
    """Return the times by name; the first is the base of the ratios."""
    found = {}
    for at, name in enumerate(names):
        wall, cpu = seconds.wall[:, at], seconds.cpu[:, at]
        low, middle, high = (1000 * np.quantile(wall, [0.25, 0.5, 0.75])).round(3).tolist()
        quarter, half, three = np.quantile(wall / seconds.wall[:, 0], [0.25, 0.5, 0.75]).round(4).tolist()
        on_cpu = device.type == "cpu"
        found[name] = Timed(
            milliseconds=middle,
            cpu_milliseconds=round(1000 * float(np.median(cpu)), 3),
            quartiles=(low, high),
            ratio=(quarter, half, three),
            wall_over_cpu=round(float(wall.sum() / cpu.sum()), 3) if on_cpu else None,
        )
    return found


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Use one CPU thread within this context."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
