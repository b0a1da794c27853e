"""Data sets: images with boxes from a COCO-format folder or generated, augmentation, and the training loader.

dataset      one split of any source: boxes in flat arrays, images read on demand
images       from an image file to pixels
formats/     COCO; importing Pascal VOC and YOLO; checking and splitting a folder
shapes       the generated data set
transforms   augmentation
loader       training batches
leakage      which images a detector was trained on
origin       where the data of a run lay, and its digests
survey       what the image files contain that should be known before a training starts
parallel     work on many image files at once
shared       memory shared with loader processes
"""

from __future__ import annotations

from typing import get_args

from cornernet.config import CocoSource, DataConfig, ShapesSource
from cornernet.config.choices import Split
from cornernet.data.dataset import (
    DataError,
    DetectionDataset,
    Dropped,
    ImageRecord,
    require_boxes,
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
    "Split",
    "open_dataset",
    "require_boxes",
    "require_same_classes",
    "shared_images",
    "shared_images_warning",
]


def open_dataset(data: ShapesSource | CocoSource | DataConfig, split: Split) -> DetectionDataset:
    """Return one split of a source of data.

    A whole ``config.data`` also says how the files of the source are read; a source alone is read in the default way.

    Raises :class:`DataError` naming file, field and fix where the data cannot be used.
    """
    if split not in get_args(Split):
        raise ValueError(f"split must be one of {', '.join(get_args(Split))}, not {split!r}")
    source = data.source if isinstance(data, DataConfig) else data
    if isinstance(source, ShapesSource):
        if split == "test":
            raise DataError("generated data has no test split; use val")
        return open_shapes(source, split)
    return open_coco(source, split, data if isinstance(data, DataConfig) else None)
