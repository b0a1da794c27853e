"""The command ``cornernet``: train, evaluate, detect, report, data.

Every field of the configuration is a flag of its path, ``--training.iterations 900``; the recipe, a configuration
file or the weights say what the fields start from.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import cv2
import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from cornernet.checkpoints import CheckpointError, load_detector
from cornernet.config import CocoSource, Config, ConfigError
from cornernet.data import DataError, open_dataset
from cornernet.data.check import check_folder
from cornernet.data.images import read_image
from cornernet.detector import Detector, build_detector
from cornernet.evaluation import Backend, evaluate
from cornernet.files import atomic_write
from cornernet.pictures import heatmap_picture
from cornernet.postprocess import detect
from cornernet.progress import Progress
from cornernet.recipes import RECIPES, recipe
from cornernet.training import Interrupted, TrainingError, resolve_device, train
from kernels import UnavailableError

__all__ = ["main"]

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
    """Train a detector and evaluate it on val.

    Example: cornernet train --data my_photos --training.iterations 2000
    """

    recipe: RecipeFlag = None
    """Default: small for a folder, tiny for the generated data set."""
    config_file: Path | None = None
    """Start from a config.json, as a run's folder holds one, instead of a recipe."""
    data: DataFlag = None
    out: Path | None = None
    """The run's folder. Default: the next free runs/RECIPE-DATA-N."""
    resume: bool = False
    """Go on with the run in --out, as it was configured, from its newest checkpoint."""
    config: ConfigFlags


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Evaluate weights on a data set as COCO does.

    Example: cornernet evaluate --weights runs/small-photos-1 --data my_photos
    """

    weights: str
    """A run's folder, a .safetensors file, the authors' .pkl file, or `random` for fresh weights of --recipe."""
    recipe: RecipeFlag = None
    data: DataFlag = None
    split: Literal["train", "val"] = "val"
    """Split to evaluate on."""
    backend: Backend = "pycocotools"
    """hotcoco gives the same numbers faster."""
    save_results: Path | None = None
    """Write the detections to this file in COCO's result format."""
    config: ConfigFlags


@dataclass(frozen=True, kw_only=True)
class DetectArguments:
    """Detect objects in photographs and draw them.

    Example: cornernet detect photo.jpg --weights runs/small-photos-1 --out detected
    """

    photos: tyro.conf.Positional[tuple[Path, ...]]
    """Image files."""
    weights: str
    """A run's folder, a .safetensors file or the authors' .pkl file."""
    out: Path = Path("out")
    """Folder for the drawn photographs and detections.json."""
    min_score: float = 0.3
    """Boxes below this score are neither drawn nor written."""
    heatmaps: bool = False
    """Also draw the corner heatmaps over each photograph."""
    recipe: tyro.conf.Suppress[str | None] = None
    data: tyro.conf.Suppress[Path | None] = None
    config: ConfigFlags


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
        near = difflib.get_close_matches(name, _COMMANDS, n=1)
        print(
            f"cornernet: there is no command {name!r}" + (f"; did you mean {near[0]}?" if near else ""), file=sys.stderr
        )
        return 2
    try:
        return _COMMANDS[name](f"cornernet {name}", rest)
    except Interrupted as stop:
        print(f"cornernet: {stop}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("cornernet: stopped", file=sys.stderr)
        return 130
    except (CheckpointError, ConfigError, DataError, TrainingError, UnavailableError, OSError) as error:
        print(f"cornernet: error: {error}", file=sys.stderr)
        return 2


def _usage() -> str:
    lines = ["usage: cornernet COMMAND ... (each has --help)", ""]
    summaries = {
        "train": TrainArguments,
        "evaluate": EvaluateArguments,
        "detect": DetectArguments,
        "report": ReportArguments,
        "data check": DataCheckArguments,
    }
    lines += [f"  {name:<12} {(kind.__doc__ or '').splitlines()[0]}" for name, kind in summaries.items()]
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
    parser.add_argument("--weights")
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
    arguments = _parse(TrainArguments(config=_start_config(start)), prog, argv)
    config = arguments.config
    out = arguments.out
    if out is None:
        if arguments.resume:
            raise ConfigError("--resume needs --out, the folder of the run to go on with")
        data = "shapes" if arguments.data is None else arguments.data.resolve().name
        out = _next_folder(Path("runs"), f"{_start_name(start)}-{data}")
    evaluation = train(config, out, resume=arguments.resume)
    if evaluation is not None:
        print(evaluation.to_text())
        print(f"the run is in {out}")
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
    if detector is None:
        config = config.with_("model.num_classes", len(dataset.classes))
        torch.manual_seed(config.training.seed)
        detector = build_detector(config).eval()
    detector = _configured(detector, config)
    progress = Progress("evaluate", len(dataset), unit="img")
    with contextlib.closing(progress):
        evaluation = evaluate(detector, dataset, config, arguments.backend, lambda done, _: progress.update(done))
    print(evaluation.to_text())
    if arguments.save_results is not None:
        atomic_write(arguments.save_results, json.dumps(evaluation.results) + "\n")
    return 0


def _load(start: argparse.Namespace) -> Detector:
    return load_detector(start.weights, recipe(start.recipe) if start.recipe else None)


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
    detector = None if start.weights is None else _load(start)
    config = recipe("tiny") if detector is None else detector.config
    arguments = _parse(DetectArguments(photos=tyro.MISSING, weights=tyro.MISSING, config=config), prog, argv)
    if detector is None:
        raise ConfigError("--weights is missing; give a run's folder or a file of weights")
    config = arguments.config
    detector = _configured(detector, config)
    stems = [photo.stem for photo in arguments.photos]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise ConfigError(f"photographs of the same name would overwrite each other in {arguments.out}: {twice[0]}")
    missing = [str(photo) for photo in arguments.photos if not photo.is_file()]
    if missing:
        raise DataError(f"there is no file {missing[0]}" + (f", nor {len(missing) - 1} others" if missing[1:] else ""))
    arguments.out.mkdir(parents=True, exist_ok=True)
    results, unreadable = [], 0
    for photo in arguments.photos:
        try:
            image = read_image(photo)
        except DataError as error:
            print(f"cornernet: error: {error}", file=sys.stderr)
            unreadable += 1
            continue
        (found,) = detect(detector, image, config)
        kept = found.filter(arguments.min_score)
        target = arguments.out / f"{photo.stem}.png"
        _write_image(target, kept.plot(image))
        if arguments.heatmaps:
            _write_image(arguments.out / f"{photo.stem}-heatmaps.png", heatmap_picture(detector, image, config))
        results.append({"image": str(photo), "detections": kept.to_coco(image_id=photo.name)})
        print(f"{photo}: {len(kept)} boxes of score {arguments.min_score:g} or more -> {target}")
    atomic_write(arguments.out / "detections.json", json.dumps(results, indent=1) + "\n")
    return 2 if unreadable else 0


def _write_image(path: Path, image: NDArray[np.uint8]) -> None:
    done, encoded = cv2.imencode(path.suffix, image)
    if not done:
        raise OSError(f"cannot encode {path}")
    atomic_write(path, encoded.tobytes())


def _report(prog: str, argv: Sequence[str]) -> int:
    # matplotlib and seaborn take a second to import, which no other command needs
    from cornernet.run_report import run_page

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
    "report": _report,
    "data check": _data_check,
}


if __name__ == "__main__":
    sys.exit(main())
