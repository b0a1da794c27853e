"""``cornernet data ...``: check, import, split and show data sets."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from cornernet.cli.command import Command
from cornernet.cli.start import RECIPE_NAMES, default_recipe, on_data
from cornernet.config import ConfigError
from cornernet.config.choices import BoxConvention, Points, Split, Treatment
from cornernet.config.recipes import recipe
from cornernet.console import Progress, count, printable
from cornernet.files import Output, nearest

if TYPE_CHECKING:
    from cornernet.data import DetectionDataset
    from cornernet.data.formats.importing import ImportedFolder

__all__ = [
    "CheckArguments",
    "ImportCvatArguments",
    "ImportLabelmeArguments",
    "ImportVocArguments",
    "ImportYoloArguments",
    "ShowArguments",
    "SplitArguments",
    "check",
    "import_cvat",
    "import_labelme",
    "import_voc",
    "import_yolo",
    "show",
    "split",
]

_Folder = Annotated[Path, tyro.conf.arg(metavar="FOLDER", help="The folder to read."), tyro.conf.Positional]


@dataclass(frozen=True, kw_only=True)
class CheckArguments:
    """The arguments of ``cornernet data check``."""

    folder: _Folder


@dataclass(frozen=True, kw_only=True)
class WriteArguments:
    """The arguments of commands that write annotation files."""

    overwrite: bool = False
    """Replace existing annotation files and pictures."""
    dry_run: bool = False
    """Print the report and write nothing."""


@dataclass(frozen=True, kw_only=True)
class ImportVocArguments(WriteArguments):
    """The arguments of ``cornernet data import-voc``."""

    folder: _Folder
    out: Path | None = None
    """Folder for annotations/*.json and copies of the images. Default: the folder itself, without copying images."""
    boxes: BoxConvention = "one-based"
    """one-based: xmin is the first and xmax the last pixel of the box, counted from 1, as VOC defines it. edges: the
    numbers are the box's edges, as several annotation tools write them."""
    difficult: Treatment = "keep"
    """Objects flagged difficult: keep, ignore (neither training nor evaluation counts them), or drop."""
    truncated: Treatment = "keep"
    """Objects flagged truncated: likewise."""
    classes: tuple[str, ...] = ()
    """Only these classes, in this order. Default: all classes that occur, by name."""


@dataclass(frozen=True, kw_only=True)
class ImportYoloArguments(WriteArguments):
    """The arguments of ``cornernet data import-yolo``."""

    folder: _Folder
    out: Path | None = None
    """Folder for annotations/*.json and copies of the images. Default: the folder itself, without copying images."""
    names: Path | None = None
    """File with the class names: yaml with `names`, or text with one name per line. If it is a yaml with `train`,
    `val` and `test`, these are followed too. Default: searched for."""
    classes: tuple[str, ...] = ()
    """Only these classes, in this order. Default: all classes."""
    unlabelled: Literal["keep", "drop"] = "keep"
    """Images without a text file: keep them as images without objects, or drop them."""
    points: Points = "auto"
    """What more than four numbers after the class are: polygon (also oriented boxes), or keypoints after the box.
    auto: keypoints where the yaml has kpt_shape, else polygons; lines that could be both are an error."""


@dataclass(frozen=True, kw_only=True)
class ImportLabelmeArguments(WriteArguments):
    """The arguments of ``cornernet data import-labelme``."""

    folder: _Folder
    out: Path | None = None
    """Folder for annotations/*.json and copies of the images. Default: the folder itself, without copying images."""
    classes: tuple[str, ...] = ()
    """Only these labels, in this order. Default: all labels that occur, by name."""


@dataclass(frozen=True, kw_only=True)
class ImportCvatArguments(ImportLabelmeArguments):
    """The arguments of ``cornernet data import-cvat``."""

    unlabelled: Literal["keep", "drop"] = "keep"
    """Images without shapes: keep them as images without objects, or drop them."""


@dataclass(frozen=True, kw_only=True)
class SplitArguments(WriteArguments):
    """The arguments of ``cornernet data split``."""

    folder: _Folder
    file: str | None = None
    """Annotation file to split, as a path below the folder. Default: the only one that is not of test; that of train if
    there is none of val."""
    val: float = 0.2
    """Fraction of the images for val."""
    test: float = 0.0
    """Fraction of the images for test; 0 for no test split."""
    seed: int = 0
    """Seed of the random choices."""


@dataclass(frozen=True, kw_only=True)
class ShowArguments:
    """The arguments of ``cornernet data show``."""

    folder: Annotated[
        Path | None,
        tyro.conf.arg(metavar="FOLDER", help="COCO-format folder. Default: the generated data set `shapes`."),
    ] = None
    split: Split = "train"
    """Split to draw from."""
    count: int = 4
    """Number of images, spread over the split."""
    augmentations: int = 2
    """Augmented versions of each image, from the first epochs."""
    recipe: Annotated[
        str | None,
        tyro.conf.arg(
            metavar=RECIPE_NAMES,
            help="Recipe that gives input size, augmentation and targets. Default: small, or tiny for shapes.",
        ),
    ] = None
    out: Path = Path("shown.png")
    """Image file to write."""
    overwrite: bool = False
    """Replace --out if it exists; one that this command wrote is replaced anyway."""
    dry_run: bool = False
    """Print what would be drawn, and write nothing."""


def check(command: Command, argv: Sequence[str]) -> int:
    """Print a report about a folder; the exit status is 2 if it cannot be used, or if train or val is missing."""
    folder = command.parse(CheckArguments, argv).folder

    from cornernet.data.formats.check import check_folder
    from cornernet.data.formats.coco import file_to_split

    with contextlib.ExitStack() as shown:
        lines: dict[str, Progress] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in lines:
                shown.close()
                lines[name] = shown.enter_context(
                    contextlib.closing(Progress(f"check {printable(name)}", total, unit="img"))
                )
            lines[name].update(done)

        report = check_folder(folder, show)
    print(report.to_text())
    if report.usable and not report.missing:
        print(_next("train", "--data", report.folder))
        return 0
    if report.usable and file_to_split([file.name for file in report.files]) is not None:
        print(_next("data", "split", report.folder))
    return 2


def import_voc(command: Command, argv: Sequence[str]) -> int:
    """Convert a Pascal VOC folder to COCO format."""
    arguments = command.parse(ImportVocArguments, argv)

    from cornernet.data.formats.voc import read_voc

    found = read_voc(
        arguments.folder,
        boxes=arguments.boxes,
        difficult=arguments.difficult,
        truncated=arguments.truncated,
        classes=arguments.classes,
    )
    return _write_import(found, arguments.out or arguments.folder, arguments, command, argv)


def import_yolo(command: Command, argv: Sequence[str]) -> int:
    """Convert a YOLO folder to COCO format."""
    arguments = command.parse(ImportYoloArguments, argv)

    from cornernet.data.formats.yolo import read_yolo

    found = read_yolo(
        arguments.folder,
        names=arguments.names,
        classes=arguments.classes,
        unlabelled=arguments.unlabelled,
        points=arguments.points,
    )
    return _write_import(found, arguments.out or arguments.folder, arguments, command, argv)


def import_labelme(command: Command, argv: Sequence[str]) -> int:
    """Convert a folder of labelme's json files to COCO format."""
    arguments = command.parse(ImportLabelmeArguments, argv)

    from cornernet.data.formats.labelme import read_labelme

    found = read_labelme(arguments.folder, classes=arguments.classes)
    return _write_import(found, arguments.out or arguments.folder, arguments, command, argv)


def import_cvat(command: Command, argv: Sequence[str]) -> int:
    """Convert a folder with CVAT's xml to COCO format."""
    arguments = command.parse(ImportCvatArguments, argv)

    from cornernet.data.formats.cvat import read_cvat

    found = read_cvat(arguments.folder, unlabelled=arguments.unlabelled, classes=arguments.classes)
    return _write_import(found, arguments.out or arguments.folder, arguments, command, argv)


def _write_import(
    found: ImportedFolder, out: Path, arguments: WriteArguments, command: Command, argv: Sequence[str]
) -> int:
    """Write the imported data set and print the report and the next command."""
    from cornernet.data.formats.importing import write_import

    written = write_import(found, out, overwrite=arguments.overwrite, dry_run=arguments.dry_run)
    following = _for_real(command, argv) if arguments.dry_run else _after_import(found.splits, out)
    print(found.to_text(), *written, following, sep="\n")
    return 0


def _after_import(splits: Sequence[str], out: Path) -> str:
    """Return the line with the next command for a folder with annotation files of these splits."""
    from cornernet.data.formats.coco import file_to_split
    from cornernet.data.formats.importing import annotation_file

    if {"train", "val"} <= set(splits):
        return _next("data", "check", out)
    files = [annotation_file(split) for split in splits]
    source = file_to_split(files)
    if source is not None:
        # splits of an earlier import are there
        again = ("--file", source, "--overwrite") if (out / annotation_file("val")).exists() else ()
        return _next("data", "split", out, *again)
    if "val" in splits and len(splits) > 1:  # what is neither of val nor of test is for training
        rest = next((split for split in splits if split not in ("val", "test")), None)
        if rest is not None:
            return _next("train", "--data", out, "--data.source.train-split", rest)
    return _next("data", "split", out, "--file", files[0])


def _next(*words: object) -> str:
    """Return the line that names the command to run next, written so that a shell reads it."""
    return f"next: {printable(shlex.join(['cornernet', *map(str, words)]))}"


def _for_real(command: Command, argv: Sequence[str]) -> str:
    """Return the line that names the same command without --dry-run."""
    return _next(*command.name.split(), *(word for word in argv if word.replace("_", "-") != "--dry-run"))


def split(command: Command, argv: Sequence[str]) -> int:
    """Split an annotation file and print the next command."""
    arguments = command.parse(SplitArguments, argv)

    from cornernet.data.formats.importing import require_folder
    from cornernet.data.formats.split import divide, write_division

    folder = arguments.folder
    require_folder(folder)
    fractions = {"val": arguments.val} | ({"test": arguments.test} if arguments.test else {})
    division = divide(folder, fractions, seed=arguments.seed, file=arguments.file)
    written = write_division(division, folder, overwrite=arguments.overwrite, dry_run=arguments.dry_run)
    following = _for_real(command, argv) if arguments.dry_run else _next("train", "--data", folder)
    print(division.to_text(), *written, following, sep="\n")
    return 0


def show(command: Command, argv: Sequence[str]) -> int:
    """Draw images of a data set as training sees them."""
    arguments = command.parse(ShowArguments, _with_folder_flag(argv))
    out = arguments.out
    if min(arguments.count, arguments.augmentations) < 1:
        raise ConfigError("--count and --augmentations must be 1 or more")
    if not out.parent.is_dir():
        raise ConfigError(f"there is no folder {out.parent} for --out{nearest(out.parent)}")
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ConfigError(f"--out is {out}; it must be a file that ends in .png, .jpg or .webp")
    config = on_data(recipe(arguments.recipe or default_recipe(arguments.folder)), arguments.folder)

    from cornernet.data import open_dataset
    from cornernet.visualization.sheets import encoded, fixed_images, show_data

    dataset = open_dataset(config.data, arguments.split)
    print(dataset.summary())
    output = Output(out.parent, "data show", overwrite=arguments.overwrite, originals=_pictures(dataset))
    output.require([out.name])
    chosen = fixed_images(arguments.count, len(dataset))
    images = count(len(chosen), "image")
    if arguments.dry_run:
        print(f"would draw {images} to {printable(out)}")
        return 0
    output.write(out.name, encoded(show_data(dataset, config, chosen, arguments.augmentations), out))
    print(f"drew {images} to {printable(out)}")
    return 0


def _pictures(dataset: DetectionDataset) -> Collection[Path]:
    """Return the image files of a data set; none if it is generated."""
    return () if dataset.pixels is not None else dataset.image_paths()


def _with_folder_flag(argv: Sequence[str]) -> list[str]:
    """Return ``argv`` with --folder before a leading folder: it may be given as a flag, by its place, or not at all."""
    return ["--folder", *argv] if argv and not argv[0].startswith("-") else list(argv)
