"""The anchor head's targets: the object that each anchor learns, and its code (RetinaNet, section 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cornernet.config import AnchorHeadConfig
from cornernet.model.heads.anchor.anchors import FINEST_STRIDE, anchor_boxes, encode, level_sizes

__all__ = ["IGNORED", "NEGATIVE", "AnchorTargets", "TargetBuilder", "assign", "overlaps"]

NEGATIVE = -1
"""Used in place of an object or a class: the anchor learns background."""
IGNORED = -2
"""Used in the same place: the anchor learns nothing."""

# IoUs that differ by less are equal: a small object has the same IoU with all anchors of one shape that contain it.
TIE = 1e-9


@dataclass(frozen=True)
class AnchorTargets:
    """The targets of a batch for N anchors.

    ``labels`` [B, N] int64: the class, :data:`NEGATIVE` or :data:`IGNORED`; ``codes`` [B, N, 4] float32: the object's
    box relative to the anchor, or 0 if the label is not a class.
    """

    labels: Tensor
    codes: Tensor

    def counts(self) -> Tensor:
        """Return the number that losses are divided by, float32 [1]: the anchors that learn an object."""
        return (self.labels >= 0).sum().float()[None]

    def map(self, function: Callable[[Tensor], Tensor]) -> AnchorTargets:
        """Return the targets with ``function`` applied to every tensor."""
        return AnchorTargets(function(self.labels), function(self.codes))

    def to(self, device: torch.device) -> AnchorTargets:
        """Return the targets on a device."""
        return self.map(lambda x: x.to(device, non_blocking=True))

    def pin_memory(self) -> AnchorTargets:
        """Return the targets in page-locked memory, for the data loader."""
        return self.map(Tensor.pin_memory)


@dataclass(frozen=True, kw_only=True)
class TargetBuilder:
    """Assigns the objects of a batch to anchors. It holds no tensors, because loader workers get a copy."""

    config: AnchorHeadConfig
    num_classes: int
    strides: tuple[int, ...]
    """Strides of the levels, from fine to coarse."""

    def __call__(self, boxes: Sequence[Tensor], labels: Sequence[Tensor], image_size: tuple[int, int]) -> AnchorTargets:
        """Return the targets for the boxes [N, 4] (x1 y1 x2 y2 in input pixels, float64) and labels [N] of each image.

        ``image_size`` is the input's height and width. There can be any number of boxes, including zero. Crowds are not
        among them: here, as for corners, they are background. Raises ``ValueError`` for a box of zero area or a label
        out of range.
        """
        sizes = level_sizes(image_size, self.strides)
        anchors = anchor_boxes(sizes, self.strides, self.config)
        # a little more than 1 / 4 cells per pixel, as for corners
        height, width = image_size
        ratio = np.array([(width + 1) // FINEST_STRIDE / width, (height + 1) // FINEST_STRIDE / height])
        found_labels = np.full((len(boxes), len(anchors)), NEGATIVE, np.int64)
        codes = np.zeros((len(boxes), len(anchors), 4), np.float32)
        for b, (image_boxes, image_labels) in enumerate(zip(boxes, labels, strict=True)):
            if not len(image_boxes):
                continue
            self._check(image_boxes, image_labels)
            cells = image_boxes.numpy() * np.concatenate([ratio, ratio])
            objects = assign(cells, anchors, self.config)
            positive = objects >= 0
            learned = objects[positive]
            found_labels[b] = objects
            found_labels[b, positive] = image_labels.numpy()[learned]
            codes[b, positive] = encode(torch.from_numpy(cells[learned]), torch.from_numpy(anchors[positive])).numpy()
        return AnchorTargets(torch.from_numpy(found_labels), torch.from_numpy(codes))

    def _check(self, boxes: Tensor, labels: Tensor) -> None:
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise ValueError(
                f"labels must be 0 to {self.num_classes - 1}, not {int(labels.min())} to {int(labels.max())}"
            )
        flat = ~(boxes[:, 2:] > boxes[:, :2]).all(1)
        if flat.any():
            raise ValueError(f"the box {boxes[flat][0].tolist()} has zero area; remove such boxes")


def assign(
    boxes: npt.NDArray[np.float64], anchors: npt.NDArray[np.float64], config: AnchorHeadConfig
) -> npt.NDArray[np.int64]:
    """Return the object that each of the ``anchors`` [N, 4] learns, as an index [N] into ``boxes`` [M, 4].

    * An anchor learns the object with which it has the highest IoU (the first in a tie) if the IoU is
      ``config.positive_iou`` or more. Below ``config.negative_iou`` it is :data:`NEGATIVE`, in between :data:`IGNORED`.
    * With ``config.best_anchors``, every object also takes the anchors that have the highest IoU with it, all of them
      in a tie, for any IoU above 0. If several objects would take an anchor, it goes to the one of these with the
      highest IoU (the first in a tie). It no longer learns any other object.
    """
    if not len(boxes):
        return np.full(len(anchors), NEGATIVE, np.int64)
    iou = overlaps(boxes, anchors)
    nearest = iou.argmax(0)
    most = iou.max(0)
    objects = np.where(most >= config.positive_iou, nearest, np.where(most < config.negative_iou, NEGATIVE, IGNORED))
    if config.best_anchors:
        best = iou.max(1, keepdims=True)
        takes = (iou >= best - TIE) & (iou > 0)
        taken = takes.any(0)
        objects[taken] = np.where(takes[:, taken], iou[:, taken], -1.0).argmax(0)
    return objects


def overlaps(boxes: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the IoU [M, N] of ``boxes`` [M, 4] with ``others`` [N, 4], x1 y1 x2 y2 of positive size."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    shared = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared -= low
    np.maximum(shared, 0.0, out=shared)
    intersection = shared[..., 0] * shared[..., 1]
    areas, other_areas = ((b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, others))
    result: npt.NDArray[np.float64] = intersection / (areas[:, None] + other_areas[None] - intersection)
    return result
