"""The hourglass backbone of CornerNet (paper section 3.5, figure 3), with the authors' layers.

Where the original hourglass pools, this one has a strided convolution: the first residual block on the way down has
stride 2. Every residual block ends with an addition and a ReLU. Its shortcut has a convolution only where the stride is
not 1 or the width changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from cornernet.config import HourglassConfig
from cornernet.kernels.batch_norm import conv_norm
from cornernet.model.backbones.base import Backbone

__all__ = ["ConvBlock", "ConvNorm", "Hourglass", "HourglassModule", "ResidualBlock"]


class ConvBlock(nn.Module):
    """Convolution, batch norm, ReLU: [B, in, H, W] to [B, out, H / stride, W / stride]."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated map."""
        return conv_norm(x, self.conv, self.bn, relu=True)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: [B, in, H, W] to [B, out, H / stride, W / stride]."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = conv1x1_bn(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated sum of the two paths."""
        y = conv_norm(x, self.conv1, self.bn1, relu=True)
        return conv_norm(y, self.conv2, self.bn2, self.shortcut(x), relu=True)


class NarrowStridedConv2d(nn.Conv2d):
    """A strided 1x1 convolution of fewer than 16 channels that subsamples its input first: the same sums.

    For channels_last maps, oneDNN's gradient of such a convolution's weight writes past its workspace (its issue 6035,
    seen in torch 2.13 and open in November 2026). The heap is corrupted, and other numbers are silently wrong. It does
    not happen with stride 1, or if the channels fill one of oneDNN's blocks.
    """

    BLOCK = 16  # float32 channels in a block of oneDNN with AVX-512; 8 with AVX2

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution [B, out, ceil(H / stride), ceil(W / stride)] of [B, in, H, W]."""
        down, right = self.stride
        return F.conv2d(x[:, :, ::down, ::right], self.weight, self.bias)


class ConvNorm(nn.Sequential):
    """A convolution and batch norm, to whose result another map of the same shape can be added."""

    def forward(self, x: Tensor, add: Tensor | None = None, relu: bool = False) -> Tensor:
        """Return the normalised convolution plus ``add``, with ``relu`` through a ReLU."""
        convolution, norm = self
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        return conv_norm(x, convolution, norm, add, relu=relu)


def conv1x1_bn(in_channels: int, out_channels: int, stride: int = 1) -> ConvNorm:
    """Return a 1x1 convolution with batch norm and no activation."""
    narrow = stride != 1 and in_channels < NarrowStridedConv2d.BLOCK
    convolution = NarrowStridedConv2d if narrow else nn.Conv2d
    return ConvNorm(
        convolution(in_channels, out_channels, 1, stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def residual_chain(in_channels: int, out_channels: int, count: int, stride: int = 1) -> nn.Sequential:
    """Return ``count`` residual blocks; the first one changes width and stride."""
    first = ResidualBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(ResidualBlock(out_channels, out_channels) for _ in range(count - 1)))


class HourglassModule(nn.Module):
    """One level of an hourglass: a skip at full size, beside a path down, through the next level, and up again."""

    def __init__(self, channels: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        here, below = channels[0], channels[1]
        self.skip = residual_chain(here, here, blocks[0])
        self.down = residual_chain(here, below, blocks[0], stride=2)
        self.inner: nn.Module
        if len(channels) > 2:
            self.inner = HourglassModule(channels[1:], blocks[1:])
        else:
            self.inner = residual_chain(below, below, blocks[1])
        # the width changes in the last block on the way up, so most blocks run at the inner width
        chain = [ResidualBlock(below, below) for _ in range(blocks[0] - 1)]
        self.up = nn.Sequential(*chain, ResidualBlock(below, here))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps on the way up, from fine (the size of ``x``) to coarse (the bottom of the hourglass)."""
        skip = self.skip(x)
        inner = self.inner(self.down(x))
        maps: list[Tensor] = inner if isinstance(inner, list) else [inner]
        return [skip + F.interpolate(self.up(maps[0]), scale_factor=2.0, mode="nearest"), *maps]


class Hourglass(Backbone):
    """A stem and stacked hourglasses. Hourglass-104 has two of five reductions."""

    def __init__(self, config: HourglassConfig) -> None:
        super().__init__(config)
        width = config.channels[0]
        self.channels = width
        self.level_channels = tuple(config.channels)
        self.stem = nn.Sequential(
            ConvBlock(3, config.stem_channels, kernel=7, stride=2),
            ResidualBlock(config.stem_channels, width, stride=2),
        )
        stacks, merges = range(config.stacks), range(config.stacks - 1)
        self.hourglasses = nn.ModuleList(HourglassModule(config.channels, config.blocks) for _ in stacks)
        self.outputs = nn.ModuleList(ConvBlock(width, width) for _ in stacks)
        self.merge_inputs = nn.ModuleList(conv1x1_bn(width, width) for _ in merges)
        self.merge_outputs = nn.ModuleList(conv1x1_bn(width, width) for _ in merges)
        self.merge_residuals = nn.ModuleList(ResidualBlock(width, width) for _ in merges)

    def stack(self, index: int, x: Tensor) -> list[Tensor]:
        """Return the maps of stack ``index`` from fine (stride 4) to coarse (the bottom of the hourglass)."""
        maps: list[Tensor] = self.hourglasses[index](x)
        return [self.outputs[index](maps[0]), *maps[1:]]

    def merge(self, index: int, x: Tensor, fine: Tensor) -> Tensor:
        """Return the input of stack ``index + 1`` from the input ``x`` and the finest map of stack ``index``."""
        merged = self.merge_inputs[index](x, self.merge_outputs[index](fine), relu=True)
        result: Tensor = self.merge_residuals[index](merged)
        return result
