"""Intermediate supervision, feedback of predictions, and corners without predicted offsets."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from cornernet import Config, ConfigError, Corners, Detector, Predictions, build_detector, recipe
from cornernet.ablations.running.planner import Fingerprints, make_job
from cornernet.config import LATER_FIELDS, CornerHeadConfig, HourglassConfig, TestingConfig
from cornernet.model.heads.corner.decode import corners, decode
from cornernet.model.heads.corner.losses import corner_losses

SIZE = (31, 31)
TWO = HourglassConfig(stacks=2, stem_channels=4, channels=(8, 8), blocks=(1, 1))


def two_stacks(**head: object) -> Config:
    config = recipe("tiny").with_("model.backbone", TWO).with_("data.input_size", SIZE)
    for name, value in head.items():
        config = config.with_(f"model.head.{name}", value)
    return config


def built(**head: object) -> Detector:
    torch.manual_seed(0)
    return build_detector(two_stacks(**head))


def batch(detector: Detector) -> tuple[Tensor, object]:
    boxes = [torch.tensor([[3.0, 4.0, 20.0, 22.0], [9.0, 2.0, 28.0, 12.0]], dtype=torch.float64)] * 2
    targets = detector.head.targets(boxes, [torch.tensor([1, 0])] * 2, SIZE)
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1)), targets


def test_with_supervision_every_stack_s_loss_counts_alike() -> None:
    detector = built()
    images, targets = batch(detector)
    outputs = detector(images)
    assert len(outputs) == 2
    each = [corner_losses(o, targets, detector.head.config, targets.counts()) for o in outputs]
    heatmaps = [loss.heatmap.top_left + loss.heatmap.bottom_right for loss in each]
    assert detector.head.loss(outputs, targets)["heatmap"].item() == pytest.approx(sum(heatmaps).item() / 2)


def test_without_supervision_only_the_last_stack_predicts_and_every_weight_learns() -> None:
    detector = built(intermediate_supervision=False)
    images, targets = batch(detector)
    outputs = detector(images)
    assert len(outputs) == 1
    assert not any(name.startswith("head.stacks.0.") for name in detector.state_dict())
    detector.head.loss(outputs, targets)["total"].backward()
    # a parameter without a gradient would stop training on several devices
    assert all(p.grad is not None for p in detector.parameters())


@pytest.mark.parametrize("supervised", [True, False])
def test_fed_back_predictions_reach_the_last_stack_in_training_and_testing(supervised: bool) -> None:
    detector = built(feedback=True, intermediate_supervision=supervised)
    images, targets = batch(detector)
    outputs = detector(images)
    assert len(outputs) == 2
    losses = detector.head.loss(outputs, targets)
    losses["total"].backward()
    assert all(p.grad is not None for p in detector.parameters())
    detector.eval()
    with torch.no_grad():
        every, last = detector(images), detector(images, last_only=True)
        assert len(last) == 1
        assert torch.equal(every[-1].heatmaps.top_left, last[0].heatmaps.top_left)
        detector.head.feedbacks[0][0].weight.zero_()
        assert not torch.allclose(detector(images)[-1].heatmaps.top_left, last[0].heatmaps.top_left)


def test_fed_back_and_unsupervised_is_the_loss_of_the_last_stack() -> None:
    detector = built(feedback=True, intermediate_supervision=False)
    images, targets = batch(detector)
    outputs = detector(images)
    loss, last = detector.head.loss(outputs, targets), detector.head.loss(outputs[-1:], targets)
    assert all(torch.equal(loss[name], last[name]) for name in last)


def test_feedback_adds_its_convolution_and_nothing_else() -> None:
    plain, fed = built().state_dict(), built(feedback=True).state_dict()
    added = set(fed) - set(plain)
    assert set(plain) <= set(fed)
    assert {name.split(".")[1] for name in added} == {"feedbacks"}
    # for each of two kinds of corners: three classes, one embedding value, two offset values
    assert fed["head.feedbacks.0.0.weight"].shape == (8, 12, 1, 1)


@pytest.mark.parametrize(("field", "value"), [("feedback", True), ("intermediate_supervision", False)])
def test_what_needs_several_stacks_says_so(field: str, value: bool) -> None:
    with pytest.raises(ConfigError, match=rf"model\.head\.{field}.*raise model\.backbone\.stacks"):
        recipe("tiny").with_(f"model.head.{field}", value)


@pytest.mark.parametrize("name", ["pull_weight", "push_weight", "offset_weight"])
def test_a_weight_of_zero_leaves_its_loss_out_of_the_total(name: str) -> None:
    detector = built()
    images, targets = batch(detector)
    outputs = detector(images)
    losses = detector.head.loss(outputs, targets)
    component = losses[name.removesuffix("_weight")]
    weight = getattr(detector.head.config, name)
    detector.head.config = dataclasses.replace(detector.head.config, **{name: 0.0})
    without = detector.head.loss(outputs, targets)
    assert without["total"].item() == pytest.approx((losses["total"] - weight * component).item(), rel=1e-5)
    assert without[name.removesuffix("_weight")] == component


def test_weights_are_not_negative() -> None:
    with pytest.raises(ConfigError, match=r"offset_weight must not be negative"):
        CornerHeadConfig(offset_weight=-1.0)


def one_box() -> Predictions:
    """A top-left corner in cell x 2, y 1 and a bottom-right one in x 6, y 5, with offsets of 0.25 and 0.75."""
    maps = []
    for x, y in ((2, 1), (6, 5)):
        heatmap = torch.full((1, 1, 8, 8), -9.0)
        heatmap[0, 0, y, x] = 4.0
        maps.append(heatmap)
    offset = torch.tensor([0.25, 0.75]).reshape(1, 2, 1, 1).expand(1, 2, 8, 8)
    embedding = torch.zeros(1, 1, 8, 8)
    return Predictions(Corners(*maps), Corners(embedding, embedding), Corners(offset, offset))


@pytest.mark.parametrize(
    ("offsets", "box"),
    [
        ("predicted", [2.25, 1.75, 6.25, 5.75]),
        ("none", [2.0, 1.0, 6.0, 5.0]),
        ("centre", [2.5, 1.5, 6.5, 5.5]),
    ],
)
def test_corners_lie_where_testing_wants_them_in_their_cells(offsets, box) -> None:
    testing = TestingConfig(offsets=offsets)
    assert decode(one_box(), testing)[0].boxes[0].tolist() == box
    top_left, bottom_right = corners(one_box(), testing)[0]
    assert [*top_left.xy[0].tolist(), *bottom_right.xy[0].tolist()] == box


def test_true_offsets_that_are_not_read_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"testing\.offsets is 'none'.*use 'predicted'"):
        TestingConfig(offsets="none", substitute=("offsets",))


@pytest.mark.parametrize("path", LATER_FIELDS)
def test_a_later_field_at_its_neutral_value_is_its_default_and_keeps_the_keys(path: str) -> None:
    config = two_stacks()
    *parents, leaf = path.split(".")
    node, tree = config, config.results_dict()
    for name in parents:
        node, tree = getattr(node, name), tree[name]
    if not hasattr(node, leaf):
        pytest.skip(f"{path} is of a part that this configuration has not")
    assert getattr(node, leaf) == LATER_FIELDS[path]
    assert leaf not in tree
    made = make_job(config, Fingerprints("a", "b"), revision=1)
    assert (made.training_key, made.evaluation_key) == KEYS


KEYS = ("bc68c98528b9a983", "03553acf995b9d56")
"""The keys of a configuration from before any of these fields existed."""
