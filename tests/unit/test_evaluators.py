"""hotcoco, the default, gives what pycocotools gives, to the last digit and box by box."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cornernet.evaluation.matching import BoxMatching, match_boxes

BORDERS = (0.0, 16.0, 1023.9999, 1024.0, 1024.0001, 9216.0, 9216.0001, 1e10, 2e10)


def boxes(rng: np.random.Generator, count: int, grid: float) -> np.ndarray:
    """Return boxes [N, 4] x y w h; on a coarse grid many are equal, touch, or have no area."""
    found = np.concatenate([rng.random((count, 2)) * 60, rng.random((count, 2)) * rng.choice([5, 30, 120])], 1)
    return np.round(found / grid) * grid if grid else found


def scene(seed: int, objects: int, detections: int, grid: float, first_id: int) -> tuple[dict[str, Any], list[Any]]:
    """Return a truth and results with crowds, images without either, `ignore` flags, ties, and areas at the borders."""
    rng = np.random.default_rng(seed)
    images = rng.choice(np.arange(-5, 40), 5, replace=False).tolist()
    categories = rng.choice(np.arange(-2, 9), 3, replace=False).tolist()
    true = boxes(rng, objects, grid)
    areas = np.where(rng.random(objects) < 0.5, true[:, 2] * true[:, 3], rng.choice(BORDERS, objects))
    annotations = [
        {
            "id": first_id + number,
            "image_id": int(rng.choice(images[1:])),
            "category_id": int(rng.choice(categories)),
            "bbox": box,
            "area": area,
            "iscrowd": int(rng.random() < 0.15),
            **({"ignore": 1} if rng.random() < 0.1 else {}),
        }
        for number, (box, area) in enumerate(zip(true.tolist(), areas.tolist(), strict=True))
    ]
    results = []
    for box in boxes(rng, detections, grid):
        image, category = rng.choice(images), rng.choice(categories)
        if rng.random() < 0.3:  # on one image, more than COCO's limit of 100 for a class
            image, category = images[1], categories[0]
        if annotations and rng.random() < 0.6:  # near an object
            of = annotations[rng.integers(objects)]
            box = np.array(of["bbox"]) + rng.integers(-2, 3, 4)
            image, category = of["image_id"], of["category_id"]
        score = rng.integers(0, 6) / 5 if rng.random() < 0.7 else rng.random()
        results.append(
            {"image_id": int(image), "category_id": int(category), "bbox": box.tolist(), "score": float(score)}
        )
    truth = {
        "images": [{"id": number, "file_name": "", "height": 90, "width": 90} for number in images],
        "categories": [{"id": number, "name": str(number)} for number in categories],
        "annotations": annotations,
    }
    return truth, results


def assert_same(ours: BoxMatching, theirs: BoxMatching) -> None:
    for a, b in zip(ours.accumulated(), theirs.accumulated(), strict=True):
        np.testing.assert_array_equal(a, b)
    matches, others = ours.matches(), theirs.matches()
    assert matches.image_ids == others.image_ids
    for mine, other in zip(matches.classes, others.classes, strict=True):
        for name in ("images", "ranks", "run_ends", "outcomes", "objects"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(other, name), err_msg=name)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    objects=st.sampled_from([0, 1, 8, 30]),
    detections=st.sampled_from([0, 1, 20, 80, 600]),
    grid=st.sampled_from([0.0, 1.0, 8.0]),
    first_id=st.sampled_from([-3, 0, 1]),
    bands=st.sampled_from([(1024.0, 9216.0), (16.0, 256.0)]),
)
def test_both_evaluators_give_the_same_digits_and_the_same_matches(
    seed, objects, detections, grid, first_id, bands
) -> None:
    truth, results = scene(seed, objects, detections, grid, first_id)
    ids = [row["id"] for row in truth["categories"]]
    ours, theirs = (
        match_boxes(truth, results, area_bands=bands, category_ids=ids, backend=backend)
        for backend in ("hotcoco", "pycocotools")
    )
    assert_same(ours, theirs)


def test_hotcoco_evaluates_unless_another_is_asked_for() -> None:
    truth, results = scene(0, 8, 20, 1.0, 1)
    ids = [row["id"] for row in truth["categories"]]
    assert match_boxes(truth, results, area_bands=(1024.0, 9216.0), category_ids=ids).backend == "hotcoco"


@pytest.mark.parametrize("backend", ["hotcoco", "pycocotools"])
def test_classes_are_in_the_order_that_was_given(backend) -> None:
    truth, results = scene(1, 30, 80, 1.0, 1)
    ids = [row["id"] for row in truth["categories"]]
    one, other = (
        match_boxes(truth, results, area_bands=(1024.0, 9216.0), category_ids=order, backend=backend).accumulated()[0]
        for order in (ids, ids[::-1])
    )
    assert not np.array_equal(one[:, :, 0], one[:, :, -1])
    np.testing.assert_array_equal(one, other[:, :, ::-1])


@pytest.mark.parametrize("backend", ["hotcoco", "pycocotools"])
@pytest.mark.parametrize("side", [float("nan"), float("inf")])
def test_a_box_that_is_no_box_is_refused(backend, side) -> None:
    truth, results = scene(2, 8, 20, 1.0, 1)
    results[7]["bbox"][2] = side
    ids = [row["id"] for row in truth["categories"]]
    with pytest.raises(ValueError, match=r"result 7 on image -?\d+ has the box \["):
        match_boxes(truth, results, area_bands=(1024.0, 9216.0), category_ids=ids, backend=backend)
