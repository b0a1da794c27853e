"""Where a photograph lies on the network's input, and how boxes move between the two.

A photograph is tested at its own size, in the middle of a black canvas. Each side of the canvas is one less than the
next multiple of the network's total stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cornernet.config import DataConfig, Size
from cornernet.data.transforms import crop_window, normalise, to_float
from cornernet.model.heads import Candidates

__all__ = ["Image", "Placement", "pad_to_stride", "prepare", "to_heatmap", "to_photo"]

Image: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True)
class Placement:
    """How a photograph at one scale lies on its canvas. Sizes are (height, width)."""

    scale: float
    """Factor by which the photograph was resized."""
    scaled: Size
    """Size of the resized photograph."""
    canvas: Size
    """Size of the network's input."""
    offset: tuple[int, int]
    """Position of the photograph's top-left pixel on the canvas (x, y); -1 where a row or column is cut off."""
    output_stride: int = 4
    """Input pixels per heatmap cell."""

    @property
    def output(self) -> Size:
        """Size of the heatmaps."""
        height, width = self.canvas
        return (height + 1) // self.output_stride, (width + 1) // self.output_stride

    @property
    def ratio(self) -> tuple[float, float]:
        """Heatmap cells per canvas pixel (x, y), slightly more than 1 / output_stride."""
        return self.output[1] / self.canvas[1], self.output[0] / self.canvas[0]

    @property
    def window(self) -> tuple[float, float, float, float]:
        """The part of the heatmaps that the photograph covers, x1 y1 x2 y2 in cells."""
        (dx, dy), (rx, ry), (height, width) = self.offset, self.ratio, self.scaled
        return dx * rx, dy * ry, (dx + width) * rx, (dy + height) * ry


def pad_to_stride(image: Image, scale: float, total_stride: int, output_stride: int = 4) -> tuple[Image, Placement]:
    """Resize a photograph by ``scale`` and centre it on a black canvas.

    ``image`` is uint8 [H, W, 3]. The canvas side for a resized side n is ``n | (total_stride - 1)``. If n already has
    that form, the photograph loses its last row or column, as in the authors' code. Raises ``ValueError`` unless
    ``total_stride`` is a power of two.
    """
    if total_stride < 1 or total_stride & (total_stride - 1):
        raise ValueError(f"total_stride is {total_stride}; it must be a power of two")
    height, width = image.shape[:2]
    size = max(1, int(height * scale)), max(1, int(width * scale))
    if size != (height, width):
        image = np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), np.uint8)
    canvas_size = size[0] | (total_stride - 1), size[1] | (total_stride - 1)
    canvas, offset = crop_window(image, (size[1] // 2, size[0] // 2), canvas_size)
    return canvas, Placement(scale, size, canvas_size, offset, output_stride)


def prepare(
    image: Image, config: DataConfig, scale: float, flip: bool, total_stride: int, output_stride: int = 4
) -> tuple[Tensor, Placement]:
    """Return a photograph's input at one scale: the normalised canvas and, with ``flip``, its mirror image.

    ``image`` is uint8 [H, W, 3] BGR. The tensor is float32 [1 or 2, 3, H', W'] on the CPU.
    """
    canvas, placement = pad_to_stride(image, scale, total_stride, output_stride)
    planes = normalise(to_float(canvas), config)
    if config.padding == "mean":
        _zero_padding(planes, placement)
    batch = np.stack([planes, planes[:, :, ::-1]]) if flip else planes[None]
    return torch.from_numpy(batch), placement


def _zero_padding(planes: NDArray[np.float32], placement: Placement) -> None:
    """Set the padding of a normalised canvas [3, H, W] to zero, which is the mean colour, in place."""
    (dx, dy), (height, width) = placement.offset, placement.scaled
    # a window never reaches the last row and column of a canvas with odd sides (see crop_window)
    bottom, right = (
        min(at + n, side // 2 * 2) for at, n, side in zip((dy, dx), (height, width), placement.canvas, strict=True)
    )
    planes[:, : max(dy, 0)] = 0
    planes[:, bottom:] = 0
    planes[:, :, : max(dx, 0)] = 0
    planes[:, :, right:] = 0


def to_photo(candidates: Candidates, placement: Placement, mirrored: bool = False) -> Candidates:
    """Return candidates with their boxes moved from heatmap cells to pixels of the photograph before scaling.

    The steps are in the authors' order: un-mirror (x becomes output width - x; each corner keeps its score), divide by
    the ratio, subtract the offset, clip to the scaled photograph, divide by the scale.
    """
    boxes = candidates.boxes.float()
    if mirrored:
        boxes = _mirrored(boxes, placement)
    boxes = boxes / boxes.new_tensor(placement.ratio * 2) - boxes.new_tensor(placement.offset * 2)
    height, width = placement.scaled
    boxes = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))
    return candidates._replace(boxes=boxes / placement.scale)


def to_heatmap(boxes: Tensor, placement: Placement, mirrored: bool = False) -> Tensor:
    """Return boxes [N, 4] moved from pixels of the photograph before scaling to heatmap cells.

    The inverse of :func:`to_photo`, without its clipping. A corner on the photograph's edge may land on the edge of the
    heatmap, and so in no cell.
    """
    boxes = boxes * placement.scale + boxes.new_tensor(placement.offset * 2)
    boxes = boxes * boxes.new_tensor(placement.ratio * 2)
    return _mirrored(boxes, placement) if mirrored else boxes


def _mirrored(boxes: Tensor, placement: Placement) -> Tensor:
    """Return boxes [N, 4] in heatmap cells, mirrored left to right."""
    out_width = placement.output[1]
    return torch.stack([out_width - boxes[:, 2], boxes[:, 1], out_width - boxes[:, 0], boxes[:, 3]], dim=1)
