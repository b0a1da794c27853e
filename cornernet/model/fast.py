"""A faster detector for inference: the same boxes from the same weights, up to the rounding of a folded batch norm.

:func:`optimised` copies a detector and changes how it computes, not what:

* batch norm is folded into the convolutions, and activations and additions are done in place;
* weights are channels_last, as inputs are;
* on request, ``torch.compile`` (with CUDA graphs on a GPU) and bfloat16.

The test path is fast in other ways for every detector: it runs the image and its mirror image in one batch, computes no
gradients and only the last stack's predictions, and picks the fastest corner pooling. ``evaluate(..., readers=2)``
reads and resizes images ahead, in threads.

Raw float32 outputs differ from the plain detector's by at most :data:`TOLERANCE` of the largest value.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cornernet.config import ConfigError
from cornernet.model.backbones.hourglass import ConvBlock, ConvNorm, ResidualBlock
from cornernet.model.detector import Detector

__all__ = ["TOLERANCE", "optimised"]

TOLERANCE = 1e-4
"""Largest difference of raw float32 outputs from the plain detector's, as a fraction of the largest value."""


class _Activated(nn.Module):
    """``ConvBlock`` with the batch norm folded in and the ReLU in place."""

    def __init__(self, block: ConvBlock) -> None:
        super().__init__()
        self.conv = _folded(block.conv, block.bn)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return F.relu_(y)


class _Residual(nn.Module):
    """``ResidualBlock`` with the batch norms folded in, and addition and ReLU in place."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.conv1, self.conv2 = _folded(block.conv1, block.bn1), _folded(block.conv2, block.bn2)
        self.shortcut = block.shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(F.relu_(self.conv1(x)))
        return F.relu_(y.add_(self.shortcut(x)))


class _Normalised(nn.Module):
    """``ConvNorm`` with the batch norm folded in, and addition and ReLU in place."""

    def __init__(self, block: ConvNorm) -> None:
        super().__init__()
        self.conv = _folded(*block)

    def forward(self, x: Tensor, add: Tensor | None = None, relu: bool = False) -> Tensor:
        y: Tensor = self.conv(x)
        if add is not None:
            y.add_(add)
        return F.relu_(y) if relu else y


def optimised(
    detector: Detector, *, compile: bool = False, precision: Literal["float32", "bfloat16"] = "float32"
) -> Detector:
    """Return a faster copy of ``detector`` on the same device, for inference only: do not train or save it.

    ``compile`` compiles the network at the first call for each input size, which pays off if sizes repeat.
    ``precision='bfloat16'`` is for GPUs and changes scores in the third digit; on other devices it raises
    ``ConfigError``.
    """
    device = next(detector.parameters()).device
    if precision == "bfloat16" and device.type != "cuda":
        raise ConfigError(f"bfloat16 is for GPUs, but this detector is on {device.type}: use float32")
    fast = copy.deepcopy(detector).eval().requires_grad_(False)
    _fold(fast)
    dtype = getattr(torch, precision)
    fast.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compile:
        if device.type == "cuda":
            fast.compile(mode="reduce-overhead")
        else:
            fast.compile()
    return fast


def _folded(conv: nn.Module, bn: nn.Module) -> nn.Conv2d:
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(bn, nn.BatchNorm2d)
    return fuse_conv_bn_eval(conv, bn)


def _fold(module: nn.Module) -> None:
    """Fold every batch norm inside ``module`` into the convolution before it, in place."""
    for name, child in module.named_children():
        _fold(child)
        if type(child) is ConvBlock:
            setattr(module, name, _Activated(child))
        elif type(child) is ResidualBlock:
            setattr(module, name, _Residual(child))
        elif type(child) is ConvNorm:
            setattr(module, name, _Normalised(child))
