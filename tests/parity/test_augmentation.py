"""Augmentation equals the authors' (targets.npz): images, boxes, windows, colour."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cornernet.config import AugmentationConfig, DataConfig
from cornernet.data import transforms as t
from tests.parity import recipe

GOLDEN = np.load(Path(__file__).parent / "data" / "targets.npz", allow_pickle=False)
IMAGES = json.loads(str(GOLDEN["images"]))
VARIANTS = json.loads(str(GOLDEN["variants"]))
CROPS = json.loads(str(GOLDEN["crops"]))
PLAIN = AugmentationConfig(random_crop=False, flip=0.0, colour_jitter=0.0, lighting=0.0)
MIRRORED = replace(PLAIN, flip=1.0)


def augmented(item: dict[str, Any], config: DataConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    photo = recipe.photo(item["seed"], item["height"], item["width"])
    rows = np.array(item["boxes_xyxy_cat1"], np.float64).reshape(-1, 5)
    return t.augment(photo, rows[:, :4], rows[:, 4].astype(np.int64) - 1, config, np.random.default_rng(0))


def offsets_and_counts(name: str, index: int) -> tuple[np.ndarray, int]:
    """The stored fractions are those of the boxes' corners, the only trace of the boxes in the file."""
    count = int(GOLDEN[f"{name}/tag_mask"][index].sum())
    return np.hstack([GOLDEN[f"{name}/tl_regr"][index, :count], GOLDEN[f"{name}/br_regr"][index, :count]]), count


def check_boxes(name: str, index: int, boxes: np.ndarray, labels: np.ndarray, config: DataConfig) -> None:
    height, width = config.input_size
    stride = np.array([width / ((width + 1) // 4), height / ((height + 1) // 4)] * 2)
    cells = boxes / stride
    offsets, count = offsets_and_counts(name, index)
    assert len(boxes) == count
    np.testing.assert_allclose(cells - np.floor(cells), offsets, atol=1e-5)
    tags = np.floor(cells).astype(np.int64)
    map_width = (width + 1) // 4
    np.testing.assert_array_equal(tags[:, 1] * map_width + tags[:, 0], GOLDEN[f"{name}/tl_tags"][index, :count])
    np.testing.assert_array_equal(tags[:, 3] * map_width + tags[:, 2], GOLDEN[f"{name}/br_tags"][index, :count])
    peaks = GOLDEN[f"{name}/tl_heat_idx"][GOLDEN[f"{name}/tl_heat_val"] == 1.0]
    expected = {(int(c), int(y), int(x)) for i, c, y, x in peaks if i == index}
    assert {(int(c), int(y), int(x)) for c, (x, y) in zip(labels, tags[:, :2], strict=True)} == expected


@pytest.mark.parametrize("index", range(len(IMAGES)), ids=[item["kind"] for item in IMAGES])
@pytest.mark.parametrize("name", list(VARIANTS))
def test_image_and_boxes_equal_the_authors(name: str, index: int) -> None:
    size = tuple(VARIANTS[name].get("input_size", (511, 511)))
    config = DataConfig(input_size=size, augmentation=PLAIN)
    image, boxes, labels = augmented(IMAGES[index], config)
    pixels = image.transpose(2, 0, 1) * 255.0
    np.testing.assert_allclose(pixels[:, ::16, ::16], GOLDEN[f"{name}/image_sub16"][index], atol=1e-4)
    np.testing.assert_allclose(pixels.sum((1, 2), dtype=np.float64), GOLDEN[f"{name}/image_sum"][index], rtol=1e-6)
    check_boxes(name, index, boxes, labels, config)


@pytest.mark.parametrize("index", range(len(IMAGES)), ids=[item["kind"] for item in IMAGES])
@pytest.mark.parametrize(("name", "augmentation"), [("norm_noflip", PLAIN), ("norm_flip", MIRRORED)])
def test_normalised_image_and_flipped_boxes_equal_the_authors(
    name: str, augmentation: AugmentationConfig, index: int
) -> None:
    config = DataConfig(augmentation=augmentation)
    image, boxes, labels = augmented(IMAGES[index], config)
    chw = t.normalise(image, config)
    assert chw.dtype == np.float32
    assert chw.flags.c_contiguous
    np.testing.assert_allclose(chw[:, ::16, ::16], GOLDEN[f"{name}/image_sub16"][index], atol=1e-6)
    np.testing.assert_allclose(
        chw.sum((1, 2), dtype=np.float64), GOLDEN[f"{name}/image_sum"][index], rtol=1e-5, atol=0.1
    )
    check_boxes(name, index, boxes, labels, config)


@pytest.mark.parametrize("index", range(len(CROPS)))
def test_random_window_equals_the_authors(index: int) -> None:
    crop = CROPS[index]
    photo = recipe.photo(crop["seed"], crop["height"], crop["width"])
    x_low, x_high, x = crop["x_low_high_drawn"]
    y_low, y_high, y = crop["y_low_high_drawn"]
    assert t.centre_range(crop["width"], crop["border"]) == (x_low, x_high)
    assert t.centre_range(crop["height"], crop["border"]) == (y_low, y_high)
    view = tuple(int(side * crop["scale"]) for side in crop["view_size"])
    window, offset = t.crop_window(photo, (x, y), (view[0], view[1]))
    assert window.shape == tuple(GOLDEN[f"crop{index}/out_shape"])
    np.testing.assert_array_equal(window[::8, ::8], GOLDEN[f"crop{index}/out_image_sub8"])
    assert int(window.sum(dtype=np.int64)) == int(GOLDEN[f"crop{index}/out_sum"])
    boxes = t.shift(GOLDEN[f"crop{index}/boxes"][:, :4], offset)
    np.testing.assert_array_equal(boxes, GOLDEN[f"crop{index}/out_boxes"][:, :4])


def test_drawn_windows_have_the_authors_sizes_and_centres() -> None:
    for crop in CROPS:
        config = AugmentationConfig(crop_scales=(crop["scale"],), crop_border=crop["border"])
        size, view = (crop["height"], crop["width"]), tuple(crop["view_size"])
        x_low, x_high, _ = crop["x_low_high_drawn"]
        y_low, y_high, _ = crop["y_low_high_drawn"]
        drawn = [t.draw(size, (view[0], view[1]), config, np.random.default_rng(s)) for s in range(600)]
        assert {d.view for d in drawn} == {tuple(int(side * crop["scale"]) for side in view)}
        xs, ys = [d.centre[0] for d in drawn], [d.centre[1] for d in drawn]
        assert x_low <= min(xs) <= x_low + (x_high - x_low) // 4
        assert x_high - (x_high - x_low) // 4 - 1 <= max(xs) < x_high
        assert y_low <= min(ys) <= y_low + (y_high - y_low) // 4
        assert y_high - (y_high - y_low) // 4 - 1 <= max(ys) < y_high


@pytest.mark.parametrize("step", ["brightness", "contrast", "saturation"])
def test_colour_step_equals_the_authors(step: str) -> None:
    image = GOLDEN["colour/input"].copy()
    function = {"brightness": t.adjust_brightness, "contrast": t.adjust_contrast, "saturation": t.adjust_saturation}
    function[step](image, float(GOLDEN[f"colour/{step}_draw"]))
    np.testing.assert_allclose(image, GOLDEN[f"colour/{step}"], atol=2e-7)


def test_lighting_equals_the_authors() -> None:
    image = GOLDEN["colour/input"].copy()
    t.adjust_lighting(image, GOLDEN["colour/lighting_draw"])
    np.testing.assert_allclose(image, GOLDEN["colour/lighting"], atol=2e-7)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_colour_chain_takes_grey_and_its_mean_once(order: tuple[int, ...]) -> None:
    image, grey = GOLDEN["colour/input"].copy(), GOLDEN["colour/grayscale"].astype(np.float64)
    b, c, s = (float(GOLDEN[f"colour/{step}_draw"]) for step in ("brightness", "contrast", "saturation"))
    t.jitter_colour(image, order, b, c, s)
    expected = GOLDEN["colour/input"].astype(np.float64)
    for step in order:
        factor, other = {
            0: (1 + b, 0.0),
            1: (1 + c, grey.mean()),
            2: (1 + s, grey[:, :, None]),
        }[step]
        expected = factor * expected + (1 - factor) * other
    np.testing.assert_allclose(image, expected, atol=1e-6)
