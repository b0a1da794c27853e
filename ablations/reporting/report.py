"""From records to a report: the only road from what runs found to tables, for committed records and for a store.

A call that runs studies knows what was asked for (:class:`Asked`). For a folder of committed records it is derived from
the records themselves: a record's key covers everything that decides its result, and the keys that a profile's studies
need are derived as for a run (:mod:`ablations.running.planner`), with the fingerprints that the records name. No
photograph is opened, and the machine does not matter.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cornernet.config import CocoSource, Config, ConfigError, ShapesSource, SourceConfig
from cornernet.data import open_dataset
from cornernet.kernels import registry

from ..profiles import Profile, find_profile
from ..records.published import load_failures, usable
from ..records.record import Record, known
from ..records.timing import TIMINGS, Timing, load_timings
from ..running.looks import looked_at
from ..running.planner import Fingerprints, Job, plan, timing_key
from ..statistics.sequential import Schedule
from ..studies import find_study
from ..studies.study import Study, Variant
from .context import Context, Records
from .tables import StudyTable, study_table

__all__ = ["Asked", "Report", "finished_records", "make_report", "published_report"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a report is about."""

    profile: Profile
    data: str
    """The name of the data set."""
    studies: Sequence[Study]
    seeds: tuple[int, ...]
    base: Config
    """What the studies edit."""
    jobs: Mapping[tuple[str, str, int], Job]
    """The job of each (study, variant, seed)."""
    why_not: Callable[[Study, Variant], str | None]
    """Why the machine of the runs cannot run a variant; None where it can."""
    family: Sequence[Study] = ()
    """The studies whose primary claims are judged together, where looks are declared."""

    @property
    def photographs(self) -> bool:
        """Whether the data is a folder of photographs."""
        return not isinstance(self.base.data.source, ShapesSource)

    @property
    def planned_seeds(self) -> tuple[int, ...]:
        """The seeds that the profile declares for this kind of data."""
        return self.profile.planned(self.photographs)[1]

    @property
    def schedule(self) -> Schedule | None:
        """The looks that the profile declares for this kind of data."""
        return self.profile.schedule(self.photographs)

    @property
    def command(self) -> str:
        """The command that gives these tables, run next to the data's folder: paths of a machine are not published."""
        parts = ["python", "-m", "ablations", "--profile", self.profile.name]
        parts += ["--studies", *(study.name for study in self.studies)]
        if self.schedule is None:
            parts += ["--seeds", *map(str, self.seeds)]
        return shlex.join([*parts, *_data_flags(self.base.data.source)])


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a folder of results shows: tables, the runs behind them, and what was left out."""

    context: Context
    tables: Sequence[StudyTable]
    records: Records
    broken: tuple[str, ...] = ()
    """Records that cannot be read, each with the reason."""
    others: tuple[str, ...] = ()
    """Keys of records that no row asks for: of other seeds, or from before something was changed."""
    absent_seeds: tuple[int, ...] = ()
    """Seeds of the profile under which nothing has run."""
    protocol: int | None = None
    absent: Sequence[Study] = ()
    """Studies without a table here whose primary claims are judged together with these."""


def make_report(
    asked: Asked,
    records: Mapping[str, Record],
    failures: Mapping[str, str],
    broken: Sequence[str] = (),
    timings: Mapping[str, Timing] | None = None,
) -> Report:
    """Return the report that was asked for.

    ``records`` and ``failures`` (the reason of each) are by evaluation key, ``timings`` by timing key. ``broken`` lists
    what was already left out; records that lack a metric of their study are left out and listed as well. Raises
    ``ValueError`` as :func:`ablations.reporting.tables.study_table` does.
    """
    finished, incomplete = _found(asked, records)
    found, unseen = _seen(asked, finished)
    context = Context(
        profile=asked.profile.name,
        data=asked.data,
        command=asked.command,
        seeds=asked.seeds,
        areas=None,
        unavailable=_unavailable(asked, finished),
        schedule=asked.schedule,
        unseen=unseen,
        failed={
            name: failures[job.evaluation_key]
            for name, job in asked.jobs.items()
            if finished[name] is None and job.evaluation_key in failures
        },
    )
    used = {job.evaluation_key for job in asked.jobs.values()}
    ran = {record.seed for record in records.values()} | {seed for _, _, seed in context.failed}
    return Report(
        context=context,
        tables=[
            study_table(
                study,
                found,
                dataclasses.replace(context, areas=_areas(study, asked.jobs, found)),
                _timing(study, asked, {} if timings is None else timings),
            )
            for study in asked.studies
        ],
        records=found,
        broken=tuple(dict.fromkeys([*broken, *incomplete])),
        others=tuple(key for key in records if key not in used),
        absent_seeds=tuple(seed for seed in asked.planned_seeds if seed not in ran),
        protocol=asked.profile.protocol,
        absent=[] if asked.schedule is None else [study for study in asked.family if study not in asked.studies],
    )


def published_report(folder: Path, studies: Sequence[str] = ()) -> Report:
    """Return the report on the committed records in ``folder``, which is called PROFILE-DATA.

    It is about ``studies``, by default the profile's. A record that cannot be read is left out and named. A folder
    without records gives tables in which nothing ran. Raises ``ValueError`` for a name that does not begin with a
    profile.
    """
    profile, data = _named(folder)
    records, broken = usable(folder)
    failed, unreadable = load_failures(folder)
    failed = {key: why for key, why in failed.items() if key not in records}
    asked = _asked(profile, data, studies, records, {seed for seed, _ in failed.values()})
    timings, odd = load_timings(folder / TIMINGS)
    reasons = {key: why for key, (_, why) in failed.items()}
    return make_report(asked, records, reasons, [*broken, *unreadable, *odd], timings)


def _timing(study: Study, asked: Asked, timings: Mapping[str, Timing]) -> Timing | None:
    """Return the times of a study under the first seed that has them; rather those that are not refused."""
    keys = [timing_key([asked.jobs[study.name, each.name, seed] for each in study.variants]) for seed in asked.seeds]
    found = [timings[key] for key in keys if key in timings]
    return min(found, key=lambda timing: timing.refused, default=None)


def finished_records(folder: Path, name: str) -> tuple[Study, Records, str | None]:
    """Return a study with its records in a folder called PROFILE-DATA, of all seeds, of a complete look or not.

    Also returns the variant that is the profile's own configuration; None where there is none. For what is said of a
    study without looking at its differences, such as its spread. Raises ``ValueError`` as :func:`published_report`
    does, and for a folder that is not there.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder of records {folder}")
    profile, data = _named(folder)
    records, _ = usable(folder)
    asked = _asked(profile, data, [name], records, set())
    (study,) = asked.studies
    unedited = study.configure(asked.base, _OWN)
    own = [variant.name for variant in study.variants if study.configure(asked.base, variant) == unedited]
    return study, _found(asked, records)[0], own[0] if own else None


_OWN = Variant(name="the profile's own")


def _named(folder: Path) -> tuple[Profile, str]:
    """Return the profile and the name of the data of a folder of records."""
    profile, _, data = folder.name.partition("-")
    if not data:
        raise ValueError(f"the folder of records {folder.name!r} must be called PROFILE-DATA, as in standard-shapes")
    return find_profile(profile), data


def _asked(
    profile: Profile, data: str, studies: Sequence[str], records: Mapping[str, Record], failed_seeds: set[int]
) -> Asked:
    """Return what a folder of records is about: the profile's studies, or ``studies``, under the seeds that ran."""
    planned, planned_seeds = profile.planned(photographs=data != "shapes")
    ran = sorted({record.seed for record in records.values()} | failed_seeds)
    seeds = tuple(seed for seed in planned_seeds if seed in ran) or tuple(ran) or planned_seeds
    base = _base(profile, data, list(records.values()))
    chosen = [find_study(name, profile.declarations).on(data) for name in studies or planned]
    return Asked(
        profile=profile,
        data=data,
        studies=chosen,
        seeds=seeds,
        base=base,
        jobs=plan(chosen, base, seeds, _fingerprints(list(records.values()), bool(failed_seeds)), profile.revision),
        why_not=lambda study, variant: _not_served(study.configure(base, variant)),
        family=[find_study(name, profile.declarations).on(data) for name in planned],
    )


def _base(profile: Profile, data: str, records: Sequence[Record]) -> Config:
    """Return the configuration that the studies edited: the profile's, with the records' data, classes and device."""
    on_shapes = data == "shapes"
    if not records:
        return profile.base(None if on_shapes else Path(data))

    def usual(*path: str) -> Any:
        texts: Counter[str] = Counter()
        for record in records:
            node: Any = record.config
            for name in path:
                node = node[name]
            texts[json.dumps(node, sort_keys=True)] += 1
        return json.loads(max(sorted(texts), key=lambda text: texts[text]))

    source = None
    if not on_shapes:
        tree = usual("data", "source")
        if tree["kind"] != "coco":
            raise ConfigError(f"the records of {profile.name}-{data} are of generated data; rename their folder")
        source = CocoSource(**{name: value for name, value in tree.items() if name != "kind"})
    return profile.base(source, classes=usual("model", "num_classes"), device=usual("training", "device"))


def _data_flags(source: SourceConfig) -> list[str]:
    if isinstance(source, ShapesSource):
        return []
    usual = CocoSource(root=source.root)
    flags = ["--data", Path(source.root).resolve().name]
    for flag, value, default in (
        ("--train-split", source.train_split, usual.train_split),
        ("--val-split", source.val_split, usual.val_split),
    ):
        if value != default:
            flags += [flag, value]
    return flags


def _fingerprints(records: Sequence[Record], failed: bool) -> Callable[[SourceConfig], Fingerprints]:
    """Return the function from a source of data to the fingerprints that its records name.

    Where some job has ``failed``, generated data that no record names is generated: nothing else tells a failure's key.
    """
    named: dict[str, Counter[Fingerprints]] = {}
    for record in records:
        source = json.dumps(record.config["data"]["source"], sort_keys=True)
        named.setdefault(source, Counter())[Fingerprints(record.data.train, record.data.val)] += 1
    # the most common ones: a record with other fingerprints belongs to no row of these tables
    usual = {source: counts.most_common(1)[0][0] for source, counts in named.items()}

    def fingerprints(source: SourceConfig) -> Fingerprints:
        key = json.dumps(Config().with_("data.source", source).to_dict()["data"]["source"], sort_keys=True)
        if key not in usual and failed and isinstance(source, ShapesSource):
            train, val = (open_dataset(source, split).fingerprint for split in ("train", "val"))
            usual[key] = Fingerprints(train, val)
        # data that no record was made on has no fingerprint here, and so a key that no record has
        return usual.get(key, Fingerprints("", ""))

    return fingerprints


def _not_served(config: Config) -> str | None:
    """Return why a variant cannot run on the device that the runs were made on; None where it can."""
    implementation, device = config.testing.pooling_impl, config.training.device.partition(":")[0]
    if implementation in (None, "auto") or device == "auto":
        return None
    serves = registry.row(implementation).devices[0]
    return None if serves in ("any", device) else f"it serves {serves}, and the runs were made on {device}"


def _found(asked: Asked, records: Mapping[str, Record]) -> tuple[Records, list[str]]:
    """Return the record of each job, and a sentence for each that lacks a metric of the study that asks for it."""
    metrics = {study.name: study.metrics for study in asked.studies}
    found: dict[tuple[str, str, int], Record | None] = {}
    incomplete = []
    for name, job in asked.jobs.items():
        record = records.get(job.evaluation_key)
        missing = [] if record is None else [each for each in metrics[name[0]] if each not in record.metrics]
        if missing:
            incomplete.append(
                f"{job.evaluation_key}.json: it lacks the metric {missing[0]!r} of {name[0]}; evaluate again"
            )
        found[name] = None if missing else record
    return found, incomplete


def _seen(asked: Asked, finished: Records) -> tuple[Records, dict[str, int]]:
    """Return the records of complete looks alone, and how many others each study has; all of them without looks."""
    if asked.schedule is None:
        return finished, {}
    found, unseen = dict(finished), {}
    for study in asked.studies:
        names = [name for name in finished if name[0] == study.name and finished[name] is not None]
        ran = {variant.name: [seed for _, of, seed in names if of == variant.name] for variant in study.variants}
        looked = looked_at(asked.schedule, study, ran)
        hidden = [name for name in names if name[2] not in looked[name[1]]]
        found |= dict.fromkeys(hidden)
        if hidden:
            unseen[study.name] = len(hidden)
    return found, unseen


def _unavailable(asked: Asked, found: Records) -> dict[tuple[str, str], str]:
    """Return why each (study, variant) without any run could not run."""
    ran = {(study, variant) for (study, variant, _), record in found.items() if record is not None}
    return {
        (study.name, variant.name): why
        for study in asked.studies
        for variant in study.variants
        if (study.name, variant.name) not in ran and (why := asked.why_not(study, variant)) is not None
    }


def _areas(study: Study, jobs: Mapping[tuple[str, str, int], Job], found: Records) -> tuple[int, int, int] | None:
    """Return the objects that a study was evaluated on by size: as recorded, or counted where data can be generated.

    An older record does not tell them; another one of the same data may.
    """
    told = {record.data.val: objects for record in found.values() if record and (objects := known(record.objects))}
    for name, record in found.items():
        if name[0] != study.name or record is None:
            continue
        recorded = told.get(record.data.val)
        source = jobs[name].config.data.source
        if recorded is not None or not isinstance(source, ShapesSource):
            return recorded
        dataset = open_dataset(source, "val")
        return dataset.area_counts() if dataset.fingerprint == record.data.val else None
    return None
