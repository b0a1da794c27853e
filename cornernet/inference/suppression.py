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
    return _by_class(
        np.asarray(rows, np.float32),
        np.zeros(len(rows), np.int64),
        method=method,
        iou=iou,
        sigma=sigma,
        min_score=min_score,
        merge_exponent=merge_exponent,
        column_defect=column_defect,
        stale_rows=stale_rows,
        max_picks=max_picks,
        extent=extent,
    )[0]


def _by_class(
    rows: Rows,
    labels: NDArray[np.int64],
    *,
    method: Method,
    iou: float,
    sigma: float,
    min_score: float,
    merge_exponent: float | None,
    column_defect: bool,
    stale_rows: bool,
    max_picks: int | None,
    extent: Extent,
) -> tuple[Rows, NDArray[np.int64]]:
    """Return what :func:`soft_nms` does for each class, one class after another, and the labels."""
    # compiled at the first call, not when this module is imported
    from cornernet.inference.suppression_compiled import suppress_classes

    return suppress_classes(
        rows,
        labels,
        factor=lambda overlaps: _factor(overlaps, method, iou, sigma),
        weight=None
        if merge_exponent is None
        else (lambda overlaps, factors: _merge_weights(overlaps, factors, merge_exponent)),
        # a score of zero is always below the floor, so 'hard' discards whatever min_score is
        floor=max(np.float32(min_score), np.finfo(np.float32).tiny),
        pixel_extent=np.float32(extent == "pixels"),
        max_picks=max_picks,
        column_defect=column_defect,
        stale_rows=stale_rows,
    )


def _factor(overlap: Rows, method: Method, iou: float, sigma: float) -> Rows:
    """Return what the score of a box with this overlap is multiplied by."""
    if method == "gaussian":
        result: Rows = overlap * overlap
        result /= np.float32(-sigma)
        np.exp(result, out=result)
        return result
    over = np.float32(0) if method == "hard" else 1 - overlap
    return np.where(overlap > iou, over, np.float32(1))


def _merge_weights(overlap: Rows, factor: Rows, exponent: float) -> Rows:
    """Return the weights of overlapping boxes in the average of corners, before multiplying by corner scores."""
    weights = np.zeros_like(overlap)
    overlapping = overlap > 0
    weights[overlapping] = (1 - factor[overlapping]) ** np.float32(exponent)
    return weights


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
    rows, labels = _by_class(
        rows,
        labels,
        method=testing.nms,
        iou=testing.nms_iou,
        sigma=testing.nms_sigma,
        min_score=testing.min_score,
        merge_exponent=testing.merge_exponent if testing.merge else None,
        column_defect=column_defect,
        stale_rows=stale_rows,
        # the authors also report ties with the last box, and copies of boxes, which takes all survivors
        max_picks=None if stale_rows or testing.authors_compatible else testing.max_detections,
        extent=testing.nms_extent,
    )
    best = _best(rows[:, 4], testing.max_detections, ties=testing.authors_compatible)
    return Detections(rows[best, :4], rows[best, 4], labels[best])


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
