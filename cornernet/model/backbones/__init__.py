"""Backbones: a stem, then stacks that a detector drives one by one. One file each, one row here.

A backbone is an ``nn.Module`` with

* ``num_stacks``, ``total_stride`` (input pixels per cell of its coarsest map), ``channels`` (width of the map at
  stride 4 that heads read) and ``level_channels`` (widths of all maps of a stack, at strides 4, 8, 16 and so on);
* ``stem(images)``: [B, 3, H, W] to [B, C, H/4, W/4];
* ``stack(s, x)``: the maps of stack ``s``, from fine (stride 4) to coarse;
* ``merge(s, x, fine)``: the input of stack ``s + 1`` from the input and the finest map of stack ``s``; never called
  on a backbone of one stack.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

from cornernet.model.backbones.hourglass import Hourglass
from cornernet.model.backbones.resnet_fpn import ResNetFPN

__all__ = ["BACKBONES", "Backbone", "build_backbone"]


class Backbone(Protocol):
    """What the detector asks of a backbone; see the module's docstring."""

    num_stacks: int
    total_stride: int
    channels: int
    level_channels: tuple[int, ...]
    stem: nn.Module

    def stack(self, index: int, x: Tensor) -> list[Tensor]:
        """Return the maps of one stack, from fine to coarse."""
        ...

    def merge(self, index: int, x: Tensor, fine: Tensor) -> Tensor:
        """Return the input of the next stack."""
        ...


BACKBONES: dict[str, Callable[[Any], nn.Module]] = {
    "hourglass": Hourglass,
    "resnet_fpn": ResNetFPN,
}


def build_backbone(config: Any) -> nn.Module:
    """Return the backbone that ``config.kind`` names, with fresh weights."""
    return BACKBONES[config.kind](config)
