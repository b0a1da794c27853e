"""Published records: what evaluations found, small enough to be committed, and the only thing reports are made from.

One file an evaluation, ``FOLDER/EVALUATION_KEY.json``, the folder one of :func:`records_folder`. A published record
counts as a finished evaluation: a clone of the repository renders every table, and judges every claim, without
training anything. The key covers all that decides a result (:mod:`ablations.running.planner`), so a file found under it
is the result.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cornernet.files import atomic_write

__all__ = [
    "FIELDS",
    "LARGEST_FILE",
    "MAX_BYTES",
    "PublishedRecords",
    "RecordError",
    "load",
    "load_failures",
    "publish",
    "publish_failure",
    "published",
    "records_folder",
]

MAX_BYTES = 64 * 1024
"""Of a file: 1,000 resamples of ten metrics take 53 KB of it."""

LARGEST_FILE = 16 * MAX_BYTES
"""Bytes of a file that is read at all."""

FIELDS = (
    "training_key",
    "evaluation_key",
    "config",
    "data",
    "area_bands",
    "metrics",
    "per_class",
    "resamples",
    "true_corners",
    "latency",
    "seconds",
    "provenance",
)
"""What a record must have. Others may stand beside them."""


class _Data(msgspec.Struct):
    train: str = ""
    val: str = ""
    images: int = 0


class _Latency(msgspec.Struct):
    milliseconds: float | None = None
    step_milliseconds: float | None = None
    stages: list[Any] = []
    step_stages: list[Any] = []
    workers: int = 1


class _Seconds(msgspec.Struct):
    training: float | None = None
    evaluation: float | None = None


class _Provenance(msgspec.Struct):
    date: str = ""
    revision: str = ""
    processor: str = ""
    platform: str = ""
    python: str = ""
    versions: dict[str, str] = {}


class _Memory(msgspec.Struct):
    step_mebibytes: float | None = None


class _Training(msgspec.Struct):
    iteration: list[int] = []
    loss: dict[str, list[float | None]] = {}


class _Curves(msgspec.Struct):
    ap_by_iou: list[float | None] = []
    precision: dict[str, list[float | None]] = {}
    training: _Training | None = None


class _Resamples(msgspec.Struct):
    fingerprint: str
    version: int
    resamples: int
    values: dict[str, str]


class _Record(msgspec.Struct):
    """What kinds of values a record has, where it has them; more may stand beside them."""

    training_key: str
    evaluation_key: str
    config: dict[str, Any]
    data: _Data
    area_bands: list[float]
    metrics: dict[str, float | None]
    per_class: dict[str, dict[str, float | None]]
    resamples: _Resamples | None
    true_corners: dict[str, int] | None
    latency: _Latency
    seconds: _Seconds
    provenance: _Provenance
    objects: tuple[int, int, int] | msgspec.UnsetType = msgspec.UNSET
    memory: _Memory | msgspec.UnsetType = msgspec.UNSET
    curves: _Curves | msgspec.UnsetType | None = msgspec.UNSET


_KEY = re.compile(r"[0-9A-Za-z_-]+")

_FAILED = "failed"
"""The folder beside the records for what has none because it failed."""


class RecordError(ValueError):
    """A record that cannot be published or read. The message names the file or the field, and the fix."""


class PublishedRecords(NamedTuple):
    """What a folder holds: records by evaluation key, the files that were left out as broken, and why each was."""

    records: dict[str, dict[str, Any]]
    broken: list[Path]
    reasons: dict[Path, str]


def records_folder(root: Path, profile: str, data: str) -> Path:
    """Return the folder of a profile's records on a data set, below the folder of all reports."""
    return root / "records" / f"{profile}-{data}"


def published(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as it is published: of the metrics of each class, AP alone.

    Raises :class:`RecordError` for a record without one of :data:`FIELDS`, or with a key that is no file's name.
    """
    missing = [name for name in FIELDS if name not in record]
    if missing:
        raise RecordError(f"the record lacks the field {missing[0]!r}; evaluate again")
    key = record["evaluation_key"]
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise RecordError(f"evaluation_key is {key!r}, and must be letters and digits: it becomes a file's name")
    without = [name for name, values in record["per_class"].items() if "AP" not in values]
    if without:
        raise RecordError(f"the field 'per_class' has no AP of {without[0]!r}; evaluate again")
    classes = {name: {"AP": values["AP"]} for name, values in record["per_class"].items()}
    return {**record, "per_class": classes}


def publish(folder: Path, record: Mapping[str, Any]) -> Path:
    """Write a record to ``folder``, which is made if need be, and return its file.

    The file appears whole or not at all; one of the same key is replaced. The same record gives the same bytes. Raises
    :class:`RecordError` as :func:`published` does, for values that JSON has not (NaN), and for more than
    :data:`MAX_BYTES`; it then names the largest field.
    """
    tree = published(record)
    content = (_compact(tree, "the record") + "\n").encode()
    if len(content) > MAX_BYTES:
        sizes = {name: len(_compact(value, name).encode()) for name, value in tree.items()}
        largest = max(sizes, key=lambda name: sizes[name])
        raise RecordError(
            f"the record {tree['evaluation_key']} has {len(content):,} bytes, and at most {MAX_BYTES:,} are published; "
            f"its field {largest!r} is too large with {sizes[largest]:,} of them"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{tree['evaluation_key']}.json"
    atomic_write(path, content)
    (folder / _FAILED / path.name).unlink(missing_ok=True)
    return path


def publish_failure(folder: Path, key: str, seed: int, why: str) -> None:
    """Write that the evaluation ``key`` failed, under which seed and why, so that its cells do not say "not run".

    It is removed by the record, once there is one. Of paths in ``why``, which are one machine's, the last part stays.
    """
    (folder / _FAILED).mkdir(parents=True, exist_ok=True)
    tree = {"evaluation_key": key, "seed": seed, "why": re.sub(r"(?<![\w.])(?:[\w.~-]*/)+", "", why)}
    atomic_write(folder / _FAILED / f"{key}.json", _compact(tree, "the failure") + "\n")


def load_failures(folder: Path) -> tuple[dict[str, tuple[int, str]], list[str]]:
    """Return the seed and the reason of the evaluations that failed, by key, and a sentence on each broken file."""
    failures, broken = {}, []
    for path in sorted((folder / _FAILED).glob("*.json")):
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            failures[path.stem] = int(tree["seed"]), str(tree["why"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            broken.append(f"{_FAILED}/{path.name}: it does not say what failed ({type(error).__name__}); remove it")
    return failures, broken


def load(folder: Path) -> PublishedRecords:
    """Return the records in ``folder`` by evaluation key, in the order of their keys; none where there is no folder.

    A file that is no record, or whose name is not its record's key, is left out and listed as broken, with a warning
    that names it and what is wrong: one damaged file must not hide the others.
    """
    records: dict[str, dict[str, Any]] = {}
    reasons = {}
    for path in sorted(folder.glob("*.json")):
        try:
            records[path.stem] = _read(path)
        except (OSError, ValueError, RecursionError) as error:
            warnings.warn(f"the published record {path} is left out: {error}", stacklevel=2)
            reasons[path] = str(error)
    return PublishedRecords(records, list(reasons), reasons)


def _read(path: Path) -> dict[str, Any]:
    """Read one file. Raises ``ValueError`` (what is not UTF-8, JSON or a record) or ``OSError``."""
    if not path.is_file():
        raise RecordError("it is a folder, a device or a pipe; remove it")
    if path.stat().st_size > LARGEST_FILE:
        raise RecordError(f"it has more than {LARGEST_FILE:,} bytes; is it another file?")
    record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    if not isinstance(record, dict):
        raise RecordError("it holds no JSON object; restore it from version control, or remove it")
    missing = [name for name in FIELDS if name not in record]
    if missing:
        raise RecordError(f"it lacks the field {missing[0]!r}; restore it from version control, or remove it")
    if record["evaluation_key"] != path.stem:
        raise RecordError(f"it is the record of {record['evaluation_key']!r}; name it so, or remove it")
    try:
        msgspec.convert(record, _Record)
    except msgspec.ValidationError as error:
        raise RecordError(f"it is no record: {error}; restore it from version control, or remove it") from error
    return record


def _no_number(text: str) -> float:
    raise RecordError(f"it has {text}, which is no number of JSON; restore it from version control, or remove it")


def _compact(value: Any, where: str) -> str:
    try:
        return json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise RecordError(
            f"{where} cannot be written as JSON: {error}; use numbers that are finite, or None"
        ) from error
