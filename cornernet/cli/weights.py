"""``cornernet convert`` and ``cornernet export``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from cornernet.cli.command import Command
from cornernet.cli.start import RECIPE_NAMES, load
from cornernet.config import CocoSource, ConfigError
from cornernet.config.choices import PICKLED, ExportFormat
from cornernet.console import count, printable
from cornernet.files import Output, refuse_link

if TYPE_CHECKING:
    from cornernet.data import DetectionDataset
    from cornernet.model.detector import Detector

__all__ = ["ConvertArguments", "ExportArguments", "convert", "export"]

_ForeignRecipe = Annotated[
    str | None,
    tyro.conf.arg(
        metavar=RECIPE_NAMES,
        help="What the configuration starts from if the weights hold none, as those of other projects. "
        "Default: the paper's.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ConvertArguments:
    """The arguments of ``cornernet convert``."""

    weights: tyro.conf.Positional[str]
    """A run's folder, a .safetensors file, or a pickled file (.pkl, .pth, .pt, .bin)."""
    out: Path
    """File to write: .safetensors for our format, .pkl or .pth for the others."""
    to: Literal["ours", "authors", "lite", "mmdetection"] = "ours"
    """Format to write."""
    recipe: _ForeignRecipe = None
    data: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """COCO-format folder whose class names and category ids are stored; other projects' weights hold none."""
    overwrite: bool = False
    """Replace --out if it exists."""


@dataclass(frozen=True, kw_only=True)
class ExportArguments:
    """The arguments of ``cornernet export``."""

    weights: tyro.conf.Positional[str]
    """A run's folder or a file of weights."""
    out: Path
    """File to write: .onnx, or .pt2 for torch.export and AOTInductor."""
    to: ExportFormat | None = None
    """onnx, export (torch.export) or inductor (compiled by AOTInductor). Default: from the ending of --out."""
    decode: bool = False
    """Include decoding: the outputs are the best boxes, in heatmap cells, instead of the raw maps."""
    largest: int = 2047
    """Longest image side that the exported program accepts."""
    recipe: _ForeignRecipe = None
    overwrite: bool = False
    """Replace --out if it exists; one that this command wrote is replaced anyway."""


def convert(command: Command, argv: Sequence[str]) -> int:
    """Convert weights to another format."""
    arguments = command.parse(ConvertArguments, argv)
    out = arguments.out
    suffixes = (".safetensors",) if arguments.to == "ours" else PICKLED
    if out.suffix not in suffixes:
        raise ConfigError(f"--out {out} must end in {' or '.join(suffixes)} for --to {arguments.to}")
    refuse_link(out)
    if out.exists() and not arguments.overwrite:
        raise ConfigError(f"{out} exists already; --overwrite replaces it")
    detector = load(arguments.weights, arguments.recipe)

    from cornernet.weights.checkpoints import save_detector, save_foreign

    if arguments.data is not None:
        detector.classes, detector.category_ids = _classes_of(arguments.data, detector)
    if arguments.to == "ours":
        save_detector(detector, out)
    else:
        for lost in save_foreign(detector, out, arguments.to):
            print(f"warning: the file cannot say that {printable(lost)}", file=sys.stderr)
    model = detector.config.model
    parameters = sum(parameter.numel() for parameter in detector.parameters())
    classes = count(model.num_classes, "class", "classes")
    print(f"{model.backbone.kind}, {classes}, {parameters:,} parameters -> {printable(out)}")
    return 0


def export(command: Command, argv: Sequence[str]) -> int:
    """Export a detector and check the exported file."""
    arguments = command.parse(ExportArguments, argv)
    formats: dict[str, ExportFormat] = {".onnx": "onnx", ".pt2": "export"}
    suffix = arguments.out.suffix
    if suffix not in formats or (arguments.to is not None and (arguments.to == "onnx") != (suffix == ".onnx")):
        raise ConfigError(f"--out {arguments.out} must end in .onnx, or in .pt2 for --to export and --to inductor")
    if not arguments.out.parent.is_dir():
        raise ConfigError(f"there is no folder {arguments.out.parent} for --out")
    output = Output(arguments.out.parent, "export", overwrite=arguments.overwrite)
    output.require([arguments.out.name])

    from cornernet.weights.export import export_detector

    detector = load(arguments.weights, arguments.recipe)
    to = arguments.to or formats[suffix]
    lines = export_detector(
        detector,
        arguments.out,
        to,
        decoded=arguments.decode,
        largest=arguments.largest,
        write=lambda path, content: output.write(path.name, content),
    )
    for line in lines:
        print(f"checked at {line}")
    print(f"{to} -> {printable(arguments.out)}")
    return 0


def _classes_of(folder: Path, detector: Detector) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the class names and category ids of a COCO-format folder; there must be as many as the detector has."""
    from cornernet.data import DataError

    found, expected = _open_any_split(folder), detector.config.model.num_classes
    if len(found.classes) != expected:
        raise DataError(
            f"{folder} has {count(len(found.classes), 'class', 'classes')} but the weights have {expected}: they were "
            "trained on other data"
        )
    return found.classes, found.category_ids


def _open_any_split(folder: Path) -> DetectionDataset:
    """Return val, or train if there is no usable val."""
    from cornernet.data import DataError, open_dataset

    source = CocoSource(root=str(folder))
    try:
        return open_dataset(source, "val")
    except DataError as error:
        try:
            return open_dataset(source, "train")
        except DataError:
            raise error from None
