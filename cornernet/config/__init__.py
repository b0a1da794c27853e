"""The configuration: frozen dataclasses in four parts, ``model``, ``data``, ``training`` and ``testing``.

Everything that changes a result is a field here and nowhere else.

* ``model``, ``data``, ``training``, ``testing``: the parts, a module each;
* ``whole``: :class:`Config`, which holds the four, with edits by path, JSON and the fields that keys leave out;
* ``checks``: :class:`ConfigError`, checks of fields, dotted paths, similar names;
* ``recipes``: named configurations;
* ``reference``: writes docs/configuration.md from the fields.
"""

from cornernet.config.checks import ConfigError
from cornernet.config.data import (
    AugmentationConfig,
    CocoSource,
    DataConfig,
    Orientation,
    ShapesSource,
    Size,
    SourceConfig,
)
from cornernet.config.model import (
    AnchorHeadConfig,
    BackboneConfig,
    CornerHeadConfig,
    HeadConfig,
    HeatmapLossName,
    HourglassConfig,
    ModelConfig,
    ResNetFPNConfig,
)
from cornernet.config.testing import TestingConfig
from cornernet.config.training import TrainingConfig
from cornernet.config.whole import LARGEST_FILE, LATER_FIELDS, WITHOUT_EFFECT, Config

__all__ = [
    "LARGEST_FILE",
    "LATER_FIELDS",
    "WITHOUT_EFFECT",
    "AnchorHeadConfig",
    "AugmentationConfig",
    "BackboneConfig",
    "CocoSource",
    "Config",
    "ConfigError",
    "CornerHeadConfig",
    "DataConfig",
    "HeadConfig",
    "HeatmapLossName",
    "HourglassConfig",
    "ModelConfig",
    "Orientation",
    "ResNetFPNConfig",
    "ShapesSource",
    "Size",
    "SourceConfig",
    "TestingConfig",
    "TrainingConfig",
]
