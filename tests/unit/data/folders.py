"""Small COCO folders for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def picture(seed: int, height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def annotation(number: int, image_id: int, category: int, bbox: list[float], **fields: Any) -> dict[str, Any]:
    row = {"id": number, "image_id": image_id, "category_id": category, "bbox": bbox, "iscrowd": 0}
    return {**row, "area": bbox[2] * bbox[3], **fields}


def tree(**changes: Any) -> dict[str, Any]:
    """Three pictures, categories with gaps in their ids, a crowd; ``changes`` replace top-level lists."""
    whole = {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 40, "width": 60},
            {"id": 3, "file_name": "b.png", "height": 40, "width": 60},
            {"id": 1000, "file_name": "c.png", "height": 30, "width": 20},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "stop sign"}],
        "annotations": [
            annotation(11, 7, 13, [5.5, 6.0, 20.0, 10.25], segmentation=[[5.5, 6.0, 25.5, 6.0, 25.5, 16.25]]),
            annotation(12, 3, 90, [0.0, 0.0, 60.0, 40.0], area=1200.5),
            annotation(13, 7, 1, [30, 20, 10, 10]),
            annotation(14, 7, 1, [1, 2, 30, 20], iscrowd=1, segmentation={"counts": [0, 2400], "size": [40, 60]}),
        ],
    }
    return {**whole, **changes}


def write_images(folder: Path, names: tuple[str, ...] = ("a.png", "b.png", "c.png")) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        size = (30, 20) if name == "c.png" else (40, 60)
        assert cv2.imwrite(str(folder / name), picture(seed, *size))


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def coco_folder(
    root: Path,
    content: Any = None,
    file: str = "annotations/instances_train.json",
    images: str = "images",
) -> Path:
    write_json(root / file, tree() if content is None else content)
    write_images(root / images)
    return root
