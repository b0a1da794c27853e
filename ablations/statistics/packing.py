"""Resamples in few bytes: rounded to steps far below their spread, predicted from each other, and deflated.

Only the spread of resamples and of their differences is used, so the last digits of a value carry nothing: rounding to
a twelfth of the standard deviation adds less than a thousandth to the variance of a metric. Metrics of one evaluation
rise and fall together (AP75 with AP70), so each is stored as what a linear prediction from those before it leaves. The
prediction is made in whole numbers, and reads back the same on every machine.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["FINEST_STEP", "pack", "unpack"]

FINEST_STEP = 0.0000625
"""No step is finer: 0.00625 points of a metric that is a fraction."""

_STEPS_IN_DEVIATION = 8.0
"""A step is at most the standard deviation divided by this, and more than half of that."""

_UNIT = 256
"""Coefficients of the prediction are whole multiples of one over this."""

_LARGEST = np.iinfo("<i2").max


def pack(values: Mapping[str, NDArray[np.float64]]) -> tuple[dict[str, float], str]:
    """Return the step of each metric, and the text that :func:`unpack` reads.

    ``values`` holds float64 [B] for each metric, NaN where it is undefined. Steps are powers of two times
    :data:`FINEST_STEP`, so that metrics of equal spread are rounded to the same grid in all records. Raises
    ``ValueError`` for no metric, for different lengths, and for values that are infinite or too large.
    """
    if not values or len({len(each) for each in values.values()}) > 1:
        raise ValueError("resamples need one or more metrics with equally many values")
    names = sorted(values)
    steps = {name: _step(values[name]) for name in names}
    whole: list[NDArray[np.int64]] = []
    coefficients, middles, left = [], [], []
    for name in names:
        measured = ~np.isnan(values[name])
        if np.abs(values[name][measured]).max(initial=0) > 2**30 * steps[name]:
            raise ValueError(f"the resamples of {name} are too large to be stored")
        rounded = np.rint(np.where(measured, values[name], 0) / steps[name]).astype(np.int64)
        chosen = _coefficients(whole, rounded, measured)
        predicted = _predicted(whole, chosen, len(rounded))
        middle = int(np.median((rounded - predicted)[measured])) if measured.any() else 0
        rest = rounded - predicted - middle
        # zero stands for NaN, then come 0, -1, 1, -2, 2 and so on: small numbers have their upper bytes empty
        left.append(np.where(measured, np.where(rest < 0, -2 * rest, 2 * rest + 1), 0))
        whole.append(np.where(measured, rounded, predicted + middle))
        coefficients.append(chosen)
        middles.append(middle)
    content = [
        *(chosen.astype("<i2").tobytes() for chosen in coefficients),
        np.array(middles).astype("<i4").tobytes(),
        _planes(np.array(left).astype("<u4")),
    ]
    return steps, base64.b85encode(zlib.compress(b"".join(content), 9)).decode("ascii")


def unpack(steps: Mapping[str, float], text: str, count: int) -> dict[str, NDArray[np.float64]]:
    """Return what :func:`pack` wrote, ``count`` values a metric, to half a step.

    Raises ``ValueError`` for text that is not of this form or holds another number of values.
    """
    names = sorted(steps)
    before = len(names) * (len(names) - 1) // 2
    sizes = 2 * before, 4 * len(names), 4 * len(names) * count
    try:
        reader = zlib.decompressobj()
        content = reader.decompress(base64.b85decode(text), sum(sizes) + 1)
    except (ValueError, zlib.error) as error:
        raise ValueError(f"not packed values ({error})") from error
    if len(content) != sum(sizes) or not reader.eof:
        raise ValueError(f"not {sum(sizes)} bytes as {count} values of {len(names)} metrics take")
    coefficients = np.frombuffer(content[: sizes[0]], "<i2").astype(np.int64)
    middles = np.frombuffer(content[sizes[0] : -sizes[2]] if count else b"", "<i4").astype(np.int64)
    left = _whole(content[sum(sizes[:2]) :], (len(names), count))
    whole: list[NDArray[np.int64]] = []
    values = {}
    for at, name in enumerate(names):
        chosen = coefficients[at * (at - 1) // 2 :][:at]
        rest = np.where(left[at] % 2, left[at] // 2, -(left[at] // 2))
        whole.append(_predicted(whole, chosen, count) + middles[at] + rest)
        values[name] = np.where(left[at] > 0, whole[at] * steps[name], np.nan)
    return values


def _step(values: NDArray[np.float64]) -> float:
    measured = values[~np.isnan(values)]
    if not np.isfinite(measured).all():
        raise ValueError("resamples are infinite; they must be numbers or NaN")
    widest = float(measured.std()) / _STEPS_IN_DEVIATION if len(measured) else 0.0
    if widest < FINEST_STEP:
        return FINEST_STEP
    return FINEST_STEP * 2.0 ** math.floor(math.log2(widest / FINEST_STEP))


def _coefficients(
    whole: Sequence[NDArray[np.int64]], wanted: NDArray[np.int64], measured: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return the coefficients of the best linear prediction of ``wanted`` from the metrics before it."""
    if not whole:
        return np.zeros(0, np.int64)
    known = np.array([*whole, np.ones_like(wanted)])[:, measured].T
    found = np.linalg.lstsq(known.astype(np.float64), wanted[measured], rcond=None)[0][:-1]
    return np.rint(found * _UNIT).clip(-_LARGEST, _LARGEST).astype(np.int64)


def _predicted(whole: Sequence[NDArray[np.int64]], coefficients: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    total = np.zeros(count, np.int64)
    for coefficient, values in zip(coefficients, whole, strict=True):
        total += coefficient * values
    return total // _UNIT


def _planes(numbers: NDArray[np.uint32]) -> bytes:
    """Return the first bytes of all numbers, then the second ones, and so on: like stands beside like."""
    return numbers.view(np.uint8).reshape(-1, 4).T.tobytes()


def _whole(planes: bytes, shape: tuple[int, int]) -> NDArray[np.int64]:
    numbers = np.ascontiguousarray(np.frombuffer(planes, np.uint8).reshape(4, -1).T).view("<u4")
    return numbers.reshape(shape).astype(np.int64)
