"""The detector: drives the backbone's stacks and the head on each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cornernet.config import Config, ConfigError, TestingConfig
from cornernet.model.backbones import build_backbone
from cornernet.model.heads import Candidates, build_head

__all__ = ["Detector", "build_detector"]


class Detector(nn.Module):
    """A backbone and a head (paper figure 4).

    ``config`` is the whole configuration that it was built with; ``classes`` (names by label) and ``category_ids``
    (the data's ids by label) are known once it was trained, and travel in its checkpoints.
    """

    output_stride = 4

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.classes: tuple[str, ...] | None = None
        self.category_ids: tuple[int, ...] | None = None
        self.backbone: Any = build_backbone(config.model.backbone)
        self.head: Any = build_head(config.model, self.backbone)

    @property
    def total_stride(self) -> int:
        """Input pixels per cell of the coarsest map: inputs have sides of a multiple of it, or one less."""
        return int(self.backbone.total_stride)

    def forward(self, images: Tensor, last_only: bool = False) -> list[Any]:
        """Return the head's raw predictions, one a stack that has some, from normalised images [B, 3, H, W] float32.

        With the corner head these are ``Predictions`` at stride 4. ``last_only`` leaves out all stacks' predictions
        but the last, which is what testing reads. Raises ``ValueError`` for a size that the backbone cannot take.
        """
        for name, side in zip(("height", "width"), images.shape[2:], strict=True):
            if (side + 1) % self.total_stride not in (0, 1):
                raise ValueError(
                    f"the image's {name} is {side}; this backbone takes multiples of {self.total_stride}, or one less"
                )
        x = self.backbone.stem(images)
        outputs = []
        stacks = self.backbone.num_stacks
        feeds_back = getattr(self.head, "feeds_back", False)
        for index in range(stacks):
            maps = self._stack(index, x)
            last = index == stacks - 1
            shown = last or (not last_only and self._predicts(index))
            predictions = self.head(index, maps) if shown or feeds_back else None
            if shown:
                outputs.append(predictions)
            if not last:
                x = self.backbone.merge(index, x, maps[0])
                if feeds_back:
                    x = x + self.head.feed_back(index, predictions)
        return outputs

    def _predicts(self, index: int) -> bool:
        """Tell whether the head predicts from a stack that is not the last; one that does not say does."""
        predicts = getattr(self.head, "predicts", None)
        return predicts is None or bool(predicts(index))

    def _stack(self, index: int, x: Tensor) -> Any:
        """Return the maps of a stack, computed again in backward where training asks for that to save memory."""
        if not (self.training and torch.is_grad_enabled() and self.config.training.checkpoint_activations):
            return self.backbone.stack(index, x)
        return checkpoint(
            self.backbone.stack, index, x, use_reentrant=False, preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), _statistics_stay(self.backbone)),
        )  # fmt: skip

    @contextmanager
    def pooling_by(self, impl: str | None) -> Iterator[None]:
        """Pool corners by the implementation ``impl`` of ``kernels`` in this context; None is the model's own.

        Raises ``ConfigError`` for a head that finds no corners.
        """
        if impl is None:
            yield
            return
        with self._method("pooling_by", "testing.pooling_impl")(impl):
            yield

    def decode(self, predictions: list[Any], testing: TestingConfig) -> list[Candidates]:
        """Return the candidates of each image from :meth:`forward`'s result."""
        candidates: list[Candidates] = self.head.decode(predictions[-1], testing)
        return candidates

    def corners(self, predictions: list[Any], testing: TestingConfig) -> list[Any]:
        """Return the ``Corners`` of ``CornerPoints`` of each image from :meth:`forward`'s result, before pairing.

        Raises ``ConfigError`` for a head that finds no corners.
        """
        corners: list[Any] = self._method("corners", "testing.corner_metrics")(predictions[-1], testing)
        return corners

    def substitute(
        self, predictions: list[Any], boxes: Sequence[Tensor], labels: Sequence[Tensor], testing: TestingConfig
    ) -> list[Any]:
        """Return the last predictions with the outputs that ``testing.substitute`` names replaced by the truth.

        ``boxes`` [N, 4] of each input are x1 y1 x2 y2 in cells of its heatmaps, ``labels`` [N]. Raises ``ConfigError``
        for a head that cannot.
        """
        return [self._method("substitute", "testing.substitute")(predictions[-1], boxes, labels, testing)]

    def _method(self, name: str, field: str) -> Any:
        method = getattr(self.head, name, None)
        if method is None:
            raise ConfigError(f"{field} is for heads that find corners; this detector's head finds none")
        return method


@contextmanager
def _statistics_stay(module: nn.Module) -> Iterator[None]:
    """Leave running statistics as they are: in a second pass over the same batch, which has been counted."""
    counting = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d) and part.track_running_stats]
    before = [(part, part.momentum, part.num_batches_tracked) for part in counting]
    counts = [None if count is None else count.clone() for _, _, count in before]
    try:
        for part in counting:
            part.momentum = 0.0
        yield
    finally:
        for (part, momentum, count), kept in zip(before, counts, strict=True):
            part.momentum = momentum
            if count is not None and kept is not None:
                count.copy_(kept)


def build_detector(config: Config) -> Detector:
    """Return a detector with fresh weights, drawn from torch's generator."""
    return Detector(config)
