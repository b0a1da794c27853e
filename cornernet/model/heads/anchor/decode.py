"""From the anchor head's outputs to candidate boxes (RetinaNet, section 4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cornernet.config import AnchorHeadConfig, TestingConfig
from cornernet.model.heads.anchor import anchors
from cornernet.model.heads.anchor.outputs import AnchorPredictions, by_anchor
from cornernet.model.heads.candidates import Candidates

__all__ = ["decode"]


def decode(
    predictions: AnchorPredictions,
    strides: tuple[int, ...],
    num_classes: int,
    config: AnchorHeadConfig,
    testing: TestingConfig,
) -> list[Candidates]:
    """Return the candidates of each image of a batch, best first.

    The ``testing.num_candidates`` best scores over all levels, anchors and classes are kept, so one anchor can give
    candidates of several classes (RetinaNet keeps 1,000 above 0.05 per level). Both corner scores of a box are its
    score. The fields of ``testing`` for corners and their pairs are not used.
    """
    # topk ranks NaN first
    logits = by_anchor(predictions.logits, num_classes).nan_to_num(nan=-math.inf).flatten(1)
    codes = by_anchor(predictions.codes, 4)
    boxes = torch.from_numpy(anchors.anchor_boxes(predictions.sizes, strides, config)).float().to(codes.device)
    best, index = logits.topk(min(testing.num_candidates, logits.shape[1]), dim=1)
    anchor, labels = index // num_classes, index % num_classes
    decoded = anchors.decode(codes.gather(1, anchor[..., None].expand(-1, -1, 4)), boxes[anchor])
    scores = best.sigmoid()
    return [_kept(*columns) for columns in zip(decoded, scores, labels, strict=True)]


def _kept(boxes: Tensor, scores: Tensor, labels: Tensor) -> Candidates:
    """Return one image's candidates without boxes that are not finite and without scores of 0."""
    kept = boxes.isfinite().all(1) & (scores > 0)
    scores = scores[kept]
    return Candidates(boxes[kept], scores, scores[:, None].expand(-1, 2), labels[kept])
