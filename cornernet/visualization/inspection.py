"""A look inside the detector: the corners it sees in a photograph, and the boxes that it makes of them."""

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
from cornernet.inference.detect import decode, detect, network, prepare_inputs, testing_mode
from cornernet.inference.detections import Detections
from cornernet.inference.placement import Placement, prepare, to_photo
from cornernet.model.detector import Detector
from cornernet.model.heads import Candidates

__all__ = ["Inspection", "heatmap_picture", "inspect"]

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Inspection:
    """What a detector sees in a photograph, and what it reports.

    Heatmaps and unpaired corners are those of one pass, at the first of ``testing.scales`` and not mirrored. The boxes
    are those of the whole test path, which also looks at the mirrored photograph and at the other scales; ``passes``
    says which of them a box comes from.
    """

    top_left: NDArray[np.float32]
    """[K, h, w] probabilities of top-left corners."""
    bottom_right: NDArray[np.float32]
    """[K, h, w] probabilities of bottom-right corners."""
    window: tuple[float, float, float, float]
    """The part of the heatmaps that the photograph covers, x1 y1 x2 y2 in cells."""
    pairs: Detections
    """The reported boxes, each made of a pair of corners, in pixels of the photograph."""
    unpaired_top_left: NDArray[np.float32]
    """[M, 2] x y in pixels: corners that reach the minimum score and lie more than a cell from those of any box."""
    unpaired_bottom_right: NDArray[np.float32]
    """[M, 2] as above, for bottom-right corners."""
    passes: tuple[str, ...] = ()
    """[N] for each box '' if its corners are in the heatmaps shown, else the pass that has them, such as 'mirrored'."""
    shown: str = ""
    """The pass that the heatmaps are of, or '' if there is only one."""

    def plot(self, image: Image) -> Image:
        """Return the dimmed photograph with its heatmaps, a line for each box and a cross for each unpaired corner.

        The line of a box from a pass other than the one shown is broken, with the name of that pass.
        """
        factor = enlargement((image.shape[0], image.shape[1]))
        canvas = draw_heatmaps(image, self.top_left, self.bottom_right, self.window)
        unpaired = (self.unpaired_top_left * factor, self.unpaired_bottom_right * factor)
        caption = f"heatmaps: {self.shown}" if self.shown else ""
        return draw_pairs(canvas, self.pairs.boxes * factor, *unpaired, notes=self.passes, caption=caption)


def inspect(
    detector: Detector, image: Image, config: Config, min_score: float = 0.3, found: Detections | None = None
) -> Inspection:
    """Return the heatmaps of a photograph, uint8 [H, W, 3] BGR, its boxes, and the corners in none of them.

    Corners and boxes have a score of ``min_score`` or more. ``found`` are the boxes, if they are known already, of
    ``detect`` with the same ``config``. Raises ``ConfigError`` for a head that does not find corners.
    """
    if found is None:
        found = detect(detector, image, config)[0].filter(min_score).with_area()
    fitted, fit = fit_image(image, config.data.fit)
    testing, pixels = config.testing, np.array(fit, np.float32)
    with testing_mode(detector):
        view = _first_view(detector, fitted, config)
        corners = detector.corners(view.predictions, testing)[0]
        others = _candidates_by_pass(detector, image, config)
    boxes = found.boxes * np.tile(pixels, 2)
    cell = view.placement.output_stride / view.placement.scale
    unpaired = []
    for points, paired in zip(corners, (boxes[:, :2], boxes[:, 2:]), strict=True):
        at = _points_to_photo(points.xy[points.scores >= min_score].cpu(), view.placement)
        distance = np.abs(at[:, None] - paired[None]).max(-1)
        unpaired.append(at[~(distance <= cell).any(1)] / pixels)
    names = list(others)
    passes = [_nearest_pass(box, label, others) for box, label in zip(boxes, found.labels.tolist(), strict=True)]
    return Inspection(
        view.top_left,
        view.bottom_right,
        view.placement.window,
        found,
        unpaired[0],
        unpaired[1],
        tuple("" if name == names[0] else name for name in passes),
        names[0] if len(names) > 1 else "",
    )


def _candidates_by_pass(detector: Detector, image: Image, config: Config) -> dict[str, Candidates]:
    """Return the candidates of every pass of the test path, by its name, in pixels of the fitted photograph."""
    testing, found = config.testing, {}
    inputs = prepare_inputs(image, config, detector.total_stride, detector.output_stride)
    for scale, (batch, placement) in zip(testing.scales, inputs.views, strict=True):
        predictions = network(detector, batch, config.training.channels_last)
        for index, decoded in enumerate(decode(detector, predictions, testing)):
            # the two passes of a single scale need no scale in their names
            name = f"scale {scale:g}, " if len(testing.scales) > 1 else ""
            name += "mirrored" if index else "not mirrored"
            found[name] = to_photo(decoded, placement, mirrored=index == 1)
    return found


def _nearest_pass(box: NDArray[np.float32], label: int, others: dict[str, Candidates]) -> str:
    """Return the pass with the candidate nearest to a box; a box that is no merged one is itself a candidate."""

    def distance(name: str) -> float:
        rows = others[name]
        own = rows.boxes[(rows.labels == label) & (rows.scores > -1)].numpy()
        return float(np.abs(own - box).max(1).min()) if len(own) else np.inf

    distances = {name: distance(name) for name in others}
    least = min(distances.values())
    # rounding apart, the pass that is shown goes first
    return next(name for name, value in distances.items() if value <= least + 1e-2)


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
