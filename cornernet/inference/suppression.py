"""Soft-NMS and the choice of the boxes that are reported.

The authors' test path has two defects. ``testing.authors_compatible`` reproduces both, and :func:`soft_nms` and
:func:`suppress` have a switch for each:

* ``stale_rows``: a discarded box leaves copies in the array, and these are reported.
* ``column_defect``: when boxes change places, the scores of their two corners stay behind. Merging then weights a box
  by the corner scores of whichever box stood there before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from cornernet.config import TestingConfig
from cornernet.inference.detections import Detections
from cornernet.model.heads import Candidates

__all__ = ["soft_nms", "suppress"]

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
    """Return the boxes of one class that survive (soft) non-maximum suppression, in the order they were picked.

    ``rows`` is float32 [N, 7]: x1 y1 x2 y2 score top-left-score bottom-right-score. It is not modified. The algorithm
    picks the best box, lowers the scores of the others by their overlap with it, discards those that fall below
    ``min_score``, and repeats (Bodla et al., "Soft-NMS", 2017). Depending on ``method``, a score is multiplied by

    * hard: 0 where the IoU exceeds ``iou``, and the box is discarded;
    * linear: 1 - IoU where the IoU exceeds ``iou``;
    * gaussian: exp(-IoU^2 / ``sigma``).

    Widths and heights are x2 - x1 + 1 with the ``extent`` 'pixels', and x2 - x1 with 'points'. Among equal scores the
    first in the array is picked. A discarded row is replaced by the last remaining one. If ``merge_exponent`` is given,
    the corners of a picked box are averaged with those of the boxes it overlaps, weighted by corner scores and by
    (1 - factor)^merge_exponent.

    ``column_defect`` and ``stale_rows`` reproduce the authors' defects (see the module). With ``stale_rows`` the result
    has all N rows, survivors first. ``max_picks`` stops after that many survivors, which are the best, because the
    scores of successive picks never rise. Raises ``ValueError`` for an unsupported shape or method.
    """
    if rows.ndim != 2 or rows.shape[1] != 7:
        raise ValueError(f"soft_nms takes rows [N, 7], not {list(rows.shape)}")
    if method not in ("hard", "linear", "gaussian"):
        raise ValueError(f"method must be hard, linear or gaussian, not {method!r}")
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
            weight = _merge_weights(overlap, factor, merge_exponent)
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


def suppress(
    candidates: Sequence[Candidates],
    testing: TestingConfig,
    *,
    column_defect: bool | None = None,
    stale_rows: bool | None = None,
) -> Detections:
    """Return the reported boxes from the candidates of all flips and scales, in the candidates' coordinates.

    Candidates with a score of -1 or less are padding from decoding. Suppression is per class and follows
    ``testing.nms*``, ``.min_score`` and ``.merge*``. The best ``testing.max_detections`` of all classes are reported,
    best first, ties in the order of classes and picks.

    The two switches default to ``testing.authors_compatible``. That field also makes the report follow the authors':
    in the order of classes and picks, with every box that ties with the last.
    """
    column_defect = testing.authors_compatible if column_defect is None else column_defect
    stale_rows = testing.authors_compatible if stale_rows is None else stale_rows
    rows, labels = _stack(candidates)
    # the authors also report ties with the last box, and copies of boxes, which takes all survivors
    max_picks = None if stale_rows or testing.authors_compatible else testing.max_detections
    if max_picks is not None and not column_defect:
        found = _suppress_together(rows, labels, testing)
        if found is not None:
            return found
    rows, labels = _suppress_by_class(rows, labels, testing, column_defect, stale_rows, max_picks)
    best = _best(rows[:, 4], testing.max_detections, ties=testing.authors_compatible)
    return Detections(rows[best, :4], rows[best, 4], labels[best])


def _suppress_by_class(
    rows: Rows,
    labels: NDArray[np.int64],
    testing: TestingConfig,
    column_defect: bool,
    stale_rows: bool,
    max_picks: int | None,
) -> tuple[Rows, NDArray[np.int64]]:
    """Return the rows that :func:`soft_nms` returns for each class, one class after another, and their labels."""
    groups = []
    for label in np.unique(labels):
        survivors = soft_nms(
            rows[labels == label],
            method=testing.nms,
            iou=testing.nms_iou,
            sigma=testing.nms_sigma,
            min_score=testing.min_score,
            merge_exponent=testing.merge_exponent if testing.merge else None,
            column_defect=column_defect,
            stale_rows=stale_rows,
            max_picks=max_picks,
            extent=testing.nms_extent,
        )
        groups.append((survivors, np.full(len(survivors), label)))
    rows = np.concatenate([np.empty((0, 7), np.float32), *(group for group, _ in groups)])
    labels = np.concatenate([np.empty(0, np.int64), *(group for _, group in groups)])
    return rows, labels


def _suppress_together(rows: Rows, labels: NDArray[np.int64], testing: TestingConfig) -> Detections | None:
    """Suppress all classes at once, with bit-identical results; return None where this would not be faster."""
    from cornernet.inference.suppression_compiled import pick_all

    if not len(rows):
        return None
    picks = pick_all(
        rows,
        labels,
        lambda overlaps: _factor(overlaps, testing.nms, testing.nms_iou, testing.nms_sigma),
        max(np.float32(testing.min_score), np.finfo(np.float32).tiny),
        np.float32(testing.nms_extent == "pixels"),
        testing.max_detections,
        testing.merge,
    )
    if picks is None:
        return None
    best = _best(picks.scores, testing.max_detections, ties=False)
    boxes = rows[picks.rows[best], :4]
    if testing.merge:
        for row, pick in enumerate(best.tolist()):
            own = rows[picks.rows[pick]]
            others, overlap, factor = picks.others(pick)
            columns = np.ascontiguousarray(rows[others].T)
            weights = _merge_weights(overlap, factor, testing.merge_exponent) * columns[5:]
            boxes[row] = _merged(own[:4], own[5:], columns[:4], weights)
    return Detections(boxes, picks.scores[best], picks.labels[best])


def _merge_weights(overlap: Rows, factor: Rows, exponent: float) -> Rows:
    """Return the weights of overlapping boxes in the average of corners, before multiplying by corner scores."""
    return np.where(overlap > 0, (1 - factor) ** np.float32(exponent), np.float32(0))


def _stack(candidates: Sequence[Candidates]) -> tuple[Rows, NDArray[np.int64]]:
    """Return all candidates except padding as rows for :func:`soft_nms`, and their labels."""
    tables, labels = [np.empty((0, 7), np.float32)], [np.empty(0, np.int64)]
    for view in candidates:
        kept = (view.scores > -1).numpy()
        table = torch.cat([view.boxes, view.scores[:, None], view.corner_scores], dim=1)
        tables.append(table.float().numpy()[kept])
        labels.append(view.labels.numpy()[kept])
    return np.concatenate(tables), np.concatenate(labels)


def _best(scores: Rows, count: int, ties: bool) -> NDArray[np.int64]:
    """Return the indices of the ``count`` best scores, best first.

    With ``ties``, return all scores that reach the last of these, in their original order.
    """
    if not ties:
        return np.argsort(-scores, kind="stable")[:count]
    if len(scores) <= count:
        return np.arange(len(scores))
    last = np.partition(scores, len(scores) - count)[len(scores) - count]
    return np.flatnonzero(scores >= last)
