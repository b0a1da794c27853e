"""Table 4: whether the backbone or the head makes the detector: two backbones, two heads.

The arms differ only in what their names say; data, augmentation, training and testing are the same. Anchors too are
tested with the mirror image and suppressed by gaussian soft-NMS, which suits them slightly better than RetinaNet's hard
suppression (``cornernet.config.recipes`` says what was tried).

* Anchors are placed on every map of the hourglass's way up, starting at stride 4. RetinaNet's start at stride 8: on
  small pictures its smallest anchor would be larger than many objects. The subnets are as wide as the backbone's finest
  map, which makes the network about as large as the one with corners: 0.96 to 1.10 times its multiply-adds, and 0.94 to
  1.00 of its parameters, over the recipes.
* The residual network with a feature pyramid has the hourglass's widths at every stride, and twice its blocks: 0.96 to
  0.97 of its multiply-adds with corners, and 0.83 to 0.92 of its parameters. Instead of Hourglass-104 it is the paper's
  ResNet-101, which is less than half as large.
"""

from __future__ import annotations

from cornernet.config import AnchorHeadConfig, Config, HourglassConfig, ResNetFPNConfig
from cornernet.config.recipes import fpn_101

from .study import Contrast, Study, Variant

__all__ = ["ANCHORS", "BASE_EDITS", "CORNERS", "STUDY", "anchor_edits"]

PYRAMID = "FPN + Corners"
ANCHORS = "Hourglass + Anchors"
CORNERS = "Hourglass + Corners"

# the memory of a step is a column, and the published evaluations of table 1 did not measure it; trainings are shared
BASE_EDITS = (("testing.measure_step", True),)

anchor_edits = (("model.head", AnchorHeadConfig(finest_stride=4)),)
"""From corners on a backbone to anchors on it: the same in tables 4 and 5."""


def _pyramid(config: Config) -> ResNetFPNConfig:
    hourglass = config.model.backbone
    if not isinstance(hourglass, HourglassConfig):
        raise ValueError("the study table4 is for hourglasses; run it under a profile with one")
    if hourglass == HourglassConfig():
        backbone = fpn_101().model.backbone
        assert isinstance(backbone, ResNetFPNConfig)
        return backbone
    return ResNetFPNConfig(
        block="basic",
        stem_channels=hourglass.stem_channels,
        channels=hourglass.channels,
        blocks=tuple(2 * count for count in hourglass.blocks),
        fpn_channels=hourglass.channels[0],
    )


STUDY = Study(
    name="table4",
    title="Backbone and head",
    question=(
        "Is it the hourglass, or is it the corners? Corners on a residual network with a feature pyramid, anchors on "
        "the hourglass (RetinaNet's, at several resolutions, with every stack supervised), corners on the hourglass. "
        "Anchors have the learning rate of corners, which was the best of three (half, the same and double), and "
        "RetinaNet's prior of 0.01; no other prior was tried."
    ),
    table=4,
    exploratory=True,
    base_edits=BASE_EDITS,
    variants=(
        Variant(
            name=PYRAMID,
            edits=(("model.backbone", _pyramid),),
            paper_row="FPN (w/ ResNet-101) + Corners",
        ),
        Variant(name=ANCHORS, edits=anchor_edits, paper_row="Hourglass + Anchors"),
        Variant(name=CORNERS, paper_row="Hourglass + Corners"),
    ),
    contrasts=(Contrast(variant=CORNERS, base=PYRAMID), Contrast(variant=CORNERS, base=ANCHORS)),
    metrics=("AP", "AP50", "AP75", "APs", "APm", "APl"),
    latency=True,
    costs=True,
)
