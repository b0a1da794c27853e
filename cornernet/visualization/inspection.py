"""Looking inside: the corners that a detector sees in a photograph, and which of them its embeddings pair."""

from __future__ import annotations

from dataclasses import dataclass

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

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True)
class Inspection:
    """What the last stack says about a photograph, at the first of ``testing.scales`` and not mirrored."""

    top_left: NDArray[np.float32]
    """[K, h, w] probabilities of top-left corners."""
    bottom_right: NDArray[np.float32]
    window: tuple[float, float, float, float]
    """The part of the heatmaps that the photograph covers, x1 y1 x2 y2 in cells."""
    pairs: Detections
    """The boxes that pairs of corners make, in pixels of the photograph."""
    unpaired_top_left: NDArray[np.float32]
    """[M, 2] x y in pixels: corners of a score as high as the boxes' that are in none of them."""
    unpaired_bottom_right: NDArray[np.float32]

    def plot(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the photograph, dimmed, under its heatmaps, a line for every pair and a cross for a lone corner."""
        factor = enlargement((image.shape[0], image.shape[1]))
        canvas = draw_heatmaps(image, self.top_left, self.bottom_right, self.window)
        lone = (self.unpaired_top_left * factor, self.unpaired_bottom_right * factor)
        return draw_pairs(canvas, self.pairs.boxes * factor, *lone)


def inspect(detector: Detector, image: NDArray[np.uint8], config: Config, min_score: float = 0.3) -> Inspection:
    """Return the heatmaps of a photograph, uint8 [H, W, 3] BGR, and the corners paired in it, from ``min_score`` on.

    Raises ``ConfigError`` for a head that finds no corners.
    """
    fitted, (sx, sy) = fit_image(image, config.data.fit)
    testing = config.testing
    with testing_mode(detector):
        batch, placement = prepare(
            fitted, config.data, testing.scales[0], False, detector.total_stride, detector.output_stride
        )
        predictions = network(detector, batch, config.training.channels_last)
        if getattr(predictions[-1], "heatmaps", None) is None:
            raise ConfigError("heatmaps are for heads that find corners; this detector's head finds none")
        (candidates,) = decode(detector, predictions, testing)
        corners = detector.corners(predictions, testing)[0]
        heatmaps = [one[0].float().sigmoid().cpu().numpy() for one in predictions[-1].heatmaps]
    found = suppress([to_photo(candidates, placement)], testing).filter(min_score)
    pixels = np.array([sx, sy], np.float32)
    lone = []
    for points, own in zip(corners, (found.boxes[:, :2], found.boxes[:, 2:]), strict=True):
        at = _in_photograph(points.xy[points.scores >= min_score].cpu(), placement)
        distance = np.abs(at[:, None] - own[None]).max(-1)
        lone.append(at[~(distance < 1e-2).any(1)] / pixels)
    boxes = np.asarray(found.boxes / np.tile(pixels, 2), np.float32)
    pairs = Detections(boxes, found.scores, found.labels, detector.classes)
    return Inspection(heatmaps[0], heatmaps[1], placement.window, pairs, lone[0], lone[1])


def _in_photograph(xy: Tensor, placement: Placement) -> NDArray[np.float32]:
    """Points [M, 2] in cells as points of the photograph, moved as boxes are."""
    none = torch.zeros(len(xy))
    boxes = Candidates(torch.cat([xy, xy], dim=1), none, torch.zeros(len(xy), 2), none.long())
    return np.asarray(to_photo(boxes, placement).boxes[:, :2].numpy(), np.float32)
