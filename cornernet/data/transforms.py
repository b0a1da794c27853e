"""From a photograph and its boxes to a training input: crop, resize, clip, flip, colour, lighting, normalise.

The semantics are the authors' (CornerNet, section 4.1, and their released code). Each step is a public function without
randomness. :func:`draw` makes all random choices beforehand in a fixed order, so that turning one step off does not
change the random choices of the others.

Images are [H, W, 3] in the order B, G, R. Boxes are float64 [N, 4], x1 y1 x2 y2 in pixels. Sizes are (height,
width), points and offsets are (x, y).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cornernet.config import AugmentationConfig, DataConfig, Size

if TYPE_CHECKING:
    from cornernet.data.dataset import DetectionDataset

__all__ = [
    "EIGENVALUES",
    "EIGENVECTORS",
    "Draws",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_lighting",
    "adjust_saturation",
    "apply",
    "augment",
    "centre_range",
    "clip_boxes",
    "crop_window",
    "draw",
    "fit_image",
    "fitted_size",
    "flip",
    "jitter_colour",
    "non_empty",
    "normalise",
    "padding_colour",
    "read_fitted",
    "resize",
    "shift",
    "square_window",
    "to_float",
]

Image = NDArray[Any]
Boxes = NDArray[np.float64]
Labels = NDArray[np.int64]

EIGENVALUES = np.array([0.2141788, 0.01817699, 0.00341571], np.float64)
"""Eigenvalues of the colours of ImageNet (AlexNet, section 4.1), of pixels in 0..1."""
EIGENVECTORS = np.array(
    [
        [-0.58752847, -0.69563484, 0.41340352],
        [-0.5832747, 0.00994535, -0.81221408],
        [-0.56089297, 0.71832671, 0.41158938],
    ],
    np.float64,
)
"""Their eigenvectors in columns; rows are B, G, R."""


# ------------------------------------------------------------------------------------------ geometry


def crop_window(
    image: Image, centre: tuple[int, int], size: Size, padding: tuple[int, ...] | None = None
) -> tuple[Image, tuple[int, int]]:
    """Return the window of ``size`` (height, width) around ``centre`` (x, y), black outside the image.

    Takes pixels [x - W//2, x + W//2) and [y - H//2, y + H//2) and puts the centre at (W//2, H//2), as the authors
    do; the last column or row of a window with an odd side is therefore always black. The offset (dx, dy) converts
    coordinates of the image to coordinates of the window: x + dx, y + dy. At test time the same function pads
    photographs. The result is a new array with the image's dtype and number of channels. ``padding``, one value per
    channel, replaces black outside the image.
    """
    (x, y), (height, width) = centre, size
    half_h, half_w = height // 2, width // 2
    top, bottom = max(y - half_h, 0), min(y + half_h, image.shape[0])
    left, right = max(x - half_w, 0), min(x + half_w, image.shape[1])
    dx, dy = half_w - x, half_h - y
    window = np.zeros((height, width, *image.shape[2:]), image.dtype)
    if padding is not None:
        window[:] = np.asarray(padding, image.dtype)
    if top < bottom and left < right:
        window[top + dy : bottom + dy, left + dx : right + dx] = image[top:bottom, left:right]
    return window, (dx, dy)


def square_window(image: Image, padding: tuple[int, ...] | None = None) -> tuple[Image, tuple[int, int]]:
    """Return the image centred in a square with the side of its longer side, and the offset (dx, dy).

    The rest of the square is black, or has the colour ``padding``.
    """
    height, width = image.shape[:2]
    side = max(height, width)
    return crop_window(image, (width // 2, height // 2), (side, side), padding)


def padding_colour(config: DataConfig) -> tuple[int, ...] | None:
    """Return the padding colour B, G, R as bytes: ``config.mean`` to the nearest byte, or None for black."""
    if config.padding == "black":
        return None
    mean = config.mean if config.channel_order == "bgr" else config.mean[::-1]
    return tuple(round(255 * value) for value in mean)


def centre_range(side: int, border: int) -> tuple[int, int]:
    """Return the range [low, high) from which one coordinate of a random window's centre is drawn.

    ``low`` is ``border``, halved until it is less than ``side - low``.
    """
    parts = 1
    while side - border // parts <= border // parts:
        parts *= 2
    return border // parts, side - border // parts


def shift(boxes: Boxes, offset: tuple[float, float]) -> Boxes:
    """Return ``boxes`` moved by (dx, dy)."""
    dx, dy = offset
    return boxes + np.array([dx, dy, dx, dy], np.float64)


def resize(image: Image, boxes: Boxes, size: Size) -> tuple[Image, Boxes]:
    """Return image and boxes stretched to ``size``: bilinear; boxes are scaled by the ratios of the sides."""
    height, width = image.shape[:2]
    if (height, width) == size:
        return image, boxes
    ratio_y, ratio_x = size[0] / height, size[1] / width
    resized = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return resized, boxes * np.array([ratio_x, ratio_y, ratio_x, ratio_y], np.float64)


def clip_boxes(boxes: Boxes, size: Size) -> Boxes:
    """Return ``boxes`` with the coordinates clipped to [0, W - 1] and [0, H - 1]."""
    height, width = size
    return np.clip(boxes, 0.0, np.array([width - 1, height - 1, width - 1, height - 1], np.float64))


def non_empty(boxes: Boxes) -> NDArray[np.bool_]:
    """Return for each box whether its width and height are positive."""
    kept: NDArray[np.bool_] = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return kept


def flip(image: Image, boxes: Boxes) -> tuple[Image, Boxes]:
    """Return image (a view) and boxes mirrored left to right: x becomes W - 1 - x, in pixel centres."""
    last = image.shape[1] - 1
    mirrored = boxes.copy()
    mirrored[:, 0] = last - boxes[:, 2]
    mirrored[:, 2] = last - boxes[:, 0]
    return image[:, ::-1], mirrored


# -------------------------------------------------------------------------------------------- colour


def to_float(image: Image) -> NDArray[np.float32]:
    """Return a uint8 image as contiguous float32 in 0..1."""
    return np.divide(image, np.float32(255.0), dtype=np.float32, order="C")


def _grey(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.float32)


def adjust_brightness(image: NDArray[np.float32], amount: float) -> None:
    """Multiply a float image by 1 + ``amount``, in place, unclipped."""
    image *= np.float32(1.0 + amount)


def adjust_contrast(image: NDArray[np.float32], amount: float, mean: float | None = None) -> None:
    """Scale a float image around its mean grey by 1 + ``amount``, in place, unclipped.

    ``mean`` is the mean grey to use; by default, the image's own.
    """
    factor = 1.0 + amount
    centre = float(_grey(image).mean()) if mean is None else mean
    image *= np.float32(factor)
    image += np.float32((1.0 - factor) * centre)


def adjust_saturation(image: NDArray[np.float32], amount: float, grey: NDArray[np.float32] | None = None) -> None:
    """Scale every pixel of a float image around its own grey by 1 + ``amount``, in place, unclipped.

    ``grey`` [H, W] is the grey to use; by default, the image's own.
    """
    factor = 1.0 + amount
    grey = _grey(image) if grey is None else grey
    image *= np.float32(factor)
    image += (grey * np.float32(1.0 - factor))[:, :, None]


def adjust_lighting(image: NDArray[np.float32], amounts: NDArray[np.float64]) -> None:
    """Add the colour EIGENVECTORS @ (EIGENVALUES * ``amounts`` [3]) to a float image, in place, unclipped."""
    image += (EIGENVECTORS @ (EIGENVALUES * amounts)).astype(np.float32)


def jitter_colour(
    image: NDArray[np.float32], order: tuple[int, ...], brightness: float, contrast: float, saturation: float
) -> None:
    """Change brightness (0), contrast (1) and saturation (2) of a float image in the given order, in place.

    Grey and its mean are computed once, before the three steps, as the authors do.
    """
    grey = _grey(image)
    mean = float(grey.mean())
    for step in order:
        if step == 0:
            adjust_brightness(image, brightness)
        elif step == 1:
            adjust_contrast(image, contrast, mean)
        else:
            adjust_saturation(image, saturation, grey)


# ------------------------------------------------------------------------------------------ together


@dataclass(frozen=True)
class Draws:
    """Every random choice of one augmentation."""

    view: Size
    """Height and width of the crop window in pixels of the image."""
    centre: tuple[int, int]
    """Its centre (x, y)."""
    flip: bool
    """Whether to mirror left to right."""
    order: tuple[int, ...]
    """Order of brightness (0), contrast (1) and saturation (2)."""
    brightness: float
    contrast: float
    saturation: float
    lighting: NDArray[np.float64]
    """Standard deviations along the three eigenvectors."""


def draw(size: Size, input_size: Size, config: AugmentationConfig, rng: np.random.Generator) -> Draws:
    """Return the random choices for an image of ``size``. The number of draws does not depend on ``config``."""
    scale = config.crop_scales[int(rng.integers(len(config.crop_scales)))]
    centre = tuple(int(rng.integers(*centre_range(side, config.crop_border))) for side in (size[1], size[0]))
    flipped = bool(rng.random() < config.flip)
    order = tuple(int(step) for step in rng.permutation(3))
    amounts = rng.uniform(-1.0, 1.0, 3) * config.colour_jitter
    return Draws(
        view=(max(1, int(input_size[0] * scale)), max(1, int(input_size[1] * scale))),
        centre=(centre[0], centre[1]),
        flip=flipped,
        order=order,
        brightness=float(amounts[0]),
        contrast=float(amounts[1]),
        saturation=float(amounts[2]),
        lighting=rng.standard_normal(3) * config.lighting,
    )


def apply(
    image: NDArray[np.uint8], boxes: Boxes, labels: Labels, draws: Draws, config: DataConfig
) -> tuple[NDArray[np.float32], Boxes, Labels]:
    """Return the augmented float32 image in 0..1 (jitter may leave that range), its boxes and their labels.

    The steps are: crop (or centre in a square if ``random_crop`` is off), resize to ``config.input_size``, clip the
    boxes and drop empty ones, flip, colour jitter, lighting. If ``input_size`` is not square, the square is stretched,
    as the authors do.
    """
    augmentation = config.augmentation
    if augmentation.random_crop:
        window, offset = crop_window(image, draws.centre, draws.view, padding_colour(config))
    else:
        window, offset = square_window(image, padding_colour(config))
    window, boxes = resize(window, shift(boxes, offset), config.input_size)
    boxes = clip_boxes(boxes, config.input_size)
    kept = non_empty(boxes)
    boxes, labels = boxes[kept], labels[kept]
    if draws.flip:
        window, boxes = flip(window, boxes)
    result = to_float(window)
    if augmentation.colour_jitter > 0:
        jitter_colour(result, draws.order, draws.brightness, draws.contrast, draws.saturation)
    if augmentation.lighting > 0:
        adjust_lighting(result, draws.lighting)
    return result, boxes, labels


def augment(
    image: NDArray[np.uint8], boxes: Boxes, labels: Labels, config: DataConfig, rng: np.random.Generator
) -> tuple[NDArray[np.float32], Boxes, Labels]:
    """Draw from ``rng`` and apply: see :func:`draw` and :func:`apply`.

    ``image`` is uint8 [H, W, 3] BGR. The result is float32 of ``config.input_size`` in 0..1, not yet normalised, with
    the remaining boxes and their labels.
    """
    draws = draw((image.shape[0], image.shape[1]), config.input_size, config.augmentation, rng)
    return apply(image, boxes, labels, draws, config)


def normalise(image: NDArray[np.float32], config: DataConfig) -> NDArray[np.float32]:
    """Return (image - mean) / std as float32 [3, H, W], contiguous, channels in ``config.channel_order``.

    ``image`` is float [H, W, 3] BGR in 0..1; ``config.mean`` and ``.std`` are in ``config.channel_order``.
    """
    channels = (0, 1, 2) if config.channel_order == "bgr" else (2, 1, 0)
    result = np.empty((3, *image.shape[:2]), np.float32)
    for plane, channel in enumerate(channels):
        np.subtract(image[:, :, channel], np.float32(config.mean[plane]), out=result[plane])
        result[plane] /= np.float32(config.std[plane])
    return result


# ------------------------------------------------------------------------------------------- reading


def fitted_size(size: Size, fit: Size | None) -> Size:
    """Return ``size`` shrunk, never enlarged, to fit within ``fit``; the aspect is kept to the nearest pixel."""
    if fit is None:
        return size
    ratio = min(fit[0] / size[0], fit[1] / size[1])
    if ratio >= 1.0:
        return size
    return (
        min(fit[0], max(1, round(size[0] * ratio))),
        min(fit[1], max(1, round(size[1] * ratio))),
    )


def fit_image(image: NDArray[np.uint8], fit: Size | None) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Return ``image`` shrunk to ``fit`` (see :func:`fitted_size`) and (sx, sy), fitted over original size.

    Pixels are averaged over areas (cv2.INTER_AREA). Multiply boxes of the original by (sx, sy) to get boxes of the
    result.
    """
    height, width = image.shape[:2]
    size = fitted_size((height, width), fit)
    if size == (height, width):
        return image, (1.0, 1.0)
    small = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8), (size[1] / width, size[0] / height)


def read_fitted(
    dataset: DetectionDataset, index: int, fit: Size | None
) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Read image ``index`` and shrink it as :func:`fit_image` does.

    Raises ``DataError`` where the image cannot be read.
    """
    return fit_image(dataset.read(index), fit)
