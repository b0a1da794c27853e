"""The corner head's losses (paper equations 1 to 5), all computed in float32."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from cornernet.config import CornerHeadConfig
from cornernet.model.heads.corner.decode import embedding_distance
from cornernet.model.heads.corner.heatmap_losses import HEATMAP_LOSSES
from cornernet.model.heads.corner.outputs import Corners, Predictions
from cornernet.model.heads.corner.targets import CornerTargets

__all__ = ["CornerLosses", "corner_losses", "heatmap_loss", "offset_loss", "pull_and_push_loss"]

# Added to the number of objects before dividing by it (the authors' value).
COUNT_MARGIN = 1e-4

# The authors sum pull and push over the 4 or 5 images of a GPU and average over ten GPUs: 4.9 images for a batch of 49.
# Their weight of 0.1 belongs to this sum. Ours is the mean over the images of the whole batch times this number, which
# is the same for their batch and does not grow with another.
IMAGES_PER_GPU = 4.9


class CornerLosses(NamedTuple):
    """The unweighted losses of one stack, scalars."""

    heatmap: Corners[Tensor]
    pull: Tensor
    push: Tensor
    offset: Corners[Tensor]


def corner_losses(
    predictions: Predictions, targets: CornerTargets, config: CornerHeadConfig, counts: Tensor
) -> CornerLosses:
    """Return the losses of one stack. ``counts`` [4] is ``CornerTargets.counts`` of the whole batch.

    Each is this part's share of the loss of the whole batch: the shares of a batch's parts add up to its loss.
    """
    heatmap = Corners(
        *(
            heatmap_loss(logits, target, config, positives)
            for logits, target, positives in zip(predictions.heatmaps, targets.heatmaps, counts[:2], strict=True)
        )
    )
    offset = Corners(
        *(
            offset_loss(gather(predicted, index), target, targets.mask, counts[2])
            for predicted, index, target in zip(predictions.offsets, targets.indices, targets.offsets, strict=True)
        )
    )
    top_left, bottom_right = (gather(e, i) for e, i in zip(predictions.embeddings, targets.indices, strict=True))
    pull, push = pull_and_push_loss(top_left, bottom_right, targets.mask, config.push_margin)
    images = IMAGES_PER_GPU / counts[3].clamp(min=1)
    return CornerLosses(heatmap, pull * images, push * images, offset)


def gather(maps: Tensor, indices: Tensor) -> Tensor:
    """Return the columns of ``maps`` [B, D, h, w] at ``indices`` [B, M] (y * w + x), [B, M, D] in float32."""
    flat = maps.flatten(2)
    index = indices[:, None, :].expand(-1, flat.shape[1], -1)
    return flat.gather(2, index).transpose(1, 2).float()


def heatmap_loss(logits: Tensor, target: Tensor, config: CornerHeadConfig, positives: Tensor) -> Tensor:
    """Return the loss ``config.heatmap_loss`` of logits [B, K, h, w] for targets in 0..1, exactly 1 at corners.

    The sum over cells is divided by ``positives``, the number of cells with a corner in the batch, or by 1 if there are
    none.
    """
    cells = HEATMAP_LOSSES[config.heatmap_loss](logits.float(), target, config)
    return cells.sum() / positives.clamp(min=1)


def pull_and_push_loss(
    top_left: Tensor, bottom_right: Tensor, mask: Tensor, margin: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the losses that pull an object's embeddings together and push objects apart (equations 4 and 5).

    Embeddings are [B, M, D] for up to M objects per image; ``mask`` [B, M] tells which are real. Losses are summed over
    images (:func:`corner_losses` divides by their number), and each image is normalised by its own number of objects.
    As in the authors' code, push also pairs each object with itself and subtracts a constant, so a single object gives
    about 1 and no gradient.
    """
    number = mask.sum(1).float()[:, None]
    mean = (top_left + bottom_right) / 2
    spread = (top_left - mean).square().sum(-1) + (bottom_right - mean).square().sum(-1)
    pull = (spread * mask / (number + COUNT_MARGIN)).sum()

    number = number[:, :, None]
    pairs = mask[:, :, None] & mask[:, None, :]
    closeness = F.relu(margin - embedding_distance(mean[:, :, None], mean[:, None, :]))
    push = (closeness - 1 / (number + COUNT_MARGIN)) / (number * (number - 1) + COUNT_MARGIN)
    return pull, (push * pairs).sum()


def offset_loss(predicted: Tensor, target: Tensor, mask: Tensor, objects: Tensor) -> Tensor:
    """Return the smooth-L1 loss of offsets [B, M, 2], divided by the ``objects`` in the batch (equation 3)."""
    loss = F.smooth_l1_loss(predicted, target, reduction="none")
    return (loss * mask[:, :, None]).sum() / (objects + COUNT_MARGIN)
