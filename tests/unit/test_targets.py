"""Corner targets: cells and offsets of corners, the reach of the reduced penalty, any number of objects."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cornernet.config import CornerHeadConfig
from cornernet.model.heads.corner.targets import TargetBuilder, gaussian_radius, original_radius


def build(boxes, labels, *, classes=2, size=(63, 95), **config):
    builder = TargetBuilder(config=CornerHeadConfig(**config), num_classes=classes)
    return builder(
        [torch.tensor(b, dtype=torch.float64).reshape(-1, 4) for b in boxes],
        [torch.tensor(n, dtype=torch.int64) for n in labels],
        size,
    )


def test_corners_are_in_their_cell_with_the_fraction_as_offset() -> None:
    targets = build([[[10.0, 20.0, 61.0, 50.0]]], [[1]])
    x, y = 10 * 24 / 95, 20 * 16 / 63
    assert targets.heatmaps.top_left.shape == (1, 2, 16, 24)
    assert targets.indices.top_left.item() == int(y) * 24 + int(x)
    np.testing.assert_allclose(targets.offsets.top_left[0, 0], [x % 1, y % 1], rtol=1e-6)
    assert targets.heatmaps.top_left[0, 1, int(y), int(x)] == 1
    assert targets.heatmaps.top_left[0, 0].max() == 0
    x, y = 61 * 24 / 95, 50 * 16 / 63
    assert targets.indices.bottom_right.item() == int(y) * 24 + int(x)


def test_all_tensors_move_with_the_targets(monkeypatch) -> None:
    targets = build([[[10.0, 20.0, 61.0, 50.0], [1, 2, 30, 40]]], [[1, 0]])
    fields = ("heatmaps", "indices", "offsets")
    mapped = targets.map(lambda x: x.double() + 1)
    for name in fields:
        for found, given_ in zip(getattr(mapped, name), getattr(targets, name), strict=True):
            assert torch.equal(found, given_.double() + 1)
    assert torch.equal(mapped.mask, targets.mask.double() + 1)
    moved = targets.to(torch.device("meta"))
    assert {x.device.type for name in fields for x in getattr(moved, name)} | {moved.mask.device.type} == {"meta"}
    # page-locking needs a GPU, so the calls on the tensors are recorded instead
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: x.clone().fill_(1))
    pinned = targets.pin_memory()
    assert all((x == 1).all() for name in fields for x in getattr(pinned, name))
    assert pinned.mask.all()


def test_no_objects_at_all() -> None:
    targets = build([[], []], [[], []])
    assert targets.mask.shape == (2, 0)
    assert targets.counts().tolist() == [0, 0, 0, 2]
    assert targets.heatmaps.top_left.sum() == 0


def test_images_with_none_one_and_more_than_128_objects() -> None:
    many = [[i % 90, i % 60, i % 90 + 3.0, i % 60 + 2.0] for i in range(200)]
    targets = build([[], [[1, 1, 9, 9]], many], [[], [0], [i % 2 for i in range(200)]])
    assert targets.mask.sum(1).tolist() == [0, 1, 200]
    assert targets.counts()[2] == 201


def test_two_objects_in_a_cell_are_one_positive_and_two_objects() -> None:
    targets = build([[[8, 8, 30, 30], [8.5, 8.5, 50, 50]]], [[0, 0]])
    assert targets.counts().tolist() == [1, 2, 2, 1]


def test_without_penalty_reduction_only_corners_are_not_zero() -> None:
    targets = build([[[4, 4, 90, 60]]], [[0]], penalty_reduction="none")
    assert (targets.heatmaps.top_left > 0).sum() == 1


def test_the_fixed_radius_reaches_the_same_whole_cells_for_every_object() -> None:
    for box in ([40, 30, 44, 34], [40, 30, 90, 60]):
        heat = build([[box]], [[0]], penalty_reduction="fixed", fixed_radius=2.5).heatmaps.top_left[0, 0]
        ys, xs = torch.nonzero(heat, as_tuple=True)
        assert (ys.max() - ys.min(), xs.max() - xs.min()) == (4, 4)
        y, x = divmod(int(heat.argmax()), 24)
        assert heat[y, x + 2].item() == pytest.approx(math.exp(-(2**2) / 2))


def test_the_object_dependent_radius_grows_with_the_object() -> None:
    small, large = (
        (build([[box]], [[0]], size=(255, 255)).heatmaps.top_left > 0).sum().item()
        for box in ([100, 100, 120, 120], [20, 20, 240, 240])
    )
    assert small < large


@pytest.mark.parametrize("box", [[-1, 0, 5, 5], [0, 0, 95, 5], [0, 0, 5, 63.5]])
def test_boxes_outside_the_image_are_refused(box) -> None:
    with pytest.raises(ValueError, match="inside the image of 63x95 pixels"):
        build([[box]], [[0]])


def test_boxes_and_labels_must_be_of_the_same_number_of_images_and_a_batch_can_be_empty() -> None:
    with pytest.raises(ValueError, match="shorter"):
        build([[[0, 0, 5, 5]], []], [[0]])
    nothing = build([], [])
    assert nothing.mask.shape == (0, 0)
    assert nothing.counts().tolist() == [0, 0, 0, 0]


def test_labels_outside_the_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="labels must be 0 to 1"):
        build([[[0, 0, 5, 5]]], [[2]])


def iou(a, b) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return inter / (area - inter)


@given(
    height=st.floats(1, 200),
    width=st.floats(1, 200),
    min_iou=st.floats(0.05, 0.95),
)
def test_boxes_within_the_radius_keep_their_iou_and_the_worst_just_does(height, width, min_iou) -> None:
    r = gaussian_radius(height, width, min_iou)
    assert r >= 0
    box = (0, 0, width, height)
    moved = {
        "shifted": (r, r, width + r, height + r),
        "inside": (r, r, width - r, height - r),
        "outside": (-r, -r, width + r, height + r),
    }
    worst = min(iou(box, m) for m in moved.values())
    assert worst == pytest.approx(min_iou, abs=1e-6)


def test_the_original_formula_by_hand() -> None:
    # 10 by 10 at 0.7: a = 2.8, b = -28, c = -30; the other two give over 10
    assert original_radius(10, 10, 0.7) == pytest.approx((-28 + math.sqrt(28**2 + 4 * 2.8 * 30)) / 2)
    # 20 by 5 at 0.3: a = 1.2, b = -15, c = -70
    assert original_radius(20, 5, 0.3) == pytest.approx((-15 + math.sqrt(15**2 + 4 * 1.2 * 70)) / 2)


@given(height=st.floats(1, 200), width=st.floats(1, 200), min_iou=st.floats(0.05, 0.95))
def test_the_original_formula_is_the_least_of_its_three_roots(height, width, min_iou) -> None:
    total, area, o = height + width, height * width, min_iou
    roots = [
        (b + math.sqrt(b * b - 4 * a * c)) / 2
        for a, b, c in (
            (1, total, area * (1 - o) / (1 + o)),
            (4, 2 * total, (1 - o) * area),
            (4 * o, -2 * o * total, -(1 - o) * area),
        )
    ]
    assert original_radius(height, width, min_iou) == pytest.approx(min(roots), rel=1e-9, abs=1e-9)


@given(height=st.floats(1, 200), width=st.floats(1, 200), min_iou=st.floats(0.3, 0.95))
def test_the_original_formula_reaches_further_and_goes_below_min_iou(height, width, min_iou) -> None:
    r = original_radius(height, width, min_iou)
    assert r > gaussian_radius(height, width, min_iou)
    assert iou((0, 0, width, height), (r, r, width - r, height - r)) < min_iou or 2 * r > min(height, width)


def test_a_configuration_chooses_the_formula() -> None:
    box, size = [20, 20, 240, 240], (255, 255)
    reach = {}
    for formula in ("corrected", "original"):
        config = CornerHeadConfig(radius_formula=formula, min_iou=0.7)
        extent = math.ceil(220 * 64 / 255)
        reach[formula] = TargetBuilder(config=config, num_classes=1).radius(extent, extent)
        heat = build([[box]], [[0]], classes=1, size=size, radius_formula=formula, min_iou=0.7).heatmaps.top_left[0, 0]
        columns = torch.nonzero(heat > 0)[:, 1]
        x = int(heat.argmax()) % 64
        assert columns.max() - x == reach[formula]
    assert reach["original"] == int(original_radius(56, 56, 0.7)) > reach["corrected"]
