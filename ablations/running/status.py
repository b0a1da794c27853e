"""Where the jobs of a call stand, and what there is to do: what ``status`` and ``--plan`` print."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cornernet.console import count, printable, text_table

from ..profiles import Profile
from ..statistics.claims import JudgedClaim
from .estimates import CALIBRATION_SECONDS, Speeds, minutes
from .looks import Standing
from .planner import Job, grouped
from .store import Store
from .work import Work

__all__ = ["print_plan", "print_standing", "print_status", "state"]


def print_status(work: Work) -> None:
    """Print every job with its state, then each failure with its log."""
    # read once: a job may belong to several studies, and its state may change meanwhile
    states = {job.evaluation_key: state(work.store, job) for job in work.distinct}
    standing = work.standing()
    needed = {job.evaluation_key for job in work.needed(standing)}
    rows = [
        [*name, job.evaluation_key, states.get(job.evaluation_key) or f"cannot run here: {work.unavailable[name[:2]]}"]
        for name, job in work.jobs.items()
        # of later looks only what has begun
        if job.evaluation_key in needed or states.get(job.evaluation_key) != "waiting"
    ]
    print(work.headline(work.profile.workers))
    print_standing(work, standing, work.profile.workers)
    print()
    print(text_table(["study", "variant", "seed", "evaluation", "state"], rows))
    for job in work.distinct:
        failure = None if work.store.record(job) is not None else work.store.failure(job)
        if failure is not None:
            print(f"\n{failure.evaluation_key} failed at {failure.time}\n  {printable(failure.last_line)}")
            print(f"  its log: {printable(work.store.root / failure.log)}")


def print_standing(work: Work, standing: Standing | None, workers: int, now: Speeds | None = None) -> None:
    """Print the verdicts at the complete looks, and how long the next look and the maximum are away.

    Without looks, print how long the rest takes. ``now`` are speeds that were just measured.
    """
    if standing is None:
        print(work.estimate(workers, work.distinct, now).to_text(), flush=True)
        return
    looks = ", ".join(map(str, standing.schedule.looks.at))
    print(f"\nlooks after {looks} seeds; the primary claims at their last complete look\n")
    header = ["study", "primary claim", "seeds", "verdict", "difference", "p, Holm"]
    print(text_table(header, [_judged(name, judged) for name, judged in standing.primary.items()]))
    rest = work.needed(standing)
    undone = [job for job in rest if work.store.record(job) is None]
    if not undone:
        left = [name for name in standing.open if name in {study.name for study in work.studies}]
        why = f": {', '.join(left)} cannot go on here" if left else ""
        print(f"\nno further look is needed{why}", flush=True)
        return
    print(f"\nnext look, {_needs(work, undone)}: {work.estimate(workers, undone, now).to_text()}")
    most = [job for job in work.needed(standing, to_the_maximum=True) if work.store.record(job) is None]
    if len(most) > len(undone):
        print(
            f"to the maximum of {standing.schedule.looks.maximum} seeds if nothing more is decided, "
            f"{_needs(work, most)}: {work.estimate(workers, most, now).to_text()}"
        )
    print(end="", flush=True)


def _judged(name: str, judged: JudgedClaim) -> list[object]:
    estimate = judged.estimate
    interval = ""
    if not math.isnan(estimate.low):
        interval = f"{estimate.mean:+.1f} [{estimate.low:+.1f}, {estimate.high:+.1f}]"
    p = "" if math.isnan(judged.adjusted_p) else f"{judged.adjusted_p:.4f}"
    seeds = judged.looks[-1].seeds if judged.looks else 0
    return [name, judged.claim.statement, seeds, judged.verdict, interval, p]


def _needs(work: Work, jobs: Sequence[Job]) -> str:
    groups = grouped(jobs)
    untrained = sum(not _training_finished(work.store, group) for group in groups)
    return f"{count(untrained, 'training')} and {count(len(jobs), 'evaluation')}"


def state(store: Store, job: Job) -> str:
    """Return the state of a job."""
    if store.own_record(job) is not None:
        return "finished"
    if store.record(job) is not None:
        return "finished, published"
    total = job.config.training.iterations
    if store.held(job):
        return "running now" + ("" if store.trained(job) else f", at iteration {store.iterations_done(job)} of {total}")
    if store.failure(job) is not None:
        return "failed"
    if store.trained(job):
        return "waiting, trained"
    done = store.resumes_at(job)
    return f"stopped at iteration {done} of {total}" if done else "waiting"


def print_plan(work: Work, workers: int) -> None:
    """Print the distinct trainings and evaluations, their states and the time they take."""
    why_not = _why_not_measured(work.profile)
    if why_not is None:
        print(f"measuring the speeds that no finished run tells, for at most {CALIBRATION_SECONDS:.0f} s", flush=True)
    standing = work.standing()
    jobs = work.needed(standing)
    # later looks need no other arms
    now = work.measured(jobs) if why_not is None else None
    times = work.estimate(workers, jobs, now)
    print("\nTrainings, by the first variant that needs each\n")
    header = ["key", "study", "variant", "seed", "iterations", "state", "minutes"]
    print(text_table(header, _trainings(work, jobs, times.trainings)))
    print("\nEvaluations, by the first variant that needs each\n")
    header = ["key", "study", "variant", "seed", "training", "state", "minutes"]
    print(text_table(header, _evaluations(work, jobs, times.evaluations)))
    print(f"\nbudget of the profile, in minutes: {work.profile.minutes}")
    text = times.to_text() if why_not is None or not times.unknown else f"{times.to_text()}: {why_not}"
    if standing is None:
        print(text)
        return
    print_standing(work, standing, workers, now)
    if text != times.to_text():
        print(text)


def _trainings(work: Work, jobs: Sequence[Job], seconds: Mapping[str, float | None]) -> list[list[object]]:
    names, rows = work.names(), []
    for group in grouped(jobs):
        job, key = group[0], group[0].training_key
        done = work.store.resumes_at(job)
        state = "finished" if _training_finished(work.store, group) else f"resumes at {done}" if done else "to do"
        rows.append([key, *names[key], job.config.training.iterations, state, _minutes(seconds, key)])
    return rows


def _evaluations(work: Work, jobs: Sequence[Job], seconds: Mapping[str, float | None]) -> list[list[object]]:
    names, rows = work.names(), []
    for job in jobs:
        key = job.evaluation_key
        state = "to do" if work.store.record(job) is None else "finished"
        rows.append([key, *names[key], job.training_key, state, _minutes(seconds, key)])
    return rows


def _minutes(seconds: Mapping[str, float | None], key: str) -> str:
    if key not in seconds:
        return ""
    found = seconds[key]
    return "not measured" if found is None else minutes(found)


def _why_not_measured(profile: Profile) -> str | None:
    """Return why a speed cannot be measured beforehand; None where it can."""
    import torch

    if profile.gpus > 1:
        return f"not measured, a training takes {count(profile.gpus, 'GPU')} together"
    if profile.gpus > torch.cuda.device_count():
        return "not measured, it takes a CUDA device and torch finds none here"
    return None


def _training_finished(store: Store, group: Sequence[Job]) -> bool:
    """Return whether a training is finished, by its weights or by the records of all evaluations that need it."""
    return store.trained(group[0]) or all(store.record(job) is not None for job in group)
