"""Backbones, from images to maps: one file each, one row here.

* ``base``: :class:`Backbone`, the contract;
* ``hourglass``: stacked hourglasses (paper section 3.5);
* ``resnet_fpn``: a residual network with a feature pyramid (paper table 4).
"""

from __future__ import annotations

from cornernet.config import BackboneConfig
from cornernet.model.backbones.base import Backbone
from cornernet.model.backbones.hourglass import Hourglass
from cornernet.model.backbones.resnet_fpn import ResNetFPN

__all__ = ["BACKBONES", "Backbone", "build_backbone"]

BACKBONES: dict[str, type[Backbone]] = {
    "hourglass": Hourglass,
    "resnet_fpn": ResNetFPN,
}


def build_backbone(config: BackboneConfig) -> Backbone:
    """Return the backbone that ``config.kind`` names, with fresh weights."""
    return BACKBONES[config.kind](config)
