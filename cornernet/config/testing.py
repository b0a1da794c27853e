"""Configuration of testing: scales, decoding, suppression, and what an evaluation measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cornernet.config.checks import require, require_implementation
from cornernet.config.limits import require_numbers

__all__ = ["TestingConfig"]


@dataclass(frozen=True, kw_only=True)
class TestingConfig:
    """From the network's outputs to the reported boxes (paper section 4.2)."""

    scales: tuple[float, ...] = (1.0,)
    """Scales at which an image is tested; the paper's multi-scale testing is 0.5 0.75 1 1.25 1.5."""
    flip: bool = True
    """Also test the mirrored image and merge the boxes."""
    top_k: int = 100
    """Corners of each kind to keep from the heatmaps of an input."""
    peak_kernel: int = 3
    """Side of the window in which a corner must be the maximum of its heatmap."""
    embedding_threshold: float = 0.5
    """Largest distance between the embeddings of two corners that form a box."""
    offsets: Literal["predicted", "none", "centre"] = "predicted"
    """Position of a corner in its cell: as predicted, at the cell's own corner (the authors' code without offsets), or
    at the cell's centre, which is the average true position."""
    reject_empty: bool = False
    """Also reject a pair of corners in the same row or column, which makes a box of zero area, as mmdetection does."""
    num_candidates: int = 1000
    """Boxes to keep from the pairs of an input, before suppression."""
    nms: Literal["hard", "linear", "gaussian"] = "gaussian"
    """Kind of (soft) non-maximum suppression, applied per class."""
    nms_iou: float = 0.5
    """IoU above which 'hard' discards a box, 'linear' lowers its score, and merging averages."""
    nms_sigma: float = 0.5
    """Width of the gaussian by which 'gaussian' lowers a score."""
    nms_extent: Literal["pixels", "points"] = "pixels"
    """Width of a box in the IoU of suppression: 'pixels' is x2 - x1 + 1, as the authors do; 'points' is x2 - x1."""
    min_score: float = 0.001
    """Suppression discards a box whose score falls below this."""
    merge: bool = False
    """Average the corners of overlapping boxes, weighted by score, as the authors do over several scales."""
    merge_exponent: float = 10.0
    """Exponent of an overlapping box's weight under merging."""
    max_detections: int = 100
    """Boxes reported per image, over all classes."""
    authors_compatible: bool = False
    """Reproduce the two defects of the authors' test path (see cornernet.inference.suppression)."""
    substitute: tuple[Literal["heatmaps", "offsets", "embeddings"], ...] = ()
    """Outputs to replace by the ground truth (paper section 4.4.6, table 6). Only evaluation has the ground truth."""
    corner_metrics: bool = False
    """Also evaluate the corners themselves, by quadrant of the image (paper table 3)."""
    corner_radius: float = 1.5
    """Distance in heatmap cells within which a predicted corner matches a true one, for corner_metrics."""
    location_radii: tuple[float, ...] = ()
    """Also evaluate corners as a classification of the heatmaps' locations (paper table 3): positive where a true
    corner lies, ignored within this many cells of one, else negative. Quadrants are reported at the first radius."""
    error_types: bool = False
    """Also report how much AP each type of error costs (TIDE), at an IoU of 0.5."""
    pooling_impl: str | None = None
    """Implementation of corner pooling in testing, a name from kernels.implementations(); None is the model's own.
    Changes speed, not results."""
    measure_step: bool = False
    """Records of studies only: also measure the time and memory of a training step under pooling_impl, on a copy of the
    detector."""

    def __post_init__(self) -> None:
        require_numbers(self, "testing")
        require(len(self.scales) > 0 and min(self.scales) > 0, "testing.scales must be positive, one or more")
        require(self.peak_kernel % 2 == 1 and self.peak_kernel > 0, "testing.peak_kernel must be odd")
        require(
            min(self.top_k, self.num_candidates, self.max_detections) >= 1,
            "testing.top_k, .num_candidates and .max_detections must be 1 or more",
        )
        require(self.nms_sigma > 0, "testing.nms_sigma must be positive")
        require(
            len(set(self.substitute)) == len(self.substitute),
            f"testing.substitute names an output twice: {' '.join(self.substitute)}",
        )
        require(
            self.offsets == "predicted" or "offsets" not in self.substitute,
            f"testing.offsets is {self.offsets!r}, so the true offsets of testing.substitute would not be used; use "
            "'predicted'",
        )
        require(self.corner_radius >= 0, "testing.corner_radius must not be negative")
        require(min(self.location_radii, default=0) >= 0, "testing.location_radii must not be negative")
        require(
            len(set(self.location_radii)) == len(self.location_radii),
            f"testing.location_radii names a radius twice: {' '.join(map(str, self.location_radii))}",
        )
        if self.pooling_impl is not None:
            require_implementation(self.pooling_impl, "testing.pooling_impl")
