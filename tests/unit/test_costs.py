"""Costs of a network, counted from its configuration, and the measured memory of a training step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cornernet import RECIPES, Config, build_detector, recipe
from cornernet.config import HourglassConfig
from cornernet.data import open_dataset
from cornernet.model.costs import costs
from cornernet.training.memory import step_memory

CASES = {
    "tiny": recipe("tiny"),
    "two stacks": recipe("tiny").with_("model.backbone.stacks", 2),
    "fed back": recipe("tiny").with_("model.backbone.stacks", 2).with_("model.head.feedback", True),
    "residual": recipe("fpn_small").with_("data.input_size", (63, 95)),
}


@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
def test_multiply_adds_are_those_of_the_convolutions_that_run(config: Config) -> None:
    detector = build_detector(config).eval()
    counted = []

    def count(layer: nn.Conv2d, _inputs: object, output: torch.Tensor) -> None:
        counted.append(output.numel() * layer.weight[0].numel())

    for layer in detector.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        detector(torch.zeros(1, 3, *config.data.input_size), last_only=True)
    found = costs(config)
    assert found.multiply_adds == sum(counted) > 0
    assert found.parameters == sum(p.numel() for p in detector.parameters())


def test_the_paper_s_network_has_its_size() -> None:
    assert round(costs(RECIPES["hourglass_104"]()).parameters / 1e6) == 201


def test_costs_do_not_depend_on_the_pool_or_the_seed() -> None:
    config = recipe("tiny")
    edited = config.with_("model.head.pooling", "none").with_("training.seed", 5).with_("training.batch_size", 2)
    assert costs(edited) == costs(config)


def little(stacks: int = 1, batch: int = 2) -> Config:
    config = recipe("tiny").with_("data.source.train_images", 4).with_("data.source.val_images", 2)
    backbone = HourglassConfig(stacks=stacks, stem_channels=8, channels=(8, 8), blocks=(1, 1))
    return config.with_("model.backbone", backbone).with_("training.batch_size", batch)


def test_the_memory_of_a_step_holds_weights_and_grows_with_the_batch_and_the_network() -> None:
    dataset = open_dataset(little().data.source, "val")

    def measured(config: Config) -> float:
        return step_memory(build_detector(config), dataset, config)

    one = measured(little())
    assert measured(little()) == one
    # weights, gradients and two moments, four bytes each
    assert one * 2**20 > 16 * costs(little()).parameters
    assert 1.5 * one < measured(little(batch=4)) < 2 * one
    assert measured(little(stacks=2)) > 1.5 * one


def test_measuring_memory_does_not_change_the_detector() -> None:
    config = little()
    dataset = open_dataset(config.data.source, "val")
    detector = build_detector(config)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    assert step_memory(detector, dataset, config) > 0
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())
