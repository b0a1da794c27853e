"""How deep and how wide the hourglass must be, and what each size costs.

The base is the profile's hourglass with one stack. Where it has a single reduction it gets a second one, so that one
can be removed.
"""

from __future__ import annotations

import dataclasses

from cornernet.config import Config, CornerHeadConfig, HourglassConfig

from .study import Contrast, Study, Variant

__all__ = ["STUDY"]

ONE = "one stack"
TWO = "two stacks"
SHALLOWER = "shallower: one reduction fewer"
NARROWER = "narrower: half the width"


def _two_reductions(config: Config) -> HourglassConfig:
    backbone = _hourglass(config)
    if len(backbone.channels) > 2:
        return backbone
    return dataclasses.replace(
        backbone,
        channels=(*backbone.channels, backbone.channels[-1]),
        blocks=(*backbone.blocks, backbone.blocks[-1]),
    )


def _shallower(config: Config) -> HourglassConfig:
    backbone = _hourglass(config)
    return dataclasses.replace(backbone, channels=backbone.channels[:-1], blocks=backbone.blocks[:-1])


def _narrower(config: Config) -> HourglassConfig:
    backbone = _hourglass(config)
    channels = tuple(width // 2 for width in backbone.channels)
    return dataclasses.replace(backbone, stem_channels=backbone.stem_channels // 2, channels=channels)


def _half_pooling(config: Config) -> int:
    if not isinstance(config.model.head, CornerHeadConfig):
        raise ValueError("the study backbone_size is for corner heads; run it under a profile with one")
    return config.model.head.pool_channels // 2


def _hourglass(config: Config) -> HourglassConfig:
    if not isinstance(config.model.backbone, HourglassConfig):
        raise ValueError("the study backbone_size is for hourglasses; run it under a profile with one")
    return config.model.backbone


STUDY = Study(
    name="backbone_size",
    title="Depth and width of the hourglass",
    question="What does a larger backbone gain, and what does it cost? One stack against two, and smaller ones.",
    table=None,
    exploratory=True,
    base_edits=(
        ("model.backbone", _two_reductions),
        ("model.backbone.stacks", 1),
        ("testing.measure_step", True),
    ),
    variants=(
        Variant(name=ONE),
        Variant(name=TWO, edits=(("model.backbone.stacks", 2),)),
        Variant(name=SHALLOWER, edits=(("model.backbone", _shallower),)),
        Variant(name=NARROWER, edits=(("model.backbone", _narrower), ("model.head.pool_channels", _half_pooling))),
    ),
    contrasts=tuple(Contrast(variant=name, base=ONE) for name in (TWO, SHALLOWER, NARROWER)),
    metrics=("AP", "AP50", "AP75", "APs", "APm", "APl"),
    latency=True,
    costs=True,
)
