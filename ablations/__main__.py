"""``python -m ablations``: run studies and write their tables. Also ``status``: where they stand, and ``pictures``."""

from __future__ import annotations

import contextlib
import functools
import shlex
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
import tyro
from tabulate import tabulate

from cornernet.config import Config, ConfigError, SourceConfig
from cornernet.data import (
    DataError,
    DetectionDataset,
    open_dataset,
    require_same_classes,
    shared_images,
    shared_images_warning,
)
from cornernet.training.devices import resolve_device

from .pictures import find_pair, make_pictures
from .profiles import PROFILES, Profile, find_profile
from .records.published import Report, command, published_report
from .records.records import load, publish, publish_failure
from .reporting import study_table
from .reporting.folder import render, write_files
from .reporting.pictures import placed_pictures
from .reporting.tables import Context
from .running.estimates import CALIBRATION_SECONDS, Estimate, calibrate, estimate, minutes, speeds_of_store
from .running.executors import Executor, LocalExecutor
from .running.planner import Fingerprints, Job, grouped, in_order, plan
from .running.ray_executor import on_ray
from .running.runner import Outcome, run_jobs
from .running.store import Store, StoreError
from .studies import STUDIES, find_study
from .studies.study import Study

__all__ = ["main"]

PROGRAM = "python -m ablations"

FAILED, IMPOSSIBLE, TIME_UP, INTERRUPTED = 1, 2, 3, 130
"""Exit statuses."""

_PROFILES = "; ".join(f"{p.name}: {p.purpose} (minutes: {p.minutes})" for p in PROFILES.values())


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which jobs a call is about."""

    profile: Annotated[
        str, tyro.conf.arg(metavar="{" + ",".join(PROFILES) + "}", help=f"How much it may cost. {_PROFILES}.")
    ] = "quick"
    studies: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="{" + ",".join(STUDIES) + "} ...")] = None
    """Which tables. Default: the profile's."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """A folder in COCO format with a train and a val split; without it the generated data set `shapes`."""
    train_split: str | None = None
    """Part of the name of the folder's annotation file to train on. Default: train."""
    val_split: str | None = None
    """Likewise to evaluate on. Default: val."""
    seeds: tuple[int, ...] | None = None
    """Instead of the profile's."""
    store: Path = Path("runs/ablations")
    """Folder of the runs. Several calls may share it: no job is run twice."""
    records: Path = Path("reports/records")
    """Folder of the records that are committed, of profiles that publish theirs: those found there, in
    PROFILE-DATA, are not run again, and what is finished is written there."""
    no_records: bool = False
    """Neither read nor write committed records."""


AnyArguments = TypeVar("AnyArguments", bound=Selection)


@dataclass(frozen=True, kw_only=True)
class Arguments(Selection):
    """Train and evaluate the variants of the paper's ablations, and print and write their tables.

    Finished runs are kept and not repeated; an interrupted call goes on where it was. Example:
    python -m ablations --data my_photos. To see every job with its state: python -m ablations status
    """

    workers: int | None = None
    """Runs side by side, one CPU thread each. Default: the profile's, 2 on a CPU and 1 on GPUs; on a Ray cluster that
    is there already, as many as it has CPUs or GPUs for."""
    executor: Literal["local", "ray"] = "local"
    """Where runs go: this machine, or the machines of a Ray cluster, which share the store and the data (extra
    `ray`)."""
    address: str | None = None
    """Of the Ray cluster: `auto`, HOST:PORT or ray://HOST:PORT. Default: Ray is started on this machine."""
    max_minutes: float | None = None
    """Stop after so long: what runs writes a checkpoint, the tables show what there is, and the exit status is 3. The
    same command goes on from there."""
    out: Path | None = None
    """Folder of the tables. Default: reports/PROFILE-DATA."""
    plan: bool = False
    """Print what there is to run and how long it takes, and do nothing else. Speeds that no finished run tells are
    measured, for some seconds."""
    only_report: bool = False
    """Write the tables from the runs that are finished, and train nothing."""


@dataclass(frozen=True, kw_only=True)
class StatusArguments(Selection):
    """Print every job with its state: finished, running, stopped, failed and why, or waiting."""


@dataclass(frozen=True, kw_only=True)
class PicturesArguments(Selection):
    """Draw what table 1's arms find, from weights in the store: for the reports, which only place these pictures."""

    out: Path | None = None
    """Folder of the pictures. Default: reports/pictures/PROFILE-DATA."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0; 1 where a run failed; 2 for what cannot be done; 3 where --max-minutes did not suffice; 130 when interrupted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    began = time.monotonic()
    try:
        if argv[:1] == ["status"]:
            return _status(_parse(StatusArguments, f"{PROGRAM} status", argv[1:]))
        if argv[:1] == ["pictures"]:
            return _pictures(_parse(PicturesArguments, f"{PROGRAM} pictures", argv[1:]))
        return _run(_parse(Arguments, PROGRAM, argv), argv, began)
    except KeyboardInterrupt:
        print("ablations: stopped; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except (ConfigError, DataError, StoreError, ValueError, OSError) as error:
        print(f"ablations: error: {error}", file=sys.stderr)
        return IMPOSSIBLE


def _parse(kind: type[AnyArguments], program: str, argv: list[str]) -> AnyArguments:
    return tyro.cli(kind, prog=program, args=argv, config=(tyro.conf.FlagCreatePairsOff,))


@dataclass(frozen=True)
class _Work:
    """What a call is about: the jobs of each (study, variant, seed), and where their runs are."""

    profile: Profile
    studies: list[Study]
    seeds: tuple[int, ...]
    base: Config
    data: str
    sources: _Sources
    jobs: dict[tuple[str, str, int], Job]
    store: Store
    published: Path | None
    """The folder of the committed records, for a profile that has them."""

    @functools.cached_property
    def unavailable(self) -> dict[tuple[str, str], str]:
        """Why this machine cannot run a (study, variant); without those that another machine finished."""
        return {
            (study.name, variant.name): why
            for study in self.studies
            for variant in study.variants
            if (why := study.why_not(self.base, variant)) is not None
            and any(self.store.record(self.jobs[study.name, variant.name, seed]) is None for seed in self.seeds)
        }

    @functools.cached_property
    def distinct(self) -> list[Job]:
        """The distinct jobs that can run here, in the order in which they are run."""
        here = {key: job for key, job in self.jobs.items() if key[:2] not in self.unavailable}
        return in_order(here, self.seeds)

    def names(self) -> dict[str, tuple[str, str, int]]:
        """Return the first (study, variant, seed) that asks for each evaluation, and for each training."""
        names: dict[str, tuple[str, str, int]] = {}
        for name, job in self.jobs.items():
            names.setdefault(job.evaluation_key, name)
            names.setdefault(job.training_key, name)
        return names

    def headline(self, workers: int) -> str:
        """Return what there is to do, in a line."""
        trainings = {job.training_key: job.config.training.iterations for job in self.distinct}
        iterations = " and ".join(str(each) for each in sorted(set(trainings.values())))
        finished = sum(self.store.record(job) is not None for job in self.distinct)
        return (
            f"profile {self.profile.name} on {self.data}: {len(trainings)} trainings of {iterations} iterations, "
            f"{len(self.distinct)} evaluations, {finished} of them finished, {workers} at a time"
        )

    def estimate(self, workers: int, measure: bool = False) -> Estimate:
        """Return how long the rest takes; ``measure`` what no finished run tells."""
        groups, known = grouped(self.distinct), speeds_of_store(self.store)
        now = calibrate(self.store, groups, known, self.sources.val) if measure else None
        return estimate(self.store, groups, workers, known, now, self.sources.val)


def _work(arguments: Selection, quiet: bool = False) -> _Work:
    """Open the data and the store, and plan the jobs."""
    profile = find_profile(arguments.profile)
    planned, planned_seeds = profile.planned(photographs=arguments.data is not None)
    studies = [find_study(name) for name in (planned if arguments.studies is None else arguments.studies)]
    seeds = planned_seeds if arguments.seeds is None else arguments.seeds
    if len(set(seeds)) != len(seeds) or not seeds:
        raise ConfigError(f"--seeds needs one or more different numbers, not {' '.join(map(str, seeds))}")
    base = _base(arguments)
    sources = _Sources(quiet)
    base = base.with_("model.num_classes", len(sources.open(base.data.source)[0].classes))
    data = "shapes" if arguments.data is None else arguments.data.resolve().name
    published = None
    if profile.publish and not arguments.no_records:
        published = arguments.records / f"{profile.name}-{data}"
    return _Work(
        profile=profile,
        studies=studies,
        seeds=tuple(seeds),
        base=base,
        data=data,
        sources=sources,
        jobs=plan(studies, base, seeds, sources.fingerprints),
        store=Store(arguments.store, None if published is None else _read_published(published)),
        published=published,
    )


def _read_published(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the committed records by evaluation key, and say which cannot be read."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = load(folder).records
    for warning in told:
        print(f"warning: {warning.message}", file=sys.stderr)
    return found


def _run(arguments: Arguments, argv: Sequence[str], began: float) -> int:
    profile = find_profile(arguments.profile)
    workers = profile.workers if arguments.workers is None else arguments.workers
    if workers < 1:
        raise ConfigError(f"--workers is {workers}; use 1 or more")
    if arguments.address is not None and arguments.executor != "ray":
        raise ConfigError("--address is of a Ray cluster: it needs --executor ray")
    if arguments.max_minutes is not None and not arguments.max_minutes > 0:
        raise ConfigError(f"--max-minutes is {arguments.max_minutes:g}; use more than 0")
    work = _work(arguments)
    print(work.headline(workers), flush=True)
    if arguments.plan:
        _print_plan(work, workers)
        return 0
    outcome = Outcome((), (), 0)
    if not arguments.only_report and any(work.store.record(job) is None for job in work.distinct):
        deadline = None if arguments.max_minutes is None else began + 60 * arguments.max_minutes
        with _executor(arguments, profile, workers) as executor:
            workers = executor.slots()
            print(work.estimate(workers).to_text(), flush=True)
            outcome = run_jobs(work.store, work.distinct, workers, deadline=deadline, executor=executor)
    else:
        print(work.estimate(workers).to_text(), flush=True)
    _publish(work)
    _report(arguments, work)
    if outcome.failed:
        print(f"ablations: error: {_failures(outcome, work.store)}", file=sys.stderr)
    if outcome.left:
        rest = work.estimate(workers)
        left = f"{len(rest.trainings)} trainings and {len(rest.evaluations)} evaluations are left; {rest.to_text()}"
        print(f"ablations: stopped after {arguments.max_minutes:g} minutes, as asked for: {left}", file=sys.stderr)
        print(f"go on with: {shlex.join(['python', '-m', 'ablations', *argv])}", file=sys.stderr)
        return TIME_UP
    return FAILED if outcome.failed else 0


@contextlib.contextmanager
def _executor(arguments: Arguments, profile: Profile, workers: int) -> Iterator[Executor]:
    """Yield what starts the runs. Raises ``ConfigError`` where nothing can."""
    if arguments.executor == "local":
        _require_gpus(profile)
        yield LocalExecutor(workers, max(1, profile.gpus))
        return
    # a cluster has as many as it has; one that is started here gets what a local call would take
    with on_ray(arguments.address, workers if arguments.address is None else arguments.workers, profile.gpus) as ray:
        yield ray


def _failures(outcome: Outcome, store: Store) -> str:
    """Return which jobs of a call failed and why."""
    # a training that failed has failed each of its evaluations in the same words
    lines = dict.fromkeys(f"  {store.root / failure.log}: {failure.last_line}" for failure in outcome.failed)
    text = f"{len(outcome.failed)} of {outcome.tried} jobs failed; the others are kept, and the next call tries again:"
    return "\n".join([text, *lines])


def _require_gpus(profile: Profile) -> None:
    """Raise ``ConfigError`` where this machine has fewer GPUs than a training of the profile takes."""
    found = torch.cuda.device_count()
    if found < profile.gpus:
        raise ConfigError(
            f"profile {profile.name} takes {profile.gpus} CUDA device{'s' * (profile.gpus > 1)} for a training, and "
            f"torch finds {found} here; --plan and --only-report need none, and --profile quick runs on a CPU"
        )


def _print_plan(work: _Work, workers: int) -> None:
    """Print the distinct trainings and evaluations, their states and the time they take."""
    why_not = _why_not_measured(work.profile)
    if why_not is None:
        print(f"measuring what no finished run tells, for {CALIBRATION_SECONDS:.0f} seconds at most", flush=True)
    times = work.estimate(workers, measure=why_not is None)
    names = work.names()

    def minutes_of(part: Mapping[str, float | None], key: str) -> str:
        if key not in part:
            return ""
        seconds = part[key]
        return "not measured" if seconds is None else minutes(seconds)

    rows = []
    for group in grouped(work.distinct):
        job, key = group[0], group[0].training_key
        iterations, done = job.config.training.iterations, work.store.resumes_at(job)
        state = "finished" if _training_finished(work.store, group) else f"resumes at {done}" if done else "to do"
        rows.append([key, *names[key], iterations, state, minutes_of(times.trainings, key)])
    print("\nTrainings, by the first variant that needs each\n")
    print(tabulate(rows, ["key", "study", "variant", "seed", "iterations", "state", "minutes"], disable_numparse=True))
    rows = [
        [
            job.evaluation_key,
            *names[job.evaluation_key],
            job.training_key,
            "to do" if work.store.record(job) is None else "finished",
            minutes_of(times.evaluations, job.evaluation_key),
        ]
        for job in work.distinct
    ]
    print("\nEvaluations, by the first variant that needs each\n")
    print(tabulate(rows, ["key", "study", "variant", "seed", "training", "state", "minutes"], disable_numparse=True))
    print(f"\nbudget of the profile, in minutes: {work.profile.minutes}")
    print(times.to_text() if why_not is None or not times.unknown else f"{times.to_text()}: {why_not}")


def _why_not_measured(profile: Profile) -> str | None:
    """Return why a speed cannot be measured beforehand; None where it can."""
    if profile.gpus > 1:
        return f"not measured, a training takes {profile.gpus} GPUs together"
    if profile.gpus > torch.cuda.device_count():
        return "not measured, it takes a CUDA device and torch finds none here"
    return None


def _training_finished(store: Store, group: Sequence[Job]) -> bool:
    """Return whether a training is finished, by its weights or by the records of all evaluations that need it."""
    return store.trained(group[0]) or all(store.record(job) is not None for job in group)


def _status(arguments: StatusArguments) -> int:
    work = _work(arguments, quiet=True)
    # read once: a job may be of several studies, and go on meanwhile
    states = {job.evaluation_key: _state(work.store, job) for job in work.distinct}
    rows = [
        [*name, job.evaluation_key, states.get(job.evaluation_key) or f"cannot run here: {work.unavailable[name[:2]]}"]
        for name, job in work.jobs.items()
    ]
    print(work.headline(work.profile.workers))
    print(work.estimate(work.profile.workers).to_text(), end="\n\n")
    print(tabulate(rows, ["study", "variant", "seed", "evaluation", "state"], disable_numparse=True))
    failed = {job.evaluation_key: work.store.failure(job) for job in work.distinct if not work.store.record(job)}
    for failure in failed.values():
        if failure is not None:
            print(f"\n{failure.evaluation_key} failed at {failure.time}\n  {failure.last_line}")
            print(f"  its log: {work.store.root / failure.log}")
    return 0


def _pictures(arguments: PicturesArguments) -> int:
    work = _work(arguments, quiet=True)
    pair = find_pair(work.store, work.jobs, work.seeds)
    dataset = work.sources.val(pair.with_.config.data.source)
    out = arguments.out or Path("reports") / "pictures" / f"{work.profile.name}-{work.data}"
    print(f"seed {pair.seed}: trainings {pair.without.training_key} and {pair.with_.training_key}", flush=True)
    for path in make_pictures(work.store, pair, dataset, out):
        print(path)
    return 0


def _state(store: Store, job: Job) -> str:
    """Return the state of a job in words."""
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


def _publish(work: _Work) -> None:
    """Write the store's finished records to the folder of those that are committed, and what failed."""
    if work.published is None:
        return
    for job in work.distinct:
        record = work.store.own_record(job)
        if record is not None:
            publish(work.published, record)
        elif work.store.record(job) is None and (failure := work.store.failure(job)) is not None:
            publish_failure(work.published, job.evaluation_key, job.seed, failure.last_line)


def _report(arguments: Arguments, work: _Work) -> None:
    """Print the tables and write them."""
    records = {key: work.store.record(job) for key, job in work.jobs.items()}
    failures = {key: work.store.failure(job) for key, job in work.jobs.items() if records[key] is None}
    context = Context(
        profile=work.profile.name,
        data=work.data,
        command=_command(arguments, work.studies, work.seeds),
        seeds=work.seeds,
        areas=work.sources.val(work.base.data.source).area_counts(),
        unavailable=work.unavailable,
        failed={key: failure.last_line for key, failure in failures.items() if failure is not None},
    )
    tables = []
    for study in work.studies:
        source = study.configure(work.base, study.variants[0]).data.source
        areas = work.sources.val(source).area_counts()
        tables.append(study_table(study, records, replace(context, areas=areas)))
    out = Path("reports") / f"{work.profile.name}-{work.data}" if arguments.out is None else arguments.out
    for table in tables:
        print(f"\n{table.to_markdown()}", flush=True)
    write_files(out, _files(work, Report(context=context, tables=tables, records=records)))
    print(f"\nTables (Markdown, CSV, LaTeX, JSON), figures and a page are in {out}")


def _files(work: _Work, report: Report) -> dict[str, bytes]:
    """Return the files of a report; where records are committed, from those, as ``nox -s report`` makes them."""
    if work.published is None:
        return render(report)
    pictures, notes = placed_pictures(work.published.parent.parent / "pictures" / work.published.name)
    return render(published_report(work.published), pictures, notes)


class _Sources:
    """The data of each source that studies need, opened and checked once."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self._opened: dict[str, tuple[DetectionDataset, DetectionDataset]] = {}

    def open(self, source: SourceConfig) -> tuple[DetectionDataset, DetectionDataset]:
        """Return train and val. The first time say what is in them, and warn of images that they share."""
        key = repr(source)
        if key not in self._opened:
            train_set, val_set = open_dataset(source, "train"), open_dataset(source, "val")
            require_same_classes(train_set, val_set)
            shared = shared_images(train_set, val_set)
            if shared and not self.quiet:
                print(f"warning: {shared_images_warning(shared, val_set)}", file=sys.stderr)
            if not self.quiet:
                print(train_set.summary(), val_set.summary(), sep="\n")
            self._opened[key] = train_set, val_set
        return self._opened[key]

    def val(self, source: SourceConfig) -> DetectionDataset:
        """Return val."""
        return self.open(source)[1]

    def fingerprints(self, source: SourceConfig) -> Fingerprints:
        """Return the fingerprints of train and val."""
        train_set, val_set = self.open(source)
        return Fingerprints(train_set.fingerprint, val_set.fingerprint)


def _base(arguments: Selection) -> Config:
    """Return the profile's configuration on the data that was asked for."""
    base = find_profile(arguments.profile).base(arguments.data)
    for name, value in (("train_split", arguments.train_split), ("val_split", arguments.val_split)):
        if value is not None:
            if arguments.data is None:
                raise ConfigError(f"--{name.replace('_', '-')} needs --data, the folder that it is a split of")
            base = base.with_(f"data.source.{name}", value)
    if base.training.device != "auto":
        return base
    # part of the key: arms on a CPU and on a GPU are not the same runs
    return base.with_("training.device", resolve_device("auto").type)


def _command(arguments: Arguments, studies: Sequence[Study], seeds: Sequence[int]) -> str:
    """Return the command that gives these tables, from a folder beside the data: where things lie is not published."""
    flags = (("--train-split", arguments.train_split), ("--val-split", arguments.val_split))
    extra = [part for flag, value in flags if value is not None for part in (flag, value)]
    data = None if arguments.data is None else arguments.data.resolve().name
    return command(arguments.profile, [study.name for study in studies], seeds, data, *extra)


if __name__ == "__main__":
    sys.exit(main())
