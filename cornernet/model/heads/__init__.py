"""Heads: from the backbone's maps to candidates. One folder each, one row here.

A head is an ``nn.Module`` that owns its method; training, postprocess and evaluation know only these:

* ``head(s, maps)``: the predictions from the maps of stack ``s``;
* ``targets(boxes, labels, image_size)``: what the predictions should be, with ``counts()``, the numbers of things
  that losses are normalised by, ``to(device)`` and ``pin_memory()``;
* ``loss(outputs, targets, counts)``: named components, ``total`` among them;
* ``decode(predictions, testing)``: :class:`Candidates`, one an image.

A head may also have

* ``predicts(s)``: whether it predicts from stack ``s`` at all; without it, from every stack;
* ``leaves_unused``: whether layers of the backbone get no gradient, which training on several devices must know;
* ``feeds_back`` and ``feed_back(s, predictions)``: whether and what predictions add to the next stack's input.

A head that finds corners may also have, for studies of them:

* ``corners(predictions, testing)``: the corners of each image, before they are paired;
* ``substitute(predictions, boxes, labels, testing)``: the predictions with ``testing.substitute`` replaced by truth;
* ``pooling_by(impl)``: a context in which corners are pooled by another implementation of ``kernels``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from cornernet.config import ModelConfig
from cornernet.model.heads.anchor.head import AnchorHead
from cornernet.model.heads.candidates import Candidates, CornerPoints
from cornernet.model.heads.corner.head import CornerHead

__all__ = ["HEADS", "Candidates", "CornerPoints", "build_head"]

HEADS: dict[str, Callable[..., nn.Module]] = {
    "anchor": AnchorHead,
    "corner": CornerHead,
}


def build_head(config: ModelConfig, backbone: Any) -> nn.Module:
    """Return the head that ``config.head.kind`` names for a backbone, with fresh weights."""
    return HEADS[config.head.kind](config.head, config.num_classes, backbone)
