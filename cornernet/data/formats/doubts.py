"""Signs that the boxes of an annotation file are not what COCO's ``bbox`` and ``area`` mean.

Each is judged over the whole file: real sets have single boxes beyond the edge, masks that fill little of their box,
and objects annotated twice. Nothing is corrected here, because each form also has sets that merely look like it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cornernet.console import count

__all__ = ["box_doubts", "repeated_boxes"]

_MANY = 0.2
"""Share of boxes beyond the edge from which the form of all boxes is doubted."""
_DISAGREE = 0.1
"""Share of areas that no mask in their box can have from which all areas are doubted."""
_THIN = 0.02
"""Least share of its box that a mask fills: a diagonal line of a fiftieth of the box's length in width."""


def box_doubts(sizes: NDArray[np.int64], xywh: NDArray[np.float64], areas: NDArray[np.float64]) -> list[str]:
    """Return a warning for each sign of another form, given the boxes [M, 4] of objects, their ``areas`` [M] (NaN where
    the file has none), and the ``sizes`` [M, 2] (height, width) of their images.
    """
    if not len(xywh):
        return []
    if xywh.max() <= 1:
        return ["no bbox has a value above 1: they seem to be fractions of the image's size, and COCO's are in pixels"]
    doubts = []
    form = _another_form(sizes, xywh, areas)
    if form:
        doubts.append(form)
    elif (wrong := _impossible(xywh, areas)) > _DISAGREE * len(xywh):
        doubts.append(
            f"the area of {count(wrong, 'annotation')} cannot be that of a mask in its box: 'area' decides which "
            "objects count as small, medium and large in the evaluation; remove the field to use width times height"
        )
    return doubts


def _another_form(sizes: NDArray[np.int64], xywh: NDArray[np.float64], areas: NDArray[np.float64]) -> str:
    height, width = sizes.T.astype(np.float64)
    x, y, w, h = xywh.T
    with np.errstate(over="ignore", invalid="ignore"):
        beyond = np.mean((x + w > width + 1) | (y + h > height + 1))
        product, between = w * h, (w - x) * (h - y)
        corners = (w > x) & (h > y) & (w <= width + 1) & (h <= height + 1)
        # the corners' area, where it differs from width times height
        known = ~np.isnan(areas) & (np.abs(product - between) > 0.02 * product)
        of_corners = known & (np.abs(areas - between) <= 0.01 * np.abs(between) + 1)
        centred = (x >= w / 2 - 1) & (y >= h / 2 - 1) & (x + w / 2 <= width + 1) & (y + h / 2 <= height + 1)
    told = int(known.sum())
    if corners.mean() > 0.98 and (beyond > _MANY or (told > len(xywh) / 2 and of_corners.sum() > 0.9 * told)):
        return (
            "bbox seems to be [x1, y1, x2, y2]: the last two numbers are always the larger ones, and as width and "
            f"height they lead beyond the image in {beyond:.0%} of the boxes or contradict 'area'; COCO's bbox is "
            "[x, y, width, height]"
        )
    if beyond > _MANY and centred.mean() > 0.98:
        return (
            f"bbox seems to begin with the centre: {beyond:.0%} of the boxes lead beyond the image, and none would as "
            "[centre x, centre y, width, height]; COCO's bbox is [x, y, width, height] with the top-left corner"
        )
    if beyond > 0.5:
        return f"{beyond:.0%} of the boxes lead beyond the image: is bbox [x, y, width, height] in pixels of it?"
    return ""


def _impossible(xywh: NDArray[np.float64], areas: NDArray[np.float64]) -> int:
    """Return how many areas are larger than their box or fill less of it than a thin mask does."""
    with np.errstate(over="ignore", invalid="ignore"):
        product = xywh[:, 2] * xywh[:, 3]
        # an edge may be counted in whole pixels
        most = (xywh[:, 2] + 2) * (xywh[:, 3] + 2)
        return int(((areas > most) | (areas < np.minimum(_THIN * product, product - 4))).sum())


def repeated_boxes(
    image: NDArray[np.int64], label: NDArray[np.int64], crowd: NDArray[np.uint8], xywh: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the rows that repeat an earlier row: the same image, class and box."""
    if not len(image):
        return np.zeros(0, np.int64)
    # a hash finds out quickly that there are none, as in most files; 0.0 turns -0.0 into 0.0
    columns = [image.astype(np.uint64), label.astype(np.uint64), crowd.astype(np.uint64)]
    columns += [np.ascontiguousarray(side + 0.0).view(np.uint64) for side in xywh.T]
    mixed = np.zeros(len(image), np.uint64)
    for column in columns:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    order = np.argsort(mixed, kind="stable")
    ordered = mixed[order]
    twins = np.zeros(len(image), np.bool_)
    same = ordered[1:] == ordered[:-1]
    twins[order[1:][same]] = twins[order[:-1][same]] = True
    seen: set[tuple[float, ...]] = set()
    again = []
    for row in np.flatnonzero(twins).tolist():
        key = (int(image[row]), int(label[row]), int(crowd[row]), *xywh[row].tolist())
        if key in seen:
            again.append(row)
        seen.add(key)
    return np.array(again, np.int64)
