"""What a detector did in one photograph: its heatmaps over the picture, and how well its boxes fit the truth."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from cornernet.config import Config
from cornernet.data.transforms import fit_image
from cornernet.drawing.boxes import draw_heatmaps
from cornernet.inference.detect import network
from cornernet.inference.detections import Detections
from cornernet.inference.placement import prepare
from cornernet.model.detector import Detector

__all__ = ["heatmap_picture", "image_f1", "ious"]


def heatmap_picture(detector: Detector, image: NDArray[np.uint8], config: Config) -> NDArray[np.uint8]:
    """Return the photograph with the last stack's corner heatmaps drawn over it, at the first of the test's scales.

    ``image`` is uint8 [H, W, 3] BGR, and so is the result; small ones are enlarged as ``draw_heatmaps`` does.
    """
    fitted, _ = fit_image(image, config.data.fit)
    batch, placement = prepare(fitted, config.data, config.testing.scales[0], False, detector.total_stride)
    with torch.inference_mode():
        predictions = network(detector, batch)[-1]
    top_left, bottom_right = (heatmap[0].float().sigmoid().cpu().numpy() for heatmap in predictions.heatmaps)
    return draw_heatmaps(image, top_left, bottom_right, placement.window)


def image_f1(found: Detections, boxes: ArrayLike, labels: ArrayLike, iou: float = 0.5) -> float:
    """Return the harmonic mean of precision and recall in one image; 1 where nothing is there and nothing is found.

    ``boxes`` [N, 4] and ``labels`` [N] are the truth. Detections are matched from the best score down, each to the free
    object of its class that it overlaps most, where that is by an IoU of ``iou`` or more.
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
    """Return the IoU of every box [N, 4] with every other [M, 4], x1 y1 x2 y2 with exclusive edges: [N, M]."""
    ours, theirs = (np.asarray(each, np.float64).reshape(-1, 4) for each in (boxes, others))
    low = np.maximum(ours[:, None, :2], theirs[None, :, :2])
    high = np.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)
    areas, their_areas = ((each[:, 2:] - each[:, :2]).prod(axis=1) for each in (ours, theirs))
    union = areas[:, None] + their_areas[None] - shared
    result: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return result
