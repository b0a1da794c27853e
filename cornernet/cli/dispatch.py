"""The command ``cornernet``: train, evaluate, detect, report, convert, export, data.

Every field of the configuration is a flag of its path, ``--training.iterations 900``; the recipe, a configuration
file or the weights say what the fields start from.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from cornernet.cli import data as cli_data
from cornernet.cli.photos import Photo, coco_tree, csv_table, find_photos, json_list
from cornernet.cli.suggest import Suggestion, machine, suggest
from cornernet.config import CocoSource, Config, ConfigError
from cornernet.config.checks import did_you_mean
from cornernet.config.recipes import RECIPES, recipe
from cornernet.data import DataError, open_dataset
from cornernet.data.formats.check import check_folder
from cornernet.data.images import read_image
from cornernet.data.leakage import seen_warning
from cornernet.drawing.boxes import sheet
from cornernet.evaluation.evaluate import Backend, evaluate
from cornernet.files import atomic_write
from cornernet.inference.detect import detect
from cornernet.inference.detections import Detections
from cornernet.kernels import UnavailableError
from cornernet.model.detector import Detector, build_detector
from cornernet.model.fast import optimised
from cornernet.progress import Progress
from cornernet.training.devices import resolve_device
from cornernet.training.errors import Interrupted, TrainingError
from cornernet.training.loop import train
from cornernet.training.tensorboard import TensorBoardLog
from cornernet.visualization.inspection import inspect
from cornernet.visualization.sheets import write_image
from cornernet.weights.checkpoints import PICKLED, CheckpointError, load_detector, save_detector, save_foreign
from cornernet.weights.export import ExportError, ExportFormat, export_detector

__all__ = ["main"]

_DEMO_PICTURES = 6

T = TypeVar("T")
ConfigFlags = Annotated[Config, tyro.conf.arg(name="")]
RecipeFlag = Annotated[
    str | None,
    tyro.conf.arg(metavar="{" + ",".join(RECIPES) + "}", help="Named configuration that the flags below start from."),
]
DataFlag = Annotated[
    Path | None,
    tyro.conf.arg(metavar="FOLDER", help="A folder in COCO format; without it, the generated data set `shapes`."),
]


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """Train a detector and evaluate it on val; without --recipe, as suits the folder's images, saying why.

    Example: cornernet train --data my_photos --training.iterations 2000
    """

    recipe: RecipeFlag = None
    """Default: one that suits the folder, with input size and iterations; tiny for the generated data set."""
    config_file: Path | None = None
    """Start from a config.json, as a run's folder holds one, instead of a recipe."""
    data: DataFlag = None
    out: Path | None = None
    """The run's folder. Default: the next free runs/RECIPE-DATA-N."""
    resume: bool = False
    """Go on with the run in --out, as it was configured, from its newest checkpoint."""
    tensorboard: bool = False
    """Write curves for TensorBoard into the run's folder too; an extra, cornernet-lab[tensorboard]."""
    dry_run: bool = False
    """Say what would be trained and where, and write nothing."""
    config: ConfigFlags


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Evaluate weights on a data set as COCO does.

    Example: cornernet evaluate --weights runs/small-photos-1 --data my_photos
    """

    weights: str
    """A run's folder, a .safetensors file, the authors', CornerNet-Lite's or mmdetection's file, `starter`, or `random`
    for fresh weights of --recipe."""
    recipe: RecipeFlag = None
    data: DataFlag = None
    split: Literal["train", "val"] = "val"
    """Split to evaluate on."""
    backend: Backend = "pycocotools"
    """hotcoco gives the same numbers faster."""
    fast: bool = False
    """Fold batch norm and read pictures ahead: the same boxes, up to rounding, in less time (cornernet.model.fast)."""
    save_results: Path | None = None
    """Write the detections to this file in COCO's result format."""
    dry_run: bool = False
    """Say what would be evaluated, and neither evaluate nor write."""
    config: ConfigFlags


@dataclass(frozen=True, kw_only=True)
class DetectArguments:
    """Detect objects in photographs: drawn pictures, JSON, COCO and CSV files.

    Example: cornernet detect photos "more/**/*.jpg" --weights runs/small-photos-1 --out detected
    """

    photos: tyro.conf.Positional[tuple[str, ...]] = ()
    """Image files, folders, patterns in quotes, or - for a list of paths on stdin."""
    weights: str | None = None
    """A run's folder, a .safetensors file, the authors' .pkl file, or `starter`."""
    demo: bool = False
    """Detect in six generated pictures with the model that ships with the package."""
    out: Path = Path("out")
    """Folder for what is written."""
    write: tuple[Literal["images", "json", "coco", "csv"], ...] = ("images", "json", "coco", "csv")
    """Drawn photographs, detections.json (a list), coco.json (annotations with scores), detections.csv."""
    min_score: float = 0.3
    """Boxes below this score are neither drawn nor written; 0.5 with --demo."""
    heatmaps: bool = False
    """Also draw the corner heatmaps over each photograph, with a line between corners that the embeddings pair."""
    dry_run: bool = False
    """Say what would be detected and written, and do neither."""
    recipe: tyro.conf.Suppress[str | None] = None
    data: tyro.conf.Suppress[Path | None] = None
    config: ConfigFlags


@dataclass(frozen=True, kw_only=True)
class ConvertArguments:
    """Convert weights: the authors', CornerNet-Lite's, mmdetection's and ours, each into each.

    Example: cornernet convert CornerNet_500000.pkl --out cornernet.safetensors
    """

    weights: tyro.conf.Positional[str]
    """A run's folder, a .safetensors file, or a pickled file (.pkl, .pth, .pt, .bin)."""
    out: Path
    """File to write: .safetensors for ours, .pkl or .pth for the others'."""
    to: Literal["ours", "authors", "lite", "mmdetection"] = "ours"
    """Whose file to write."""
    recipe: RecipeFlag = None
    """What the configuration of others' weights starts from. Default: the paper's."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """A folder in COCO format, whose names and numbers of classes ours takes; others' weights hold none."""
    overwrite: bool = False
    """Replace --out where it is there."""


@dataclass(frozen=True, kw_only=True)
class ExportArguments:
    """Export a detector for other programs, and check what was written.

    Example: cornernet export runs/small-my_photos-1 --out model.onnx
    """

    weights: tyro.conf.Positional[str]
    """A run's folder or a file of weights."""
    out: Path
    """File to write: .onnx, or .pt2 for torch.export and AOTInductor."""
    to: ExportFormat | None = None
    """onnx, export (torch.export) or inductor (compiled by AOTInductor). Default: by the end of --out's name."""
    decode: bool = False
    """Decode up to the best boxes, in heatmap cells, in place of the raw maps."""
    largest: int = 2047
    """Longest side of an image that the program takes."""
    recipe: RecipeFlag = None
    """What the configuration of others' weights starts from. Default: the paper's."""


@dataclass(frozen=True)
class ReportArguments:
    """Write a page on one training run: curves, AP, classes, best and worst images.

    Example: cornernet report runs/small-photos-1
    """

    run: tyro.conf.Positional[Path]
    """The folder of a run, as cornernet train wrote it."""
    out: Path | None = None
    """File to write. Default: report.html in the run's folder."""
    images: int = 3
    """How many of the best and of the worst images to show."""


@dataclass(frozen=True)
class DataCheckArguments:
    """Report what a folder in COCO format holds, and what would be dropped from it and why.

    Example: cornernet data check my_photos
    """

    folder: tyro.conf.Positional[Path]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 2 for what cannot be done, 130 when stopped."""
    argv = list(sys.argv[1:] if argv is None else argv)
    name, rest = (argv[0], argv[1:]) if argv else ("", [])
    if name == "data" and rest:
        name, rest = f"data {rest[0]}", rest[1:]
    if name not in _COMMANDS:
        asked_for_help = not argv or name in ("-h", "--help")
        print(_usage(), file=sys.stdout if asked_for_help else sys.stderr)
        if asked_for_help:
            return 0
        print(f"cornernet: there is no command {name!r}{did_you_mean(name, _COMMANDS)}", file=sys.stderr)
        return 2
    try:
        return _COMMANDS[name](f"cornernet {name}", rest)
    except Interrupted as stop:
        print(f"cornernet: {stop}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("cornernet: stopped", file=sys.stderr)
        return 130
    except (CheckpointError, ConfigError, DataError, ExportError, TrainingError, UnavailableError, OSError) as error:
        print(f"cornernet: error: {error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        print(
            f"cornernet: error: out of memory: {str(error).partition(chr(10))[0]}\n{_SAVERS[name == 'train']}",
            file=sys.stderr,
        )
        return 2


_SAVERS = {
    True: """three flags that save memory, the one with the least cost first:
  --training.accumulation 2            computes a batch in two parts, to the same result
  --training.checkpoint-activations    keeps less of each stack and computes it twice: a third more time
  --training.precision bfloat16        half the memory of activations on a GPU (float16 where it has no bfloat16)
and then smaller inputs: --data.input-size 191 255 --data.fit 192 256; small objects suffer""",
    False: """three flags that save memory, the one with the least cost first:
  --testing.no-flip                    one picture at a time in place of two
  --testing.scales 1                   no scale larger than the photograph
  --data.fit 768 1024                  shrinks larger photographs to these sides; small objects suffer""",
}
"""What to do where memory runs out, by whether it is in training."""


def _out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the GPU's or the machine's memory is used up."""
    told = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in told)


def _usage() -> str:
    lines = ["usage: cornernet COMMAND ... (each has --help)", ""]
    summaries = {
        "train": TrainArguments,
        "evaluate": EvaluateArguments,
        "detect": DetectArguments,
        "convert": ConvertArguments,
        "report": ReportArguments,
        "export": ExportArguments,
        "data check": DataCheckArguments,
        **cli_data.ARGUMENTS,
    }
    lines += [f"  {name:<17} {(kind.__doc__ or '').splitlines()[0]}" for name, kind in summaries.items()]
    return "\n".join(lines)


def _parse(default: T, prog: str, argv: Sequence[str]) -> T:
    """Parse a command's arguments; what is not given is as in ``default``."""
    options = (tyro.conf.AvoidSubcommands,)
    return tyro.cli(type(default), prog=prog, args=list(argv), default=default, config=options)


def _start(argv: Sequence[str]) -> argparse.Namespace:
    """Read the flags that decide what the configuration starts from, leaving the rest to the full parser."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--data.source.train-split", "--data.source.train_split", dest="train_split")
    parser.add_argument("--data.source.val-split", "--data.source.val_split", dest="val_split")
    parser.add_argument("--weights")
    parser.add_argument("--demo", action="store_true")
    parser.add_argument("--config-file", "--config_file", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--resume", action="store_true")
    return parser.parse_known_args(list(argv))[0]


def _start_config(start: argparse.Namespace) -> Config:
    """Return the configuration that flags start from, on the data that was asked for.

    It is a file's, a recipe's, or, to resume a run, the run's own.
    """
    resumed = start.out / "config.json" if start.resume and start.out is not None else None
    if start.config_file is not None:
        if start.recipe is not None:
            raise ConfigError("--recipe and --config-file both say what to start from; give one")
        config = Config.load(start.config_file)
    elif start.recipe is None and resumed is not None and resumed.is_file():
        config = Config.load(resumed)
    else:
        config = recipe(_start_name(start))
    return _on_data(config, start.data)


def _start_name(start: argparse.Namespace) -> str:
    """Return the name of what flags start from: a file's, or a recipe's, by default one that suits the data."""
    if start.config_file is not None:
        return str(start.config_file.stem)
    return start.recipe or ("tiny" if start.data is None else "small")


def _on_data(config: Config, folder: Path | None) -> Config:
    return config if folder is None else config.with_("data.source", CocoSource(root=str(folder)))


def _train(prog: str, argv: Sequence[str]) -> int:
    start = _start(argv)
    suggestion = _suggestion(start) if not {"-h", "--help"} & set(argv) else None
    base = _start_config(start) if suggestion is None else suggestion.config
    arguments = _parse(TrainArguments(config=base), prog, argv)
    config = arguments.config
    out = arguments.out
    if out is None:
        if arguments.resume:
            raise ConfigError("--resume needs --out, the folder of the run to go on with")
        data = "shapes" if arguments.data is None else arguments.data.resolve().name
        out = _next_folder(Path("runs"), f"{suggestion.recipe if suggestion else _start_name(start)}-{data}")
    if suggestion is not None and os.environ.get("RANK", "0") == "0":
        print(suggestion.to_text())
    if arguments.dry_run:
        return _would_train(config, out)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(TensorBoardLog(out / "tensorboard")) if arguments.tensorboard else None
        evaluation = train(config, out, resume=arguments.resume, on_record=log)
    if evaluation is not None:
        print(evaluation.to_text())
        print(f"the run is in {out}")
    return 0


def _suggestion(start: argparse.Namespace) -> Suggestion | None:
    """Return what suits the folder, where neither a recipe nor a file nor a run says what to start from."""
    if start.data is None or start.recipe is not None or start.config_file is not None or start.resume:
        return None
    splits = {key: value for key in ("train_split", "val_split") if (value := getattr(start, key)) is not None}
    source = CocoSource(root=str(start.data), **splits)
    return suggest(source, open_dataset(source, "train"), open_dataset(source, "val"), machine())


def _would_train(config: Config, out: Path) -> int:
    """Print what ``train`` would do, on which data, and where it would write."""
    train_set, val_set = (open_dataset(config.data.source, split) for split in ("train", "val"))
    with torch.device("meta"):
        detector = build_detector(config.with_("model.num_classes", len(train_set.classes)))
    parameters = sum(parameter.numel() for parameter in detector.parameters())
    training = config.training
    print(train_set.summary(), val_set.summary(), sep="\n")
    print(
        f"would train {parameters:,} parameters for {training.iterations} iterations of {training.batch_size} images "
        f"of {config.data.input_size[1]}x{config.data.input_size[0]} pixels in {training.precision} on "
        f"{resolve_device(training.device)}, and write the run to {out}"
    )
    return 0


def _next_folder(parent: Path, stem: str) -> Path:
    number = 1
    while (parent / f"{stem}-{number}").exists():
        number += 1
    return parent / f"{stem}-{number}"


def _evaluate(prog: str, argv: Sequence[str]) -> int:
    start = _start(argv)
    detector = _load(start) if start.weights not in (None, "random") else None
    config = _start_config(start) if detector is None else _on_data(detector.config, start.data)
    arguments = _parse(EvaluateArguments(weights=tyro.MISSING, config=config), prog, argv)
    config = arguments.config
    if arguments.save_results is not None and not arguments.save_results.parent.is_dir():
        raise ConfigError(f"there is no folder {arguments.save_results.parent} for --save-results")
    dataset = open_dataset(config.data.source, arguments.split)
    print(dataset.summary())
    warning = seen_warning(Path(arguments.weights), detector.config, dataset) if detector is not None else ""
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    if arguments.dry_run:
        written = "" if arguments.save_results is None else f", and write detections to {arguments.save_results}"
        print(f"would evaluate {arguments.weights} on {len(dataset)} images{written}")
        return 0
    if detector is None:
        config = config.with_("model.num_classes", len(dataset.classes))
        torch.manual_seed(config.training.seed)
        detector = build_detector(config).eval()
    detector = _configured(detector, config)
    if arguments.fast:
        detector = optimised(detector)
    readers = 2 if arguments.fast else 0
    progress = Progress("evaluate", len(dataset), unit="img")
    with contextlib.closing(progress):
        evaluation = evaluate(
            detector, dataset, config, arguments.backend, lambda done, _: progress.update(done), readers
        )
    print(evaluation.to_text())
    if arguments.save_results is not None:
        atomic_write(arguments.save_results, json.dumps(evaluation.results) + "\n")
    return 0


def _load(start: argparse.Namespace) -> Detector:
    return load_detector(start.weights, start=recipe(start.recipe) if start.recipe else None)


def _configured(detector: Detector, config: Config) -> Detector:
    """Return the detector on the configured device, with the pooling implementation that was asked for."""
    theirs, ours = detector.config.model, config.model
    if theirs != ours:
        rebuilt = build_detector(config)
        try:
            rebuilt.load_state_dict(detector.state_dict())
        except RuntimeError as error:
            raise ConfigError(f"the weights do not fit the model that the --model flags describe: {error}") from error
        rebuilt.classes, rebuilt.category_ids = detector.classes, detector.category_ids
        detector = rebuilt.eval()
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    return detector.to(resolve_device(config.training.device))


def _detect(prog: str, argv: Sequence[str]) -> int:
    start = _start(argv)
    if start.demo and start.weights is None:
        start.weights = "starter"
    detector = None if start.weights is None else _load(start)
    config = recipe("tiny") if detector is None else detector.config
    # the starter model is small, and sure of little
    arguments = _parse(DetectArguments(config=config, min_score=0.5 if start.demo else 0.3), prog, argv)
    if detector is None:
        raise ConfigError("--weights is missing; give a run's folder or a file of weights, or --demo for a first look")
    config, out = arguments.config, arguments.out
    if arguments.heatmaps and config.model.head.kind != "corner":
        raise ConfigError("--heatmaps draws the heatmaps of corners; this detector's head finds none")
    if arguments.demo:
        if arguments.photos:
            raise ConfigError("--demo draws pictures of its own; leave out the photographs, or --demo")
        photos = [Photo(Path(f"generated picture {n + 1}"), f"demo-{n + 1}") for n in range(_DEMO_PICTURES)]
        pictures = open_dataset(config.with_("data.source.val_images", _DEMO_PICTURES).data.source, "val")
    else:
        photos = find_photos(arguments.photos, out, sys.stdin)
    if arguments.dry_run:
        print(f"would detect in {len(photos)} photographs, the first {photos[0].path}, and write to {out}")
        return 0
    detector = _configured(detector, config)
    out.mkdir(parents=True, exist_ok=True)
    results: list[tuple[Photo, Detections]] = []
    drawn: list[tuple[str, NDArray[np.uint8]]] = []
    unreadable = 0
    for index, photo in enumerate(photos):
        try:
            image = pictures.read(index) if arguments.demo else read_image(photo.path)
        except DataError as error:
            print(f"cornernet: error: {error}", file=sys.stderr)
            unreadable += 1
            continue
        (found,) = detect(detector, image, config)
        kept = found.filter(arguments.min_score)
        results.append((photo, kept))
        said = f"{photo.path}: {len(kept)} boxes of score {arguments.min_score:g} or more"
        if "images" in arguments.write:
            target = out / f"{photo.name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            picture = kept.plot(image)
            write_image(target, picture)
            drawn.append((photo.name, picture))
            said += f" -> {target}"
        if arguments.heatmaps:
            target = out / f"{photo.name}-heatmaps.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            write_image(target, inspect(detector, image, config, arguments.min_score).plot(image))
        print(said)
    for form, name, content in (
        ("json", "detections.json", json_list),
        ("coco", "coco.json", lambda found: json.dumps(coco_tree(found)) + "\n"),
        ("csv", "detections.csv", csv_table),
    ):
        if form in arguments.write:
            atomic_write(out / name, content(results))
    if arguments.demo and drawn:
        write_image(out / "demo.png", sheet([drawn[:3], drawn[3:]], title="the starter model on generated pictures"))
        print(f"all of them: {out / 'demo.png'}")
    return 2 if unreadable else 0


def _convert(prog: str, argv: Sequence[str]) -> int:
    arguments = tyro.cli(ConvertArguments, prog=prog, args=list(argv))
    out, ours = arguments.out, arguments.to == "ours"
    suffixes = (".safetensors",) if ours else PICKLED
    if out.suffix not in suffixes:
        raise ConfigError(f"--out {out} must end in {' or '.join(suffixes)} for --to {arguments.to}")
    if out.exists() and not arguments.overwrite:
        raise ConfigError(f"{out} is there already; --overwrite replaces it")
    detector = load_detector(arguments.weights, start=recipe(arguments.recipe) if arguments.recipe else None)
    if arguments.data is not None:
        detector.classes, detector.category_ids = _classes_of(arguments.data, detector)
    if ours:
        save_detector(detector, out)
        lost = []
    else:
        lost = save_foreign(detector, out, arguments.to)
    for line in lost:
        print(f"warning: the file cannot say that {line}", file=sys.stderr)
    backbone = detector.config.model.backbone
    count = sum(parameter.numel() for parameter in detector.parameters())
    print(f"{backbone.kind}, {detector.config.model.num_classes} classes, {count:,} parameters -> {out}")
    return 0


def _export(prog: str, argv: Sequence[str]) -> int:
    arguments = tyro.cli(ExportArguments, prog=prog, args=list(argv))
    formats: dict[str, ExportFormat] = {".onnx": "onnx", ".pt2": "export"}
    suffix = arguments.out.suffix
    if suffix not in formats or (arguments.to is not None and (arguments.to == "onnx") != (suffix == ".onnx")):
        raise ConfigError(f"--out {arguments.out} must end in .onnx, or in .pt2 for --to export and --to inductor")
    if not arguments.out.parent.is_dir():
        raise ConfigError(f"there is no folder {arguments.out.parent} for --out")
    detector = load_detector(arguments.weights, start=recipe(arguments.recipe) if arguments.recipe else None)
    to = arguments.to or formats[suffix]
    for line in export_detector(detector, arguments.out, to, decoded=arguments.decode, largest=arguments.largest):
        print(f"checked at {line}")
    print(f"{to} -> {arguments.out}")
    return 0


def _classes_of(folder: Path, detector: Detector) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return names and numbers of the classes of a folder in COCO format, which must be as many as the detector's."""
    found, errors = None, []
    for split in ("val", "train"):
        try:
            found = open_dataset(CocoSource(root=str(folder)), split)
            break
        except DataError as error:
            errors.append(error)
    if found is None:
        raise errors[0]
    if len(found.classes) != detector.config.model.num_classes:
        raise DataError(
            f"{folder} has {len(found.classes)} classes and the weights {detector.config.model.num_classes}: "
            "they were trained on other data"
        )
    return found.classes, found.category_ids


def _report(prog: str, argv: Sequence[str]) -> int:
    # matplotlib and seaborn take a second to import, which no other command needs
    from cornernet.training.report import run_page

    arguments = tyro.cli(ReportArguments, prog=prog, args=list(argv))
    if arguments.images < 0:
        raise ConfigError(f"--images is {arguments.images}; use 0 or more")
    out = arguments.run / "report.html" if arguments.out is None else arguments.out
    atomic_write(out, run_page(arguments.run, arguments.images))
    print(f"the page is {out}")
    return 0


def _data_check(prog: str, argv: Sequence[str]) -> int:
    arguments = tyro.cli(DataCheckArguments, prog=prog, args=list(argv))
    report = check_folder(arguments.folder)
    print(report.to_text())
    return 0 if report.usable else 2


_COMMANDS: dict[str, Callable[[str, Sequence[str]], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "detect": _detect,
    "convert": _convert,
    "report": _report,
    "export": _export,
    "data check": _data_check,
    **cli_data.COMMANDS,
}


if __name__ == "__main__":
    sys.exit(main())
