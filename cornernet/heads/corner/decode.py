"""From corner heatmaps to corners and to candidate boxes (paper section 4.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cornernet.config import TestingConfig
from cornernet.heads.candidates import Candidates, CornerPoints
from cornernet.heads.corner.outputs import Corners, Predictions

__all__ = ["corners", "decode", "embedding_distance"]


class _Top(NamedTuple):
    """The best corners of one kind: [B, k] each, embeddings [B, k, D]."""

    scores: Tensor
    labels: Tensor
    x: Tensor
    y: Tensor
    embeddings: Tensor


def decode(predictions: Predictions, testing: TestingConfig) -> list[Candidates]:
    """Return the candidates of each image of a batch, best first.

    The ``testing.top_k`` best peaks of each kind of corner over all classes are paired; a pair is rejected when its
    classes differ, its embeddings are further apart than ``testing.embedding_threshold``, or its bottom-right corner
    lies above or left of its top-left one. The score of a box is the mean of its corners' scores.
    """
    top_left, bottom_right = _both(predictions, testing)
    distance = embedding_distance(top_left.embeddings[:, :, None], bottom_right.embeddings[:, None, :])
    # written so that a NaN embedding or offset never forms a pair
    accepted = (
        (top_left.labels[:, :, None] == bottom_right.labels[:, None, :])
        & (distance <= testing.embedding_threshold)
        & (top_left.x[:, :, None] <= bottom_right.x[:, None, :])
        & (top_left.y[:, :, None] <= bottom_right.y[:, None, :])
    )
    if testing.reject_empty:
        accepted &= (top_left.x[:, :, None] != bottom_right.x[:, None, :]) & (
            top_left.y[:, :, None] != bottom_right.y[:, None, :]
        )
    if "heatmaps" in testing.substitute:
        # true corners are fewer than top_k, and what fills it up is known to be none
        accepted &= (top_left.scores[:, :, None] > 0) & (bottom_right.scores[:, None, :] > 0)
    mean_score = (top_left.scores[:, :, None] + bottom_right.scores[:, None, :]) / 2
    pair_scores = torch.where(accepted, mean_score, -1.0).flatten(1)

    best, index = pair_scores.topk(min(testing.num_candidates, pair_scores.shape[1]), dim=1)
    k = bottom_right.scores.shape[1]
    first, second = index // k, index % k
    boxes = torch.stack(
        [
            top_left.x.gather(1, first),
            top_left.y.gather(1, first),
            bottom_right.x.gather(1, second),
            bottom_right.y.gather(1, second),
        ],
        dim=-1,
    )
    corner_scores = torch.stack([top_left.scores.gather(1, first), bottom_right.scores.gather(1, second)], dim=-1)
    labels = top_left.labels.gather(1, first)
    return [
        Candidates(boxes[b, :n], best[b, :n], corner_scores[b, :n], labels[b, :n])
        for b, n in enumerate((best > -1).sum(1).tolist())
    ]


def corners(predictions: Predictions, testing: TestingConfig) -> list[Corners[CornerPoints]]:
    """Return the corners of each image of a batch before they are paired, best first.

    The ``testing.top_k`` best peaks of each kind over all classes, where there are as many, at the place that the
    offset moves them to.
    """
    images: list[list[CornerPoints]] = [[] for _ in predictions.heatmaps.top_left]
    for top in _both(predictions, testing):
        for image, scores, labels, x, y in zip(images, top.scores, top.labels, top.x, top.y, strict=True):
            peaks = scores > 0
            image.append(CornerPoints(torch.stack([x, y], dim=1)[peaks], scores[peaks], labels[peaks]))
    return [Corners(*image) for image in images]


def _both(predictions: Predictions, testing: TestingConfig) -> list[_Top]:
    """The best corners of either kind."""
    return [
        _top_corners(heatmap, embedding, offset, testing)
        for heatmap, embedding, offset in zip(
            predictions.heatmaps, predictions.embeddings, predictions.offsets, strict=True
        )
    ]


def embedding_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the Euclidean distance of embeddings over the last dimension; one number's is its absolute difference."""
    difference = a - b
    if difference.shape[-1] == 1:
        return difference.squeeze(-1).abs()
    distance: Tensor = torch.linalg.vector_norm(difference, dim=-1)
    return distance


def _top_corners(heatmap: Tensor, embedding: Tensor, offset: Tensor, testing: TestingConfig) -> _Top:
    """Return the best peaks of one kind of corner over all classes and places of each image."""
    batch, _, height, width = heatmap.shape
    # a NaN would be ranked first; it is no corner
    scores = heatmap.float().sigmoid().nan_to_num(nan=0.0)
    kernel = testing.peak_kernel
    peaks = F.max_pool2d(scores, kernel, stride=1, padding=kernel // 2) == scores
    # heatmaps may be channels_last: flatten in [class, y, x] order whatever the layout
    ranked = (scores * peaks).reshape(batch, -1)
    best, index = ranked.topk(min(testing.top_k, ranked.shape[1]), dim=1)
    cells = height * width
    cell = index % cells
    at = cell[:, None, :]
    offsets = offset.float().reshape(batch, 2, cells).gather(2, at.expand(-1, 2, -1))
    dim = embedding.shape[1]
    embeddings = embedding.float().reshape(batch, dim, cells).gather(2, at.expand(-1, dim, -1))
    return _Top(
        scores=best,
        labels=index // cells,
        x=cell % width + offsets[:, 0],
        y=cell // width + offsets[:, 1],
        embeddings=embeddings.transpose(1, 2),
    )
