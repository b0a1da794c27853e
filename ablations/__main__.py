"""``python -m ablations``: run studies and write their tables."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from ablations.planner import Fingerprints, plan
from ablations.profiles import PROFILES, find_profile
from ablations.reporting import study_table, write_reports
from ablations.reporting.tables import Context
from ablations.runner import JobFailed, run_jobs
from ablations.store import Store, StoreError
from ablations.studies import STUDIES, find_study
from ablations.study import Study
from cornernet.config import Config, ConfigError, SourceConfig
from cornernet.data import (
    DataError,
    DetectionDataset,
    open_dataset,
    require_same_classes,
    shared_images,
    shared_images_warning,
)
from cornernet.training import resolve_device

__all__ = ["main"]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train and evaluate the variants of the paper's ablations, and print and write their tables.

    Finished runs are kept and not repeated; an interrupted call goes on where it was. Example:
    python -m ablations --data my_photos
    """

    profile: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(PROFILES) + "}")] = "quick"
    """How much it may cost."""
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
    workers: int = 2
    """Runs side by side, one CPU thread each."""
    store: Path = Path("runs/ablations")
    """Folder of the runs."""
    out: Path | None = None
    """Folder of the tables. Default: reports/PROFILE-DATA."""
    only_report: bool = False
    """Write the tables from the runs that are finished, and train nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1 where a run failed, 2 for what cannot be done."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = tyro.cli(Arguments, prog="python -m ablations", args=list(argv), config=(tyro.conf.FlagCreatePairsOff,))
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("ablations: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except (ConfigError, DataError, StoreError, ValueError, OSError) as error:
        print(f"ablations: error: {error}", file=sys.stderr)
        return 2


def _run(arguments: Arguments) -> int:
    profile = find_profile(arguments.profile)
    studies = [find_study(name) for name in (profile.studies if arguments.studies is None else arguments.studies)]
    seeds = profile.seeds if arguments.seeds is None else arguments.seeds
    if len(set(seeds)) != len(seeds) or not seeds:
        raise ConfigError(f"--seeds needs one or more different numbers, not {' '.join(map(str, seeds))}")
    if arguments.workers < 1:
        raise ConfigError(f"--workers is {arguments.workers}; use 1 or more")
    base = _base(arguments)
    sources = _Sources()
    base = base.with_("model.num_classes", len(sources.open(base.data.source)[0].classes))

    data = "shapes" if arguments.data is None else arguments.data.resolve().name
    jobs = plan(studies, base, seeds, sources.fingerprints)
    store = Store(arguments.store)
    trainings = {job.training_key for job in jobs.values()}
    evaluations = {job.evaluation_key: job for job in jobs.values()}
    finished = sum(store.record(job) is not None for job in evaluations.values())
    print(
        f"profile {profile.name} on {data}: {len(trainings)} trainings of {base.training.iterations} iterations, "
        f"{len(evaluations)} evaluations, {finished} of them finished, {arguments.workers} at a time",
        flush=True,
    )
    failure = None
    try:
        if not arguments.only_report:
            run_jobs(store, list(jobs.values()), arguments.workers)
    except JobFailed as error:
        failure = error

    context = Context(
        profile=profile.name,
        data=data,
        command=_command(arguments, studies, seeds),
        seeds=tuple(seeds),
        areas=sources.open(base.data.source)[1].area_counts(),
    )
    records = {key: store.record(job) for key, job in jobs.items()}
    tables = []
    for study in studies:
        source = study.configure(base, study.variants[0]).data.source
        areas = sources.open(source)[1].area_counts()
        tables.append(study_table(study, records, replace(context, areas=areas)))
    out = Path("reports") / f"{profile.name}-{data}" if arguments.out is None else arguments.out
    write_reports(out, tables, records, context)
    for table in tables:
        print(f"\n{table.to_markdown()}")
    print(f"\nMarkdown, CSV and JSON are in {out}")
    if failure is not None:
        print(f"ablations: error: {failure}", file=sys.stderr)
        return 1
    return 0


class _Sources:
    """The data of each source that studies need, opened and checked once."""

    def __init__(self) -> None:
        self._opened: dict[str, tuple[DetectionDataset, DetectionDataset]] = {}

    def open(self, source: SourceConfig) -> tuple[DetectionDataset, DetectionDataset]:
        """Return train and val. The first time, say what is in them and warn of images that they share."""
        key = repr(source)
        if key not in self._opened:
            train_set, val_set = open_dataset(source, "train"), open_dataset(source, "val")
            require_same_classes(train_set, val_set)
            shared = shared_images(train_set, val_set)
            if shared:
                print(f"warning: {shared_images_warning(shared, val_set)}", file=sys.stderr)
            print(train_set.summary(), val_set.summary(), sep="\n")
            self._opened[key] = train_set, val_set
        return self._opened[key]

    def fingerprints(self, source: SourceConfig) -> Fingerprints:
        """Return the fingerprints of train and val."""
        train_set, val_set = self.open(source)
        return Fingerprints(train_set.fingerprint, val_set.fingerprint)


def _base(arguments: Arguments) -> Config:
    """Return the profile's configuration on the data that was asked for."""
    base = find_profile(arguments.profile).base(arguments.data)
    for name, value in (("train_split", arguments.train_split), ("val_split", arguments.val_split)):
        if value is not None:
            if arguments.data is None:
                raise ConfigError(f"--{name.replace('_', '-')} needs --data, the folder that it is a split of")
            base = base.with_(f"data.source.{name}", value)
    # part of the key: arms on a CPU and on a GPU are not the same runs
    return base.with_("training.device", resolve_device(base.training.device).type)


def _command(arguments: Arguments, studies: Sequence[Study], seeds: Sequence[int]) -> str:
    """Return the command that gives these tables, from a folder beside the data: where things lie is not published."""
    parts = ["python", "-m", "ablations", "--profile", arguments.profile, "--studies", *(s.name for s in studies)]
    parts += ["--seeds", *map(str, seeds)]
    if arguments.data is not None:
        parts += ["--data", arguments.data.resolve().name]
    for flag, value in (("--train-split", arguments.train_split), ("--val-split", arguments.val_split)):
        if value is not None:
            parts += [flag, value]
    return shlex.join(parts)


if __name__ == "__main__":
    sys.exit(main())
