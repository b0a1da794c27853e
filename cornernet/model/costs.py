"""Multiply-adds and parameters of a network, computed from its configuration."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from cornernet.config import Config, CornerHeadConfig, DataConfig, ModelConfig
from cornernet.model.detector import build_detector

__all__ = ["Costs", "costs"]


class Costs(NamedTuple):
    """The costs of a network."""

    multiply_adds: int
    """Of the convolutions, for one input of ``data.input_size``, predicting from the last stack only, as in testing."""
    parameters: int


def costs(config: Config) -> Costs:
    """Return the costs of a configuration's network, without drawing weights or running it.

    They are counted by torch's flop counter, which counts a multiply-add as two operations. Not counted are corner
    pooling (a comparison and an addition per cell), batch norm, activations, and what comes after the network.
    """
    if isinstance(config.model.head, CornerHeadConfig):
        # the pooling operators have no meta kernels, and no multiply-adds
        config = config.with_("model.head.pooling", "none")
    return _counted(config.model, config.data.input_size)


@functools.lru_cache
def _counted(model: ModelConfig, input_size: tuple[int, int]) -> Costs:
    config = Config(model=model, data=DataConfig(input_size=input_size))
    with torch.device("meta"), torch.no_grad():
        detector = build_detector(config).eval()
        images = torch.empty(1, 3, *input_size)
        with FlopCounterMode(display=False) as counter:
            detector(images, last_only=True)
    return Costs(counter.get_total_flops() // 2, sum(p.numel() for p in detector.parameters()))
