"""A residual network with a feature pyramid, the alternative to the hourglass in the paper's table 4.

He et al., "Deep Residual Learning for Image Recognition", 2016; Lin et al., "Feature Pyramid Networks for Object
Detection", 2017. It is trained from scratch, as in the paper. The stride of a bottleneck is in its 3x3 convolution.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from cornernet.config import ResNetFPNConfig
from cornernet.model.backbones.base import Backbone
from cornernet.model.backbones.hourglass import ConvBlock, ResidualBlock, conv1x1_bn

__all__ = ["Bottleneck", "FeaturePyramid", "ResNetFPN"]


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut: [B, in, H, W] to [B, out, H / stride, W / stride]."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        inner = out_channels // 4
        self.reduce = ConvBlock(in_channels, inner, kernel=1)
        self.conv = ConvBlock(inner, inner, stride=stride)
        self.expand = conv1x1_bn(inner, out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = conv1x1_bn(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated sum of the two paths."""
        y: Tensor = self.expand(self.conv(self.reduce(x)), self.shortcut(x), relu=True)
        return y


class FeaturePyramid(nn.Module):
    """The top-down path, from coarse to fine: a 1x1 convolution of each stage's map, plus the upsampled coarser sum.

    Each of the ``outputs`` finest maps then has a 3x3 convolution. As in the paper on feature pyramids, there is no
    batch norm and no activation.
    """

    def __init__(self, channels: tuple[int, ...], width: int, outputs: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(each, width, 1) for each in channels)
        self.outputs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(outputs))

    def forward(self, stages: list[Tensor]) -> list[Tensor]:
        """Return the maps [B, width, h, w] from fine to coarse, each with the height and width of its stage."""
        sums = [lateral(stage) for lateral, stage in zip(self.laterals, stages, strict=True)]
        for level in range(len(sums) - 2, -1, -1):
            sums[level] = sums[level] + F.interpolate(sums[level + 1], scale_factor=2.0, mode="nearest")
        return [output(each) for output, each in zip(self.outputs, sums, strict=False)]


class ResNetFPN(Backbone):
    """A stem, residual stages and a pyramid: a backbone of one stack."""

    maps_have_layers = True

    def __init__(self, config: ResNetFPNConfig) -> None:
        super().__init__(config)
        self.channels = config.fpn_channels
        self.stem = nn.Sequential(ConvBlock(3, config.stem_channels, kernel=7, stride=2), nn.MaxPool2d(3, 2, 1))
        block = Bottleneck if config.block == "bottleneck" else ResidualBlock
        self.stages = nn.ModuleList()
        before = config.stem_channels
        for index, (width, count) in enumerate(zip(config.channels, config.blocks, strict=True)):
            # the stem's output has stride 4, which the first stage keeps
            first = block(before, width, 1 if index == 0 else 2)
            self.stages.append(nn.Sequential(first, *(block(width, width) for _ in range(count - 1))))
            before = width
        outputs = 1 if config.outputs == "finest" else len(config.channels)
        self.level_channels = (config.fpn_channels,) * outputs
        self.pyramid = FeaturePyramid(config.channels, config.fpn_channels, outputs)
        for stage in (self.stem, self.stages):
            _initialise(stage)

    def stack(self, index: int, x: Tensor) -> list[Tensor]:
        """Return the maps from fine (stride 4) to coarse. Raises ``IndexError`` for any stack but 0."""
        if index != 0:
            raise IndexError(f"there is no stack {index}: a residual network has one")
        stages = []
        for stage in self.stages:
            x = stage(x)
            stages.append(x)
        maps: list[Tensor] = self.pyramid(stages)
        return maps


def _initialise(module: nn.Module) -> None:
    """Initialise convolutions that ReLUs follow (He et al., "Delving Deep into Rectifiers", 2015)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
