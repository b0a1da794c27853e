"""Configuration of the data: where images come from, and how they become tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

import pydantic

from cornernet.config.checks import require
from cornernet.config.limits import MOST_PIXELS, require_numbers

__all__ = ["AugmentationConfig", "CocoSource", "DataConfig", "Orientation", "ShapesSource", "Size", "SourceConfig"]

Size: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""
Orientation: TypeAlias = Literal["annotations", "upright", "stored"]
"""How the EXIF orientation of photographs is treated; see cornernet.data.images."""


@dataclass(frozen=True, kw_only=True)
class ShapesSource:
    """Generated images of rotated shapes, the default: nothing to download (cornernet.data.shapes)."""

    kind: Literal["shapes"] = "shapes"
    seed: int = 0
    """Seed of the whole data set; train and val use separate random streams."""
    image_size: Size = (95, 95)
    """Height and width of the images."""
    classes: tuple[str, ...] = ("ellipse", "triangle", "cross")
    """Shapes to draw: any of ellipse, triangle, rhombus, cross, star, ring."""
    object_size: tuple[float, float] = (0.25, 0.70)
    """Smallest and largest side of an object's box, as a fraction of the image's shorter side."""
    max_objects: int = 3
    """Largest number of objects in an image; each image has 1 to this many."""
    train_images: int = 400
    """Images in the train split."""
    val_images: int = 200
    """Images in the val split."""

    def __post_init__(self) -> None:
        require_numbers(self, "data.source")
        low, high = self.object_size
        require(
            0.0 < low <= high <= 1.0,
            f"data.source.object_size is {self.object_size}; use 0 < low <= high <= 1",
        )
        require(self.max_objects >= 0, "data.source.max_objects must not be negative")
        require(len(set(self.classes)) == len(self.classes) > 0, "data.source.classes needs distinct names")
        require(min(self.image_size) >= 16, f"data.source.image_size is {self.image_size}; use 16 or more")
        require(
            min(self.train_images, self.val_images) >= 1,
            "data.source.train_images and .val_images must be 1 or more",
        )
        pixels = max(self.train_images, self.val_images) * self.image_size[0] * self.image_size[1]
        require(
            pixels <= MOST_PIXELS,
            f"data.source draws {pixels:,} pixels for a split, and the limit is {MOST_PIXELS:,}: lower .train_images, "
            ".val_images or .image_size",
        )


@dataclass(frozen=True, kw_only=True)
class CocoSource:
    """A COCO-format folder: annotations/*.json and the images (cornernet.data.formats.coco)."""

    kind: Literal["coco"] = "coco"
    root: str = ""
    """Path of the folder."""
    train_split: str = "train"
    """Training split: part of the annotation file's name, or the file's path inside the folder."""
    val_split: str = "val"
    """Evaluation split, given in the same way."""

    def __post_init__(self) -> None:
        require(bool(self.root), "data.source.root is empty; give the folder of the data set")


SourceConfig: TypeAlias = ShapesSource | CocoSource
_Source: TypeAlias = Annotated[ShapesSource | CocoSource, pydantic.Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Training augmentation, as the authors do it: random crop and scale, flip, colour jitter, PCA lighting."""

    random_crop: bool = True
    """Crop a random window. Off: the image is centred in a square and resized."""
    crop_scales: tuple[float, ...] = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
    """Sides of the window in image pixels, as multiples of data.input_size."""
    crop_border: int = 128
    """Smallest distance in pixels from the window's centre to the image's edge; smaller in small images."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    colour_jitter: float = 0.4
    """Strength of the brightness, contrast and saturation changes; 0 turns them off."""
    lighting: float = 0.1
    """Standard deviation of the PCA lighting noise; 0 turns it off."""

    def __post_init__(self) -> None:
        require_numbers(self, "data.augmentation")
        require(0.0 <= self.flip <= 1.0, f"data.augmentation.flip is {self.flip}; use a probability")
        require(len(self.crop_scales) > 0, "data.augmentation.crop_scales is empty; give one number or more")
        require(min(self.crop_scales) > 0, "data.augmentation.crop_scales must be positive")
        require(self.crop_border >= 0, "data.augmentation.crop_border must not be negative")
        require(
            self.colour_jitter >= 0 and self.lighting >= 0,
            "data.augmentation.colour_jitter and .lighting must not be negative",
        )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where images come from and how they become tensors."""

    source: _Source = field(default_factory=ShapesSource)
    input_size: Size = (511, 511)
    """Height and width of a training input: a multiple of the backbone's total stride minus 1."""
    fit: Size | None = None
    """Shrink every image to fit this height and width when it is read, in training and testing. None keeps its size,
    as the authors do. Boxes are reported in pixels of the original image."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    mean: tuple[float, float, float] = (0.40789654, 0.44719302, 0.47026115)
    """Mean of each channel, in the order of channel_order, for pixels in 0..1."""
    std: tuple[float, float, float] = (0.28863828, 0.27408164, 0.27809835)
    """Standard deviation of each channel, in the same order."""
    channel_order: Literal["bgr", "rgb"] = "bgr"
    """Channel order of the network's input."""
    padding: Literal["black", "mean"] = "black"
    """Colour around an image that does not fill its canvas: black, as the authors do, or `mean`."""
    orientation: Orientation = "annotations"
    """EXIF orientation of photographs: turn them `upright`, leave them as `stored`, or as the sizes in the annotations
    say, which a training then writes into its run."""
    bits: int = 16
    """Bits in use in 16-bit images: 12 for a camera of 12 bits, whose images are else read almost black."""
    duplicates: Literal["keep", "drop"] = "keep"
    """What becomes of an object that is annotated twice with the same class and box."""
    unreadable: Literal["error", "skip"] = "error"
    """An image that cannot be read, or only in part: stop at it (one that ends early is read as far as it goes, with a
    warning), or leave out all such images, which are looked for before the start."""

    def __post_init__(self) -> None:
        require_numbers(self, "data")
        require(min(self.input_size) >= 1, "data.input_size must be positive")
        require(self.fit is None or min(self.fit) >= 1, "data.fit must be positive")
        require(min(self.std) > 0, "data.std must be positive")
        require(8 <= self.bits <= 16, f"data.bits is {self.bits}; use 8 to 16")
