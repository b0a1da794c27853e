"""A look inside the detector: the corners it sees in a photograph, and which of them its embeddings pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cornernet.config import Config, ConfigError
from cornernet.data.transforms import fit_image
from cornernet.drawing.boxes import draw_heatmaps, draw_pairs, enlargement
from cornernet.inference.detect import decode, network, testing_mode
from cornernet.inference.detections import Detections
from cornernet.inference.placement import Placement, prepare, to_photo
from cornernet.inference.suppression import suppress
from cornernet.model.detector import Detector
from cornernet.model.heads import Candidates

__all__ = ["Inspection", "heatmap_picture", "inspect"]

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Inspection:
    """The last stack's predictions for a photograph, at the first of ``testing.scales`` and not mirrored."""

    top_left: NDArray[np.float32]
    """[K, h, w] probabilities of top-left corners."""
    bottom_right: NDArray[np.float32]
    """[K, h, w] probabilities of bottom-right corners."""
    window: tuple[float, float, float, float]
    """The part of the heatmaps that the photograph covers, x1 y1 x2 y2 in cells."""
    pairs: Detections
    """The boxes formed by pairs of corners, in pixels of the photograph."""
    unpaired_top_left: NDArray[np.float32]
    """[M, 2] x y in pixels: corners that reach the minimum score and belong to no box."""
    unpaired_bottom_right: NDArray[np.float32]
    """[M, 2] as above, for bottom-right corners."""

    def plot(self, image: Image) -> Image:
        """Return the dimmed photograph with its heatmaps, a line for each pair and a cross for each unpaired corner."""
        factor = enlargement((image.shape[0], image.shape[1]))
        canvas = draw_heatmaps(image, self.top_left, self.bottom_right, self.window)
        unpaired = (self.unpaired_top_left * factor, self.unpaired_bottom_right * factor)
        return draw_pairs(canvas, self.pairs.boxes * factor, *unpaired)


def inspect(detector: Detector, image: Image, config: Config, min_score: float = 0.3) -> Inspection:
    """Return the heatmaps of a photograph, uint8 [H, W, 3] BGR, and the corners paired in it, from ``min_score`` up.

    Raises ``ConfigError`` for a head that does not find corners.
    """
    fitted, (sx, sy) = fit_image(image, config.data.fit)
    testing = config.testing
    with testing_mode(detector):
        view = _first_view(detector, fitted, config)
        (candidates,) = decode(detector, view.predictions, testing)
        corners = detector.corners(view.predictions, testing)[0]
    found = suppress([to_photo(candidates, view.placement)], testing).filter(min_score)
    pixels = np.array([sx, sy], np.float32)
    unpaired = []
    for points, paired in zip(corners, (found.boxes[:, :2], found.boxes[:, 2:]), strict=True):
        at = _points_to_photo(points.xy[points.scores >= min_score].cpu(), view.placement)
        distance = np.abs(at[:, None] - paired[None]).max(-1)
        unpaired.append(at[~(distance < 1e-2).any(1)] / pixels)
    boxes = np.asarray(found.boxes / np.tile(pixels, 2), np.float32)
    pairs = Detections(boxes, found.scores, found.labels, detector.classes)
    return Inspection(view.top_left, view.bottom_right, view.placement.window, pairs, unpaired[0], unpaired[1])


def heatmap_picture(detector: Detector, image: Image, config: Config) -> Image:
    """Return the photograph with the last stack's corner heatmaps drawn over it, at the first of ``testing.scales``.

    ``image`` is uint8 [H, W, 3] BGR, and so is the result. Small pictures are enlarged as in ``draw_heatmaps``. Raises
    ``ConfigError`` for a head that does not find corners.
    """
    fitted, _ = fit_image(image, config.data.fit)
    with testing_mode(detector):
        view = _first_view(detector, fitted, config)
    return draw_heatmaps(image, view.top_left, view.bottom_right, view.placement.window)


class _View(NamedTuple):
    """A photograph's placement, the last stack's predictions, and its heatmaps [K, h, w] as probabilities."""

    placement: Placement
    predictions: list[Any]
    top_left: NDArray[np.float32]
    bottom_right: NDArray[np.float32]


def _first_view(detector: Detector, fitted: Image, config: Config) -> _View:
    """Run the network on a fitted photograph at the first of ``testing.scales``."""
    scale = config.testing.scales[0]
    batch, placement = prepare(fitted, config.data, scale, False, detector.total_stride, detector.output_stride)
    if not detector.head.finds_corners:
        raise ConfigError("heatmaps need a head that finds corners; this detector's head does not")
    predictions = network(detector, batch, config.training.channels_last)
    top_left, bottom_right = (heatmap[0].float().sigmoid().cpu().numpy() for heatmap in predictions[-1].heatmaps)
    return _View(placement, predictions, top_left, bottom_right)


def _points_to_photo(xy: Tensor, placement: Placement) -> NDArray[np.float32]:
    """Return points [M, 2] moved from heatmap cells to pixels of the photograph, the way boxes are moved."""
    zeros = torch.zeros(len(xy))
    boxes = Candidates(torch.cat([xy, xy], dim=1), zeros, torch.zeros(len(xy), 2), zeros.long())
    return np.asarray(to_photo(boxes, placement).boxes[:, :2].numpy(), np.float32)
