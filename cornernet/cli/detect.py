"""``cornernet detect``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import tyro
from numpy.typing import NDArray

from cornernet.cli.command import Command
from cornernet.cli.photos import Photo, coco_tree, csv_table, find_photos, json_list
from cornernet.cli.start import ConfigFlags, load, prepared
from cornernet.config import ConfigError, DataConfig
from cornernet.config.recipes import recipe
from cornernet.console import count, printable
from cornernet.data import DataError, open_dataset
from cornernet.data.images import inspect_image
from cornernet.drawing.boxes import sheet
from cornernet.files import atomic_write
from cornernet.inference.detect import detect
from cornernet.inference.detections import Detections
from cornernet.model.detector import Detector
from cornernet.visualization.inspection import inspect
from cornernet.visualization.sheets import write_image

__all__ = ["DetectArguments", "run"]

_DEMO_IMAGES = 6

Reader: TypeAlias = Callable[[int], NDArray[np.uint8]]
"""From the index of a photograph to its pixels, uint8 [H, W, 3] BGR."""


@dataclass(frozen=True, kw_only=True)
class DetectStart:
    """What the configuration of a detection starts from."""

    weights: str | None = None
    """A run's folder, a .safetensors file, the authors' .pkl file, or `starter`."""
    demo: bool = False
    """Detect in six generated images with the model that ships with the package."""
    recipe: tyro.conf.Suppress[str | None] = None
    data: tyro.conf.Suppress[Path | None] = None


@dataclass(frozen=True, kw_only=True)
class DetectArguments(DetectStart):
    """The arguments of ``cornernet detect``."""

    photos: tyro.conf.Positional[tuple[str, ...]] = ()
    """Image files, folders, patterns in quotes, or - to read a list of paths from stdin."""
    out: Path = Path("out")
    """Folder for the output."""
    write: tuple[Literal["images", "json", "coco", "csv"], ...] = ("images", "json", "coco", "csv")
    """Drawn photographs, detections.json (a list), coco.json (annotations with scores), detections.csv."""
    min_score: float = 0.3
    """Boxes with a lower score are neither drawn nor written. Default with --demo: 0.5."""
    heatmaps: bool = False
    """Also draw the corner heatmaps over each photograph, with a line between the corners of each pair."""
    dry_run: bool = False
    """Print what would be detected and written, and do neither."""
    config: ConfigFlags


@dataclass
class _Output:
    """What was detected so far."""

    results: list[tuple[Photo, Detections]] = field(default_factory=list)
    drawn: list[tuple[str, NDArray[np.uint8]]] = field(default_factory=list)
    unreadable: int = 0


def run(command: Command, argv: Sequence[str]) -> int:
    """Detect, draw and write; the exit status is 2 if a photograph could not be read."""
    start = command.read_first(DetectStart, argv)
    weights = "starter" if start.demo and start.weights is None else start.weights
    detector = None if weights is None else load(weights, start.recipe)
    config = recipe("tiny") if detector is None else detector.config
    # the starter model is small, and its scores separate right from wrong less well
    default = DetectArguments(config=config, min_score=0.5 if start.demo else 0.3)
    arguments = command.parse(DetectArguments, argv, default)
    if detector is None:
        raise ConfigError("--weights is missing; give a run's folder or a file of weights, or try --demo")
    if arguments.heatmaps and arguments.config.model.head.kind != "corner":
        raise ConfigError("--heatmaps draws corner heatmaps, and this detector's head has none")
    photos, read = _inputs(arguments)
    if arguments.dry_run:
        print(
            f"would detect in {count(len(photos), 'photograph')}, starting with {printable(photos[0].path)}, and write "
            f"to {printable(arguments.out)}"
        )
        return 0
    detector = prepared(detector, arguments.config)
    arguments.out.mkdir(parents=True, exist_ok=True)
    output = _detect_all(detector, photos, read, arguments)
    _write(output, arguments)
    return 2 if output.unreadable else 0


def _inputs(arguments: DetectArguments) -> tuple[list[Photo], Reader]:
    """Return the photographs to detect in and the function that reads them."""
    if not arguments.demo:
        photos = find_photos(arguments.photos, arguments.out, sys.stdin)
        return photos, lambda index: _read(photos[index].path, arguments.config.data)
    if arguments.photos:
        raise ConfigError("--demo draws its own images; leave out the photographs or --demo")
    source = arguments.config.with_("data.source.val_images", _DEMO_IMAGES).data.source
    numbers = range(1, _DEMO_IMAGES + 1)
    generated = [Photo(Path(f"generated image {number}"), f"demo-{number}") for number in numbers]
    return generated, open_dataset(source, "val").read


def _read(path: Path, data: DataConfig) -> NDArray[np.uint8]:
    """Return a photograph's pixels, read as the weights' configuration says, and print what is doubtful about it."""
    picture = inspect_image(path, orientation=data.orientation, bits=data.bits)
    if picture.doubt:
        fix = f"; --data.bits {picture.bits} scales it" if picture.largest is not None else ""
        print(f"warning: {printable(path)}: {picture.doubt}{fix}", file=sys.stderr)
    return picture.pixels


def _detect_all(detector: Detector, photos: Sequence[Photo], read: Reader, arguments: DetectArguments) -> _Output:
    """Detect in every photograph; one that cannot be read is reported and skipped."""
    output = _Output()
    for index, photo in enumerate(photos):
        try:
            image = read(index)
        except DataError as error:
            print(f"cornernet: error: {error}", file=sys.stderr)
            output.unreadable += 1
            continue
        (found,) = detect(detector, image, arguments.config)
        kept = found.filter(arguments.min_score)
        output.results.append((photo, kept))
        line = f"{printable(photo.path)}: {count(len(kept), 'box', 'boxes')} "
        line += f"with a score of {arguments.min_score:g} or more"
        if "images" in arguments.write:
            picture = kept.plot(image)
            output.drawn.append((photo.name, picture))
            line += f" -> {printable(_write_image(arguments.out / f'{photo.name}.png', picture))}"
        if arguments.heatmaps:
            heatmaps = inspect(detector, image, arguments.config, arguments.min_score).plot(image)
            _write_image(arguments.out / f"{photo.name}-heatmaps.png", heatmaps)
        print(line)
    return output


def _write_image(path: Path, image: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, image)
    return path


def _write(output: _Output, arguments: DetectArguments) -> None:
    """Write the files that hold the detections of all photographs."""
    out, results = arguments.out, output.results
    if "json" in arguments.write:
        atomic_write(out / "detections.json", json_list(results))
    if "coco" in arguments.write:
        atomic_write(out / "coco.json", json.dumps(coco_tree(results)) + "\n")
    if "csv" in arguments.write:
        atomic_write(out / "detections.csv", csv_table(results))
    if arguments.demo and output.drawn:
        rows = [output.drawn[:3], output.drawn[3:]]
        write_image(out / "demo.png", sheet(rows, title="the starter model on generated images"))
        print(f"all six: {printable(out / 'demo.png')}")
