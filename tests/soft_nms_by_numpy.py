"""Soft-NMS of one class by numpy, box after box: the reference for the compiled loop, to the last bit.

It was the product's own path for the authors-compatible switches until the loop took over, and still gives the time
that the loop is compared with (``benchmarks/bench_inference.py``).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["soft_nms"]

Rows: TypeAlias = NDArray[np.float32]
Method: TypeAlias = Literal["hard", "linear", "gaussian"]
Extent: TypeAlias = Literal["pixels", "points"]


def soft_nms(
    rows: Rows,
    *,
    method: Method = "gaussian",
    iou: float = 0.5,
    sigma: float = 0.5,
    min_score: float = 0.001,
    merge_exponent: float | None = None,
    column_defect: bool = False,
    stale_rows: bool = False,
    max_picks: int | None = None,
    extent: Extent = "pixels",
) -> Rows:
    """Return what ``cornernet.inference.suppression.soft_nms`` does."""
    columns = np.array(rows.T, dtype=np.float32, order="C")
    boxes, scores, corner_scores = columns[:4], columns[4], columns[5:]
    moving = columns[:5] if column_defect else columns
    # a score of zero is always below the floor, so 'hard' discards whatever min_score is
    floor = max(np.float32(min_score), np.finfo(np.float32).tiny)
    pixel_extent = np.float32(extent == "pixels")
    live, picked = columns.shape[1], 0
    last_pick = live if max_picks is None else max_picks
    while picked < min(live, last_pick):
        best = picked + int(scores[picked:live].argmax())
        if best != picked:
            moving[:, [picked, best]] = moving[:, [best, picked]]
        start = picked + 1
        overlap = _overlap(boxes[:, picked], boxes[:, start:live], pixel_extent)
        factor = _factor(overlap, method, iou, sigma)
        lowered = scores[start:live] * factor
        discarded = (lowered < floor) & (overlap > 0)
        if merge_exponent is not None:
            weight = np.where(overlap > 0, (1 - factor) ** np.float32(merge_exponent), np.float32(0))
            others = corner_scores[:, start:live]
            if column_defect:
                others = others[:, _examined_at(discarded)]
            boxes[:, picked] = _merged(
                boxes[:, picked], corner_scores[:, picked], boxes[:, start:live], weight * others
            )
        before = scores[start:live].copy() if stale_rows else None
        scores[start:live] = lowered
        if discarded.any():
            kept = _close_gaps(moving[:, start:live], discarded, before)
            live = start + kept
        picked += 1
    return np.ascontiguousarray(columns[:, : None if stale_rows else picked].T)


def _overlap(box: Rows, others: Rows, pixel_extent: np.float32) -> Rows:
    """Return the IoU of one box [4] with others [4, N], 0 where they do not touch.

    ``pixel_extent`` is added to widths and heights: 1 if coordinates are pixels, 0 if they are points.
    """
    low = np.maximum(box[:2, None], others[:2])
    sides = np.minimum(box[2:, None], others[2:])
    sides -= low
    sides += pixel_extent
    np.maximum(sides, 0, out=sides)
    shared = sides[0] * sides[1]
    extent = others[2:] - others[:2]
    extent += pixel_extent
    union = extent[0] * extent[1]
    union += (box[2] - box[0] + pixel_extent) * (box[3] - box[1] + pixel_extent)
    union -= shared
    result: Rows = np.divide(shared, union, out=shared, where=shared > 0)
    return result


def _factor(overlap: Rows, method: Method, iou: float, sigma: float) -> Rows:
    """Return what the score of a box with this overlap is multiplied by."""
    if method == "gaussian":
        return np.asarray(np.exp(overlap * overlap / np.float32(-sigma)), np.float32)
    over = np.float32(0) if method == "hard" else 1 - overlap
    return np.where(overlap > iou, over, np.float32(1))


def _merged(box: Rows, own: Rows, others: Rows, weights: Rows) -> Rows:
    """Return the weighted average of a box [4] and others [4, N].

    ``weights`` [2, N] are those of the others' top-left and bottom-right corners, ``own`` [2] those of the box. A
    corner whose weights are all zero does not move.
    """
    total = own + weights.sum(1)
    # [corner, x or y], summed over the others. Not einsum: in long test runs, two of several million calls returned NaN
    # without the warning that numpy's other operations give. The cause is unknown
    moved = (others.reshape(2, 2, -1) * weights[:, None]).sum(-1) + box.reshape(2, 2) * own[:, None]
    corners = box.reshape(2, 2).copy()
    np.divide(moved, total[:, None], out=corners, where=total[:, None] > 0)
    return corners.reshape(4)


def _close_gaps(live: Rows, discarded: NDArray[np.bool_], before: Rows | None) -> int:
    """Fill the gaps of discarded rows with the last kept ones, in place, and return how many rows are kept.

    ``live`` [5 or 7, N] are columns. ``before`` holds the scores before they were lowered. If it is given, the rows
    after the kept ones get these scores back, which is what the authors' loop leaves there.
    """
    count = len(discarded)
    kept = count - int(discarded.sum())
    gaps = np.flatnonzero(discarded[:kept])
    fillers = kept + np.flatnonzero(~discarded[kept:])[::-1]
    last = None
    if before is not None:
        # the authors' loop ends at position `kept`. It visits the discarded rows that fill no gap, from the last one
        # down, and copies each to that position and lowers it there. The lowered copy of the nearest one remains
        unused = (int(fillers[-1]) if len(fillers) else count) - kept
        last = live[:, kept + (unused > 1)].copy() if unused else None
    live[:, gaps] = live[:, fillers]
    if before is not None:
        live[4, kept:] = before[kept:]
        if last is not None:
            live[:, kept] = last
    return kept


def _examined_at(discarded: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the position at which the authors' loop examines each row.

    The last row replaces a discarded one at once.
    """
    count = len(discarded)
    kept = count - int(discarded.sum())
    gaps = np.append(np.flatnonzero(discarded[:kept]), kept)
    position = np.arange(count)
    stays = ~discarded[kept:][::-1]
    position[kept:] = gaps[np.cumsum(stays) - stays][::-1]
    return position
