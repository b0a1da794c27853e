"""CornerNet: a reference detector with interchangeable parts, from photograph to boxes."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cornernet.config import Config, ConfigError
    from cornernet.config.recipes import RECIPES, recipe
    from cornernet.inference.detect import detect
    from cornernet.inference.detections import Detections
    from cornernet.model.detector import Detector, build_detector
    from cornernet.model.fast import optimised
    from cornernet.model.heads import Candidates
    from cornernet.model.heads.corner import Corners, Predictions
    from cornernet.weights.checkpoints import load_detector, save_detector

__all__ = [
    "RECIPES",
    "Candidates",
    "Config",
    "ConfigError",
    "Corners",
    "Detections",
    "Detector",
    "Predictions",
    "build_detector",
    "detect",
    "load_detector",
    "optimised",
    "recipe",
    "save_detector",
]
__version__ = "0.1.0"

_WHERE = {
    "RECIPES": "config.recipes",
    "Candidates": "model.heads",
    "Config": "config",
    "ConfigError": "config",
    "Corners": "model.heads.corner",
    "Detections": "inference.detections",
    "Detector": "model.detector",
    "Predictions": "model.heads.corner",
    "build_detector": "model.detector",
    "detect": "inference.detect",
    "load_detector": "weights.checkpoints",
    "optimised": "model.fast",
    "recipe": "config.recipes",
    "save_detector": "weights.checkpoints",
}
"""The module of each public name. They are imported when they are first used: cornernet.kernels needs none of them."""


if not TYPE_CHECKING:  # for which every name would exist

    def __getattr__(name: str) -> Any:
        if name in _WHERE:
            value = globals()[name] = getattr(importlib.import_module(f"cornernet.{_WHERE[name]}"), name)
            return value
        if importlib.util.find_spec(f"cornernet.{name}") is not None:
            return importlib.import_module(f"cornernet.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
