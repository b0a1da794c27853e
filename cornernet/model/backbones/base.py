"""The contract of backbones: a stem, then stacks that the detector runs one after another."""

from __future__ import annotations

import abc
from typing import Any

from torch import Tensor, nn

__all__ = ["Backbone"]


class Backbone(nn.Module, abc.ABC):
    """Base class of backbones.

    A subclass calls ``super().__init__(config)`` and then sets ``channels``, ``level_channels`` and ``stem``.
    """

    num_stacks: int
    """Number of stacks, each of which a head can predict from."""
    total_stride: int
    """Input pixels per cell of the coarsest map. Inputs have sides of a multiple of it, or one pixel less."""
    channels: int
    """Width of the map at stride 4, which heads read."""
    level_channels: tuple[int, ...]
    """Widths of the maps of a stack, at strides 4, 8, 16 and so on; the first is ``channels``."""
    maps_have_layers: bool = False
    """Whether each map has layers of its own, which get no gradient from a head that does not read the map."""
    stem: nn.Module
    """Maps images [B, 3, H, W] to the input of the first stack, [B, C, H / 4, W / 4]."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.num_stacks = config.num_stacks
        self.total_stride = config.total_stride

    @abc.abstractmethod
    def stack(self, index: int, x: Tensor) -> list[Tensor]:
        """Return the maps of stack ``index`` for its input ``x`` [B, C, h, w], from fine (the size of ``x``) to coarse.

        Each map has half the height and width of the one before; widths are ``level_channels``.
        """

    def merge(self, index: int, x: Tensor, fine: Tensor) -> Tensor:  # noqa: ARG002 - a backbone of one stack has no next
        """Return the input of stack ``index + 1`` from the input ``x`` and the finest map of stack ``index``.

        All three are [B, C, h, w]. A backbone of several stacks overrides it; this one raises ``IndexError``.
        """
        raise IndexError(f"there is no stack {index + 1}: this backbone has {self.num_stacks}")
