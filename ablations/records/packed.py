"""The file form of a record, format 2: what a person reads as it is, and the bulk in few bytes.

Metrics, times and versions are plain. Of the configuration there is only what differs from the
:mod:`reference <.reference>`, curves are deflated JSON in base85, and the fingerprint of the resamples is left out
where it is that of the data. Older files have no field ``format``; they hold everything in full, and stay readable.
"""

from __future__ import annotations

import base64
import itertools
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from cornernet.evaluation.matching import RECALLS

from ..statistics.resampling import Resamples
from .reference import REFERENCE

__all__ = ["CURVE_DIGITS", "FORMAT", "packed", "unpacked"]

CURVE_DIGITS = 3
"""Digits in curves, after the point for AP and precision, significant for losses: finer than a line of a figure."""

FORMAT = 2

_WHOLE = "whole"
"""Stands around a part of the configuration that lacks a field of the reference, or is of another kind."""

_THOUSAND = 10**CURVE_DIGITS

_LARGEST_CURVES = 2**20
"""Bytes; a thousand times what they usually take."""


def packed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the file form of a record as JSON, which is not changed. Raises ``ValueError`` for broken resamples."""
    found = {"format": FORMAT, **record, "config": _differences(json.loads(json.dumps(record["config"])), REFERENCE)}
    if record.get("curves") is not None:
        found["curves"] = _pack_curves(record["curves"])
    if record["resamples"] is not None:
        resamples = dict(record["resamples"])
        if "values" in resamples:
            resamples = Resamples.from_record(resamples, "the record").to_record()
        if resamples["fingerprint"] == record["data"]["val"]:
            del resamples["fingerprint"]
        found["resamples"] = resamples
    return found


def unpacked(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as JSON from its file form, of this or an older format.

    Raises ``ValueError`` for a later format and for parts that cannot be read. Fields of the wrong type are left to the
    caller's checks.
    """
    version = found.get("format", 1)
    record = {name: value for name, value in found.items() if name != "format"}
    if version == 1:
        return record
    if version != FORMAT:
        raise ValueError(f"its format is {version!r}, and this version reads up to {FORMAT}: update the program")
    if isinstance(record.get("config"), dict):
        record["config"] = _restored(record["config"], REFERENCE)
    if isinstance(record.get("curves"), str):
        record["curves"] = _read_curves(record["curves"])
    resamples, data = record.get("resamples"), record.get("data")
    if isinstance(resamples, dict) and isinstance(data, dict):
        record["resamples"] = {"fingerprint": data.get("val"), **resamples}
    return record


def _pack_curves(curves: Mapping[str, Any]) -> str:
    """Return curves as text: precision as its differences in thousandths, which are small, because it falls."""
    training = curves["training"]
    found = {
        "ap_by_iou": [None if value is None else round(value, CURVE_DIGITS + 1) for value in curves["ap_by_iou"]],
        "precision": {iou: _falls(values) for iou, values in curves["precision"].items()},
        "training": {
            "iteration": training["iteration"],
            "loss": {name: list(map(_short, values)) for name, values in training["loss"].items()},
        },
    }
    text = json.dumps(found, separators=(",", ":"), sort_keys=True, allow_nan=False)
    return base64.b85encode(zlib.compress(text.encode(), 9)).decode("ascii")


def _falls(values: Sequence[float | None]) -> list[int] | None:
    """Return by how many thousandths each value is below the one before it, the first below 1. None if one is None."""
    if any(value is None for value in values):
        return None
    whole = [_THOUSAND, *(round(_THOUSAND * value) for value in values if value is not None)]
    return [before - after for before, after in itertools.pairwise(whole)]


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{CURVE_DIGITS}g}")


def _read_curves(text: str) -> Any:
    try:
        reader = zlib.decompressobj()
        content = reader.decompress(base64.b85decode(text), _LARGEST_CURVES)
        if not reader.eof:
            raise ValueError("cut short, or too long")
        found = json.loads(content)
        found["precision"] = {iou: _from_falls(falls) for iou, falls in found["precision"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error, RecursionError) as error:
        raise ValueError(f"its field 'curves' cannot be read: {error}") from error
    return found


def _from_falls(falls: Sequence[int] | None) -> list[float | None]:
    if falls is None:
        return [None] * len(RECALLS)
    return [(_THOUSAND - fallen) / _THOUSAND for fallen in itertools.accumulate(falls)]


def _differences(value: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of ``value`` that differ from the reference's, part by part."""
    if reference.keys() - value.keys() or value.get("kind") != reference.get("kind"):
        return {_WHOLE: dict(value)}
    found = {}
    for name, each in value.items():
        usual = reference.get(name)
        if name in reference and _text(each) == _text(usual):
            continue
        found[name] = _differences(each, usual) if isinstance(each, dict) and isinstance(usual, dict) else each
    return found


def _restored(differences: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
    if differences.keys() == {_WHOLE}:
        return dict(differences[_WHOLE])
    restored: dict[str, Any] = json.loads(_text(reference))
    for name, each in differences.items():
        usual = reference.get(name)
        restored[name] = _restored(each, usual) if isinstance(each, dict) and isinstance(usual, dict) else each
    return restored


def _text(value: Any) -> str:
    """Return JSON, in which 1, 1.0 and true differ."""
    return json.dumps(value, sort_keys=True)
