"""What a command's configuration starts from, and what commands that load weights share.

Every field of the configuration is a flag, and its default comes from a recipe, a file or weights. The flags that
name these are therefore read first, with the declarations of the full parser, which then reads all flags.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cornernet.config import CocoSource, Config, ConfigError, DataConfig
from cornernet.config.recipes import RECIPES, recipe
from cornernet.console import printable

if TYPE_CHECKING:
    from cornernet.data import DetectionDataset
    from cornernet.model.detector import Detector

__all__ = [
    "RECIPE_NAMES",
    "ConfigFlags",
    "StartFlags",
    "check_data",
    "default_recipe",
    "load",
    "of_run",
    "on_data",
    "prepared",
    "say_where",
]

RECIPE_NAMES = "{" + ",".join(RECIPES) + "}"
"""The placeholder of --recipe in help texts."""
ConfigFlags = Annotated[Config, tyro.conf.arg(name="")]


@dataclass(frozen=True, kw_only=True)
class StartFlags:
    """What the configuration of ``train`` and ``evaluate`` starts from."""

    recipe: Annotated[
        str | None, tyro.conf.arg(metavar=RECIPE_NAMES, help="Named configuration that the flags below modify.")
    ] = None
    data: Annotated[
        Path | None,
        tyro.conf.arg(metavar="FOLDER", help="COCO-format folder. Default: the generated data set `shapes`."),
    ] = None


def default_recipe(data: Path | None) -> str:
    """Return the name of the recipe for a folder of images, or for the generated data set."""
    return "tiny" if data is None else "small"


def on_data(config: Config, folder: Path | None) -> Config:
    """Return ``config`` with ``folder`` as its source of data; unchanged for None."""
    return config if folder is None else config.with_("data.source", CocoSource(root=str(folder)))


def of_run(config: Config, weights: str | Path) -> Config:
    """Return the configuration of weights or of a run with the path of its data as it was meant at training."""
    from cornernet.data.origin import at_origin

    path = Path(weights)
    if path.is_dir():
        return at_origin(config, path)
    return at_origin(config, path.parent) if path.name in ("model.safetensors", "config.json") else config


def say_where(before: Config, after: Config) -> None:
    """Print where the data is taken from, if :func:`of_run` has changed it."""
    if before.data.source != after.data.source and isinstance(after.data.source, CocoSource):
        print(f"note: the data is that in {printable(after.data.source.root)}, as at training", file=sys.stderr)


def check_data(
    detector: Detector, dataset: DetectionDataset, data: DataConfig, split: str, *, named: bool, other: bool
) -> None:
    """Compare the digest of ``dataset``, the split ``split`` of ``data``, with what the weights know about theirs.

    Other data is an error, unless the user has ``named`` its folder or allows any ``other``; then it is said. That the
    weights know nothing is said where the folder is not named. Raises ``DataError``.
    """
    from cornernet.data import DataError
    from cornernet.data.origin import is_same_data

    same = is_same_data(dataset, data, split, detector.data_digests)
    source = data.source
    what = f"{dataset.name} {dataset.split}" + (f" in {source.root}" if isinstance(source, CocoSource) else "")
    if same is None and not named:
        print(
            f"note: the weights hold no digest of their data: whether {printable(what)} is it cannot be checked",
            file=sys.stderr,
        )
    elif same is False and not (named or other):
        raise DataError(
            f"{printable(what)} is not the data that the weights are of: its images, boxes or classes differ. Restore "
            "the data, name the folder to use with --data FOLDER, or use what is there with --other-data"
        )
    elif same is False:
        print(f"note: {printable(what)} is other data than the weights are of", file=sys.stderr)


def load(weights: str, start: str | None) -> Detector:
    """Return the detector in ``weights``; recipe ``start`` completes the configuration of files that hold none.

    Prints which checkpoint was taken if the run is not finished.
    """
    from cornernet.weights.checkpoints import load_detector

    detector = load_detector(weights, start=recipe(start) if start else None)
    if detector.unfinished is not None:
        done, total = detector.unfinished
        print(
            f"note: the run in {printable(weights)} is not finished: using its newest checkpoint, of iteration {done} "
            f"of {total}",
            file=sys.stderr,
        )
    return detector


def prepared(detector: Detector, config: Config) -> Detector:
    """Return the detector on the device of ``config``, rebuilt if the --model flags changed how it computes.

    Raises ``ConfigError`` where the weights do not fit the model that the flags describe.
    """
    import torch

    from cornernet.model.detector import build_detector
    from cornernet.training.devices import resolve_device

    if detector.config.model != config.model:
        rebuilt = build_detector(config)
        try:
            rebuilt.load_state_dict(detector.state_dict())
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"the weights do not fit the model that the --model flags describe: {reason}") from error
        rebuilt.classes, rebuilt.category_ids = detector.classes, detector.category_ids
        detector = rebuilt.eval()
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    return detector.to(resolve_device(config.training.device))
