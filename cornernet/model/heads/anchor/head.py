"""The anchor head's modules: RetinaNet's subnets on the maps of each hourglass's upward path (paper table 4)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from cornernet.config import AnchorHeadConfig, ConfigError, TestingConfig
from cornernet.model.backbones.base import Backbone
from cornernet.model.backbones.hourglass import ConvBlock
from cornernet.model.heads.anchor.anchors import FINEST_STRIDE, anchor_shapes
from cornernet.model.heads.anchor.decode import decode
from cornernet.model.heads.anchor.losses import anchor_losses
from cornernet.model.heads.anchor.outputs import AnchorPredictions
from cornernet.model.heads.anchor.targets import AnchorTargets, TargetBuilder
from cornernet.model.heads.base import Head
from cornernet.model.heads.candidates import Candidates

__all__ = ["AnchorBranch", "AnchorHead", "AnchorPredictions"]

# Standard deviation of the weights of the last convolutions (RetinaNet, section 4.1).
OUTPUT_DEVIATION = 0.01


def subnet(channels: int, depth: int, out_channels: int, bias: float) -> nn.Sequential:
    """Return ``depth`` 3x3 convolutions with ReLU, and a last one to ``out_channels`` with the initial bias ``bias``.

    There is no batch norm, as in RetinaNet: its statistics would mix the levels. RetinaNet draws the weights of all
    layers with a standard deviation of 0.01, with which the outputs of narrow subnets start close to zero. Here the
    inner layers are drawn according to their width (He et al. 2015).
    """
    layers: list[nn.Module] = []
    for _ in range(depth):
        conv = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        layers += [conv, nn.ReLU()]
    last = nn.Conv2d(channels, out_channels, 3, padding=1)
    nn.init.normal_(last.weight, std=OUTPUT_DEVIATION)
    nn.init.constant_(last.bias, bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers, last)


class AnchorBranch(nn.Module):
    """All layers that predict from one stack's maps.

    Each level has its own 1x1 convolution with batch norm, because levels differ in width. All levels share the two
    subnets after it.
    """

    def __init__(self, level_channels: tuple[int, ...], width: int, num_classes: int, config: AnchorHeadConfig) -> None:
        super().__init__()
        anchors = len(anchor_shapes(FINEST_STRIDE, config))
        prior = -math.log((1 - config.prior) / config.prior)
        self.inputs = nn.ModuleList(ConvBlock(channels, width, kernel=1) for channels in level_channels)
        self.classes = subnet(width, config.depth, anchors * num_classes, bias=prior)
        self.boxes = subnet(width, config.depth, anchors * 4, bias=0.0)

    def forward(self, maps: list[Tensor]) -> AnchorPredictions:
        """Return the predictions from the levels' maps, [B, C, h, w] each, from fine to coarse."""
        levels = [layer(level) for layer, level in zip(self.inputs, maps, strict=True)]
        return AnchorPredictions(tuple(map(self.classes, levels)), tuple(map(self.boxes, levels)))


class AnchorHead(Head):
    """Classes and boxes of anchors at several resolutions of every stack.

    Raises ``ConfigError`` for a ``finest_stride`` that is above the backbone's coarsest map.
    """

    config: AnchorHeadConfig

    def __init__(self, config: AnchorHeadConfig, num_classes: int, backbone: Backbone) -> None:
        super().__init__(config, num_classes, backbone)
        strides = [FINEST_STRIDE << level for level in range(len(backbone.level_channels))]
        self.first_level = sum(stride < config.finest_stride for stride in strides)
        self.strides = tuple(strides[self.first_level :])
        if not self.strides:
            raise ConfigError(
                f"model.head.finest_stride is {config.finest_stride}, but this backbone's coarsest map has a stride of "
                f"{strides[-1]}: use that or less"
            )
        # nothing reads the layers that only the last stack's finest map needs
        self.leaves_unused = self.first_level > 0
        self.targets = TargetBuilder(config=config, num_classes=num_classes, strides=self.strides)
        self.stacks = nn.ModuleList(
            AnchorBranch(
                tuple(backbone.level_channels[self.first_level :]),
                config.channels or backbone.channels,
                num_classes,
                config,
            )
            for _ in range(backbone.num_stacks)
        )

    def forward(self, index: int, maps: list[Tensor]) -> AnchorPredictions:
        """Return the raw predictions from the maps of stack ``index`` at ``finest_stride`` and coarser."""
        predictions: AnchorPredictions = self.stacks[index](maps[self.first_level :])
        return predictions

    def loss(
        self, outputs: list[AnchorPredictions], targets: AnchorTargets, counts: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return ``total`` and the unweighted ``classification`` and ``box``, means over stacks; see :class:`Head`."""
        counts = targets.counts() if counts is None else counts
        parts = [anchor_losses(output, targets, self.config, self.num_classes, counts) for output in outputs]
        means = {
            "classification": sum(part.classification for part in parts) / len(parts),
            "box": sum(part.box for part in parts) / len(parts),
        }
        return {"total": means["classification"] + self.config.box_weight * means["box"], **means}  # type: ignore[dict-item]

    def decode(self, predictions: AnchorPredictions, testing: TestingConfig) -> list[Candidates]:
        """Return the candidates of each image; see :func:`.decode.decode`."""
        return decode(predictions, self.strides, self.num_classes, self.config, testing)
