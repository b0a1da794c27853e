"""What a command's configuration starts from, and what commands that load weights share.

Every field of the configuration is a flag, and its default comes from a recipe, a file or weights. The flags that
name these are therefore read first, with the declarations of the full parser, which then reads all flags.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from cornernet.config import CocoSource, Config, ConfigError
from cornernet.config.recipes import RECIPES, recipe
from cornernet.model.detector import Detector, build_detector
from cornernet.training.devices import resolve_device
from cornernet.weights.checkpoints import load_detector

__all__ = [
    "RECIPE_NAMES",
    "ConfigFlags",
    "StartFlags",
    "default_recipe",
    "load",
    "on_data",
    "prepared",
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


def load(weights: str, start: str | None) -> Detector:
    """Return the detector in ``weights``; recipe ``start`` completes the configuration of files that hold none."""
    return load_detector(weights, start=recipe(start) if start else None)


def prepared(detector: Detector, config: Config) -> Detector:
    """Return the detector on the device of ``config``, rebuilt if the --model flags changed how it computes.

    Raises ``ConfigError`` where the weights do not fit the model that the flags describe.
    """
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
