"""The anchor head's modules: RetinaNet's subnets on the maps of each hourglass's way up (paper table 4)."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from cornernet.config import AnchorHeadConfig, ConfigError, TestingConfig
from cornernet.model.backbones.hourglass import ConvBlock
from cornernet.model.heads.anchor.anchors import FINEST_STRIDE, anchor_shapes
from cornernet.model.heads.anchor.decode import decode
from cornernet.model.heads.anchor.losses import anchor_losses
from cornernet.model.heads.anchor.outputs import AnchorPredictions
from cornernet.model.heads.anchor.targets import AnchorTargets, TargetBuilder
from cornernet.model.heads.candidates import Candidates

__all__ = ["AnchorBranch", "AnchorHead", "AnchorPredictions"]

# Standard deviation of the weights of the last convolutions (RetinaNet, section 4.1).
OUTPUT_DEVIATION = 0.01


def subnet(channels: int, depth: int, out_channels: int, bias: float) -> nn.Sequential:
    """Return ``depth`` 3x3 convolutions with ReLU, and a last one to ``out_channels`` whose bias starts at ``bias``.

    No batch norm, as in RetinaNet: its statistics would mix the levels. RetinaNet draws the weights of all layers with
    a standard deviation of 0.01, under which subnets of few channels start at next to nothing; here the inner ones are
    drawn by their width (He et al. 2015).
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
    """Everything that predicts from one stack's maps.

    Each level has a 1x1 convolution with batch norm of its own, since levels differ in width; the two subnets after it
    are shared by all levels.
    """

    def __init__(self, level_channels: tuple[int, ...], width: int, num_classes: int, config: AnchorHeadConfig) -> None:
        super().__init__()
        anchors = len(anchor_shapes(FINEST_STRIDE, config))
        prior = -math.log((1 - config.prior) / config.prior)
        self.inputs = nn.ModuleList(ConvBlock(channels, width, kernel=1) for channels in level_channels)
        self.classes = subnet(width, config.depth, anchors * num_classes, bias=prior)
        self.boxes = subnet(width, config.depth, anchors * 4, bias=0.0)

    def forward(self, maps: list[Tensor]) -> AnchorPredictions:
        """Return the predictions from the maps of the levels, [B, C, h, w] each, from fine to coarse."""
        levels = [layer(level) for layer, level in zip(self.inputs, maps, strict=True)]
        return AnchorPredictions(tuple(map(self.classes, levels)), tuple(map(self.boxes, levels)))


class AnchorHead(nn.Module):
    """Classes and boxes of anchors at several resolutions of every stack (see ``cornernet.model.heads``)."""

    def __init__(self, config: AnchorHeadConfig, num_classes: int, backbone: Any) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        strides = [FINEST_STRIDE << level for level in range(len(backbone.level_channels))]
        self.first_level = sum(stride < config.finest_stride for stride in strides)
        self.strides = tuple(strides[self.first_level :])
        if not self.strides:
            raise ConfigError(
                f"model.head.finest_stride is {config.finest_stride}, and this backbone's coarsest map has a stride of "
                f"{strides[-1]}: use that or less"
            )
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

    @property
    def leaves_unused(self) -> bool:
        """Whether the last stack has layers that nothing is predicted from: those of its finest map alone."""
        return self.first_level > 0

    def forward(self, index: int, maps: list[Tensor]) -> AnchorPredictions:
        """Return the raw outputs of stack ``index`` from its maps, from fine (stride 4) to coarse."""
        predictions: AnchorPredictions = self.stacks[index](maps[self.first_level :])
        return predictions

    def loss(
        self, outputs: list[AnchorPredictions], targets: AnchorTargets, counts: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the loss averaged over stacks: ``total``, and ``classification`` and ``box`` unweighted.

        ``counts`` are those of the whole batch that ``targets`` are a part of (``targets.counts()`` summed over the
        parts), so that the parts' losses add up to the loss of the batch; None takes the targets' own.
        """
        counts = targets.counts() if counts is None else counts
        parts = [anchor_losses(output, targets, self.config, self.num_classes, counts) for output in outputs]
        means = {
            "classification": sum(part.classification for part in parts) / len(parts),
            "box": sum(part.box for part in parts) / len(parts),
        }
        return {"total": means["classification"] + self.config.box_weight * means["box"], **means}  # type: ignore[dict-item]

    def decode(self, predictions: AnchorPredictions, testing: TestingConfig) -> list[Candidates]:
        """Return the candidates of each image from the last stack's predictions."""
        return decode(predictions, self.strides, self.num_classes, self.config, testing)
