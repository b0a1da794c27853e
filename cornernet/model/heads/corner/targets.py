"""What the corner head should predict (paper sections 3.2 and 3.3, figure 5)."""

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
    """The targets of a batch with at most M objects an image.

    ``heatmaps`` [B, K, h, w] float32 in 0..1, exactly 1 at corners; ``indices`` [B, M] int64, each object's corner as
    y * w + x; ``offsets`` [B, M, 2] float32, x then y, in cells; ``mask`` [B, M] bool, true where there is an object.
    """

    heatmaps: Corners[Tensor]
    indices: Corners[Tensor]
    offsets: Corners[Tensor]
    mask: Tensor

    def counts(self) -> Tensor:
        """Return what the losses are divided by, float32 [3]: top-left and bottom-right positives, objects.

        Positives are cells: two objects of a class whose corners share a cell are one positive and two objects.
        """
        return torch.stack(
            [
                (self.heatmaps.top_left == 1).sum(),
                (self.heatmaps.bottom_right == 1).sum(),
                self.mask.sum(),
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
    """Draws the targets of a batch. Holds no tensors, so that loader workers can carry it."""

    config: CornerHeadConfig
    num_classes: int

    def __call__(self, boxes: Sequence[Tensor], labels: Sequence[Tensor], image_size: tuple[int, int]) -> CornerTargets:
        """Return the targets for the boxes [N, 4] (x1 y1 x2 y2 in input pixels, float64) and labels [N] of each image.

        ``image_size`` is the input's height and width; heatmaps have (n + 1) / 4 cells a side. Boxes must lie inside
        the image; any number of them, zero included. Raises ``ValueError`` for a corner outside or a label too large.
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
        """Return the radius of reduced penalty, in cells, for an object of this size in cells; 0 reduces none."""
        if self.config.penalty_reduction == "none":
            return 0.0
        if self.config.penalty_reduction == "fixed":
            return self.config.fixed_radius
        formula = gaussian_radius if self.config.radius_formula == "corrected" else original_radius
        return float(max(0, int(formula(height, width, self.config.min_iou))))


def gaussian_radius(height: float, width: float, min_iou: float) -> float:
    """Return how far both corners of a box may move so that the box keeps an IoU of ``min_iou``, in its units.

    The smallest of three cases: one corner inwards and one outwards, both inwards, both outwards; each is a root of a
    quadratic equation (paper section 3.2, figure 5; the formula after the authors' fix of 2018). Of boxes that moved
    equally far, the one inside has the least IoU, so its root is the smallest, and is all that is computed:
    4 r^2 - 2 (h + w) r + (1 - o) h w = 0.
    """
    b = 2 * (height + width)
    return (b - math.sqrt(b * b - 16 * (1 - min_iou) * (height * width))) / 8


def original_radius(height: float, width: float, min_iou: float) -> float:
    """Return the radius of the authors' formula before their fix: the same quadratic equations, wrongly solved.

    Of each quadratic equation (b + sqrt(b^2 - 4 a c)) / 2 was taken, with b as h + w, 2 (h + w) and -2 o (h + w):
    divided by 2 in place of 2 a, and the larger root of the first two. Those are at least (h + w) / 2 then, and the
    third at most (h + w) / 4, so that it alone is left. A box moved that far need not keep ``min_iou``.
    """
    b = 2 * min_iou * (height + width)
    return (math.sqrt(b * b + 16 * min_iou * (1 - min_iou) * (height * width)) - b) / 2


@functools.lru_cache(maxsize=256)
def _gaussian(radius: float) -> npt.NDArray[np.float32]:
    """Return an unnormalised gaussian of standard deviation (2 radius + 1) / 6 on the cells within the radius."""
    reach = int(radius)
    sigma = (2 * radius + 1) / 6
    d = np.arange(-reach, reach + 1, dtype=np.float64) ** 2
    g = np.exp(-(d[:, None] + d[None, :]) / (2 * sigma * sigma))
    g[g < np.finfo(np.float64).eps] = 0
    result = g.astype(np.float32)
    result.setflags(write=False)
    return result


def draw_gaussian(heatmap: npt.NDArray[np.float32], x: int, y: int, radius: float) -> None:
    """Raise ``heatmap`` [h, w] in place to a gaussian that is 1 at (x, y) and ends at ``radius`` cells."""
    height, width = heatmap.shape
    g = _gaussian(radius)
    reach = int(radius)
    left, right = min(x, reach), min(width - x, reach + 1)
    top, bottom = min(y, reach), min(height - y, reach + 1)
    region = heatmap[y - top : y + bottom, x - left : x + right]
    np.maximum(region, g[reach - top : reach + bottom, reach - left : reach + right], out=region)
