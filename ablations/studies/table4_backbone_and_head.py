"""Table 4: whether the backbone or the head makes the detector: two backbones, two heads.

The arms differ only in what their names say; data, augmentation, training and testing are the same. Anchors too are
tested with the mirror image and suppressed by gaussian soft-NMS, which suits them slightly better than RetinaNet's hard
suppression (``cornernet.config.recipes`` says what was tried).

* Anchors are placed on every map of the hourglass's way up, starting at stride 4. RetinaNet's start at stride 8: on
  small pictures its smallest anchor would be larger than many objects. The subnets are as wide as the backbone's finest
  map, which makes the network about as large as the one with corners: 0.96 to 1.10 times its multiply-adds, and 0.94 to
  1.00 of its parameters, over the recipes.
* The residual network with a feature pyramid has the hourglass's widths at every stride, and twice its blocks: 0.96 to
  0.97 of its multiply-adds with corners, and 0.83 to 0.92 of its parameters. Against two stacks it has five times the
  blocks of one: 1.01 to 1.04 of their multiply-adds, and 0.84 to 0.86 of their parameters, which include the heads of
  both. Instead of Hourglass-104 it is the paper's ResNet-101, which is less than half as large.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from cornernet.config import (
    AnchorHeadConfig,
    Config,
    HeadConfig,
    HourglassConfig,
    ResNetFPNConfig,
    ShapesSource,
)
from cornernet.config.recipes import fpn_101

from ..statistics.claims import Chain, Effect, Sign
from .study import Contrast, Edit, Study, Variant

__all__ = [
    "ANCHORS",
    "ARMS",
    "BASE_EDITS",
    "CHOSEN",
    "CORNERS",
    "PROTOCOL_1",
    "PYRAMID",
    "STUDY",
    "TWO_STACKS",
    "Setting",
    "anchor_edits",
]

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
        blocks=tuple((3 * hourglass.stacks - 1) * count for count in hourglass.blocks),
        fpn_channels=hourglass.channels[0],
    )


PROTOCOL_1 = Study(
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


# -------------------------------------------------------------------------------------------------------- protocol 2
TWO_STACKS: tuple[Edit, ...] = (("model.backbone.stacks", 2),)
"""The paper's number. With one stack there is no intermediate supervision, which the paper gives the anchors too."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is tuned on each arm: the learning rate, as a multiple of the profile's, and the prior.

    The prior is the score of every class before training, in a cell of a heatmap or of an anchor; None keeps the
    head's own, which is the authors' for corners and RetinaNet's for anchors.
    """

    rate: float = 1.0
    prior: float | None = None

    def edits(self) -> tuple[Edit, ...]:
        """Return the edits of an arm's configuration."""
        return ("training.learning_rate", self.learning_rate), ("model.head", self.head)

    def learning_rate(self, config: Config) -> float:
        """Return the learning rate of an arm."""
        return self.rate * config.training.learning_rate

    def head(self, config: Config) -> HeadConfig:
        """Return the head of an arm."""
        head = config.model.head
        if self.prior is None:
            return head
        if isinstance(head, AnchorHeadConfig):
            return dataclasses.replace(head, prior=self.prior)
        return dataclasses.replace(head, heatmap_bias=-math.log((1 - self.prior) / self.prior))


ARMS: dict[str, tuple[Edit, ...]] = {
    PYRAMID: (("model.backbone", _pyramid),),
    ANCHORS: anchor_edits,
    CORNERS: (),
}
"""What makes each arm from corners on the hourglass, before it is tuned."""

CHOSEN: dict[str, dict[str, Setting]] = {
    "shapes": {PYRAMID: Setting(), ANCHORS: Setting(), CORNERS: Setting()},
    "photographs": {PYRAMID: Setting(), ANCHORS: Setting(), CORNERS: Setting()},
}
"""The best setting of each arm in the search of ``table4_search``, on the generated data and on photographs."""


def _tuned(arm: str) -> tuple[Edit, ...]:
    def setting(config: Config) -> Setting:
        return CHOSEN["shapes" if isinstance(config.data.source, ShapesSource) else "photographs"][arm]

    return (
        *ARMS[arm],
        ("training.learning_rate", lambda config: setting(config).learning_rate(config)),
        ("model.head", lambda config: setting(config).head(config)),
    )


def _above(base: str) -> Sign:
    return Sign(name=f"above {base}", statement=f"{CORNERS} above {base}", effect=Effect(variant=CORNERS, base=base))


# The paper's text on its table 4: both the backbone and the head matter, corners on the hourglass against corners on
# the pyramid and against anchors on the hourglass.
STUDY = dataclasses.replace(
    PROTOCOL_1,
    question=(
        "Is it the hourglass, or is it the corners? Corners on a residual network with a feature pyramid, anchors on "
        "the hourglass (RetinaNet's, at several resolutions, with every stack supervised), corners on the hourglass. "
        "Two stacks, as in the paper. Learning rate and prior were searched on each arm with the same number of "
        "trainings, under seeds of their own (docs/protocol.md)."
    ),
    exploratory=False,
    base_edits=TWO_STACKS,
    variants=tuple(dataclasses.replace(variant, edits=_tuned(variant.name)) for variant in PROTOCOL_1.variants),
    claims=(
        Chain(
            name="both matter",
            statement="Corners on the hourglass are above anchors on the hourglass and above corners on the pyramid",
            parts=(_above(ANCHORS), _above(PYRAMID)),
            primary=True,
        ),
    ),
)
