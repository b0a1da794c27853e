"""From corner heatmaps to corners and to candidate boxes (paper section 4.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cornernet.config import TestingConfig
from cornernet.model.heads.candidates import Candidates, CornerPoints
from cornernet.model.heads.corner.outputs import Corners, Predictions

__all__ = ["corners", "decode", "decode_padded", "embedding_distance"]


_LARGE = 1 << 17
"""Values in a batch's heatmaps from which decoding in one pass is considered."""


class _Top(NamedTuple):
    """The best corners of one kind: all [B, k], embeddings [B, k, D]."""

    scores: Tensor
    labels: Tensor
    x: Tensor
    y: Tensor
    embeddings: Tensor


def decode(predictions: Predictions, testing: TestingConfig) -> list[Candidates]:
    """Return the candidates of each image of a batch, best first.

    The ``testing.top_k`` best peaks of each kind of corner, over all classes, are paired. A pair is rejected if its
    classes differ, if its embeddings differ by more than ``testing.embedding_threshold``, or if its bottom-right corner
    is above or left of its top-left one. The score of a box is the mean of its corners' scores.
    """
    if predictions.heatmaps.top_left.device.type == "cpu" and predictions.heatmaps.top_left.numel() >= _LARGE:
        from cornernet.model.heads.corner.decode_cpu import (  # imports numba: only where it pays off
            decode_large,
            serves,
        )

        found = decode_large(predictions, testing) if serves(predictions, testing) else None
        if found is not None:
            return found
    padded = decode_padded(predictions, testing)
    return [
        Candidates(*(column[b, :n] for column in padded)) for b, n in enumerate((padded.scores > -1).sum(1).tolist())
    ]


def decode_padded(predictions: Predictions, testing: TestingConfig) -> Candidates:
    """Return the candidates of :func:`decode` in tensors [B, N, ...], padded with rows of score -1."""
    top_left, bottom_right = _both(predictions, testing)
    distance = embedding_distance(top_left.embeddings[:, :, None], bottom_right.embeddings[:, None, :])
    # in this form, a NaN embedding or offset never makes a pair
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
        # there can be fewer true corners than top_k; the rest have scores of 0 and are not corners
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
    return Candidates(boxes, best, corner_scores, top_left.labels.gather(1, first))


def corners(predictions: Predictions, testing: TestingConfig) -> list[Corners[CornerPoints]]:
    """Return the corners of each image of a batch before they are paired, best first.

    These are up to ``testing.top_k`` of the best peaks of each kind, over all classes, moved by their offsets.
    """
    images: list[list[CornerPoints]] = [[] for _ in predictions.heatmaps.top_left]
    for top in _both(predictions, testing):
        for image, scores, labels, x, y in zip(images, top.scores, top.labels, top.x, top.y, strict=True):
            peaks = scores > 0
            image.append(CornerPoints(torch.stack([x, y], dim=1)[peaks], scores[peaks], labels[peaks]))
    return [Corners(*image) for image in images]


def _both(predictions: Predictions, testing: TestingConfig) -> list[_Top]:
    """Return the best corners of both kinds."""
    return [
        _top_corners(heatmap, embedding, offset, testing)
        for heatmap, embedding, offset in zip(
            predictions.heatmaps, predictions.embeddings, predictions.offsets, strict=True
        )
    ]


def embedding_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the Euclidean distance of embeddings [..., D] over the last dimension."""
    difference = a - b
    if difference.shape[-1] == 1:
        return difference.squeeze(-1).abs()
    distance: Tensor = torch.linalg.vector_norm(difference, dim=-1)
    return distance


def _offsets(offset: Tensor, at: Tensor, testing: TestingConfig) -> Tensor:
    """Return the offsets [B, 2, k], x and y, of the corners in the cells ``at`` [B, 1, k], from a map [B, 2, h, w]."""
    if testing.offsets != "predicted":
        constant = 0.5 if testing.offsets == "centre" else 0.0
        return torch.full((len(at), 2, at.shape[2]), constant, device=at.device)
    return offset.float().flatten(2).gather(2, at.expand(-1, 2, -1))


def _top_corners(heatmap: Tensor, embedding: Tensor, offset: Tensor, testing: TestingConfig) -> _Top:
    """Return the best peaks of one kind of corner over all classes and cells of each image."""
    batch, _, height, width = heatmap.shape
    # topk ranks NaN first, but it is not a corner
    scores = heatmap.float().sigmoid().nan_to_num(nan=0.0)
    kernel = testing.peak_kernel
    peaks = F.max_pool2d(scores, kernel, stride=1, padding=kernel // 2) == scores
    # heatmaps may be channels_last: flatten in [class, y, x] order whatever the layout
    ranked = (scores * peaks).reshape(batch, -1)
    # in this form the choice leaves no trace in an exported graph, whose maps always have enough cells
    count = testing.top_k if ranked.shape[1] >= testing.top_k else ranked.shape[1]
    best, index = ranked.topk(count, dim=1)
    cells = height * width
    label, cell = _divided(index, cells)
    row, column = _divided(cell, width)
    at = cell[:, None, :]
    offsets = _offsets(offset, at, testing)
    dim = embedding.shape[1]
    embeddings = embedding.float().reshape(batch, dim, cells).gather(2, at.expand(-1, dim, -1))
    return _Top(
        scores=best,
        labels=label,
        x=column + offsets[:, 0],
        y=row + offsets[:, 1],
        embeddings=embeddings.transpose(1, 2),
    )


def _divided(index: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """Return quotient and remainder of non-negative integers."""
    divisor = index.new_full((), by) if torch.compiler.is_exporting() else by  # ONNX cannot divide by a symbol
    return index // divisor, index % divisor
