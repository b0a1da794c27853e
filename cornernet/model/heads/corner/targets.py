"""The corner head's targets (paper sections 3.2 and 3.3, figure 5)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cornernet.config import CornerHeadConfig
from cornernet.model.heads.corner.outputs import Corners

__all__ = ["CornerTargets", "TargetBuilder", "draw_gaussian", "gaussian_radius", "original_radius"]

OUTPUT_STRIDE = 4


@dataclass(frozen=True)
class CornerTargets:
    """The targets of a batch with at most M objects per image.

    ``heatmaps`` [B, K, h, w] float32 in 0..1, exactly 1 at corners; ``indices`` [B, M] int64, the cell of each object's
    corner as y * w + x; ``offsets`` [B, M, 2] float32, x then y, in cells; ``mask`` [B, M] bool, true for real objects.
    """

    heatmaps: Corners[Tensor]
    indices: Corners[Tensor]
    offsets: Corners[Tensor]
    mask: Tensor

    def counts(self) -> Tensor:
        """Return what losses are divided by, float32 [4]: top-left positives, bottom-right ones, objects, images.

        Positives are cells: two objects of a class whose corners share a cell count as one positive and two objects.
        """
        return torch.stack(
            [
                (self.heatmaps.top_left == 1).sum(),
                (self.heatmaps.bottom_right == 1).sum(),
                self.mask.sum(),
                self.mask.new_full((), len(self.mask), dtype=torch.int64),
            ]
        ).float()

    def map(self, function: Callable[[Tensor], Tensor]) -> CornerTargets:
        """Return the targets with ``function`` applied to every tensor."""
        return CornerTargets(
            Corners(*map(function, self.heatmaps)),
            Corners(*map(function, self.indices)),
            Corners(*map(function, self.offsets)),
            function(self.mask),
        )

    def to(self, device: torch.device) -> CornerTargets:
        """Return the targets on a device."""
        return self.map(lambda x: x.to(device, non_blocking=True))

    def pin_memory(self) -> CornerTargets:
        """Return the targets in page-locked memory, for the data loader."""
        return self.map(Tensor.pin_memory)


@dataclass(frozen=True, kw_only=True)
class TargetBuilder:
    """Draws the targets of a batch. It holds no tensors, because loader workers get a copy."""

    config: CornerHeadConfig
    num_classes: int

    def __call__(self, boxes: Sequence[Tensor], labels: Sequence[Tensor], image_size: tuple[int, int]) -> CornerTargets:
        """Return the targets for the boxes [N, 4] (x1 y1 x2 y2 in input pixels, float64) and labels [N] of each image.

        ``image_size`` is the input's height and width; heatmaps have (n + 1) / 4 cells per side. There can be any
        number of boxes, including zero; all must lie inside the image. Raises ``ValueError`` for a corner outside the
        image or a label out of range.
        """
        sizes = tuple((side + 1) // OUTPUT_STRIDE for side in image_size)
        shape = (len(boxes), self.num_classes, *sizes)
        most = max((len(b) for b in boxes), default=0)
        heatmaps = Corners(np.zeros(shape, np.float32), np.zeros(shape, np.float32))
        indices = Corners(*(np.zeros((len(boxes), most), np.int64) for _ in range(2)))
        offsets = Corners(*(np.zeros((len(boxes), most, 2), np.float32) for _ in range(2)))
        mask = np.zeros((len(boxes), most), np.bool_)
        for b, (image_boxes, image_labels) in enumerate(zip(boxes, labels, strict=True)):
            count = len(image_boxes)
            if not count:
                continue
            mask[b, :count] = True
            self._place(
                image_boxes.numpy(),
                image_labels.numpy(),
                image_size,
                Corners(*(h[b] for h in heatmaps)),
                Corners(*(i[b] for i in indices)),
                Corners(*(o[b] for o in offsets)),
            )
        return CornerTargets(
            Corners(*map(torch.from_numpy, heatmaps)),
            Corners(*map(torch.from_numpy, indices)),
            Corners(*map(torch.from_numpy, offsets)),
            torch.from_numpy(mask),
        )

    def _place(
        self,
        boxes: npt.NDArray[np.float64],
        labels: npt.NDArray[np.int64],
        image_size: tuple[int, int],
        heatmaps: Corners[npt.NDArray[np.float32]],
        indices: Corners[npt.NDArray[np.int64]],
        offsets: Corners[npt.NDArray[np.float32]],
    ) -> None:
        """Write one image's objects into its slices of the batch."""
        height, width = heatmaps.top_left.shape[1:]
        # 128 / 511, not 1 / 4: the authors scale by the ratio of the sizes
        ratio = np.array([width / image_size[1], height / image_size[0]])
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise ValueError(f"labels must be 0 to {self.num_classes - 1}, not {labels.min()} to {labels.max()}")
        extents = np.ceil((boxes[:, 2:] - boxes[:, :2]) * ratio)
        radii = [self.radius(box_height, box_width) for box_width, box_height in extents.tolist()]
        for which, corners in enumerate((boxes[:, :2] * ratio, boxes[:, 2:] * ratio)):
            cells = corners.astype(np.int64)
            if corners.min() < 0 or cells[:, 0].max() >= width or cells[:, 1].max() >= height:
                raise ValueError(f"boxes must lie inside the image of {image_size[0]}x{image_size[1]} pixels")
            indices[which][: len(boxes)] = cells[:, 1] * width + cells[:, 0]
            offsets[which][: len(boxes)] = corners - cells
            for label, (x, y), radius in zip(labels.tolist(), cells.tolist(), radii, strict=True):
                draw_gaussian(heatmaps[which][label], x, y, radius)

    def radius(self, height: float, width: float) -> float:
        """Return the radius of reduced penalty, in cells, for an object of this size in cells; 0 means no reduction."""
        if self.config.penalty_reduction == "none":
            return 0.0
        if self.config.penalty_reduction == "fixed":
            return self.config.fixed_radius
        formula = gaussian_radius if self.config.radius_formula == "corrected" else original_radius
        return float(max(0, int(formula(height, width, self.config.min_iou))))


def gaussian_radius(height: float, width: float, min_iou: float) -> float:
    """Return how far both corners of a box can move while the box keeps an IoU of ``min_iou``, in the box's units.

    There are three cases: one corner moves inwards and one outwards, both inwards, or both outwards. In each the
    distance is a root of a quadratic equation, and the radius is the smallest (paper section 3.2, figure 5; the formula
    after the authors' fix of 2018). For the same distance, the box inside has the lowest IoU, so its root is the
    smallest and the only one that is computed: 4 r^2 - 2 (h + w) r + (1 - o) h w = 0, with o = ``min_iou``.
    """
    b = 2 * (height + width)
    return (b - math.sqrt(b * b - 16 * (1 - min_iou) * (height * width))) / 8


def original_radius(height: float, width: float, min_iou: float) -> float:
    """Return the radius of the authors' formula before their fix, which solves the same equations wrongly.

    For each equation it takes (b + sqrt(b^2 - 4 a c)) / 2, with b = h + w, 2 (h + w) and -2 o (h + w). It divides by 2
    instead of 2 a, and for the first two takes the larger root. These are then at least (h + w) / 2 and the third is at
    most (h + w) / 4, so only the third matters. A box moved that far can have an IoU below ``min_iou``.
    """
    b = 2 * min_iou * (height + width)
    return (math.sqrt(b * b + 16 * min_iou * (1 - min_iou) * (height * width)) - b) / 2


@functools.lru_cache(maxsize=256)
def _gaussian(radius: float) -> npt.NDArray[np.float32]:
    """Return an unnormalised gaussian of standard deviation (2 radius + 1) / 6 on the cells within ``radius``."""
    reach = int(radius)
    sigma = (2 * radius + 1) / 6
    d = np.arange(-reach, reach + 1, dtype=np.float64) ** 2
    g = np.exp(-(d[:, None] + d[None, :]) / (2 * sigma * sigma))
    g[g < np.finfo(np.float64).eps] = 0
    result = g.astype(np.float32)
    result.setflags(write=False)
    return result


def draw_gaussian(heatmap: npt.NDArray[np.float32], x: int, y: int, radius: float) -> None:
    """Take in place the maximum of ``heatmap`` [h, w] and a gaussian that is 1 at (x, y), within ``radius`` cells."""
    height, width = heatmap.shape
    g = _gaussian(radius)
    reach = int(radius)
    left, right = min(x, reach), min(width - x, reach + 1)
    top, bottom = min(y, reach), min(height - y, reach + 1)
    region = heatmap[y - top : y + bottom, x - left : x + right]
    np.maximum(region, g[reach - top : reach + bottom, reach - left : reach + right], out=region)
