"""``python -m ablations``: run studies, write their tables. Also ``status``, ``power``, ``time`` and ``pictures``."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import tyro

from cornernet.checkout import version
from cornernet.config import ConfigError
from cornernet.console import count, ended_by_its_reader, error_text, is_unread, printable, survive_any_encoding
from cornernet.data import DataError

from .profiles import Profile
from .reporting.power import PowerArguments, power_text
from .running.status import print_plan, print_standing, print_status
from .running.store import Store, StoreError
from .running.work import Selection, Work, program, select

if TYPE_CHECKING:
    from .reporting.pictures import PlacedPicture
    from .reporting.report import Report
    from .running.executors import Executor
    from .running.looks import Standing
    from .running.runner import Outcome

__all__ = ["main"]

FAILED, IMPOSSIBLE, TIME_UP, INTERRUPTED = 1, 2, 3, 130
"""Exit statuses."""

AnyArguments = TypeVar("AnyArguments", bound=Selection | PowerArguments)


@dataclass(frozen=True, kw_only=True)
class Arguments(Selection):
    """Train and evaluate the variants of the paper's ablations, and print and write their tables.

    Finished runs are kept and not repeated; an interrupted call resumes when it is called again. Example:
    --data my_photos. With `status` as the first argument, print every job with its state; with `power`, plan a study.
    """

    workers: int | None = None
    """Runs side by side, with one CPU thread each. Default: the profile's, 2 on a CPU and 1 on GPUs; on an existing Ray
    cluster, as many as it has CPUs or GPUs for."""
    executor: Literal["local", "ray"] = "local"
    """Where to run: on this machine, or on the machines of a Ray cluster, which share the store and the data (extra
    `ray`)."""
    address: str | None = None
    """Address of the Ray cluster: `auto`, HOST:PORT or ray://HOST:PORT. Default: start Ray on this machine."""
    max_minutes: float | None = None
    """Stop after this time: running trainings write a checkpoint, the tables show what is finished, and the exit status
    is 3. The same command resumes. A call that has got nowhere by then goes on until it has a checkpoint or a result to
    keep, so that enough calls finish."""
    out: Path | None = None
    """Folder of the tables. Default: reports/PROFILE-DATA."""
    overwrite: bool = False
    """Replace files in that folder that no earlier call wrote."""
    plan: bool = False
    """Only print what there is to run and how long it takes. Speeds that no finished run tells are measured for some
    seconds."""
    only_report: bool = False
    """Only write the tables from the finished runs; train nothing."""


@dataclass(frozen=True, kw_only=True)
class StatusArguments(Selection):
    """Print every job with its state: finished, running, stopped, failed and why, or waiting."""


@dataclass(frozen=True, kw_only=True)
class TimeArguments(Selection):
    """Measure the times that tables show again: all variants in turn, on a machine that does nothing else."""


@dataclass(frozen=True, kw_only=True)
class PicturesArguments(Selection):
    """Draw what table 1's arms detect, from weights in the store. The reports only place these pictures."""

    out: Path | None = None
    """Folder of the pictures. Default: reports/pictures/PROFILE-DATA."""
    overwrite: bool = False
    """Replace files in that folder that no earlier call wrote."""


@ended_by_its_reader
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0; 1 where a run failed; 2 for what cannot be done; 3 where --max-minutes did not suffice; 130 when interrupted; 141
    when nobody reads its output any more.
    """
    survive_any_encoding()
    argv = list(sys.argv[1:] if argv is None else argv)
    began = time.monotonic()
    if argv == ["--version"]:
        print(f"ablations of cornernet {version()}")
        return 0
    try:
        if argv[:1] == ["status"]:
            print_status(select(_parse(StatusArguments, f"{program()} status", argv[1:]), quiet=True))
            return 0
        if argv[:1] == ["time"]:
            return _time(_parse(TimeArguments, f"{program()} time", argv[1:]))
        if argv[:1] == ["power"]:
            print(power_text(_parse(PowerArguments, f"{program()} power", argv[1:])))
            return 0
        if argv[:1] == ["pictures"]:
            return _pictures(_parse(PicturesArguments, f"{program()} pictures", argv[1:]))
        return _run(_parse(Arguments, program(), argv), argv, began)
    except KeyboardInterrupt:
        print("ablations: stopped; the same command resumes", file=sys.stderr)
        return INTERRUPTED
    except (ConfigError, DataError, StoreError, ValueError, OSError) as error:
        if is_unread(error):
            raise
        print(f"ablations: error: {error_text(error)}", file=sys.stderr)
        return IMPOSSIBLE


def _parse(kind: type[AnyArguments], name: str, argv: list[str]) -> AnyArguments:
    return tyro.cli(kind, prog=name, args=argv, config=(tyro.conf.FlagCreatePairsOff,))


def _run(arguments: Arguments, argv: Sequence[str], began: float) -> int:
    _check(arguments)
    work = select(arguments)
    workers = work.profile.workers if arguments.workers is None else arguments.workers
    print(work.headline(workers), flush=True)
    if arguments.plan:
        print_plan(work, workers)
        return 0

    from .reporting.folder import output
    from .running.runner import Outcome

    folder = Path("reports") / f"{work.profile.name}-{work.data}" if arguments.out is None else arguments.out
    output(folder, arguments.overwrite).require(("README.md", "index.html", "results.json"))
    outcome = Outcome((), (), 0)
    standing = work.standing()
    if not arguments.only_report and work.unfinished(standing):
        work.require_trainable()
        deadline = None if arguments.max_minutes is None else began + 60 * arguments.max_minutes
        with _executor(arguments, work.profile, workers) as executor:
            workers = executor.slots()
            outcome = _run_to_the_next_look(work, standing, workers, deadline, executor)
            while standing is not None and not (outcome.failed or outcome.left):
                standing = work.standing()
                if not work.unfinished(standing):
                    break
                if deadline is not None and time.monotonic() >= deadline:
                    outcome += Outcome((), tuple(work.needed(standing)), 0)
                else:
                    outcome += _run_to_the_next_look(work, standing, workers, deadline, executor)
        if standing is not None:
            print_standing(work, work.standing(), workers)
    else:
        print_standing(work, standing, workers)
    if not arguments.only_report and not outcome.left:
        from .running.timings import measure_timings

        measure_timings(work)
    work.publish()
    _report(work, folder, arguments.overwrite)
    if outcome.failed:
        print(f"ablations: error: {_failures(outcome, work.store)}", file=sys.stderr)
    if outcome.left:
        rest = work.estimate(workers, work.needed(work.standing()))
        left = f"{count(len(rest.trainings), 'training')} and {count(len(rest.evaluations), 'evaluation')} are left"
        stopped = f"stopped at the limit of {arguments.max_minutes:g} minutes"
        print(f"ablations: {stopped}: {left}; {rest.to_text()}", file=sys.stderr)
        if outcome.overran:
            print(
                "ablations: the limit was too short to keep anything, so the call went on until something could be "
                "kept; a longer limit loses less time at the start of each call",
                file=sys.stderr,
            )
        print(f"resume with: {program()} {printable(shlex.join(argv))}", file=sys.stderr)
        return TIME_UP
    return FAILED if outcome.failed else 0


def _run_to_the_next_look(
    work: Work, standing: Standing | None, workers: int, deadline: float | None, executor: Executor
) -> Outcome:
    """Run what the next look needs, or everything without looks."""
    from .running.runner import run_jobs

    print_standing(work, standing, workers)
    return run_jobs(work.store, work.needed(standing), workers, deadline=deadline, executor=executor)


def _check(arguments: Arguments) -> None:
    """Raise ``ConfigError`` for a value that is out of range or needs another one."""
    if arguments.workers is not None and arguments.workers < 1:
        raise ConfigError(f"--workers is {arguments.workers}; use 1 or more")
    if arguments.address is not None and arguments.executor != "ray":
        raise ConfigError("--address is of a Ray cluster: it needs --executor ray")
    if arguments.max_minutes is not None and not arguments.max_minutes > 0:
        raise ConfigError(f"--max-minutes is {arguments.max_minutes:g}; use more than 0")


@contextlib.contextmanager
def _executor(arguments: Arguments, profile: Profile, workers: int) -> Iterator[Executor]:
    """Yield what starts the runs. Raises ``ConfigError`` where nothing can."""
    from .running.executors import LocalExecutor
    from .running.ray_executor import on_ray

    if arguments.executor == "local":
        _require_gpus(profile)
        yield LocalExecutor(workers, max(1, profile.gpus))
        return
    # an existing cluster has its own size; one that is started here gets what a local call would take
    with on_ray(arguments.address, workers if arguments.address is None else arguments.workers, profile.gpus) as ray:
        yield ray


def _require_gpus(profile: Profile) -> None:
    """Raise ``ConfigError`` where this machine has fewer GPUs than a training of the profile takes."""
    import torch

    found = torch.cuda.device_count()
    if found < profile.gpus:
        raise ConfigError(
            f"profile {profile.name} takes {count(profile.gpus, 'CUDA device')} for a training, and torch finds "
            f"{found} here; --plan and --only-report need none, and --profile quick runs on a CPU"
        )


def _failures(outcome: Outcome, store: Store) -> str:
    """Return which jobs of a call failed and why."""
    # a training that failed gives each of its evaluations the same reason
    lines = dict.fromkeys(
        f"  {printable(store.root / failure.log)}: {printable(failure.last_line)}" for failure in outcome.failed
    )
    text = f"{len(outcome.failed)} of {outcome.tried} jobs failed; the others are kept, and the next call tries again:"
    return "\n".join([text, *lines])


def _report(work: Work, folder: Path, overwrite: bool) -> None:
    """Write the tables, and print those that were asked for as they were written."""
    from .reporting.folder import render, write_files
    from .reporting.pictures import placed_pictures
    from .reporting.report import published_report

    report = _made(work)
    pictures: list[PlacedPicture] = []
    notes: list[str] = []
    if work.published is not None:
        pictures, notes = placed_pictures(work.published.parent.parent / "pictures" / work.published.name)
    left = write_files(folder, render(report, pictures, notes), overwrite=overwrite)
    asked = [study.name for study in work.studies]
    written = {table.study.name: table for table in report.tables}
    unpublished = [name for name in asked if name not in written]
    if unpublished and work.published is not None:
        written |= {table.study.name: table for table in published_report(work.published, unpublished).tables}
    for name in asked:
        print(f"\n{written[name].to_markdown()}", flush=True)
    print(f"\nTables (Markdown, CSV, LaTeX, JSON), figures and a page are in {printable(folder)}")
    if unpublished:
        print(f"Only printed, because profile {work.profile.name} does not publish them: {', '.join(unpublished)}")
    for line in (*report.broken, *notes):
        print(f"warning: left out: {printable(line)}", file=sys.stderr)
    for path in left:
        print(
            f"warning: {printable(folder / path)} is not generated, and no call wrote it, so it stays", file=sys.stderr
        )
    unused = set(work.records) & set(report.others)
    if unused and not unpublished:
        print(
            f"warning: {count(len(unused), 'finished evaluation')} of this call are in no table: most records in "
            f"{printable(work.published)} are of other seeds, another device or other data; "
            "--no-records reports only this call",
            file=sys.stderr,
        )


def _made(work: Work) -> Report:
    """Return the report: from the committed records where the profile has them, as ``nox -s report`` makes it."""
    from .reporting.report import Asked, make_report, published_report

    if work.published is not None:
        report = published_report(work.published)
        # where everything failed, no record tells the data and the device, and so which rows the failures belong to
        if any(report.records.values()) or not work.failures:
            return report
    asked = Asked(
        profile=work.profile,
        data=work.data,
        studies=work.studies,
        seeds=work.seeds,
        base=work.base,
        jobs=work.jobs,
        family=work.family,
        why_not=lambda study, variant: study.why_not(work.base, variant),
    )
    return make_report(asked, work.records, work.failures, timings=work.timings)


def _time(arguments: TimeArguments) -> int:
    """Measure times; return 0, or 1 where one is refused or none could be measured."""
    from .running.timings import measure_timings

    work = select(arguments, quiet=True)
    measured = measure_timings(work, again=True)
    work.publish()
    for timing in measured:
        for name, found in timing.image.items():
            ratio = " [{:.2f}, {:.2f}]".format(*found.ratio[::2])
            print(
                f"{timing.study}, {printable(name)}: {found.milliseconds:.1f} ms an image, {found.ratio[1]:.2f} times "
                f"{printable(timing.base)}{ratio}{', refused' if found.refused else ''}"
            )
    print("the tables show them after the same command with --only-report in place of time")
    return FAILED if not measured or any(timing.refused for timing in measured) else 0


def _pictures(arguments: PicturesArguments) -> int:
    from .pictures import find_pair, make_pictures

    work = select(arguments, quiet=True)
    pair = find_pair(work.store, work.jobs, work.seeds)
    dataset = work.sources.val(pair.with_.config.data.source)
    out = arguments.out or Path("reports") / "pictures" / f"{work.profile.name}-{work.data}"
    print(f"seed {pair.seed}: trainings {pair.without.training_key} and {pair.with_.training_key}", flush=True)
    for path in make_pictures(work.store, pair, dataset, out, arguments.overwrite):
        print(printable(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
