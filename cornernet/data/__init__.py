"""Data: photographs with boxes from a COCO folder or generated, augmentation, and the training loader."""

from __future__ import annotations

from typing import Literal

from cornernet.config import CocoSource, ShapesSource
from cornernet.data.dataset import (
    DataError,
    DetectionDataset,
    Dropped,
    ImageRecord,
    require_same_classes,
    shared_images,
    shared_images_warning,
)
from cornernet.data.formats.coco import open_coco
from cornernet.data.shapes import open_shapes

__all__ = [
    "DataError",
    "DetectionDataset",
    "Dropped",
    "ImageRecord",
    "open_dataset",
    "require_same_classes",
    "shared_images",
    "shared_images_warning",
]


def open_dataset(source: ShapesSource | CocoSource, split: Literal["train", "val"]) -> DetectionDataset:
    """Return one split of a source of data.

    Raises :class:`DataError` that names file, field and fix where it cannot be used.
    """
    if split not in ("train", "val"):
        raise ValueError(f"split must be train or val, not {split!r}")
    if isinstance(source, ShapesSource):
        return open_shapes(source, split)
    return open_coco(source, split)
