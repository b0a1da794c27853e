"""From committed records to what is reported of them: which record is the run of which row, from the files alone.

A record's key covers everything that decides its result, the data's fingerprint included. The keys that a profile's
studies ask for are derived as a run derives them (:mod:`ablations.running.planner`), with the fingerprints that the
records themselves name: no data is opened, and no machine looked at.
"""

from __future__ import annotations

import json
import shlex
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cornernet.config import CocoSource, Config, ConfigError, ShapesSource, SourceConfig
from cornernet.config.checks import holder
from cornernet.data import open_dataset
from cornernet.kernels import registry

from ..profiles import Profile, find_profile
from ..reporting.tables import Context, Records, StudyTable, study_table
from ..running.planner import Fingerprints, Job, plan
from ..statistics.intervals import Measurement
from ..statistics.resampling import Resamples
from ..studies import STUDIES, find_study
from ..studies.study import Study
from .records import load, load_failures

__all__ = ["Report", "command", "published_report"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a folder of results shows: tables, the runs behind them, and what was left out."""

    context: Context
    tables: Sequence[StudyTable]
    records: Records
    broken: tuple[str, ...] = ()
    """Records that cannot be read, each with the reason."""
    others: tuple[str, ...] = ()
    """Keys of records that no row of the tables asks for: of other seeds, or made before something was changed."""
    absent_seeds: tuple[int, ...] = ()
    """Seeds of the profile of which nothing has run."""
    protocol: int | None = None


def command(profile: str, studies: Sequence[str], seeds: Sequence[int], data: str | None, *extra: str) -> str:
    """Return the command that gives these tables, from a folder beside the data; None as ``data`` is ``shapes``."""
    parts = ["python", "-m", "ablations", "--profile", profile, "--studies", *studies]
    parts += ["--seeds", *map(str, seeds)]
    return shlex.join([*parts, *(["--data", data] if data is not None else []), *extra])


def published_report(folder: Path) -> Report:
    """Return what the records in ``folder`` say, which is called PROFILE-DATA.

    A record that cannot be read is left out and named. A folder without records gives tables in which nothing ran.
    Raises ``ValueError`` for a name that begins with no profile.
    """
    profile_name, _, data = folder.name.partition("-")
    if not data:
        raise ValueError(f"the folder of records {folder.name!r} must be called PROFILE-DATA, as standard-shapes")
    profile = find_profile(profile_name)
    records, broken = _readable(folder)
    failed, unreadable = load_failures(folder)
    failures, broken = {key: why for key, why in failed.items() if key not in records}, [*broken, *unreadable]
    names, planned_seeds = profile.planned(photographs=data != "shapes")
    studies = [find_study(study) for study in names]
    configs = {key: record["config"] for key, record in records.items()}
    base = _base(profile, data, configs)
    ran = sorted({config["training"]["seed"] for config in configs.values()} | {seed for seed, _ in failures.values()})
    seeds = tuple(seed for seed in ran if seed in planned_seeds) or tuple(ran) or planned_seeds
    jobs = plan(studies, base, seeds, _fingerprints(records))
    found = {name: records.get(job.evaluation_key) for name, job in jobs.items()}
    used = {job.evaluation_key for job in jobs.values()}
    found = {name: record if _complete(name[0], record, broken) else None for name, record in found.items()}
    context = Context(
        profile=profile.name,
        data=data,
        command=command(profile.name, names, seeds, *_data_flags(base)),
        seeds=seeds,
        areas=None,
        unavailable=_unavailable(studies, base, found),
        failed={name: failures[job.evaluation_key][1] for name, job in jobs.items() if job.evaluation_key in failures},
    )
    tables = []
    for study in studies:
        own = Context(**{**context.__dict__, "areas": _areas(study, jobs, found)})
        tables.append(study_table(study, found, own))
    return Report(
        context=context,
        tables=tables,
        records=found,
        broken=tuple(dict.fromkeys(broken)),
        others=tuple(key for key in records if key not in used),
        absent_seeds=tuple(seed for seed in planned_seeds if seed not in ran),
        protocol=profile.protocol,
    )


def _readable(folder: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the records of a folder that hold what tables need, and which do not, with the reason."""
    with warnings.catch_warnings():
        # it is said in the report
        warnings.simplefilter("ignore")
        loaded = load(folder)
    # an error of the file system names the whole path, which is another one elsewhere
    broken = [f"{path.name}: {loaded.reasons[path].replace(str(path), path.name)}" for path in loaded.broken]
    records = {}
    weights: dict[str, dict[str, Any]] = {}
    for key, record in loaded.records.items():
        try:
            Config.from_dict(_placed(record["config"]), "its field 'config'")
            _require(record["config"])
            measurement = Measurement.from_record(record, "it", resamples_required=False)
            if measurement.resamples is not None:
                Resamples.from_record(record["resamples"])
                found = tuple(record["resamples"][name] for name in ("fingerprint", "version", "resamples"))
                weights.setdefault(record["data"].get("val", ""), {})[key] = found
            for part in ("data", "provenance", "latency", "seconds", "per_class"):
                if not isinstance(record[part], dict):
                    raise ValueError(f"its field {part!r} is no object; restore it from version control, or remove it")
        except (KeyError, TypeError, ValueError) as error:
            broken.append(f"{key}.json: {error}")
        else:
            records[key] = record
    for key in _unpaired({data: {k: v for k, v in of.items() if k in records} for data, of in weights.items()}):
        broken.append(f"{key}.json: its resamples are not those of the other records of this data; evaluate again")
        del records[key]
    return records, broken


def _unpaired(weights: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the keys of records that were resampled otherwise than most of their data, so that none pairs with them.

    ``weights`` is, by the data's fingerprint and a record's key, what makes two records' resamples the same.
    """
    left_out = []
    for found in weights.values():
        usual = Counter(found.values()).most_common(1)
        left_out += [key for key, each in found.items() if each != usual[0][0]]
    return left_out


def _require(config: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` where a configuration, which may leave fields out, leaves out one that reports read."""
    for path in ("model.num_classes", "training.seed", "training.device", "training.iterations", "data.source.kind"):
        try:
            holder(config, path)
        except ConfigError as error:
            raise ValueError(
                f"its field 'config' lacks {path}; restore it from version control, or remove it"
            ) from error


def _placed(config: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(config))


def _base(profile: Profile, data: str, configs: Mapping[str, Mapping[str, Any]]) -> Config:
    """Return the configuration that the records' studies edited: the profile's, on the records' device and classes."""
    on_shapes = data == "shapes"
    base = profile.base(None if on_shapes else Path(data))
    if not configs:
        return base

    def usual(values: list[Any]) -> Any:
        texts = Counter(json.dumps(value, sort_keys=True) for value in values)
        return json.loads(max(sorted(texts), key=lambda text: texts[text]))

    trees = list(configs.values())
    base = base.with_("model.num_classes", usual([tree["model"]["num_classes"] for tree in trees]))
    base = base.with_("training.device", usual([tree["training"]["device"] for tree in trees]))
    if not on_shapes:
        source = usual([tree["data"]["source"] for tree in trees])
        if source["kind"] != "coco":
            raise ConfigError(f"the records of {profile.name}-{data} are of generated data; their folder is misnamed")
        base = base.with_("data.source", CocoSource(**{k: v for k, v in source.items() if k != "kind"}))
    return base


def _data_flags(base: Config) -> tuple[str | None, *tuple[str, ...]]:
    source = base.data.source
    if isinstance(source, ShapesSource):
        return (None,)
    usual = CocoSource(root=source.root)
    flags = [
        ("--train-split", source.train_split, usual.train_split),
        ("--val-split", source.val_split, usual.val_split),
    ]
    return (source.root, *(part for flag, value, default in flags if value != default for part in (flag, value)))


def _fingerprints(records: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return the function from a source of data to the fingerprints that records of it name."""
    named: dict[str, Counter[Fingerprints]] = {}
    for record in records.values():
        place = json.dumps(record["config"]["data"]["source"], sort_keys=True)
        found = Fingerprints(record["data"].get("train", ""), record["data"].get("val", ""))
        named.setdefault(place, Counter())[found] += 1
    # the usual ones: a record that names others is of none of these rows
    known = {place: counts.most_common(1)[0][0] for place, counts in named.items()}

    def fingerprints(source: SourceConfig) -> Fingerprints:
        tree = Config().with_("data.source", source).to_dict()["data"]["source"]
        # what no record was made on has no fingerprint, and so a key that no record has
        return known.get(json.dumps(tree, sort_keys=True), Fingerprints("", ""))

    return fingerprints


def _complete(study: str, record: Mapping[str, Any] | None, broken: list[str]) -> bool:
    """Tell whether a record has every metric of the study that asks for it; if not, name it."""
    if record is None:
        return False
    missing = [metric for metric in STUDIES[study].metrics if metric not in record["metrics"]]
    if missing:
        broken.append(f"{record['evaluation_key']}.json: it lacks the metric {missing[0]!r} of {study}; evaluate again")
    return not missing


def _unavailable(studies: Sequence[Study], base: Config, found: Records) -> dict[tuple[str, str], str]:
    """Return why a (study, variant) of which nothing ran could not run on the device that the others ran on."""
    reasons = {}
    for study in studies:
        for variant in study.variants:
            config = study.configure(base, variant)
            impl, device = config.testing.pooling_impl, config.training.device.partition(":")[0]
            ran = any(name[:2] == (study.name, variant.name) and record for name, record in found.items())
            if impl in (None, "auto") or ran or device == "auto":
                continue
            serves = registry.row(impl).devices[0]
            if serves not in ("any", device):
                reasons[study.name, variant.name] = f"it serves {serves}, and the runs were made on {device}"
    return reasons


def _areas(study: Study, jobs: Mapping[tuple[str, str, int], Job], found: Records) -> tuple[int, int, int] | None:
    """Return the objects that a study was evaluated on by size: as recorded, or counted where data can be generated."""
    for name, record in found.items():
        if name[0] != study.name or record is None:
            continue
        if "objects" in record:
            small, medium, large = record["objects"]
            return small, medium, large
        source = jobs[name].config.data.source
        if isinstance(source, ShapesSource):
            dataset = open_dataset(source, "val")
            return dataset.area_counts() if dataset.fingerprint == record["data"]["val"] else None
        return None
    return None
