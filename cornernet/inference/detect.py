"""The test path: from photographs to reported boxes, over flips and scales (paper section 4.2).

The stages are separate functions, in the order that data flows, so that each can be timed::

    prepare -> network -> decode -> to_photo -> suppress

:func:`detect` runs them all. ``prepare`` and ``to_photo`` are in :mod:`cornernet.inference.placement`, ``suppress`` is
in :mod:`cornernet.inference.suppression`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cornernet.config import Config, ConfigError, TestingConfig
from cornernet.data.images import read_image
from cornernet.data.transforms import fit_image
from cornernet.inference.detections import Detections
from cornernet.inference.placement import Image, Placement, prepare, to_heatmap, to_photo
from cornernet.inference.suppression import suppress
from cornernet.model.detector import Detector
from cornernet.model.heads import Candidates

__all__ = [
    "CornersInView",
    "Examined",
    "Inputs",
    "LocationsInView",
    "Truth",
    "decode",
    "detect",
    "examine",
    "network",
    "prepare_inputs",
    "testing_mode",
]

Photograph: TypeAlias = Image | str | Path


# -------------------------------------------------------------------------------------------- stages


def network(detector: Detector, batch: Tensor, channels_last: bool = True) -> list[Any]:
    """Return the last stack's predictions for a batch [B, 3, H, W], computed on the detector's device."""
    weight = next(detector.parameters())
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    batch = batch.to(weight.device, weight.dtype).contiguous(memory_format=memory_format)
    predictions: list[Any] = detector(batch, last_only=True)
    return predictions


def decode(detector: Detector, predictions: list[Any], testing: TestingConfig) -> list[Candidates]:
    """Return the candidates of each input of the batch on the CPU, with boxes in heatmap cells."""
    return [
        Candidates(*(column.detach().cpu() for column in candidates))
        for candidates in detector.decode(predictions, testing)
    ]


# ----------------------------------------------------------------------------------- the whole test path


def detect(
    detector: Detector,
    images: Photograph | Sequence[Photograph],
    config: Config,
    classes: Sequence[str] | None = None,
    category_ids: Sequence[int] | None = None,
) -> list[Detections]:
    """Return one ``Detections`` per photograph, with boxes in pixels of the original.

    ``images`` is one photograph or a sequence of them: uint8 arrays [H, W, 3] BGR, or paths. A path becomes the
    ``image_id``. ``config.data`` says how photographs are fitted and normalised, and ``config.testing`` controls the
    rest. The network runs on the device of its weights, in evaluation mode and without gradients. Its mode is restored
    afterwards. ``classes`` and ``category_ids``, indexed by label, are passed on to the detections. They default to
    those that the detector was trained on.

    Raises ``ValueError`` for an array that is not a photograph, and ``DataError`` for a path that cannot be read as
    one.
    """
    if isinstance(images, str | Path) or (isinstance(images, np.ndarray) and images.ndim == 3):
        images = [images]
    names = detector.classes if classes is None else tuple(classes)
    numbers = detector.category_ids if category_ids is None else tuple(category_ids)
    results = []
    with testing_mode(detector):
        for photograph in images:
            image = _read(photograph, config)
            height, width = image.shape[:2]
            found = examine(detector, image, config)
            results.append(
                replace(
                    found.detections,
                    classes=names,
                    category_ids=numbers,
                    image_id=str(photograph) if isinstance(photograph, str | Path) else None,
                    size=(height, width),
                )
            )
    return results


class Truth(NamedTuple):
    """The ground truth of a photograph: ``boxes`` [N, 4] float64 in original pixels, ``labels`` [N] int64."""

    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class CornersInView:
    """The predicted and the true corners of a photograph, in heatmap cells of one input."""

    found: Any
    """``Corners`` of ``CornerPoints``, on the CPU."""
    true_boxes: NDArray[np.float64]
    """[N, 4]: top-left, then bottom-right corners."""
    true_labels: NDArray[np.int64]
    centre: tuple[float, float]
    """The middle of the photograph (x, y)."""


@dataclass(frozen=True)
class LocationsInView:
    """The scores of all locations in a photograph's heatmaps, and its true corners, in heatmap cells of one input."""

    scores: tuple[NDArray[np.float32], NDArray[np.float32]]
    """[K, h, w] of top-left and of bottom-right corners."""
    true_boxes: NDArray[np.float64]
    """[N, 4]: top-left, then bottom-right corners."""
    true_labels: NDArray[np.int64]
    centre: tuple[float, float]
    """The middle of the photograph (x, y)."""


@dataclass(frozen=True)
class Examined:
    """The result of the test path on one photograph.

    ``corners`` is set if ``testing.corner_metrics`` is, and ``locations`` if ``testing.location_radii`` are.
    """

    detections: Detections
    corners: CornersInView | None = None
    locations: LocationsInView | None = None


class Inputs(NamedTuple):
    """A photograph in the form that the network takes."""

    views: list[tuple[Tensor, Placement]]
    """Batch and placement at each of ``testing.scales``."""
    fit: tuple[float, float]
    """(sx, sy), fitted size divided by original size."""


def prepare_inputs(image: Image, config: Config, total_stride: int, output_stride: int = 4) -> Inputs:
    """Return a photograph's inputs at every scale. This is the test path before the network; it is thread-safe."""
    fitted, fit = fit_image(image, config.data.fit)
    testing = config.testing
    views = [prepare(fitted, config.data, scale, testing.flip, total_stride, output_stride) for scale in testing.scales]
    return Inputs(views, fit)


def examine(
    detector: Detector, image: Image, config: Config, truth: Truth | None = None, inputs: Inputs | None = None
) -> Examined:
    """Run the test path on one photograph, uint8 [H, W, 3] BGR, with a detector in evaluation mode.

    ``inputs`` are the photograph's :func:`prepare_inputs`, if they were made ahead.

    ``truth`` is needed in two cases. ``testing.substitute`` replaces outputs of the network by the truth, at every
    scale and mirrored for mirrored inputs. ``testing.corner_metrics`` and ``testing.location_radii`` ask for the
    corners and the locations, which are taken from the first of ``testing.scales``, not mirrored. Raises
    ``ConfigError`` if the truth is needed and missing.
    """
    testing = config.testing
    if truth is None and (testing.substitute or testing.corner_metrics or testing.location_radii):
        raise ConfigError(
            "testing.substitute, .corner_metrics and .location_radii need the ground truth; use them only in evaluation"
        )
    if inputs is None:
        inputs = prepare_inputs(image, config, detector.total_stride, detector.output_stride)
    fit = np.array([*inputs.fit, *inputs.fit])
    true_boxes, true_labels = torch.empty(0, 4, dtype=torch.float64), torch.empty(0, dtype=torch.int64)
    if truth is not None:
        true_boxes = torch.from_numpy(truth.boxes.reshape(-1, 4) * fit)
        true_labels = torch.from_numpy(truth.labels)
    candidates: list[Candidates] = []
    corners: CornersInView | None = None
    locations: LocationsInView | None = None
    for batch, placement in inputs.views:
        with nullcontext() if testing.pooling_impl is None else detector.pooling_by(testing.pooling_impl):
            predictions = network(detector, batch, config.training.channels_last)
        if testing.substitute:
            in_cells = [to_heatmap(true_boxes, placement, mirrored=index == 1) for index in range(len(batch))]
            predictions = detector.substitute(predictions, in_cells, [true_labels] * len(batch), testing)
        if testing.corner_metrics and corners is None:
            corners = _corners_in_view(detector, predictions, testing, placement, true_boxes, true_labels)
        if testing.location_radii and locations is None:
            locations = _locations_in_view(detector, predictions, placement, true_boxes, true_labels)
        candidates += [
            to_photo(decoded, placement, mirrored=index == 1)
            for index, decoded in enumerate(decode(detector, predictions, testing))
        ]
    kept = suppress(candidates, testing)
    height, width = image.shape[:2]
    boxes = kept.boxes / fit.astype(np.float32)
    kept = replace(kept, boxes=np.clip(boxes, 0, np.array([width, height, width, height], np.float32)))
    return Examined(kept, corners, locations)


def _corners_in_view(
    detector: Detector,
    predictions: list[Any],
    testing: TestingConfig,
    placement: Placement,
    true_boxes: Tensor,
    true_labels: Tensor,
) -> CornersInView:
    """Return the corners of the batch's first input; ``true_boxes`` are in pixels of the fitted photograph."""
    found = detector.corners(predictions, testing)[0]
    return CornersInView(
        type(found)(*(type(points)(*(column.cpu() for column in points)) for points in found)),
        to_heatmap(true_boxes, placement).numpy(),
        true_labels.numpy(),
        _centre(placement),
    )


def _locations_in_view(
    detector: Detector, predictions: list[Any], placement: Placement, true_boxes: Tensor, true_labels: Tensor
) -> LocationsInView:
    """Return the locations of the batch's first input; ``true_boxes`` are in pixels of the fitted photograph."""
    top_left, bottom_right = (scores[0].contiguous().cpu().numpy() for scores in detector.corner_scores(predictions))
    in_cells = to_heatmap(true_boxes, placement).numpy()
    return LocationsInView((top_left, bottom_right), in_cells, true_labels.numpy(), _centre(placement))


def _centre(placement: Placement) -> tuple[float, float]:
    left, top, right, bottom = placement.window
    return (left + right) / 2, (top + bottom) / 2


@contextmanager
def testing_mode(detector: Detector) -> Iterator[None]:
    """Switch to evaluation mode without gradients, and restore the mode of every module afterwards."""
    modes = {module: module.training for module in detector.modules()}
    detector.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def _read(photograph: Photograph, config: Config) -> Image:
    """Return a photograph's pixels. Raises an error that says what is wrong with it."""
    if isinstance(photograph, str | Path):
        return read_image(Path(photograph), orientation=config.data.orientation, bits=config.data.bits)
    if photograph.ndim != 3 or photograph.shape[2] != 3 or photograph.dtype != np.uint8 or photograph.size == 0:
        raise ValueError(f"a photograph must be uint8 [H, W, 3] BGR, not {photograph.dtype} {list(photograph.shape)}")
    return photograph
