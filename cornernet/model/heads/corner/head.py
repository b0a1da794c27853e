"""The corner head's modules (paper sections 3.1 to 3.4, figures 4 and 7), with the authors' layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cornernet import kernels
from cornernet.config import CornerHeadConfig, TestingConfig
from cornernet.kernels.api import Corner
from cornernet.model.backbones.hourglass import ConvBlock, conv1x1_bn
from cornernet.model.heads.candidates import Candidates, CornerPoints
from cornernet.model.heads.corner.decode import corners, decode, decode_padded
from cornernet.model.heads.corner.losses import corner_losses
from cornernet.model.heads.corner.outputs import Corners, Predictions
from cornernet.model.heads.corner.substitute import substitute
from cornernet.model.heads.corner.targets import CornerTargets, TargetBuilder

__all__ = ["CornerBranch", "CornerHead", "CornerPooling", "Corners", "Predictions"]

# The bias that makes a fresh heatmap's sigmoid 0.1, so that the many negatives do not swamp the first steps.
HEATMAP_BIAS = -2.19


class CornerPooling(nn.Module):
    """The corner pooling module (figure 7): two branches, pooled and added, beside a 1x1 shortcut.

    Maps [B, C, h, w] to [B, C, h, w]. With pooling 'none' the branches are added as they are: the same parameters
    without the pooling (table 1).
    """

    def __init__(self, channels: int, config: CornerHeadConfig, corner: Corner) -> None:
        super().__init__()
        self.corner: Corner = corner
        self.pooling = config.pooling
        self.impl = config.pooling_impl
        self.vertical = ConvBlock(channels, config.pool_channels)
        self.horizontal = ConvBlock(channels, config.pool_channels)
        self.pooled = nn.Sequential(
            nn.Conv2d(config.pool_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        self.shortcut = conv1x1_bn(channels, channels)
        self.output = ConvBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map from which the heatmap, the embedding and the offset of this corner are predicted."""
        vertical, horizontal = self.vertical(x), self.horizontal(x)
        pooled = vertical + horizontal if self.pooling == "none" else self.pool(vertical, horizontal)
        y: Tensor = self.output(F.relu(self.pooled(pooled) + self.shortcut(x)))
        return y

    def pool(self, vertical: Tensor, horizontal: Tensor) -> Tensor:
        """Return the two branches' maps pooled and added."""
        return kernels.corner_pool(vertical, horizontal, self.corner, self.impl)


def prediction_layers(channels: int, out_channels: int) -> nn.Sequential:
    """Return a 3x3 convolution, ReLU and a 1x1 convolution, both with bias and without batch norm."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, out_channels, 1),
    )


class CornerBranch(nn.Module):
    """Everything that predicts one kind of corner from one stack's finest map."""

    def __init__(self, channels: int, num_classes: int, config: CornerHeadConfig, corner: Corner) -> None:
        super().__init__()
        self.pooling = CornerPooling(channels, config, corner)
        self.heatmap = prediction_layers(channels, num_classes)
        self.embedding = prediction_layers(channels, config.embedding_dim)
        self.offset = prediction_layers(channels, 2)
        bias = self.heatmap[-1].bias
        assert isinstance(bias, Tensor)
        nn.init.constant_(bias, HEATMAP_BIAS)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return heatmap logits [B, K, h, w], embeddings [B, D, h, w] and offsets [B, 2, h, w]."""
        x = self.pooling(x)
        return self.heatmap(x), self.embedding(x), self.offset(x)


class CornerHead(nn.Module):
    """Corner heatmaps, embeddings and offsets from every stack, and what they mean (see ``cornernet.model.heads``)."""

    def __init__(self, config: CornerHeadConfig, num_classes: int, backbone: Any) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.targets = TargetBuilder(config=config, num_classes=num_classes)
        self.num_stacks: int = backbone.num_stacks

        def branch(corner: Corner) -> CornerBranch:
            return CornerBranch(backbone.channels, num_classes, config, corner)

        self.stacks = nn.ModuleList(
            # empty where nothing is predicted, so that a stack's weights keep their names
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
        """Tell whether stack ``index`` has predictions: without supervision or a use for them, the last alone has."""
        config = self.config
        return config.intermediate_supervision or config.feedback or index == self.num_stacks - 1

    @property
    def feeds_back(self) -> bool:
        """Whether what a stack predicts is part of the next stack's input."""
        return self.config.feedback

    def feed_back(self, index: int, predictions: Predictions) -> Tensor:
        """Return what the predictions of stack ``index`` add to the next stack's input, [B, C, h, w]."""
        raw = torch.cat([part for corners in predictions for part in corners], dim=1)
        fed: Tensor = self.feedbacks[index](raw)
        return fed

    def forward(self, index: int, maps: list[Tensor]) -> Predictions:
        """Return the raw outputs of stack ``index`` from its maps, of which the finest [B, C, h, w] is read."""
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
        """Return ``total``, and unweighted ``heatmap``, ``pull``, ``push``, ``offset``: means over supervised stacks.

        ``counts`` are those of the whole batch that ``targets`` are a part of (``targets.counts()`` summed over the
        parts), so that the parts' losses add up to the loss of the batch; None takes the targets' own.
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
        """Return the candidates of each image from the last stack's predictions."""
        return decode(predictions, testing)

    def decode_padded(self, predictions: Predictions, testing: TestingConfig) -> Candidates:
        """Return the candidates of a batch in tensors [B, N, ...], as many for each image: for export."""
        return decode_padded(predictions, testing)

    def corners(self, predictions: Predictions, testing: TestingConfig) -> list[Corners[CornerPoints]]:
        """Return the corners of each image from the last stack's predictions, before they are paired."""
        return corners(predictions, testing)

    def substitute(
        self, predictions: Predictions, boxes: Sequence[Tensor], labels: Sequence[Tensor], testing: TestingConfig
    ) -> Predictions:
        """Return the last stack's predictions with those of ``testing.substitute`` replaced by the truth.

        ``boxes`` [N, 4] of each input in cells of its heatmaps, ``labels`` [N]; see :mod:`.substitute`.
        """
        return substitute(predictions, boxes, labels, testing)
