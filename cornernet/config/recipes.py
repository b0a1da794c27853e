"""Recipes: named configurations. Each is a function that returns a full ``Config``, to be edited by path.

=====================  ===================================================================  ====================
recipe                 network                                                              meant for
=====================  ===================================================================  ====================
hourglass_104          two hourglass stacks of five reductions, 201 M parameters (paper)    COCO, GPUs
paper                  the same, tested like the authors', with their test path's defects   their weights
hourglass_52           one stack                                                            COCO, one GPU
fpn_50, fpn_101        ResNet with a feature pyramid (table 4)                              COCO, GPUs
small                  one stack of three reductions, 0.5 M parameters                      photographs on a CPU
fpn_small              a small residual network with a feature pyramid                      photographs on a CPU
tiny                   one stack of one reduction, 0.09 M parameters                        ``shapes`` on a CPU
*_anchors              the same backbone with an anchor head (table 4)                      as without anchors
=====================  ===================================================================  ====================
"""

from __future__ import annotations

from collections.abc import Callable

from cornernet.config import (
    AnchorHeadConfig,
    AugmentationConfig,
    Config,
    ConfigError,
    CornerHeadConfig,
    DataConfig,
    HourglassConfig,
    ModelConfig,
    ResNetFPNConfig,
    ShapesSource,
    TrainingConfig,
)
from cornernet.config.checks import did_you_mean

__all__ = [
    "RECIPES",
    "fpn_50",
    "fpn_101",
    "fpn_small",
    "hourglass_52",
    "hourglass_104",
    "hourglass_104_anchors",
    "paper",
    "recipe",
    "small",
    "small_anchors",
    "tiny",
    "tiny_anchors",
]


def hourglass_104() -> Config:
    """Return the paper's detector and training (section 4): 511x511, Adam 2.5e-4, batch 49, 500k iterations."""
    return Config()


def paper() -> Config:
    """Return hourglass_104, tested as the authors tested it, with the two defects of their test path.

    Use it to evaluate the authors' weights and to compare with the paper's tables.
    """
    return hourglass_104().with_("testing.authors_compatible", True)


def hourglass_52() -> Config:
    """Return the paper's detector with one hourglass module."""
    return Config(model=ModelConfig(backbone=HourglassConfig(stacks=1)))


def fpn_101() -> Config:
    """Return ResNet-101 with a feature pyramid, corners on its finest map, and the paper's training."""
    return Config(model=ModelConfig(backbone=ResNetFPNConfig(blocks=(3, 4, 23, 3))))


def fpn_50() -> Config:
    """Return :func:`fpn_101` with ResNet-50."""
    return Config(model=ModelConfig(backbone=ResNetFPNConfig()))


def small() -> Config:
    """Return a detector of 0.5 M parameters for photographs, at 255x191 pixels: trains in ten minutes on two cores."""
    return Config(
        model=ModelConfig(
            backbone=HourglassConfig(stacks=1, stem_channels=32, channels=(32, 32, 48, 64), blocks=(1, 1, 1, 1)),
            head=CornerHeadConfig(pool_channels=32),
            num_classes=3,
        ),
        data=DataConfig(
            source=ShapesSource(image_size=(191, 255), object_size=(0.10, 0.70), max_objects=6),
            input_size=(191, 255),
            fit=(192, 256),
            augmentation=AugmentationConfig(
                crop_scales=(0.6, 0.7, 0.8, 0.9, 1.0, 1.1), crop_border=64, colour_jitter=0.2, lighting=0.05
            ),
        ),
        training=TrainingConfig(
            iterations=2400,
            batch_size=8,
            learning_rate=2e-3,
            schedule="cosine",
            warmup=30,
            clip_norm=20.0,
            checkpoint_every=100,
        ),
    )


def fpn_small() -> Config:
    """Return :func:`small` with a residual network and a feature pyramid, of about the same number of parameters."""
    backbone = ResNetFPNConfig(
        block="basic", stem_channels=32, channels=(32, 48, 64, 96), blocks=(1, 1, 1, 1), fpn_channels=32
    )
    return small().with_("model.backbone", backbone)


def tiny() -> Config:
    """Return a detector of 88,000 parameters that learns ``shapes`` in about two minutes on one CPU thread."""
    return Config(
        model=ModelConfig(
            backbone=HourglassConfig(stacks=1, stem_channels=16, channels=(16, 32), blocks=(1, 1)),
            head=CornerHeadConfig(pool_channels=16),
            num_classes=3,
        ),
        data=DataConfig(
            input_size=(95, 95),
            augmentation=AugmentationConfig(random_crop=False, colour_jitter=0.2, lighting=0.0),
        ),
        training=TrainingConfig(
            iterations=800,
            batch_size=8,
            learning_rate=2e-3,
            schedule="cosine",
            warmup=30,
            clip_norm=20.0,
            checkpoint_every=200,
        ),
    )


def hourglass_104_anchors() -> Config:
    """Return the paper's backbone and training with an anchor head on RetinaNet's levels, strides 8 to 128."""
    return _with_anchors(hourglass_104(), AnchorHeadConfig(finest_stride=8))


def small_anchors() -> Config:
    """Return :func:`small` with an anchor head on strides 4 to 32: anchors of 16 to 203 pixels a side."""
    return _with_anchors(small(), AnchorHeadConfig())


def tiny_anchors() -> Config:
    """Return :func:`tiny` with an anchor head on strides 4 and 8: 83,000 parameters, anchors of 16 to 51 pixels."""
    return _with_anchors(tiny(), AnchorHeadConfig())


def _with_anchors(config: Config, head: AnchorHeadConfig) -> Config:
    """Return a configuration with its head replaced by an anchor head; nothing else changes.

    Tried with the recipe ``tiny_anchors`` and seed 0. Learning rate: 500 iterations gave AP 25.7 at 1e-3, 30.4 at 2e-3
    (the rate of the corner head) and 24.8 at 4e-3, with hard suppression. Suppression: gaussian soft-NMS, as for
    corners, beat RetinaNet's hard suppression at an IoU of 0.5 by 0.1 to 0.9 points of AP. Testing the mirror image
    too added 0.8 to 1.0. The prior is RetinaNet's; no other was tried.
    """
    return config.with_("model.head", head)


RECIPES: dict[str, Callable[[], Config]] = {
    "hourglass_104": hourglass_104,
    "paper": paper,
    "hourglass_52": hourglass_52,
    "fpn_101": fpn_101,
    "fpn_50": fpn_50,
    "small": small,
    "fpn_small": fpn_small,
    "tiny": tiny,
    "hourglass_104_anchors": hourglass_104_anchors,
    "small_anchors": small_anchors,
    "tiny_anchors": tiny_anchors,
}


def recipe(name: str) -> Config:
    """Return the configuration of a recipe. Raises ``ConfigError`` with similar names for an unknown one."""
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}{did_you_mean(name, RECIPES)}")
    return RECIPES[name]()
