"""The corner head's modules (paper sections 3.1 to 3.4, figures 4 and 7), with the authors' layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cornernet import kernels
from cornernet.config import CornerHeadConfig, TestingConfig
from cornernet.kernels.api import Corner
from cornernet.model.backbones.base import Backbone
from cornernet.model.backbones.hourglass import ConvBlock, ConvNorm, conv1x1_bn
from cornernet.model.heads.base import Head
from cornernet.model.heads.candidates import Candidates, CornerPoints
from cornernet.model.heads.corner.decode import corners, decode, decode_padded
from cornernet.model.heads.corner.losses import corner_losses
from cornernet.model.heads.corner.outputs import Corners, Predictions
from cornernet.model.heads.corner.substitute import substitute
from cornernet.model.heads.corner.targets import CornerTargets, TargetBuilder

__all__ = ["CornerBranch", "CornerHead", "CornerPooling", "Corners", "Predictions"]


class CornerPooling(nn.Module):
    """The corner pooling module (figure 7): two branches, pooled and added, beside a 1x1 shortcut.

    Maps [B, C, h, w] to [B, C, h, w]. With pooling 'none' the branches are added without pooling; the parameters are
    the same (table 1).
    """

    def __init__(self, channels: int, config: CornerHeadConfig, corner: Corner) -> None:
        super().__init__()
        self.corner: Corner = corner
        self.pooling = config.pooling
        self.impl = config.pooling_impl
        self.vertical = ConvBlock(channels, config.pool_channels)
        self.horizontal = ConvBlock(channels, config.pool_channels)
        self.pooled = ConvNorm(
            nn.Conv2d(config.pool_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        self.shortcut = conv1x1_bn(channels, channels)
        self.output = ConvBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map from which this corner's heatmap, embedding and offset are predicted."""
        vertical, horizontal = self.vertical(x), self.horizontal(x)
        pooled = vertical + horizontal if self.pooling == "none" else self.pool(vertical, horizontal)
        y: Tensor = self.output(self.pooled(pooled, self.shortcut(x), relu=True))
        return y

    def pool(self, vertical: Tensor, horizontal: Tensor) -> Tensor:
        """Return the sum of the two pooled branches, [B, pool_channels, h, w]."""
        return kernels.corner_pool(vertical, horizontal, self.corner, self.impl)


def prediction_layers(channels: int, out_channels: int) -> nn.Sequential:
    """Return a 3x3 convolution, a ReLU and a 1x1 convolution, with biases and without batch norm."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, out_channels, 1),
    )


class CornerBranch(nn.Module):
    """All layers that predict one kind of corner from one stack's finest map."""

    def __init__(self, channels: int, num_classes: int, config: CornerHeadConfig, corner: Corner) -> None:
        super().__init__()
        self.pooling = CornerPooling(channels, config, corner)
        self.heatmap = prediction_layers(channels, num_classes)
        self.embedding = prediction_layers(channels, config.embedding_dim)
        self.offset = prediction_layers(channels, 2)
        bias = self.heatmap[-1].bias
        assert isinstance(bias, Tensor)
        nn.init.constant_(bias, config.heatmap_bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return heatmap logits [B, K, h, w], embeddings [B, D, h, w] and offsets [B, 2, h, w]."""
        x = self.pooling(x)
        return self.heatmap(x), self.embedding(x), self.offset(x)


class CornerHead(Head):
    """Corner heatmaps, embeddings and offsets from every stack, and the boxes that they give."""

    config: CornerHeadConfig
    finds_corners = True

    def __init__(self, config: CornerHeadConfig, num_classes: int, backbone: Backbone) -> None:
        super().__init__(config, num_classes, backbone)
        self.targets = TargetBuilder(config=config, num_classes=num_classes)
        self.feeds_back = config.feedback
        self.leaves_unused = backbone.maps_have_layers and len(backbone.level_channels) > 1

        def branch(corner: Corner) -> CornerBranch:
            return CornerBranch(backbone.channels, num_classes, config, corner)

        self.stacks = nn.ModuleList(
            # empty for a stack without predictions, so that the names of the other stacks' weights stay
            nn.ModuleDict(
                {"top_left": branch("top_left"), "bottom_right": branch("bottom_right")} if self.predicts(index) else {}
            )
            for index in range(self.num_stacks)
        )
        self.feedbacks = nn.ModuleList()
        if config.feedback:
            numbers = 2 * (num_classes + config.embedding_dim + 2)
            self.feedbacks.extend(conv1x1_bn(numbers, backbone.channels) for _ in range(self.num_stacks - 1))

    def predicts(self, index: int) -> bool:
        """Tell whether stack ``index`` has predictions: only the last, unless they are trained or fed back."""
        config = self.config
        return config.intermediate_supervision or config.feedback or index == self.num_stacks - 1

    def feed_back(self, index: int, predictions: Predictions) -> Tensor:
        """Return a 1x1 convolution of all predictions of stack ``index``, [B, C, h, w]."""
        raw = torch.cat([part for corners in predictions for part in corners], dim=1)
        fed: Tensor = self.feedbacks[index](raw)
        return fed

    def forward(self, index: int, maps: list[Tensor]) -> Predictions:
        """Return the raw predictions from the maps of stack ``index``; only the finest [B, C, h, w] is read."""
        stack = self.stacks[index]
        assert isinstance(stack, nn.ModuleDict)
        top_left, bottom_right = stack["top_left"](maps[0]), stack["bottom_right"](maps[0])
        return Predictions(*(Corners(a, b) for a, b in zip(top_left, bottom_right, strict=True)))

    @contextmanager
    def pooling_by(self, impl: str) -> Iterator[None]:
        """Pool corners by the implementation ``impl`` of ``kernels`` in this context."""
        parts = [part for part in self.modules() if isinstance(part, CornerPooling)]
        before = [part.impl for part in parts]
        try:
            for part in parts:
                part.impl = impl
            yield
        finally:
            for part, own in zip(parts, before, strict=True):
                part.impl = own

    def loss(
        self, outputs: list[Predictions], targets: CornerTargets, counts: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return ``total`` and the unweighted ``heatmap``, ``pull``, ``push`` and ``offset``; see :class:`Head`.

        All are means over the supervised stacks.
        """
        config = self.config
        counts = targets.counts() if counts is None else counts
        supervised = outputs if config.intermediate_supervision else outputs[-1:]
        parts = [corner_losses(output, targets, config, counts) for output in supervised]
        means = {
            "heatmap": sum(p.heatmap.top_left + p.heatmap.bottom_right for p in parts) / len(parts),
            "pull": sum(p.pull for p in parts) / len(parts),
            "push": sum(p.push for p in parts) / len(parts),
            "offset": sum(p.offset.top_left + p.offset.bottom_right for p in parts) / len(parts),
        }
        total = (
            means["heatmap"]
            + config.pull_weight * means["pull"]
            + config.push_weight * means["push"]
            + config.offset_weight * means["offset"]
        )
        return {"total": total, **means}  # type: ignore[dict-item]

    def decode(self, predictions: Predictions, testing: TestingConfig) -> list[Candidates]:
        """Return the candidates of each image; see :func:`.decode.decode`."""
        return decode(predictions, testing)

    def decode_padded(self, predictions: Predictions, testing: TestingConfig) -> Candidates:
        """Return the candidates of a batch in tensors [B, N, ...]; see :func:`.decode.decode_padded`."""
        return decode_padded(predictions, testing)

    def corners(self, predictions: Predictions, testing: TestingConfig) -> list[Corners[CornerPoints]]:
        """Return the corners of each image before they are paired; see :func:`.decode.corners`."""
        return corners(predictions, testing)

    def corner_scores(self, predictions: Predictions) -> Corners[Tensor]:
        """Return the scores of all locations, float32 [B, K, h, w]; NaN is no score."""
        return Corners(*(heatmap.float().sigmoid().nan_to_num(nan=0.0) for heatmap in predictions.heatmaps))

    def substitute(
        self, predictions: Predictions, boxes: Sequence[Tensor], labels: Sequence[Tensor], testing: TestingConfig
    ) -> Predictions:
        """Return the predictions with outputs replaced by the truth; see :func:`.substitute.substitute`."""
        return substitute(predictions, boxes, labels, testing)
