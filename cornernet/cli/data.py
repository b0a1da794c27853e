"""The commands ``cornernet data ...`` that bring data in and look at it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from cornernet.config import CocoSource, ConfigError
from cornernet.config.recipes import RECIPES, recipe
from cornernet.data import DataError, open_dataset
from cornernet.data.formats.importing import ImportedFolder, write_import
from cornernet.data.formats.split import divide, write_division
from cornernet.data.formats.voc import BoxConvention, Treatment, read_voc
from cornernet.data.formats.yolo import read_yolo
from cornernet.files import nearest
from cornernet.visualization.sheets import fixed_images, show_data, write_image

__all__ = ["ARGUMENTS", "COMMANDS"]

Folder = Annotated[Path, tyro.conf.arg(metavar="FOLDER", help="The folder to read."), tyro.conf.Positional]


@dataclass(frozen=True, kw_only=True)
class ImportVocArguments:
    """Turn a folder in Pascal VOC form (xml files) into COCO format, with a report of what was dropped and why.

    Example: cornernet data import-voc VOC2007 --difficult ignore
    """

    folder: Folder
    out: Path | None = None
    """Where annotations/*.json go, with copies of the pictures. Default: the folder itself, copying nothing."""
    boxes: BoxConvention = "one-based"
    """one-based: xmin is the first and xmax the last pixel of the box, counted from 1, as VOC defines it. edges: the
    numbers are edges, as several annotation tools write them."""
    difficult: Treatment = "keep"
    """Objects flagged difficult: kept; ignored, so that neither training nor evaluation counts them; or dropped."""
    truncated: Treatment = "keep"
    """Objects flagged truncated, likewise."""
    classes: tuple[str, ...] = ()
    """Only these classes, in this order. Default: all that occur, by name."""
    overwrite: bool = False
    """Replace annotation files that are there."""
    dry_run: bool = False
    """Report, and write nothing."""


@dataclass(frozen=True, kw_only=True)
class ImportYoloArguments:
    """Turn a folder in YOLO form (text files and names) into COCO format, with a report of what was dropped and why.

    Example: cornernet data import-yolo my_yolo --names my_yolo/classes.txt --out my_photos
    """

    folder: Folder
    out: Path | None = None
    """Where annotations/*.json go, with copies of the pictures. Default: the folder itself, copying nothing."""
    names: Path | None = None
    """File with the names of the classes: yaml with `names`, or text with a name a line. Default: searched for."""
    classes: tuple[str, ...] = ()
    """Only these classes, in this order. Default: all names."""
    unlabelled: Literal["keep", "drop"] = "keep"
    """Pictures without a text file: kept as pictures without objects, or dropped."""
    overwrite: bool = False
    """Replace annotation files that are there."""
    dry_run: bool = False
    """Report, and write nothing."""


@dataclass(frozen=True, kw_only=True)
class SplitArguments:
    """Divide an annotation file into train and val (and test), by seed, every class in each, no picture in two.

    Example: cornernet data split my_photos --val 0.2
    """

    folder: Folder
    file: str | None = None
    """Annotation file to divide, a path below the folder. Default: the only one."""
    val: float = 0.2
    """Fraction of the pictures for val."""
    test: float = 0.0
    """Fraction of the pictures for test; 0 makes none."""
    seed: int = 0
    """Draws the division."""
    overwrite: bool = False
    """Replace annotation files that are there."""
    dry_run: bool = False
    """Report, and write nothing."""


@dataclass(frozen=True, kw_only=True)
class ShowArguments:
    """Draw pictures with their boxes, as training sees them, and the heatmaps that it learns from.

    Example: cornernet data show my_photos --count 4 --out shown.png
    """

    folder: Annotated[
        Path | None, tyro.conf.arg(metavar="FOLDER", help="In COCO format. Default: the generated `shapes`.")
    ] = None
    split: Literal["train", "val"] = "train"
    """Split to draw from."""
    count: int = 4
    """Pictures, spread over the split."""
    augmentations: int = 2
    """Augmented versions of each, those of the first epochs."""
    recipe: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="{" + ",".join(RECIPES) + "}",
            help="Recipe whose input size, augmentation and targets are shown. Default: small; tiny for shapes.",
        ),
    ] = None
    out: Path = Path("shown.png")
    """Picture to write."""
    dry_run: bool = False
    """Say what would be drawn, and write nothing."""


def _import_voc(prog: str, argv: Sequence[str]) -> int:
    arguments = tyro.cli(ImportVocArguments, prog=prog, args=list(argv))
    found = read_voc(
        arguments.folder,
        boxes=arguments.boxes,
        difficult=arguments.difficult,
        truncated=arguments.truncated,
        classes=arguments.classes,
    )
    return _finish(found, arguments)


def _import_yolo(prog: str, argv: Sequence[str]) -> int:
    arguments = tyro.cli(ImportYoloArguments, prog=prog, args=list(argv))
    found = read_yolo(
        arguments.folder, names=arguments.names, classes=arguments.classes, unlabelled=arguments.unlabelled
    )
    return _finish(found, arguments)


def _finish(found: ImportedFolder, arguments: ImportVocArguments | ImportYoloArguments) -> int:
    """Write what was imported, and say what to do next."""
    out = arguments.folder if arguments.out is None else arguments.out
    written = write_import(found, out, overwrite=arguments.overwrite, dry_run=arguments.dry_run)
    print(found.to_text(), *written, sep="\n")
    if {"train", "val"} <= set(found.splits):
        print(f"next: cornernet data check {out}")
    else:
        print(f"next: cornernet data split {out}")
    return 0


def _split(prog: str, argv: Sequence[str]) -> int:
    arguments = tyro.cli(SplitArguments, prog=prog, args=list(argv))
    folder = arguments.folder
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}{nearest(folder)}")
    fractions = {"val": arguments.val} | ({"test": arguments.test} if arguments.test else {})
    division = divide(folder, fractions, seed=arguments.seed, file=arguments.file)
    written = write_division(division, folder, overwrite=arguments.overwrite, dry_run=arguments.dry_run)
    print(division.to_text(), *written, sep="\n")
    print(f"next: cornernet train --data {folder}")
    return 0


def _show(prog: str, argv: Sequence[str]) -> int:
    arguments = tyro.cli(
        tyro.conf.configure(tyro.conf.PositionalRequiredArgs)(ShowArguments), prog=prog, args=_positional(argv)
    )
    if min(arguments.count, arguments.augmentations) < 1:
        raise ConfigError("--count and --augmentations must be 1 or more")
    if not arguments.out.parent.is_dir():
        raise ConfigError(f"there is no folder {arguments.out.parent} for --out{nearest(arguments.out.parent)}")
    if arguments.out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ConfigError(f"--out is {arguments.out}; give a picture that ends in .png, .jpg or .webp")
    config = recipe(arguments.recipe or ("tiny" if arguments.folder is None else "small"))
    if arguments.folder is not None:
        config = config.with_("data.source", CocoSource(root=str(arguments.folder)))
    dataset = open_dataset(config.data.source, arguments.split)
    print(dataset.summary())
    chosen = fixed_images(arguments.count, len(dataset))
    if arguments.dry_run:
        print(f"would draw {len(chosen)} pictures on {arguments.out}")
        return 0
    write_image(arguments.out, show_data(dataset, config, chosen, arguments.augmentations))
    print(f"drew {len(chosen)} pictures on {arguments.out}")
    return 0


def _positional(argv: Sequence[str]) -> list[str]:
    """Let the folder stand first without its flag, and be left out."""
    return ["--folder", *argv] if argv and not argv[0].startswith("-") else list(argv)


COMMANDS: dict[str, Callable[[str, Sequence[str]], int]] = {
    "data import-voc": _import_voc,
    "data import-yolo": _import_yolo,
    "data split": _split,
    "data show": _show,
}
ARGUMENTS: dict[str, type[Any]] = {
    "data import-voc": ImportVocArguments,
    "data import-yolo": ImportYoloArguments,
    "data split": SplitArguments,
    "data show": ShowArguments,
}
