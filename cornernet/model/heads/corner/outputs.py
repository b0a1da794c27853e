"""The types of the corner head's outputs."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from torch import Tensor

__all__ = ["Corners", "Predictions"]

T = TypeVar("T")


class Corners(NamedTuple, Generic[T]):
    """A pair of values, one for each kind of corner."""

    top_left: T
    bottom_right: T


class Predictions(NamedTuple):
    """The raw outputs of one stack at stride 4, for K classes and embeddings of length D.

    ``heatmaps`` logits [B, K, h, w]; ``embeddings`` [B, D, h, w]; ``offsets`` [B, 2, h, w], x then y, in cells.
    """

    heatmaps: Corners[Tensor]
    embeddings: Corners[Tensor]
    offsets: Corners[Tensor]
