"""Draw the figures of docs/method.md with the project's own code: ``python docs/figures.py [FOLDER]``."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from cornernet import kernels, load_detector
from cornernet.config import CornerHeadConfig, ShapesSource
from cornernet.data.shapes import Picture, draw_picture
from cornernet.drawing.boxes import draw_boxes, draw_heatmaps, sheet
from cornernet.model.heads.corner.targets import TargetBuilder
from cornernet.visualization.inspection import inspect
from cornernet.visualization.sheets import write_image

SIZE = 127
SOURCE = ShapesSource(image_size=(SIZE, SIZE), max_objects=1, object_size=(0.45, 0.6), seed=3)


def shown(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a map of values 0..1 as a picture that is bright where the values are large."""
    bright = np.clip(values / max(float(values.max()), 1e-6) * 255, 0, 255).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(bright, cv2.COLORMAP_VIRIDIS), np.uint8)


def pooling(picture: Picture) -> NDArray[np.uint8]:
    """Figure 1: features that see the top and the left edge, once pooled, meet at the corner outside the object."""
    mask = picture.masks[0].astype(np.float32)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = np.zeros_like(mask), np.zeros_like(mask)
    top[rows[0] : rows[0] + 3] = mask[rows[0] : rows[0] + 3]
    left[:, columns[0] : columns[0] + 3] = mask[:, columns[0] : columns[0] + 3]
    # two feature maps of a network, [1, 1, H, W]
    maps = [torch.from_numpy(feature)[None, None] for feature in (left, top)]
    vertical = kernels.directional_max_pool(maps[0], "top")
    horizontal = kernels.directional_max_pool(maps[1], "left")
    corner = kernels.corner_pool(*maps, "top_left")
    boxed = draw_boxes(picture.image, picture.boxes, picture.labels, None, SOURCE.classes)
    cells = [
        ("a shape and its box", boxed),
        ("feature: left edge", shown(left)),
        ("feature: top edge", shown(top)),
        ("looking down (top)", shown(vertical[0, 0].numpy())),
        ("looking right (left)", shown(horizontal[0, 0].numpy())),
        ("their sum", shown(corner[0, 0].numpy())),
    ]
    return sheet([cells[:3], cells[3:]], height=220)


def targets() -> NDArray[np.uint8]:
    """Figure 2: heatmap targets with the three kinds of penalty reduction."""
    picture = draw_picture(ShapesSource(image_size=(255, 255), max_objects=3, seed=1), "train", 2)
    cells = [("boxes", draw_boxes(picture.image, picture.boxes, picture.labels, None, SOURCE.classes))]
    for kind in ("none", "fixed", "object"):
        build = TargetBuilder(config=CornerHeadConfig(penalty_reduction=kind), num_classes=3)
        made = build([torch.from_numpy(picture.boxes)], [torch.from_numpy(picture.labels)], (255, 255))
        top_left, bottom_right = (one[0].numpy() for one in made.heatmaps)
        cells.append((f"penalty reduction: {kind}", draw_heatmaps(picture.image, top_left, bottom_right)))
    return sheet([cells], height=190)


def pairing() -> NDArray[np.uint8]:
    """Figure 3: the corners that the starter model sees, and those that its embeddings pair."""
    detector = load_detector("starter")
    source = ShapesSource()
    rows = []
    for index in (4, 7):
        image = draw_picture(source, "val", index).image
        found = inspect(detector, image, detector.config, 0.4)
        rows += [("corners, pairs", found.plot(image)), ("boxes", found.pairs.plot(image))]
    return sheet([rows], height=190)


def main(folder: Path) -> None:
    """Write the figures into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = (draw_picture(SOURCE, "train", index) for index in range(100))
    one = next(picture for picture in pictures if len(picture.boxes) == 1)
    for name, image in (("pooling", pooling(one)), ("targets", targets()), ("pairing", pairing())):
        write_image(folder / f"{name}.png", image)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "figures")
