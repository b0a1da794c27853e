"""Candidates, which every head decodes to, and the corners of heads that find corners."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Candidates", "CornerPoints"]


class Candidates(NamedTuple):
    """Boxes of one input before suppression, in cells of the heatmap at stride 4, best first.

    ``boxes`` [N, 4] x1 y1 x2 y2; ``scores`` [N]; ``corner_scores`` [N, 2] of the top-left and the bottom-right corner,
    which are the weights in merging; ``labels`` [N] int64.
    """

    boxes: Tensor
    scores: Tensor
    corner_scores: Tensor
    labels: Tensor


class CornerPoints(NamedTuple):
    """Corners of one kind in one input, in cells of the heatmap at stride 4, best first.

    ``xy`` [N, 2]; ``scores`` [N]; ``labels`` [N] int64.
    """

    xy: Tensor
    scores: Tensor
    labels: Tensor
