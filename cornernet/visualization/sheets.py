"""Sheets of pictures: what training sees, and what a detector finds in a few fixed photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from cornernet.config import Config
from cornernet.console import count
from cornernet.data import DetectionDataset
from cornernet.data.loader import TrainingSet
from cornernet.drawing.boxes import draw_boxes, draw_heatmaps, sheet
from cornernet.files import atomic_write
from cornernet.inference.detect import detect
from cornernet.model.detector import Detector, build_detector
from cornernet.model.heads.corner import CornerTargets

__all__ = ["encoded", "fixed_images", "preview", "show_data", "write_image"]

PREVIEW_IMAGES = 4


def encoded(image: NDArray[np.uint8], path: Path) -> bytes:
    """Return a picture in the format given by the suffix of ``path``. Raises ``OSError``."""
    done, content = cv2.imencode(path.suffix, image)
    if not done:
        raise OSError(f"cannot encode {path}")
    return content.tobytes()


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a picture, whole or not at all, in the format given by the path's suffix. Raises ``OSError``."""
    atomic_write(path, encoded(image, path))


def fixed_images(number: int, available: int) -> list[int]:
    """Return ``number`` indices (at most ``available``), evenly spread over a data set and always the same."""
    return [int(at) for at in np.linspace(0, available - 1, min(number, available)).round()]


def show_data(
    dataset: DetectionDataset, config: Config, indices: Sequence[int], augmentations: int = 2
) -> NDArray[np.uint8]:
    """Return a sheet with one row per picture: its boxes, then its augmented forms, then its target heatmaps.

    The augmented pictures are those of the first epochs under ``config``. For a head without heatmaps, the last column
    is left out. Raises ``DataError`` if a picture cannot be read.
    """
    config = config.with_("model.num_classes", len(dataset.classes))
    with torch.device("meta"):  # the head's targets need no weights
        head = build_detector(config).head
    training = TrainingSet(dataset, config.data, config.training.seed)
    rows = []
    for index in indices:
        record = dataset.records[index]
        truth = draw_boxes(dataset.read(index), record.boxes, record.labels, None, dataset.classes)
        row = [
            (f"{record.path.name} {record.width}x{record.height}, {count(len(record.boxes), 'box', 'boxes')}", truth)
        ]
        for epoch in range(augmentations):
            pixels, boxes, labels = training.augmented(epoch, index)
            picture = np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8)
            caption = f"epoch {epoch}: {picture.shape[1]}x{picture.shape[0]}, {count(len(boxes), 'box', 'boxes')}"
            row.append((caption, draw_boxes(picture, boxes, labels, None, dataset.classes)))
            targets = head.targets([torch.from_numpy(boxes)], [torch.from_numpy(labels)], config.data.input_size)
            if isinstance(targets, CornerTargets) and epoch == augmentations - 1:
                top_left, bottom_right = (one[0].numpy() for one in targets.heatmaps)
                row.append(("targets: top-left, bottom-right", draw_heatmaps(picture, top_left, bottom_right)))
        rows.append(row)
    return sheet(rows)


def preview(detector: Detector, dataset: DetectionDataset, config: Config, title: str) -> NDArray[np.uint8]:
    """Return a sheet of four fixed pictures of ``dataset``, with the true boxes above and the detections below.

    Boxes with a score of at least 0.3 are drawn, and a caption counts them. Raises ``DataError`` for an unreadable
    picture.
    """
    # these fields need the truth, and matter only for metrics
    for field, neutral in (("substitute", ()), ("corner_metrics", False), ("location_radii", ())):
        config = config.with_(f"testing.{field}", neutral)
    above, below = [], []
    for index in fixed_images(PREVIEW_IMAGES, len(dataset)):
        record, image = dataset.records[index], dataset.read(index)
        above.append(
            (f"{record.path.name}: truth", draw_boxes(image, record.boxes, record.labels, None, dataset.classes))
        )
        (found,) = detect(detector, image, config)
        kept = replace(found, classes=dataset.classes).filter(0.3)
        best = f", best {found.scores.max():.2f}" if len(found) else ""
        below.append((f"{len(kept)} of 0.3 or more{best}", kept.plot(image)))
    return sheet([above, below], height=240, title=title)
