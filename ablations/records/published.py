"""Published records: what evaluations found, small enough to be committed, and the only source of the reports.

Each evaluation has one file, ``FOLDER/EVALUATION_KEY.json``, in the folder of :func:`records_folder`. A published
record counts as a finished evaluation: a clone of the repository renders every table and judges every claim without
training anything. The key covers everything that decides a result (:mod:`ablations.running.planner`), so the file found
under a key is the result.
"""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec

from cornernet.config import Config, ConfigError
from cornernet.config.checks import holder
from cornernet.files import atomic_write, make_folder, read_regular, remove_file

from .record import Record, RecordError, compact, decode, file_tree

__all__ = [
    "LARGEST_FILE",
    "MAX_BYTES",
    "PublishedRecords",
    "load",
    "load_failures",
    "publish",
    "publish_failure",
    "published",
    "records_folder",
    "usable",
]

MAX_BYTES = 16 * 1024
"""Of a file. With a few classes it has at most 12 KB: 1,000 resamples of ten metrics take 9 KB, the curves one."""

LARGEST_FILE = 2**20
"""Larger files are not read. Before format 2, files had up to 64 KB."""

_KEY = re.compile(r"[0-9A-Za-z_-]+")

_FAILED = "failed"
"""The subfolder for evaluations that have no record because they failed."""

_RESTORE = "restore it from version control, or remove it"

_Weights: TypeAlias = tuple[str, int, int]
"""What two records must have in common for their resamples to be paired."""


class PublishedRecords(NamedTuple):
    """What a folder holds: records by evaluation key, the broken files, and why each is broken."""

    records: dict[str, Record]
    broken: list[Path]
    reasons: dict[Path, str]


def records_folder(root: Path, profile: str, data: str) -> Path:
    """Return the folder of a profile's records on a data set, below the folder of all reports."""
    return root / "records" / f"{profile}-{data}"


def published(record: Record) -> Record:
    """Return a record as it is published: of the metrics of each class, only AP.

    Raises :class:`RecordError` for a key that cannot name a file, and for a class without AP.
    """
    if not _KEY.fullmatch(record.evaluation_key):
        raise RecordError(
            f"evaluation_key is {record.evaluation_key!r}; use letters and digits, because it names a file"
        )
    without = [name for name, values in record.per_class.items() if "AP" not in values]
    if without:
        raise RecordError(f"the field 'per_class' has no AP of {without[0]!r}; evaluate again")
    classes = {name: {"AP": values["AP"]} for name, values in record.per_class.items()}
    return msgspec.structs.replace(record, per_class=classes)


def publish(folder: Path, record: Record) -> Path:
    """Write a record to ``folder``, which is created if needed, and return its file.

    The file appears whole or not at all, and replaces one of the same key. The same record gives the same bytes. Raises
    :class:`RecordError` as :func:`published` does, for values that JSON lacks (NaN), and for more than
    :data:`MAX_BYTES`; the message then names the largest field.
    """
    found = file_tree(published(record))
    content = (compact(found, "the record") + "\n").encode()
    if len(content) > MAX_BYTES:
        sizes = {name: len(compact(value, name).encode()) for name, value in found.items()}
        largest = max(sizes, key=lambda name: sizes[name])
        raise RecordError(
            f"the record {record.evaluation_key} has {len(content):,} bytes, and at most {MAX_BYTES:,} are published; "
            f"its field {largest!r} is too large with {sizes[largest]:,} of them"
        )
    make_folder(folder)
    path = folder / f"{record.evaluation_key}.json"
    atomic_write(path, content)
    remove_file(folder / _FAILED / path.name)
    return path


def publish_failure(folder: Path, key: str, seed: int, why: str) -> None:
    """Write that the evaluation ``key`` failed under ``seed``, and why, so that its cells do not say "not run".

    The record removes this file once there is one. Paths in ``why`` belong to one machine, so only their last part is
    kept.
    """
    make_folder(folder / _FAILED, below=folder)
    found = {"evaluation_key": key, "seed": seed, "why": re.sub(r"(?<![\w.])(?:[\w.~-]*/)+", "", why)}
    atomic_write(folder / _FAILED / f"{key}.json", compact(found, "the failure") + "\n")


def load_failures(folder: Path) -> tuple[dict[str, tuple[int, str]], list[str]]:
    """Return the seed and the reason of each failed evaluation by key, and a sentence for each broken file."""
    failures, broken = {}, []
    for path in sorted((folder / _FAILED).glob("*.json")):
        try:
            found = json.loads(read_regular(path, LARGEST_FILE))
            failures[path.stem] = int(found["seed"]), str(found["why"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            broken.append(f"{_FAILED}/{path.name}: it does not say what failed ({type(error).__name__}); remove it")
    return failures, broken


def load(folder: Path) -> PublishedRecords:
    """Return the records in ``folder`` by evaluation key, in the order of their keys; empty without a folder.

    A file that is not a record, or whose name is not its record's key, is left out and listed as broken, with a warning
    that names it and what is wrong: one damaged file must not hide the others.
    """
    records: dict[str, Record] = {}
    reasons = {}
    for path in sorted(folder.glob("*.json")):
        try:
            records[path.stem] = _read(path)
        except (OSError, ValueError, RecursionError) as error:
            warnings.warn(f"the published record {path} is left out: {error}", stacklevel=2)
            reasons[path] = str(error)
    return PublishedRecords(records, list(reasons), reasons)


def _read(path: Path) -> Record:
    """Read one file. Raises ``ValueError`` (not UTF-8, not JSON, not a record) or ``OSError``."""
    if not path.is_file():
        raise RecordError("it is a folder, a device or a pipe; remove it")
    if path.stat().st_size > LARGEST_FILE:
        raise RecordError(f"it has more than {LARGEST_FILE:,} bytes; is it another file?")
    record = decode(json.loads(path.read_text(encoding="utf-8"), parse_constant=_reject), _RESTORE)
    if record.evaluation_key != path.stem:
        raise RecordError(f"it is the record of {record.evaluation_key!r}; name it so, or remove it")
    return record


def _reject(text: str) -> float:
    raise RecordError(f"it has {text}, which is not a number in JSON; {_RESTORE}")


def usable(folder: Path) -> tuple[dict[str, Record], list[str]]:
    """Return the records of a folder that tables can be made from, and a sentence for each that is left out.

    Left out are broken files, configurations that are not ours, resamples that cannot be read, and resamples that do
    not pair with those of most records of the same data.
    """
    with warnings.catch_warnings():
        # the report names them
        warnings.simplefilter("ignore")
        loaded = load(folder)
    # an error of the file system names the whole path, which differs between machines
    broken = [f"{path.name}: {loaded.reasons[path].replace(str(path), path.name)}" for path in loaded.broken]
    records: dict[str, Record] = {}
    weights: dict[str, dict[str, _Weights]] = {}
    for key, record in loaded.records.items():
        try:
            Config.from_dict(json.loads(json.dumps(record.config)), "its field 'config'")
            _require_fields(record.config)
            record.measurement("it")
        except (KeyError, TypeError, ValueError) as error:
            broken.append(f"{key}.json: {error}")
            continue
        records[key] = record
        stored = record.resamples
        if stored is not None:
            paired = stored.fingerprint, stored.version, stored.resamples
            weights.setdefault(record.data.val, {})[key] = paired
    for key in _unpaired(weights):
        broken.append(f"{key}.json: its resamples are not those of the other records of this data; evaluate again")
        del records[key]
    return records, broken


def _unpaired(weights: Mapping[str, Mapping[str, _Weights]]) -> list[str]:
    """Return the keys of records whose resamples differ from those of most records of the same data.

    ``weights`` holds, by the data's fingerprint and a record's key, what must be equal for two records to be paired.
    """
    left_out = []
    for found in weights.values():
        usual = Counter(found.values()).most_common(1)
        left_out += [key for key, each in found.items() if each != usual[0][0]]
    return left_out


def _require_fields(config: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` where a configuration, which may leave fields out, lacks one that reports read."""
    for path in ("model.num_classes", "training.seed", "training.device", "training.iterations", "data.source.kind"):
        try:
            holder(config, path)
        except ConfigError as error:
            raise ValueError(f"its field 'config' lacks {path}; {_RESTORE}") from error
