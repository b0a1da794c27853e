"""What a call is about: the jobs that its arguments select, where their runs are, and how long the rest takes."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from cornernet.config import CocoSource, Config, ConfigError, SourceConfig
from cornernet.console import count, printable
from cornernet.data import (
    DetectionDataset,
    open_dataset,
    require_same_classes,
    shared_images,
    shared_images_warning,
)
from cornernet.files import make_folder
from cornernet.training.hardware import surely_no_gpu
from cornernet.training.revision import TRAINING_REVISION

from ..profiles import PROFILES, Profile, find_profile
from ..records.published import load, publish, publish_failure
from ..records.record import Record
from ..records.timing import TIMINGS, Timing, load_timings, write_timing
from ..statistics.sequential import Schedule
from ..studies import STUDIES, find_study
from ..studies.study import Study
from .estimates import Estimate, Speeds, calibrate, estimate, speeds_of_store
from .looks import Standing, standing
from .planner import Fingerprints, Job, grouped, in_order, plan, timing_key
from .store import Store

__all__ = ["Selection", "Sources", "Work", "program", "select"]

_PROFILES = "; ".join(f"{p.name}: {p.purpose} (minutes: {p.minutes})" for p in PROFILES.values())


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which jobs a call is about."""

    profile: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(PROFILES) + "}", help=f"The budget. {_PROFILES}.")] = (
        "quick"
    )
    studies: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="{" + ",".join(STUDIES) + "} ...")] = None
    """Which tables. Default: the profile's."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """A COCO-format folder with a train and a val split. Default: the generated data set `shapes`."""
    train_split: str | None = None
    """Part of the name of the annotation file to train on. Default: train."""
    val_split: str | None = None
    """Part of the name of the annotation file to evaluate on. Default: val."""
    seeds: tuple[int, ...] | None = None
    """Seeds to use instead of the profile's."""
    store: Path = Path("runs/ablations")
    """Folder of the runs. Several calls may share it: no job is run twice."""
    records: Path = Path("reports/records")
    """Folder of the committed records, for profiles that publish theirs. Records in its subfolder PROFILE-DATA are not
    run again, and finished ones are written there."""
    no_records: bool = False
    """Neither read nor write committed records."""


def program() -> str:
    """Return the command that the user called, for messages that tell what to run next."""
    called = Path(sys.argv[0])
    if called.stem == "cornernet" or (called.name == "__main__.py" and called.parent.name == "cornernet"):
        return "cornernet ablate"
    # in a checkout the folder ablations lies beside cornernet, and is an alias
    in_checkout = (Path(__file__).resolve().parents[2] / "cornernet").is_dir()
    return "python -m ablations" if in_checkout else "python -m cornernet.ablations"


@dataclass(frozen=True, kw_only=True)
class Work:
    """The jobs of each (study, variant, seed), and where their runs are.

    Where looks are declared, the jobs are those of all seeds up to the maximum, and :attr:`schedule` is not None.
    """

    profile: Profile
    studies: list[Study]
    seeds: tuple[int, ...]
    base: Config
    data: str
    """The name of the data set."""
    sources: Sources
    jobs: dict[tuple[str, str, int], Job]
    store: Store
    published: Path | None
    """The folder of the committed records, for a profile that has them."""
    schedule: Schedule | None = None
    """The looks that the profile declares."""
    family: list[Study] = field(default_factory=list)
    """The studies whose primary claims are judged together at the looks: the profile's, and those of the call."""
    family_jobs: dict[tuple[str, str, int], Job] = field(default_factory=dict)
    """The jobs of the family."""

    @functools.cached_property
    def unavailable(self) -> dict[tuple[str, str], str]:
        """Why this machine cannot run a (study, variant), unless another machine has finished it."""
        return {
            (study.name, variant.name): why
            for study in self.studies
            for variant in study.variants
            # in this order, because the reason may need torch
            if any(self.store.record(self.jobs[study.name, variant.name, seed]) is None for seed in self.seeds)
            and (why := study.why_not(self.base, variant)) is not None
        }

    def require_trainable(self) -> None:
        """Raise ``ConfigError`` if a job needs a training by an older revision of the code than this."""
        missing = [job for job in self.distinct if self.store.record(job) is None]
        if not missing or self.profile.revision == TRAINING_REVISION:
            return
        seeds = sorted({job.seed for job in missing})
        raise ConfigError(
            f"profile {self.profile.name} was trained by revision {self.profile.revision} of the training code, and "
            f"{count(len(missing), 'record')} of it {'is' if len(missing) == 1 else 'are'} missing (seeds "
            f"{' '.join(map(str, seeds))}); this code is revision {TRAINING_REVISION} and its results would be others. "
            "Check out the commit that a committed record names and run it there, or use another profile "
            "(docs/protocol.md)"
        )

    @functools.cached_property
    def distinct(self) -> list[Job]:
        """The distinct jobs that can run here, in the order in which they are run."""
        here = {key: job for key, job in self.jobs.items() if key[:2] not in self.unavailable}
        return in_order(here, self.seeds)

    @property
    def records(self) -> dict[str, Record]:
        """The finished records by evaluation key."""
        found = {job.evaluation_key: self.store.record(job) for job in self.jobs.values()}
        return {key: record for key, record in found.items() if record is not None}

    @property
    def timing_keys(self) -> list[str]:
        """The keys of the times that the studies show, by study and seed."""
        return [
            timing_key([self.jobs[study.name, variant.name, seed] for variant in study.variants])
            for study in self.studies
            if study.timed
            for seed in self.seeds
        ]

    @property
    def timings(self) -> dict[str, Timing]:
        """The measured times by timing key."""
        found = {key: self.store.timing(key) for key in self.timing_keys}
        return {key: timing for key, timing in found.items() if timing is not None}

    @property
    def failures(self) -> dict[str, str]:
        """Why jobs without a record failed the last time, by evaluation key."""
        finished = self.records
        found = {job.evaluation_key: self.store.failure(job) for job in self.jobs.values()}
        return {key: failure.last_line for key, failure in found.items() if failure is not None and key not in finished}

    def standing(self) -> Standing | None:
        """Return where the family stands at the looks, by the finished records; None without looks."""
        if self.schedule is None:
            return None
        jobs = self.family_jobs | self.jobs
        return standing(
            [*self.family, *(study for study in self.studies if not study.claims)],
            {name: self.store.record(job) for name, job in jobs.items()},
            self.schedule,
        )

    def needed(self, standing: Standing | None, to_the_maximum: bool = False) -> list[Job]:
        """Return the distinct jobs that the next look needs, in the order in which they are run; without looks, all.

        With ``to_the_maximum``, all that may follow where nothing more is decided.
        """
        if standing is None:
            return self.distinct
        wanted = {name for study in self.studies for name in standing.needed(study.name, to_the_maximum)}
        here = {name: job for name, job in self.jobs.items() if name in wanted and name[:2] not in self.unavailable}
        return in_order(here, self.seeds)

    def unfinished(self, standing: Standing | None) -> bool:
        """Return whether the next look, or the whole work without looks, needs a job that has no record."""
        return any(self.store.record(job) is None for job in self.needed(standing))

    def names(self) -> dict[str, tuple[str, str, int]]:
        """Return the first (study, variant, seed) that asks for each evaluation, and for each training."""
        names: dict[str, tuple[str, str, int]] = {}
        for name, job in self.jobs.items():
            names.setdefault(job.evaluation_key, name)
            names.setdefault(job.training_key, name)
        return names

    def headline(self, workers: int) -> str:
        """Return what there is to do, in a line; where looks are declared, at most."""
        trainings = {job.training_key: job.config.training.iterations for job in self.distinct}
        iterations = " and ".join(str(each) for each in sorted(set(trainings.values())))
        finished = sum(self.store.record(job) is not None for job in self.distinct)
        return (
            f"profile {self.profile.name} on {printable(self.data)}: {'at most ' if self.schedule else ''}"
            f"{count(len(trainings), 'training')} of "
            f"{iterations} iterations, {count(len(self.distinct), 'evaluation')}, {finished} of them finished, "
            f"{workers} at a time"
        )

    def measured(self, jobs: Sequence[Job]) -> Speeds:
        """Measure the speeds of jobs that no finished run tells."""
        return calibrate(self.store, grouped(jobs), speeds_of_store(self.store), self.sources.val)

    def estimate(self, workers: int, jobs: Sequence[Job], now: Speeds | None = None) -> Estimate:
        """Return how long the unfinished ones of ``jobs`` take; ``now`` are speeds that were just measured."""
        known = speeds_of_store(self.store)
        return estimate(self.store, grouped(jobs), workers, known, now, self.sources.val)

    def publish(self) -> None:
        """Write the store's finished records, times, and what failed, to the folder of the committed records."""
        if self.published is None:
            return
        for key in self.timing_keys:
            timing = self.store.own_timing(key)
            if timing is not None:
                make_folder(self.published)
                write_timing(self.published / TIMINGS, timing)
        for job in self.distinct:
            record = self.store.own_record(job)
            if record is not None:
                publish(self.published, record)
            elif self.store.record(job) is None and (failure := self.store.failure(job)) is not None:
                publish_failure(self.published, job.evaluation_key, job.seed, failure.last_line)


class Sources:
    """The data of each source that studies need, opened and checked once."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self._opened: dict[str, tuple[DetectionDataset, DetectionDataset]] = {}

    def open(self, source: SourceConfig) -> tuple[DetectionDataset, DetectionDataset]:
        """Return train and val. The first time, print what they hold, and warn of images that both have."""
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


def select(selection: Selection, quiet: bool = False) -> Work:
    """Open the data and the store, and plan the jobs.

    Raises ``ConfigError`` for arguments that do not fit together, ``ValueError`` for unknown names, and ``DataError``
    for data that cannot be used.
    """
    profile = find_profile(selection.profile)
    planned, planned_seeds = profile.planned(photographs=selection.data is not None)
    data = "shapes" if selection.data is None else selection.data.resolve().name
    asked = planned if selection.studies is None else selection.studies
    studies, family = (
        [find_study(name, profile.declarations).on(data) for name in names] for names in (asked, planned)
    )
    seeds = planned_seeds if selection.seeds is None else selection.seeds
    if len(set(seeds)) != len(seeds) or not seeds:
        raise ConfigError(f"--seeds needs one or more different numbers, not {' '.join(map(str, seeds))}")
    schedule = profile.schedule(photographs=selection.data is not None)
    if schedule is not None and selection.seeds is not None:
        raise ConfigError(
            f"--seeds: profile {profile.name} declares its seeds and the looks at them, after "
            f"{', '.join(map(str, schedule.looks.at))}; leave --seeds out"
        )
    sources = Sources(quiet)
    base = _base(selection, profile, sources)
    published = None
    if profile.publish and not selection.no_records:
        published = selection.records / f"{profile.name}-{data}"
    # what a call leaves out counts all the same, and so its verdicts stay
    family = [study for study in {each.name: each for each in (*family, *studies)}.values() if study.claims]
    return Work(
        profile=profile,
        studies=studies,
        seeds=tuple(seeds),
        base=base,
        data=data,
        sources=sources,
        jobs=plan(studies, base, seeds, sources.fingerprints, profile.revision),
        store=Store(selection.store) if published is None else Store(selection.store, *_read_published(published)),
        published=published,
        schedule=schedule,
        family=[] if schedule is None else family,
        family_jobs={} if schedule is None else plan(family, base, seeds, sources.fingerprints, profile.revision),
    )


def _base(selection: Selection, profile: Profile, sources: Sources) -> Config:
    """Return the profile's configuration on the selected data and this machine's device."""
    source = _source(selection)
    base = profile.base(source)
    classes = len(sources.open(base.data.source)[0].classes)
    # the device is part of the key: arms on a CPU and on a GPU are not the same runs
    device = _automatic() if base.training.device == "auto" else base.training.device
    return profile.base(source, classes=classes, device=device)


def _automatic() -> str:
    """Return the kind of device that ``auto`` means here, without torch where that can be told without it."""
    if surely_no_gpu():
        return "cpu"

    from cornernet.training.devices import resolve_device

    return resolve_device("auto").type


def _source(selection: Selection) -> CocoSource | None:
    train, val = selection.train_split, selection.val_split
    if selection.data is None:
        for flag, value in (("--train-split", train), ("--val-split", val)):
            if value is not None:
                raise ConfigError(f"{flag} needs --data, the folder that it is a split of")
        return None
    usual = CocoSource(root=str(selection.data))
    return CocoSource(
        root=usual.root,
        train_split=usual.train_split if train is None else train,
        val_split=usual.val_split if val is None else val,
    )


def _read_published(folder: Path) -> tuple[dict[str, Record], dict[str, Timing]]:
    """Return the committed records by evaluation key and times by timing key, and print which cannot be read."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = load(folder).records
    for warning in caught:
        print(f"warning: {printable(warning.message)}", file=sys.stderr)
    timings, broken = load_timings(folder / TIMINGS)
    for line in broken:
        print(f"warning: {printable(line)}", file=sys.stderr)
    return found, timings
