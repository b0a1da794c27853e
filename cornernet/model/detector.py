"""The detector: runs the backbone's stacks and the head on each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cornernet.config import Config, TestingConfig
from cornernet.kernels.openmp import make_way
from cornernet.model.backbones import Backbone, build_backbone
from cornernet.model.heads import Candidates, Head, build_head

__all__ = ["Detector", "build_detector"]


class Detector(nn.Module):
    """A backbone and a head (paper figure 4).

    ``config`` is the whole configuration that it was built from. ``classes`` (names by label) and ``category_ids`` (the
    data's ids by label) are None until training sets them; checkpoints hold them. So are ``data_digests``, which tell
    the data of train and val again (``DetectionDataset.quick_fingerprint`` by split; None for generated data).
    ``unfinished`` is (finished iterations, planned iterations) where the weights are a checkpoint of a run that is not
    finished.
    """

    output_stride = 4

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.classes: tuple[str, ...] | None = None
        self.category_ids: tuple[int, ...] | None = None
        self.data_digests: dict[str, str] | None = None
        self.unfinished: tuple[int, int] | None = None
        self.backbone: Backbone = build_backbone(config.model.backbone)
        self.head: Head = build_head(config.model, self.backbone)

    @property
    def total_stride(self) -> int:
        """Input pixels per cell of the coarsest map: inputs have sides of a multiple of it, or one pixel less."""
        return self.backbone.total_stride

    def forward(self, images: Tensor, last_only: bool = False) -> list[Any]:
        """Return the head's raw predictions for normalised images [B, 3, H, W] float32, one per stack that has any.

        With the corner head these are ``Predictions`` at stride 4. ``last_only`` returns only the last stack's, which
        is all that testing reads. Raises ``ValueError`` for a size that the backbone does not support.
        """
        for name, side in zip(("height", "width"), images.shape[2:], strict=True):
            if (side + 1) % self.total_stride not in (0, 1):
                raise ValueError(
                    f"the image's {name} is {side}; this backbone takes multiples of {self.total_stride}, or one less"
                )
        x = self.backbone.stem(images)
        outputs = []
        stacks = self.backbone.num_stacks
        for index in range(stacks):
            maps = self._stack(index, x)
            last = index == stacks - 1
            shown = last or (not last_only and self.head.predicts(index))
            predictions = self.head(index, maps) if shown or self.head.feeds_back else None
            if shown:
                outputs.append(predictions)
            if not last:
                x = self.backbone.merge(index, x, maps[0])
                if self.head.feeds_back:
                    x = x + self.head.feed_back(index, predictions)
        return outputs

    def _stack(self, index: int, x: Tensor) -> list[Tensor]:
        """Return the maps of a stack; to save memory, training can compute them a second time in backward."""
        if not (self.training and torch.is_grad_enabled() and self.config.training.checkpoint_activations):
            return self.backbone.stack(index, x)
        maps: list[Tensor] = checkpoint(
            self.backbone.stack, index, x, use_reentrant=False, preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), _statistics_stay(self.backbone)),
        )  # fmt: skip
        return maps

    @contextmanager
    def pooling_by(self, impl: str | None) -> Iterator[None]:
        """Pool corners by the implementation ``impl`` of ``kernels`` in this context; None is the model's own.

        Raises ``ConfigError`` for a head that does not find corners.
        """
        with nullcontext() if impl is None else self.head.pooling_by(impl):
            yield

    def decode(self, predictions: list[Any], testing: TestingConfig) -> list[Candidates]:
        """Return the candidates of each image from :meth:`forward`'s result."""
        return self.head.decode(predictions[-1], testing)

    def corners(self, predictions: list[Any], testing: TestingConfig) -> list[Any]:
        """Return the ``Corners`` of ``CornerPoints`` of each image from :meth:`forward`'s result, before pairing.

        Raises ``ConfigError`` for a head that does not find corners.
        """
        return self.head.corners(predictions[-1], testing)

    def corner_scores(self, predictions: list[Any]) -> Any:
        """Return the scores of all locations, ``Corners`` of [B, K, h, w], from :meth:`forward`'s result.

        Raises ``ConfigError`` for a head that does not find corners.
        """
        return self.head.corner_scores(predictions[-1])

    def substitute(
        self, predictions: list[Any], boxes: Sequence[Tensor], labels: Sequence[Tensor], testing: TestingConfig
    ) -> list[Any]:
        """Return the last predictions with the outputs in ``testing.substitute`` replaced by the truth.

        ``boxes`` [N, 4] of each input are x1 y1 x2 y2 in cells of its heatmaps, ``labels`` [N] their classes. Raises
        ``ConfigError`` for a head that does not find corners.
        """
        return [self.head.substitute(predictions[-1], boxes, labels, testing)]


@contextmanager
def _statistics_stay(module: nn.Module) -> Iterator[None]:
    """Keep batch norm's running statistics unchanged in this context, a second pass over the same batch."""
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
    """Return a detector with fresh weights, drawn from torch's global generator.

    From now on this process's threads sleep when they wait while other programs want the cores
    (:func:`cornernet.kernels.openmp.make_way`).
    """
    make_way()
    return Detector(config)
