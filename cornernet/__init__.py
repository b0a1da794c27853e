"""CornerNet: a reference detector whose parts swap, from photograph to boxes."""

from cornernet.weights.checkpoints import load_detector, save_detector
from cornernet.config import Config, ConfigError
from cornernet.inference.detections import Detections
from cornernet.model.detector import Detector, build_detector
from cornernet.model.fast import optimised
from cornernet.model.heads import Candidates
from cornernet.model.heads.corner import Corners, Predictions
from cornernet.inference.detect import detect
from cornernet.config.recipes import RECIPES, recipe

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
