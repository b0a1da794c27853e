"""What a network costs on paper: multiply-adds and parameters, from its configuration alone."""

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
    """Of the convolutions, for one input of ``data.input_size`` as in testing: predictions of the last stack alone."""
    parameters: int


def costs(config: Config) -> Costs:
    """Return what the network of a configuration costs. No weights are drawn and nothing is computed.

    Counted by torch's flop counter, which counts a multiplication and its addition as two. Corner pooling compares and
    adds once a cell: it is not counted, nor are batch norm, activations and what comes after the network.
    """
    if isinstance(config.model.head, CornerHeadConfig):
        # its operators have no meta kernels, and no multiply-adds
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
