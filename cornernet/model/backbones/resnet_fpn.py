"""A residual network with a feature pyramid, the backbone beside the hourglass in the paper's table 4.

He et al., "Deep Residual Learning for Image Recognition", 2016; Lin et al., "Feature Pyramid Networks for Object
Detection", 2017. Trained from scratch, as the paper trains its own. A bottleneck strides in its 3x3 convolution.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from cornernet.config import ResNetFPNConfig
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
        return F.relu(self.expand(self.conv(self.reduce(x))) + self.shortcut(x))


class FeaturePyramid(nn.Module):
    """The way down from coarse to fine: each stage's map through a 1x1 convolution, plus the coarser sum enlarged.

    A 3x3 convolution follows for each of the ``outputs`` finest maps. As in the feature pyramid's paper there is no
    batch norm and no activation.
    """

    def __init__(self, channels: tuple[int, ...], width: int, outputs: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(each, width, 1) for each in channels)
        self.outputs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(outputs))

    def forward(self, stages: list[Tensor]) -> list[Tensor]:
        """Return the maps from fine to coarse, each of the size of its stage."""
        sums = [lateral(stage) for lateral, stage in zip(self.laterals, stages, strict=True)]
        for level in range(len(sums) - 2, -1, -1):
            sums[level] = sums[level] + F.interpolate(sums[level + 1], scale_factor=2.0, mode="nearest")
        return [output(each) for output, each in zip(self.outputs, sums, strict=False)]


class ResNetFPN(nn.Module):
    """Stem, residual stages and pyramid as a backbone of one stack (see ``cornernet.model.backbones``)."""

    def __init__(self, config: ResNetFPNConfig) -> None:
        super().__init__()
        self.num_stacks = 1
        self.total_stride = config.total_stride
        self.channels = config.fpn_channels
        self.stem = nn.Sequential(ConvBlock(3, config.stem_channels, kernel=7, stride=2), nn.MaxPool2d(3, 2, 1))
        block = Bottleneck if config.block == "bottleneck" else ResidualBlock
        self.stages = nn.ModuleList()
        before = config.stem_channels
        for index, (width, count) in enumerate(zip(config.channels, config.blocks, strict=True)):
            # the stem has brought the first stage to stride 4
            first = block(before, width, 1 if index == 0 else 2)
            self.stages.append(nn.Sequential(first, *(block(width, width) for _ in range(count - 1))))
            before = width
        outputs = 1 if config.outputs == "finest" else len(config.channels)
        self.level_channels = (config.fpn_channels,) * outputs
        self.pyramid = FeaturePyramid(config.channels, config.fpn_channels, outputs)
        for stage in (self.stem, self.stages):
            _initialise(stage)

    def stack(self, index: int, x: Tensor) -> list[Tensor]:
        """Return the maps for the stem's output [B, C, H/4, W/4], from fine (stride 4) to coarse."""
        if index != 0:
            raise IndexError(f"there is no stack {index}: a residual network has one")
        stages = []
        for stage in self.stages:
            x = stage(x)
            stages.append(x)
        maps: list[Tensor] = self.pyramid(stages)
        return maps

    def merge(self, index: int, x: Tensor, fine: Tensor) -> Tensor:  # noqa: ARG002 - as every backbone's
        """Raise ``IndexError``: there is no next stack."""
        raise IndexError(f"there is no stack {index + 1}: a residual network has one")


def _initialise(module: nn.Module) -> None:
    """Draw convolutions for ReLUs behind them (He et al., "Delving Deep into Rectifiers", 2015)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
