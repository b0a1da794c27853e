"""The format of an evaluation's record: read with errors that name the field, and written back to the same bytes.

A record is JSON, and its file is smaller than its fields (:mod:`ablations.records.packed`). Fields that came later may
be missing from older records; they are ``UNSET`` there, and stay missing when the record is written again. Fields that
this version does not know are ignored.
"""

from __future__ import annotations

import json
from typing import Any, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from cornernet.console import PrintableError

from ..statistics.intervals import Measurement
from ..statistics.resampling import Resamples
from .packed import packed, unpacked

__all__ = [
    "FIELDS",
    "Curves",
    "Data",
    "Latency",
    "LossCurve",
    "Memory",
    "Provenance",
    "Record",
    "RecordError",
    "Seconds",
    "StoredResamples",
    "compact",
    "decode",
    "file_tree",
    "known",
    "tree",
]

Metrics: TypeAlias = dict[str, float | None]
"""Metric to its value as a fraction; None for a metric that the data cannot measure."""

Stages: TypeAlias = list[tuple[str, float]]
"""Milliseconds by stage. In pairs, because JSON objects have no order."""

_T = TypeVar("_T")


class RecordError(PrintableError, ValueError):
    """A record that cannot be read or published. The message names the file or the field, and the fix."""


class _Part(msgspec.Struct, frozen=True):
    """A JSON object with named fields."""


class Data(_Part, frozen=True, kw_only=True):
    """Fingerprints of the data that was trained and evaluated on, and the number of images evaluated."""

    train: str
    val: str
    images: int


class Latency(_Part, frozen=True, kw_only=True):
    """Times in milliseconds, one process measured among ``workers`` that shared the machine."""

    milliseconds: float
    """Of one image, from pixels to boxes."""
    step_milliseconds: float | UnsetType | None = UNSET
    """Of one training step; None where it was not measured."""
    workers: int
    stages: Stages | UnsetType = UNSET
    """Of one image."""
    step_stages: Stages | UnsetType = UNSET
    """Of one training step."""


class Memory(_Part, frozen=True, kw_only=True):
    """The peak of memory in a training step; None where it was not measured."""

    step_mebibytes: float | None


class StoredResamples(_Part, frozen=True, kw_only=True):
    """Metrics under resamples of the images, as :meth:`ablations.statistics.resampling.Resamples.to_record` stores it.

    ``steps`` and ``packed`` hold the values; ``values`` holds them in older records, base64 text for each metric.
    """

    fingerprint: str
    version: int
    resamples: int
    steps: dict[str, float] | UnsetType = UNSET
    packed: str | UnsetType = UNSET
    values: dict[str, str] | UnsetType = UNSET


class LossCurve(_Part, frozen=True, kw_only=True):
    """Losses by name over iterations, thinned."""

    iteration: list[int]
    loss: dict[str, list[float | None]]


class Curves(_Part, frozen=True, kw_only=True):
    """What figures need: AP at COCO's ten thresholds, precision at 101 recalls by IoU in percent, and losses."""

    ap_by_iou: list[float | None]
    precision: dict[str, list[float | None]]
    training: LossCurve


class Seconds(_Part, frozen=True, kw_only=True):
    """How long the work took. ``training`` is None where a training was resumed, and so has no time of its own."""

    training: float | None
    evaluation: float


class Provenance(_Part, frozen=True, kw_only=True):
    """What a result was made with. Names no user, host or path."""

    date: str
    """UTC, ISO 8601."""
    revision: str
    python: str
    platform: str
    processor: str
    versions: dict[str, str]
    evaluator: str | UnsetType = UNSET
    """Who matched boxes to objects: hotcoco or pycocotools. Before it was said, pycocotools did."""


class Record(_Part, frozen=True, kw_only=True):
    """What one evaluation found, and what it was found with."""

    training_key: str
    evaluation_key: str
    config: dict[str, Any]
    """As ``Config.to_dict`` gives it, with the name of the photographs' folder instead of its path."""
    data: Data
    area_bands: list[float]
    metrics: Metrics
    per_class: dict[str, Metrics]
    true_corners: dict[str, int] | None
    latency: Latency
    """Apart from ``metrics``, because it differs from run to run."""
    memory: Memory | UnsetType = UNSET
    resamples: StoredResamples | None
    objects: tuple[int, int, int] | UnsetType = UNSET
    """Small, medium and large objects evaluated on."""
    curves: Curves | UnsetType | None = UNSET
    seconds: Seconds
    provenance: Provenance

    @property
    def seed(self) -> int:
        """The seed of the training."""
        return int(self.config["training"]["seed"])

    @property
    def iterations(self) -> int:
        """The length of the training."""
        return int(self.config["training"]["iterations"])

    @property
    def step_mebibytes(self) -> float | None:
        """The peak of memory in a training step; None where it was not measured, or not yet recorded."""
        return None if self.memory is UNSET else self.memory.step_mebibytes

    def measurement(self, where: str = "the record") -> Measurement:
        """Return the metrics with their resamples. Raises ``ValueError`` naming ``where`` for broken resamples."""
        if self.resamples is None:
            return Measurement(metrics=self.metrics, resamples=None)
        stored = msgspec.to_builtins(self.resamples)
        return Measurement(metrics=self.metrics, resamples=Resamples.from_record(stored, where))


FIELDS = tuple(field.name for field in msgspec.structs.fields(Record) if field.required)
"""What every record has. The other fields came later."""


def known(value: _T | UnsetType) -> _T | None:
    """Return a field's value, or None where an older record lacks the field."""
    return None if value is UNSET else value


def decode(found: Any, fix: str) -> Record:
    """Return the record that the JSON of a file holds, of any format so far.

    Raises :class:`RecordError` that names the field, what is wrong with it, and ``fix``.
    """
    if not isinstance(found, dict):
        raise RecordError(f"it holds no JSON object; {fix}")
    missing = [name for name in FIELDS if name not in found]
    if missing:
        raise RecordError(f"it lacks the field {missing[0]!r}; {fix}")
    try:
        return msgspec.convert(unpacked(found), Record)
    except msgspec.ValidationError as error:
        raise RecordError(f"it is not a record: {error}; {fix}") from error
    except ValueError as error:
        raise RecordError(f"{error}; {fix}") from error


def tree(record: Record) -> dict[str, Any]:
    """Return a record as JSON: only the fields that it has, in full, sorted by name."""
    found: dict[str, Any] = msgspec.to_builtins(record, order="sorted", enc_hook=_plain)
    return found


def file_tree(record: Record) -> dict[str, Any]:
    """Return the JSON of a record's file. Raises :class:`RecordError` for resamples that cannot be read."""
    try:
        return packed(tree(record))
    except (TypeError, ValueError) as error:
        raise RecordError(f"the record {record.evaluation_key} cannot be written: {error}") from error


def _plain(value: Any) -> float:
    """Return a number of numpy as Python's."""
    if isinstance(value, float):
        return float(value)
    raise NotImplementedError(f"{type(value).__name__} has no form in JSON")


def compact(value: Any, where: str) -> str:
    """Return JSON in one line, keys sorted. Raises :class:`RecordError` naming ``where`` for what JSON lacks (NaN)."""
    try:
        return json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise RecordError(
            f"{where} cannot be written as JSON: {error}; use numbers that are finite, or None"
        ) from error
