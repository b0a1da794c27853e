"""``cornernet detect``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import tyro

from cornernet.cli.command import Command
from cornernet.cli.start import ConfigFlags, load, prepared
from cornernet.config import ConfigError, DataConfig
from cornernet.config.recipes import recipe
from cornernet.console import count, printable
from cornernet.files import Output

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cornernet.cli.photos import Photo
    from cornernet.inference.detections import Detections
    from cornernet.model.detector import Detector

    Reader: TypeAlias = Callable[[int], NDArray[np.uint8]]
    """From the index of a photograph to its pixels, uint8 [H, W, 3] BGR."""

__all__ = ["DetectArguments", "run"]

_DEMO_IMAGES = 6


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
    overwrite: bool = False
    """Replace files in --out that this command did not write, but never a photograph that it reads."""
    write: tuple[Literal["images", "json", "coco", "csv"], ...] = ("images", "json", "coco", "csv")
    """Drawn photographs, detections.json (a list), coco.json (annotations with scores), detections.csv."""
    min_score: float = 0.3
    """Boxes with a lower score are neither drawn nor written, nor are boxes without area. Default with --demo: 0.5."""
    heatmaps: bool = False
    """Also draw the corner heatmaps over each photograph, with a line between the corners of each box."""
    dry_run: bool = False
    """Print what would be detected and written, and do neither."""
    config: ConfigFlags


@dataclass
class _Found:
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
    output = Output(arguments.out, "detect", overwrite=arguments.overwrite, originals=[photo.path for photo in photos])
    output.require(_files(photos, arguments))
    if arguments.dry_run:
        print(
            f"would detect in {count(len(photos), 'photograph')}, starting with {printable(photos[0].path)}, and write "
            f"to {printable(arguments.out)}"
        )
        return 0
    detector = prepared(detector, arguments.config)
    found = _detect_all(detector, photos, read, arguments, output)
    _write(found, arguments, output)
    return 2 if found.unreadable else 0


def _files(photos: Sequence[Photo], arguments: DetectArguments) -> Iterator[str]:
    """Yield the files that will be written, below --out."""
    for photo in photos:
        if "images" in arguments.write:
            yield photo.drawing
        if arguments.heatmaps:
            yield photo.heatmaps
    tables = {"json": "detections.json", "coco": "coco.json", "csv": "detections.csv"}
    yield from (name for form, name in tables.items() if form in arguments.write)
    if arguments.demo and "images" in arguments.write:
        yield "demo.png"


def _inputs(arguments: DetectArguments) -> tuple[list[Photo], Reader]:
    """Return the photographs to detect in and the function that reads them."""
    from cornernet.cli.photos import Photo, find_photos
    from cornernet.data import open_dataset

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
    from cornernet.data.images import inspect_image

    picture = inspect_image(path, orientation=data.orientation, bits=data.bits)
    if picture.doubt:
        fix = f"; --data.bits {picture.bits} scales it" if picture.largest is not None else ""
        print(f"warning: {printable(path)}: {picture.doubt}{fix}", file=sys.stderr)
    return picture.pixels


def _detect_all(
    detector: Detector, photos: Sequence[Photo], read: Reader, arguments: DetectArguments, output: Output
) -> _Found:
    """Detect in every photograph; one that cannot be read is reported and skipped."""
    from cornernet.data import DataError
    from cornernet.inference.detect import detect
    from cornernet.visualization.inspection import inspect

    so_far = _Found()
    for index, photo in enumerate(photos):
        try:
            image = read(index)
        except DataError as error:
            print(f"cornernet: error: {error}", file=sys.stderr)
            so_far.unreadable += 1
            continue
        (found,) = detect(detector, image, arguments.config)
        scored = found.filter(arguments.min_score)
        kept = scored.with_area()
        so_far.results.append((photo, kept))
        line = f"{printable(photo.path)}: {count(len(kept), 'box', 'boxes')} "
        line += f"with a score of {arguments.min_score:g} or more"
        if len(kept) < len(scored):
            line += f" ({count(len(scored) - len(kept), 'more box', 'more boxes')} without area left out)"
        if "images" in arguments.write:
            picture = kept.plot(image)
            so_far.drawn.append((photo.name, picture))
            line += f" -> {printable(_write_image(output, photo.drawing, picture))}"
        if arguments.heatmaps:
            heatmaps = inspect(detector, image, arguments.config, arguments.min_score, found=kept).plot(image)
            _write_image(output, photo.heatmaps, heatmaps)
        print(line)
    return so_far


def _write_image(output: Output, name: str, image: NDArray[np.uint8]) -> Path:
    from cornernet.visualization.sheets import encoded

    return output.write(name, encoded(image, Path(name)))


def _write(found: _Found, arguments: DetectArguments, output: Output) -> None:
    """Write the files that hold the detections of all photographs."""
    from cornernet.cli.photos import coco_tree, csv_table, json_list
    from cornernet.drawing.boxes import sheet

    results = found.results
    if "json" in arguments.write:
        output.write("detections.json", json_list(results))
    if "coco" in arguments.write:
        output.write("coco.json", json.dumps(coco_tree(results)) + "\n")
    if "csv" in arguments.write:
        output.write("detections.csv", csv_table(results))
    if arguments.demo and found.drawn:
        rows = [found.drawn[:3], found.drawn[3:]]
        together = _write_image(output, "demo.png", sheet(rows, title="the starter model on generated images"))
        print(f"all six: {printable(together)}")
