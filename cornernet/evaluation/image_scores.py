"""How well a detector's boxes fit the truth in a single photograph."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cornernet.inference.detections import Detections

__all__ = ["image_f1", "ious"]


def image_f1(found: Detections, boxes: ArrayLike, labels: ArrayLike, iou: float = 0.5) -> float:
    """Return the harmonic mean of precision and recall in one image; 1 if it has neither objects nor detections.

    ``boxes`` [N, 4] and ``labels`` [N] are the truth. Detections are matched from the best score down. Each takes the
    free object of its class that it overlaps most, if their IoU is at least ``iou``.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    if not len(boxes) and not len(found):
        return 1.0
    overlaps = ious(found.boxes, boxes)
    overlaps[found.labels[:, None] != np.asarray(labels)[None]] = 0
    hits = 0
    for at in np.argsort(-found.scores, kind="stable"):
        if len(boxes) and overlaps[at].max() >= iou:
            overlaps[:, int(overlaps[at].argmax())] = 0
            hits += 1
    return 2 * hits / (len(found) + len(boxes))


def ious(boxes: ArrayLike, others: ArrayLike) -> NDArray[np.float64]:
    """Return the IoU [N, M] of every one of ``boxes`` [N, 4] with every one of ``others`` [M, 4].

    Boxes are x1 y1 x2 y2 with exclusive edges.
    """
    ours, theirs = (np.asarray(each, np.float64).reshape(-1, 4) for each in (boxes, others))
    low = np.maximum(ours[:, None, :2], theirs[None, :, :2])
    high = np.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)
    areas, their_areas = ((each[:, 2:] - each[:, :2]).prod(axis=1) for each in (ours, theirs))
    union = areas[:, None] + their_areas[None] - shared
    result: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return result
