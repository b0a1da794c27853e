"""From a Pascal VOC folder to a report, with the commands that a user would type.

    python docs/tutorial.py [FOLDER] [ITERATIONS]

This makes a small VOC folder of drawn shapes in ``FOLDER/photos`` (you can put your own there instead). Then it prints
and runs every command of :func:`steps` in turn. The tests run it with a few iterations. docs/your-data.md explains the
commands.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import cv2

from cornernet.cli import main
from cornernet.config import ShapesSource
from cornernet.data.shapes import draw_picture


def write_voc(folder: Path, count: int = 40) -> None:
    """Write ``count`` drawn pictures as a VOC folder: JPEGImages/*.png and Annotations/*.xml, pixels counted from 1."""
    source = ShapesSource(train_images=count)
    for name in ("JPEGImages", "Annotations"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        picture = draw_picture(source, "train", number)
        cv2.imwrite(str(folder / "JPEGImages" / f"{number:03d}.png"), picture.image)
        objects = ""
        for (x1, y1, x2, y2), label in zip(picture.boxes.astype(int).tolist(), picture.labels, strict=True):
            corners = f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
            objects += f"<object><name>{source.classes[label]}</name><bndbox>{corners}</bndbox></object>"
        height, width = picture.image.shape[:2]
        size = f"<size><width>{width}</width><height>{height}</height></size>"
        text = f"<annotation><filename>{number:03d}.png</filename>{size}{objects}</annotation>"
        (folder / "Annotations" / f"{number:03d}.xml").write_text(text, encoding="utf-8")


def steps(iterations: int) -> list[str]:
    """Return the commands, with paths relative to the folder in which they run."""
    return [
        "cornernet data import-voc photos",  # xml to annotations/instances_all.json, and what was dropped
        "cornernet data split photos --val 0.25",  # instances_train.json and instances_val.json
        "cornernet data check photos",  # what the files contain, and what would stop training
        "cornernet data show photos --out shown.png",  # what training will see
        "cornernet train --data photos --dry-run",  # what would be trained, and why
        f"cornernet train --data photos --out run --training.iterations {iterations}",
        "cornernet evaluate --weights run",  # the same table again, from the weights
        "cornernet detect photos/JPEGImages --weights run --out found --heatmaps",
        "cornernet report run",  # one page: curves, AP by class, best and worst images
    ]


def run(folder: Path, commands: list[str]) -> None:
    """Print and run each command in ``folder``. Stop at the first one that fails."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        for command in commands:
            print(f"\n$ {command}", flush=True)
            status = main(shlex.split(command)[1:])
            if status:
                raise SystemExit(status)
    finally:
        os.chdir(before)


if __name__ == "__main__":
    place = Path(sys.argv[1] if len(sys.argv) > 1 else "tutorial")
    if not (place / "photos").exists():
        write_voc(place / "photos")
    run(place, steps(int(sys.argv[2]) if len(sys.argv) > 2 else 400))
