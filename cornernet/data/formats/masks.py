"""The box of a COCO segmentation, for annotations that have no ``bbox``: polygons, and run lengths in both forms.

Run lengths count pixels down the columns, beginning with background. Their text form writes each number in groups of
five bits, six bits to a character, from the third number on as the difference from the number before the last.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

__all__ = ["box_of_mask"]

_LARGEST_SIDE = 2**20
_LARGEST_PLACE = 1e9
"""Pixels. An integer may also be too large for a float."""


def box_of_mask(mask: Any) -> tuple[float, float, float, float] | None:
    """Return the box x, y, width, height of a ``segmentation``, or None where it is missing, empty or damaged."""
    if isinstance(mask, dict):
        return _of_runs(mask.get("counts"), mask.get("size"))
    if not isinstance(mask, list) or not mask:
        return None
    polygons = mask if isinstance(mask[0], list) else [mask]
    points: list[float] = []
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return None
        if not all(type(value) in (int, float) and abs(value) < _LARGEST_PLACE for value in polygon):
            return None
        points += polygon
    xs, ys = points[::2], points[1::2]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def _of_runs(counts: Any, size: Any) -> tuple[float, float, float, float] | None:
    if not isinstance(size, list) or len(size) != 2 or any(type(side) is not int for side in size):
        return None
    height, width = size
    if not (0 < height <= _LARGEST_SIDE and 0 < width <= _LARGEST_SIDE):
        return None
    runs = _numbers(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or any(type(run) is not int or run < 0 for run in runs):
        return None
    if sum(runs) != height * width:
        return None
    left, top, right, bottom = width, height, 0, 0
    ends = list(itertools.accumulate(runs))
    for start, end in zip(ends[0::2], ends[1::2], strict=False):
        if end == start:
            continue
        first, last = start // height, (end - 1) // height
        left, right = min(left, first), max(right, last + 1)
        # a run over the end of a column reaches both edges
        top = min(top, start % height if first == last else 0)
        bottom = max(bottom, (end - 1) % height + 1 if first == last else height)
    return None if right == 0 else (left, top, right - left, bottom - top)


def _numbers(text: str) -> Sequence[int] | None:
    """Return the numbers in the text form of run lengths, or None where it is damaged."""
    numbers: list[int] = []
    value = shift = 0
    for letter in text:
        group = ord(letter) - 48
        if not 0 <= group < 64 or shift > 60:
            return None
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
        value = shift = 0
    return None if shift else numbers
