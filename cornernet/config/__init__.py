"""The configuration: frozen dataclasses, recipes, and the page that documents every field."""

from cornernet.config.whole import (
    AnchorHeadConfig,
    AugmentationConfig,
    BackboneConfig,
    CocoSource,
    Config,
    ConfigError,
    CornerHeadConfig,
    DataConfig,
    HeadConfig,
    HourglassConfig,
    ModelConfig,
    ResNetFPNConfig,
    ShapesSource,
    SourceConfig,
    TestingConfig,
    TrainingConfig,
)

__all__ = [
    "AnchorHeadConfig",
    "AugmentationConfig",
    "BackboneConfig",
    "CocoSource",
    "Config",
    "ConfigError",
    "CornerHeadConfig",
    "DataConfig",
    "HeadConfig",
    "HourglassConfig",
    "ModelConfig",
    "ResNetFPNConfig",
    "ShapesSource",
    "SourceConfig",
    "TestingConfig",
    "TrainingConfig",
]
