"""The contract of heads: a head owns its method, from the backbone's maps to targets, losses and candidates."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cornernet.config import ConfigError, TestingConfig
from cornernet.model.backbones.base import Backbone
from cornernet.model.heads.candidates import Candidates

__all__ = ["BuildTargets", "Head", "Targets"]


class Targets(Protocol):
    """What the predictions for a batch should be."""

    def counts(self) -> Tensor:
        """Return the numbers that losses are normalised by, float32 [n]; those of a batch's parts add up."""
        ...

    def to(self, device: torch.device) -> Targets:
        """Return the targets on a device."""
        ...

    def pin_memory(self) -> Targets:
        """Return the targets in page-locked memory, for the data loader."""
        ...


class BuildTargets(Protocol):
    """Builds the targets of a batch. Loader workers get a copy, so it holds no tensors."""

    def __call__(self, boxes: Sequence[Tensor], labels: Sequence[Tensor], image_size: tuple[int, int]) -> Targets:
        """Return the targets, on the CPU, for the boxes [N, 4] and labels [N] of each image.

        Boxes are x1 y1 x2 y2 in input pixels, float64. ``image_size`` is the input's (height, width).
        """
        ...


class Head(nn.Module, abc.ABC):
    """Base class of heads. Training, testing and evaluation know only what is declared here.

    A subclass calls ``super().__init__(config, num_classes, backbone)`` and then sets ``targets``. Predictions and
    targets are of types of its own.
    """

    targets: BuildTargets
    """Builds the targets of a batch."""
    feeds_back: bool = False
    """Whether :meth:`feed_back` of a stack's predictions is added to the next stack's input."""
    leaves_unused: bool = False
    """Whether some layers of the backbone get no gradient, which training on several devices must know."""
    finds_corners: bool = False
    """Whether predictions and targets have ``heatmaps`` of corners, and the methods for studies of corners work:
    :meth:`corners`, :meth:`corner_scores`, :meth:`substitute`, :meth:`pooling_by` and :meth:`decode_padded`."""

    def __init__(self, config: Any, num_classes: int, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.num_stacks = backbone.num_stacks

    @abc.abstractmethod
    def forward(self, index: int, maps: list[Tensor]) -> Any:
        """Return the raw predictions from the maps of stack ``index``, [B, C, h, w] each, from fine to coarse."""

    @abc.abstractmethod
    def loss(self, outputs: list[Any], targets: Any, counts: Tensor | None = None) -> dict[str, Tensor]:
        """Return the named components of the loss of all stacks' predictions, scalars, and their weighted ``total``.

        ``counts`` are those of the whole batch that ``targets`` are a part of (``targets.counts()`` summed over the
        parts), so that the parts' losses add up to the loss of the batch. None takes the targets' own.
        """

    @abc.abstractmethod
    def decode(self, predictions: Any, testing: TestingConfig) -> list[Candidates]:
        """Return the candidates of each image from the last stack's predictions, best first."""

    def predicts(self, index: int) -> bool:  # noqa: ARG002 - for heads that leave out some
        """Tell whether stack ``index`` has predictions. The last one always has."""
        return True

    def feed_back(self, index: int, predictions: Any) -> Tensor:
        """Return what the predictions of stack ``index`` add to the next stack's input, [B, C, h, w].

        Only called on a head that ``feeds_back``; others raise ``NotImplementedError``.
        """
        raise NotImplementedError(f"{type(self).__name__} does not feed back")

    # for studies of corners
    def corners(self, predictions: Any, testing: TestingConfig) -> list[Any]:  # noqa: ARG002
        """Return the ``Corners`` of ``CornerPoints`` of each image, before they are paired.

        A head that does not find corners raises ``ConfigError``, here and in the methods below.
        """
        raise _no_corners("testing.corner_metrics")

    def corner_scores(self, predictions: Any) -> Any:  # noqa: ARG002
        """Return the scores of all locations, ``Corners`` of float32 [B, K, h, w] on the predictions' device."""
        raise _no_corners("testing.location_radii")

    def substitute(
        self,
        predictions: Any,  # noqa: ARG002
        boxes: Sequence[Tensor],  # noqa: ARG002
        labels: Sequence[Tensor],  # noqa: ARG002
        testing: TestingConfig,  # noqa: ARG002
    ) -> Any:
        """Return the predictions with the outputs in ``testing.substitute`` replaced by the truth.

        ``boxes`` [N, 4] of each input are x1 y1 x2 y2 in cells of its heatmaps, ``labels`` [N] their classes.
        """
        raise _no_corners("testing.substitute")

    def pooling_by(self, impl: str) -> AbstractContextManager[None]:  # noqa: ARG002
        """Return a context in which corners are pooled by the implementation ``impl`` of ``kernels``."""
        raise _no_corners("testing.pooling_impl")

    def decode_padded(self, predictions: Any, testing: TestingConfig) -> Candidates:  # noqa: ARG002
        """Return the candidates of a batch in tensors [B, N, ...], the same number for each image: for export."""
        raise _no_corners("exporting decoded boxes")


def _no_corners(subject: str) -> ConfigError:
    return ConfigError(f"{subject} is for heads that find corners; this detector's head does not")
