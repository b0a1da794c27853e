"""Heatmaps, radii, indices and offsets equal the authors' (targets.npz)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cornernet.config import AugmentationConfig, CornerHeadConfig, DataConfig
from cornernet.data.transforms import augment
from cornernet.model.heads.corner.targets import CornerTargets, TargetBuilder, draw_gaussian, gaussian_radius
from tests.parity import recipe
from tests.parity.goldens import load

GOLDEN = load("targets.npz")
IMAGES: list[dict[str, Any]] = json.loads(str(GOLDEN["images"]))
VARIANTS: dict[str, dict[str, Any]] = json.loads(str(GOLDEN["variants"]))
PLAIN = AugmentationConfig(random_crop=False, flip=0.0, colour_jitter=0.0, lighting=0.0)


def test_radius_of_every_size_and_overlap() -> None:
    for i, height in enumerate(GOLDEN["radius_heights"].tolist()):
        for j, width in enumerate(GOLDEN["radius_widths"].tolist()):
            for k, overlap in enumerate(GOLDEN["radius_overlaps"].tolist()):
                expected = GOLDEN["radius"][i, j, k]
                assert gaussian_radius(height, width, overlap) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_gaussians_drawn_one_over_another() -> None:
    heatmap = np.zeros(GOLDEN["draw_steps"].shape[1:], np.float32)
    for (x, y, radius), expected in zip(GOLDEN["draw_calls_x_y_radius"].tolist(), GOLDEN["draw_steps"], strict=True):
        draw_gaussian(heatmap, x, y, radius)
        np.testing.assert_allclose(heatmap, expected, rtol=0, atol=1e-6)


def build(name: str) -> CornerTargets:
    variant = VARIANTS[name]
    config = DataConfig(input_size=tuple(variant.get("input_size", (511, 511))), augmentation=PLAIN)
    head = CornerHeadConfig(min_iou=variant.get("gaussian_iou", 0.3))
    if not variant.get("gaussian_bump", True):
        head = replace(head, penalty_reduction="none")
    boxes, labels = [], []
    for item in IMAGES:
        photo = recipe.photo(item["seed"], item["height"], item["width"])
        rows = np.array(item["boxes_xyxy_cat1"], np.float64).reshape(-1, 5)
        rng = np.random.default_rng(0)
        _, b, n = augment(photo, rows[:, :4], rows[:, 4].astype(np.int64) - 1, config, rng)
        boxes.append(torch.from_numpy(b))
        labels.append(torch.from_numpy(n))
    return TargetBuilder(config=head, num_classes=80)(boxes, labels, config.input_size)


@pytest.mark.parametrize("name", VARIANTS)
def test_targets_of_every_variant(name: str) -> None:
    targets = build(name)
    most = targets.mask.shape[1]
    np.testing.assert_array_equal(targets.mask.numpy(), GOLDEN[f"{name}/tag_mask"][:, :most].astype(bool))
    assert GOLDEN[f"{name}/tag_mask"][:, most:].sum() == 0
    for which, corner in enumerate(("tl", "br")):
        expected = np.zeros(GOLDEN[f"{name}/{corner}_heat_shape"], np.float32)
        expected[tuple(GOLDEN[f"{name}/{corner}_heat_idx"].T)] = GOLDEN[f"{name}/{corner}_heat_val"]
        found = targets.heatmaps[which].numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(found == 1, expected == 1)
        np.testing.assert_array_equal(targets.indices[which].numpy(), GOLDEN[f"{name}/{corner}_tags"][:, :most])
        np.testing.assert_allclose(
            targets.offsets[which].numpy(), GOLDEN[f"{name}/{corner}_regr"][:, :most], rtol=0, atol=1e-5
        )
