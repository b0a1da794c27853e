"""The ground truth in place of outputs of the corner head, to measure the error of each (paper table 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cornernet.config import TestingConfig
from cornernet.model.heads.corner.outputs import Corners, Predictions

__all__ = ["substitute"]


def substitute(
    predictions: Predictions, boxes: Sequence[Tensor], labels: Sequence[Tensor], testing: TestingConfig
) -> Predictions:
    """Return the predictions with the outputs in ``testing.substitute`` replaced by the truth (paper section 4.4.6).

    ``boxes`` [N, 4] of each input are x1 y1 x2 y2 in cells of its heatmaps, ``labels`` [N] their classes.

    * heatmaps: a probability of 1 in the cells of corners and 0 everywhere else, which are the training targets reduced
      to their peaks. A corner on the far edge of the map belongs to the last cell.
    * offsets: in every cell, the fractional position of the nearest true corner. A corner predicted in the wrong cell
      stays in that cell: an offset corrects for the stride, not for the heatmap.
    * embeddings: in every cell, a number for the object with the nearest true corner. The numbers of two objects differ
      by more than ``testing.embedding_threshold``.

    The nearest corner is taken over all classes, because they share embeddings and offsets. In a tie the first object
    counts, so of two objects with a corner in the same cell the second is not found. Inputs without objects keep their
    predicted embeddings and offsets.
    """
    kinds = []
    for which in range(2):
        heatmaps, embeddings, offsets = (
            maps[which].float().clone(memory_format=torch.contiguous_format) for maps in predictions
        )
        for index, (corners, classes) in enumerate(zip(boxes, labels, strict=True)):
            points = corners[:, 2 * which : 2 * which + 2].to(heatmaps.device)
            _replace(heatmaps[index], embeddings[index], offsets[index], points, classes.to(heatmaps.device), testing)
        kinds.append((heatmaps, embeddings, offsets))
    return Predictions(*(Corners(a, b) for a, b in zip(*kinds, strict=True)))


def _replace(
    heatmap: Tensor, embedding: Tensor, offset: Tensor, points: Tensor, labels: Tensor, testing: TestingConfig
) -> None:
    """Write the true corners ``points`` [N, 2] of one kind into one input's maps [K or D or 2, h, w], in place."""
    height, width = heatmap.shape[1:]
    last = torch.tensor([width - 1, height - 1], device=points.device)
    cells = torch.minimum(points.floor().long().clamp(min=0), last)
    if "heatmaps" in testing.substitute:
        heatmap.fill_(-math.inf)
        heatmap[labels, cells[:, 1], cells[:, 0]] = math.inf
    if not len(points):
        return
    nearest = _nearest(cells, height, width)
    if "offsets" in testing.substitute:
        offset.copy_((points - cells).to(offset.dtype)[nearest].permute(2, 0, 1))
    if "embeddings" in testing.substitute:
        embedding.copy_((nearest * (2 * testing.embedding_threshold + 1))[None])


def _nearest(cells: Tensor, height: int, width: int) -> Tensor:
    """Return for each cell of the map the index of the nearest of ``cells`` [N, 2] (x, y), the first in a tie."""
    ys = (torch.arange(height, device=cells.device)[None] - cells[:, 1:]) ** 2
    xs = (torch.arange(width, device=cells.device)[None] - cells[:, :1]) ** 2
    nearest = torch.zeros((height, width), dtype=torch.int64, device=cells.device)
    closest = ys[0, :, None] + xs[0, None]
    # one by one: a map per object would need much memory, and argmin does not define ties
    for index in range(1, len(cells)):
        distance = ys[index, :, None] + xs[index, None]
        nearest = torch.where(distance < closest, index, nearest)
        closest = torch.minimum(distance, closest)
    return nearest
