"""Anchors, and boxes as codes relative to them (RetinaNet, Lin et al. 2017, section 4).

The unit is a cell of the map at stride 4, as for candidates. A cell at stride s is s / 4 units wide. Its anchors share
its centre, so the anchors of a mirrored image are the mirrored anchors.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cornernet.config import AnchorHeadConfig

__all__ = ["FINEST_STRIDE", "anchor_boxes", "anchor_shapes", "decode", "encode", "level_sizes"]

FINEST_STRIDE = 4
"""Stride of the map whose cells are the unit."""

# A box is at most 1000 / 16 times its anchor, as in RetinaNet's released code, so that exp does not overflow.
LARGEST_LOG_SCALE = math.log(1000 / 16)


def anchor_shapes(stride: int, config: AnchorHeadConfig) -> list[tuple[float, float]]:
    """Return the (height, width) of each anchor of a cell at a stride, ordered by size and then by ratio."""
    side = config.anchor_size * stride / FINEST_STRIDE
    sizes = [side * 2 ** (octave / config.octave_scales) for octave in range(config.octave_scales)]
    return [(size * math.sqrt(ratio), size / math.sqrt(ratio)) for size in sizes for ratio in config.ratios]


@functools.lru_cache(maxsize=32)
def anchor_boxes(
    sizes: tuple[tuple[int, int], ...], strides: tuple[int, ...], config: AnchorHeadConfig
) -> npt.NDArray[np.float64]:
    """Return all anchors [N, 4], x1 y1 x2 y2 in cells at stride 4, of levels with maps of ``sizes`` (height, width).

    They are ordered by level, row, column and then as in :func:`anchor_shapes`. Anchors that reach over the image's
    edge are kept. All callers share the array: do not change it.
    """
    levels = []
    for (height, width), stride in zip(sizes, strides, strict=True):
        shapes = np.array(anchor_shapes(stride, config))
        half = np.stack([shapes[:, 1], shapes[:, 0]], axis=1) / 2
        y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
        centres = (np.stack([x, y], axis=-1) + 0.5) * (stride / FINEST_STRIDE)
        boxes = np.concatenate([centres[:, :, None] - half, centres[:, :, None] + half], axis=-1)
        levels.append(boxes.reshape(-1, 4))
    return np.concatenate(levels)


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return the codes [..., 4] of ``boxes`` relative to ``anchors``, both [..., 4] x1 y1 x2 y2 of positive size.

    A code is the shift of the centre, x then y, in widths and heights of the anchor, then the logarithms of the ratios
    of the widths and the heights (Girshick et al., "R-CNN", 2014).
    """
    centre, size = _centre_and_size(boxes)
    anchor_centre, anchor_size = _centre_and_size(anchors)
    return torch.cat([(centre - anchor_centre) / anchor_size, (size / anchor_size).log()], dim=-1)


def decode(codes: Tensor, anchors: Tensor) -> Tensor:
    """Return the boxes [..., 4] of codes [..., 4] relative to ``anchors`` [..., 4]: the inverse of :func:`encode`.

    A side is at most 1000 / 16 times the anchor's.
    """
    anchor_centre, anchor_size = _centre_and_size(anchors)
    centre = anchor_centre + codes[..., :2] * anchor_size
    half = codes[..., 2:].clamp(max=LARGEST_LOG_SCALE).exp() * anchor_size / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


def level_sizes(image_size: Sequence[int], strides: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return the sizes (height, width) of the levels' maps for an input of ``image_size``, a multiple minus 1."""
    height, width = image_size
    return tuple(((height + 1) // stride, (width + 1) // stride) for stride in strides)
