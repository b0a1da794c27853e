"""COCO evaluation: results checked by hand, equal backends, and NaN for what cannot be measured."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cornernet import build_detector, recipe
from cornernet.config import CocoSource, ShapesSource
from cornernet.data import DataError, DetectionDataset, open_dataset
from cornernet.evaluation.evaluate import METRICS, coco_evaluation, evaluate
from tests.unit.data.folders import annotation, coco_folder, tree


@pytest.fixture(scope="module")
def dataset() -> DetectionDataset:
    return open_dataset(ShapesSource(train_images=2, val_images=12), "val")


def truth_as_results(dataset: DetectionDataset, rng: np.random.Generator | None = None) -> list[dict[str, Any]]:
    results = []
    for record in dataset.records:
        for box, label in zip(record.boxes, record.labels, strict=True):
            x1, y1, x2, y2 = box if rng is None else box + rng.normal(0, 3, 4)
            results.append(
                {
                    "image_id": record.image_id,
                    "category_id": dataset.category_ids[label],
                    "bbox": [float(x1), float(y1), max(float(x2 - x1), 1.0), max(float(y2 - y1), 1.0)],
                    "score": 0.9 if rng is None else float(rng.random()),
                }
            )
    return results


def same(a: dict[str, float], b: dict[str, float]) -> bool:
    return a.keys() == b.keys() and all(x == b[k] or (math.isnan(x) and math.isnan(b[k])) for k, x in a.items())


def test_the_truth_scores_one(dataset) -> None:
    found = coco_evaluation(dataset, truth_as_results(dataset))
    assert found.metrics["AP"] == pytest.approx(1)
    assert found.metrics["AP90"] == pytest.approx(1)
    assert found.metrics["AR100"] == pytest.approx(1)
    assert [values["AP"] for values in found.per_class.values()] == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("backend", ["pycocotools", "hotcoco"])
def test_no_detections_score_zero(dataset, backend) -> None:
    metrics = coco_evaluation(dataset, [], backend).metrics
    assert metrics["AP"] == 0
    assert metrics["AR100"] == 0


def test_half_the_objects_of_one_class_found(dataset) -> None:
    results = [r for r in truth_as_results(dataset) if r["category_id"] == dataset.category_ids[0]]
    kept = results[: len(results) // 2]
    found = coco_evaluation(dataset, kept).per_class
    assert found[dataset.classes[1]]["AP"] == 0
    # precision is 1 up to the recall reached, at 101 recall points
    recall = len(kept) / len(results)
    assert found[dataset.classes[0]]["AP"] == pytest.approx((math.floor(100 * recall) + 1) / 101)


def test_what_the_data_cannot_measure_is_nan_and_shown_as_such(dataset) -> None:
    found = coco_evaluation(dataset, truth_as_results(dataset))
    assert math.isnan(found.metrics["APs"])
    row = next(line for line in found.to_text().splitlines() if line.startswith("APs"))
    assert row.split() == ["APs", "-"]


@pytest.mark.parametrize("backend", ["pycocotools", "hotcoco"])
def test_the_text_says_who_evaluated(dataset, backend) -> None:
    assert f"; evaluated by {backend}\n" in coco_evaluation(dataset, [], backend).to_text() + "\n"


@pytest.mark.parametrize("backend", ["pycocotools", "hotcoco"])
def test_area_bands_are_the_data_s(dataset, backend) -> None:
    found = coco_evaluation(dataset, truth_as_results(dataset), backend)
    areas = np.concatenate([np.prod(r.boxes[:, 2:] - r.boxes[:, :2], axis=1) for r in dataset.records])
    assert (areas < dataset.area_bands[0]).sum() == 0
    assert found.metrics["APl"] == pytest.approx(1)
    assert found.area_bands == dataset.area_bands


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(seed=st.integers(0, 2**32 - 1), keep=st.floats(0.1, 1), extra=st.integers(0, 20))
def test_both_backends_agree_to_the_last_digit(dataset, seed, keep, extra) -> None:
    rng = np.random.default_rng(seed)
    results = [r for r in truth_as_results(dataset, rng) if rng.random() < keep]
    for _ in range(extra):
        x, y, w, h = rng.random(4) * 50
        image = dataset.records[int(rng.integers(len(dataset)))].image_id
        category = int(rng.choice(dataset.category_ids))
        # repeated scores: ties must fall the same way too
        score = float(rng.integers(1, 4)) / 4
        results.append({"image_id": image, "category_id": category, "bbox": [x, y, w + 1, h + 1], "score": score})
    oracle, fast = (coco_evaluation(dataset, results, backend) for backend in ("pycocotools", "hotcoco"))
    assert list(oracle.metrics) == list(METRICS)
    assert same(oracle.metrics, fast.metrics)
    for name, values in oracle.per_class.items():
        assert same(values, fast.per_class[name])


def test_an_unknown_backend_is_an_error(dataset) -> None:
    with pytest.raises(ValueError, match="use pycocotools or hotcoco"):
        coco_evaluation(dataset, [], "fastcoco")


def test_a_detector_is_evaluated_on_every_image(dataset) -> None:
    torch.manual_seed(0)
    detector = build_detector(recipe("tiny")).eval()
    seen = []
    found = evaluate(detector, dataset, detector.config, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, len(dataset)) for i in range(len(dataset))]
    assert {r["image_id"] for r in found.results} <= {r.image_id for r in dataset.records}
    assert {r["category_id"] for r in found.results} <= set(dataset.category_ids)


def test_weights_of_other_classes_are_refused(dataset) -> None:
    config = recipe("tiny").with_("model.num_classes", 5)
    with pytest.raises(DataError, match="5 classes and shapes"):
        evaluate(build_detector(config), dataset, config)
    detector = build_detector(recipe("tiny"))
    detector.classes, detector.category_ids = ("Platelets", "RBC", "WBC"), dataset.category_ids
    with pytest.raises(DataError, match="trained to find Platelets, RBC, WBC"):
        evaluate(detector, dataset, detector.config)


def test_results_are_left_as_they_were_given(dataset) -> None:
    results = truth_as_results(dataset)
    keys = set(results[0])
    assert set(coco_evaluation(dataset, results).results[0]) == keys


def test_both_backends_agree_on_crowds_gaps_and_full_images(tmp_path) -> None:
    root = coco_folder(tmp_path)
    photographs = open_dataset(CocoSource(root=str(root)), "train")
    assert any(a["iscrowd"] for a in photographs.ground_truth()["annotations"])
    rng = np.random.default_rng(0)
    results = truth_as_results(photographs)
    for record in photographs.records:
        for _ in range(150):  # beyond the limit of 100 per photograph
            x, y, w, h = rng.random(4) * 30
            category = int(rng.choice(photographs.category_ids))
            score = float(rng.integers(1, 5)) / 5
            results.append(
                {"image_id": record.image_id, "category_id": category, "bbox": [x, y, w + 1, h + 1], "score": score}
            )
    oracle, fast = (coco_evaluation(photographs, results, backend) for backend in ("pycocotools", "hotcoco"))
    assert same(oracle.metrics, fast.metrics)


def test_backends_are_equal_for_negative_ids_of_images_and_categories(tmp_path) -> None:
    content = tree()
    for row in content["images"]:
        row["id"] = -row["id"]
    for row in content["categories"]:
        row["id"] -= 13
    for row in content["annotations"]:
        row["image_id"], row["category_id"] = -row["image_id"], row["category_id"] - 13
    turned = open_dataset(CocoSource(root=str(coco_folder(tmp_path / "turned", content))), "train")
    plain = open_dataset(CocoSource(root=str(coco_folder(tmp_path / "plain"))), "train")
    rng = np.random.default_rng(0)
    results = [result for _ in range(5) for result in truth_as_results(turned, rng)]
    shifted = [
        {**row, "image_id": -row["image_id"], "category_id": row["category_id"] + 13, "score": row["score"]}
        for row in results
    ]
    oracle, fast = (coco_evaluation(turned, results, backend) for backend in ("pycocotools", "hotcoco"))
    assert same(oracle.metrics, fast.metrics)
    assert same(oracle.metrics, coco_evaluation(plain, shifted, "hotcoco").metrics)
    ours, theirs = oracle.box_matching.matches(), fast.box_matching.matches()
    assert ours.image_ids == theirs.image_ids == (-1000, -7, -3)
    for a, b in zip(ours.classes, theirs.classes, strict=True):
        np.testing.assert_array_equal(a.outcomes, b.outcomes)


def test_limits_of_coco_and_of_the_detector_are_said(tmp_path) -> None:
    boxes = [[float(x), float(y), 3.0, 3.0] for x in range(0, 55, 5) for y in range(0, 36, 3)]
    rows = [annotation(at, 7, 13, box) for at, box in enumerate(boxes, start=1)]
    crowded = open_dataset(CocoSource(root=str(coco_folder(tmp_path, tree(annotations=rows)))), "train")
    config = recipe("tiny").with_("model.num_classes", 3)
    detector = build_detector(config)
    detector.classes, detector.category_ids = crowded.classes, crowded.category_ids
    text = evaluate(detector, crowded, config).to_text()
    assert "1 image with more than 100 objects of one class: AP and AR count the best 100 boxes" in text
    assert "1 image with more objects than the 100 boxes that testing.max_detections" in text
    more = evaluate(detector, crowded, config.with_("testing.max_detections", 300)).to_text()
    assert "testing.max_detections is 300: of a class in an image, AP and AR still count the best 100" in more
    assert "more objects than" not in more
