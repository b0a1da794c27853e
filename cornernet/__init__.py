"""CornerNet: a reference detector whose parts swap, from photograph to boxes."""

from cornernet.checkpoints import load_detector, save_detector
from cornernet.config import Config, ConfigError
from cornernet.detections import Detections
from cornernet.detector import Detector, build_detector
from cornernet.fast import optimised
from cornernet.heads import Candidates
from cornernet.heads.corner import Corners, Predictions
from cornernet.postprocess import detect
from cornernet.recipes import RECIPES, recipe

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
