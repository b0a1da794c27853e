"""The types of the anchor head's outputs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["AnchorPredictions", "by_anchor"]


class AnchorPredictions(NamedTuple):
    """The raw outputs of one stack for A anchors per cell and K classes: a map per level, from fine to coarse.

    ``logits`` [B, A * K, h, w], the first anchor's classes first; ``codes`` [B, A * 4, h, w] in the same order, four
    numbers each as in :func:`cornernet.model.heads.anchor.anchors.encode`.
    """

    logits: tuple[Tensor, ...]
    codes: tuple[Tensor, ...]

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of each level's maps."""
        return tuple((level.shape[2], level.shape[3]) for level in self.codes)


def by_anchor(maps: tuple[Tensor, ...], numbers: int) -> Tensor:
    """Return maps [B, A * numbers, h, w] as [B, N, numbers] float32, in the order of the N anchors of all levels."""
    levels = [level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, numbers) for level in maps]
    return torch.cat(levels, dim=1).float()
