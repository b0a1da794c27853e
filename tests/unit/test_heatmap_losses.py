"""Heatmap losses: each one trains heatmaps from any logits, and has the values of its paper."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cornernet import ConfigError, build_detector, recipe
from cornernet.config import CornerHeadConfig
from cornernet.model.heads.corner.heatmap_losses import HEATMAP_LOSSES
from cornernet.model.heads.corner.losses import heatmap_loss

ROWS = pytest.mark.parametrize("name", HEATMAP_LOSSES)


def config(name: str) -> CornerHeadConfig:
    return CornerHeadConfig(heatmap_loss=name)


def cell(name: str, p: float, y: float) -> float:
    """Return the loss of one cell with prediction p and target y."""
    logit = torch.tensor([[[[math.log(p / (1 - p))]]]], dtype=torch.float64)
    return HEATMAP_LOSSES[name](logit, torch.tensor([[[[y]]]], dtype=torch.float64), config(name)).item()


def corner_target() -> Tensor:
    target = torch.zeros(1, 1, 4, 4)
    target[0, 0, 1] = torch.tensor([0.6, 1.0, 0.6, 0.1])
    return target


@ROWS
def test_gradients_are_those_of_the_value(name: str) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    target = torch.rand(2, 2, 3, 4, dtype=torch.float64)
    target[0, 1, 2, 2] = 1.0
    assert torch.autograd.gradcheck(lambda x: HEATMAP_LOSSES[name](x, target, config(name)), logits)


@ROWS
@pytest.mark.parametrize("extreme", [-1e4, -88.0, 0.0, 88.0, 1e4])
def test_any_logits_give_finite_losses_and_gradients(name: str, extreme: float) -> None:
    logits = torch.full((1, 1, 4, 4), extreme, requires_grad=True)
    cells = HEATMAP_LOSSES[name](logits, corner_target(), config(name))
    cells.sum().backward()
    assert cells.shape == logits.shape
    assert cells.dtype == torch.float32
    assert torch.isfinite(cells).all()
    assert (cells >= 0).all()
    assert torch.isfinite(logits.grad).all()


@ROWS
def test_the_loss_of_a_cell_does_not_depend_on_its_neighbours(name: str) -> None:
    ps, ys = [0.1, 0.5, 0.9, 0.3], [0.0, 1.0, 0.6, 0.9]
    logits = torch.tensor([math.log(p / (1 - p)) for p in ps], dtype=torch.float64).reshape(1, 1, 2, 2)
    together = HEATMAP_LOSSES[name](logits, torch.tensor(ys, dtype=torch.float64).reshape(1, 1, 2, 2), config(name))
    assert together.flatten().tolist() == pytest.approx([cell(name, p, y) for p, y in zip(ps, ys, strict=True)])
    # targets are float32 for logits of any dtype
    single = HEATMAP_LOSSES[name](logits, torch.tensor(ys).reshape(1, 1, 2, 2), config(name))
    torch.testing.assert_close(single, together, rtol=1e-5, atol=1e-6)


@ROWS
def test_a_target_met_exactly_has_finite_gradients(name: str) -> None:
    # |y - p| is 0 there, raised to a power
    logits = torch.zeros(1, 1, 2, 2, requires_grad=True)
    HEATMAP_LOSSES[name](logits, torch.full((1, 1, 2, 2), 0.5), config(name)).sum().backward()
    assert torch.isfinite(logits.grad).all()


@ROWS
def test_a_right_heatmap_has_a_lower_loss_than_a_flat_one_and_that_than_a_wrong_one(name: str) -> None:
    target, one = corner_target(), torch.tensor(1.0)
    right = torch.logit(target.clamp(0.01, 0.99))
    right_loss, flat_loss, wrong_loss = (
        heatmap_loss(logits, target, config(name), one) for logits in (right, torch.zeros_like(right), -right)
    )
    assert right_loss < flat_loss < wrong_loss


@ROWS
def test_descent_finds_the_corner(name: str) -> None:
    target = corner_target()
    logits = torch.full((1, 1, 4, 4), -2.19, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for _ in range(150):
        optimiser.zero_grad()
        heatmap_loss(logits, target, config(name), torch.tensor(1.0)).backward()
        optimiser.step()
    found = logits.detach().sigmoid()
    assert found.flatten().argmax() == target.flatten().argmax()
    assert found[0, 0, 1, 1] > 0.7
    assert found[0, 0, 3].max() < 0.1


@ROWS
def test_the_sum_over_cells_is_divided_by_positives_if_any(name: str) -> None:
    logits, target = torch.linspace(-2, 2, 16).reshape(1, 1, 4, 4), corner_target()
    cells = HEATMAP_LOSSES[name](logits, target, config(name)).sum()
    for positives, divisor in ((0.0, 1.0), (1.0, 1.0), (4.0, 4.0)):
        loss = heatmap_loss(logits, target, config(name), torch.tensor(positives))
        assert loss.item() == pytest.approx(cells.item() / divisor)


@ROWS
def test_bfloat16_logits_are_taken_as_float32(name: str) -> None:
    logits = torch.randn(1, 1, 4, 4).bfloat16()
    one = torch.tensor(1.0)
    loss = heatmap_loss(logits, corner_target(), config(name), one)
    assert loss.dtype == torch.float32
    assert loss == heatmap_loss(logits.float(), corner_target(), config(name), one)


@ROWS
def test_the_detector_trains_with_it(name: str) -> None:
    torch.manual_seed(0)
    edited = recipe("tiny").with_("model.head.heatmap_loss", name).with_("data.input_size", (31, 31))
    detector = build_detector(edited)
    boxes, labels = [torch.tensor([[3.0, 4.0, 20.0, 22.0]], dtype=torch.float64)] * 2, [torch.tensor([1])] * 2
    losses = detector.head.loss(detector(torch.randn(2, 3, 31, 31)), detector.head.targets(boxes, labels, (31, 31)))
    losses["total"].backward()
    assert losses["heatmap"] > 0
    assert all(torch.isfinite(p.grad).all() for p in detector.parameters())


def test_focal_by_hand() -> None:
    assert cell("focal", 0.8, 1.0) == pytest.approx(-(0.2**2) * math.log(0.8))
    assert cell("focal", 0.8, 0.5) == pytest.approx(-(0.5**4) * 0.8**2 * math.log(0.2))
    assert cell("focal", 0.8, 0.0) == pytest.approx(-(0.8**2) * math.log(0.2))


def test_focal_takes_its_exponents_from_the_configuration() -> None:
    logits, target = torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 0.5)
    found = HEATMAP_LOSSES["focal"](logits, target, CornerHeadConfig(focal_alpha=3.0, focal_beta=1.0))
    assert found.item() == pytest.approx(0.5 * 0.5**3 * math.log(2))


def test_binary_cross_entropy_by_hand() -> None:
    assert cell("bce", 0.8, 1.0) == pytest.approx(-math.log(0.8))
    assert cell("bce", 0.8, 0.25) == pytest.approx(-0.25 * math.log(0.8) - 0.75 * math.log(0.2))


def test_mean_squared_error_by_hand() -> None:
    assert cell("mse", 0.8, 1.0) == pytest.approx(0.04)
    assert cell("mse", 0.8, 0.5) == pytest.approx(0.09)


def test_quality_focal_by_hand() -> None:
    assert cell("quality_focal", 0.8, 1.0) == pytest.approx(-(0.2**2) * math.log(0.8))
    assert cell("quality_focal", 0.8, 0.5) == pytest.approx(-(0.3**2) * 0.5 * (math.log(0.8) + math.log(0.2)))
    assert cell("quality_focal", 0.5, 0.5) == 0


def test_adaptive_wing_by_hand() -> None:
    # near: 14 log(1 + d^(2.1 - y))
    assert cell("adaptive_wing", 0.8, 1.0) == pytest.approx(14 * math.log(1 + 0.2**1.1))
    assert cell("adaptive_wing", 0.1, 0.0) == pytest.approx(14 * math.log(1 + 0.1**2.1))
    # far, y = 0: A = 14 * 2.1 * 0.5^1.1 / (1 + 0.5^2.1), C = 0.5 A - 14 log(1 + 0.5^2.1)
    slope = 14 * 2.1 * 0.5**1.1 / (1 + 0.5**2.1)
    assert cell("adaptive_wing", 0.9, 0.0) == pytest.approx(0.4 * slope + 14 * math.log(1 + 0.5**2.1))


@pytest.mark.parametrize("y", [0.0, 0.4, 1.0])
def test_adaptive_wing_has_no_step_where_its_parts_meet(y: float) -> None:
    p = y + 0.5 if y < 0.5 else y - 0.5
    below, at, above = (cell("adaptive_wing", p + step, y) for step in (-1e-6, 0.0, 1e-6))
    assert below == pytest.approx(at, abs=1e-4)
    assert above - at == pytest.approx(at - below, rel=1e-3)


def test_an_unknown_loss_is_an_error_with_similar_names() -> None:
    with pytest.raises(ConfigError, match=r"model\.head\.heatmap_loss is 'focl'; did you mean focal"):
        recipe("tiny").with_("model.head.heatmap_loss", "focl")
