"""Heads, from the backbone's maps to candidates: one folder each, one row here.

* ``base``: :class:`Head`, the contract;
* ``candidates``: what all heads decode to;
* ``corner``: corners in pairs (paper section 3);
* ``anchor``: boxes relative to anchors (paper table 4).
"""

from __future__ import annotations

from cornernet.config import ModelConfig
from cornernet.model.backbones.base import Backbone
from cornernet.model.heads.anchor.head import AnchorHead
from cornernet.model.heads.base import Head
from cornernet.model.heads.candidates import Candidates, CornerPoints
from cornernet.model.heads.corner.head import CornerHead

__all__ = ["HEADS", "Candidates", "CornerPoints", "Head", "build_head"]

HEADS: dict[str, type[Head]] = {
    "anchor": AnchorHead,
    "corner": CornerHead,
}


def build_head(config: ModelConfig, backbone: Backbone) -> Head:
    """Return the head that ``config.head.kind`` names for a backbone, with fresh weights."""
    return HEADS[config.head.kind](config.head, config.num_classes, backbone)
