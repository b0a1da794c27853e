"""The bootstrap over images: unit weights give pycocotools' numbers, others those of copied images."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cornernet import Corners
from cornernet.ablations.statistics.packing import pack
from cornernet.ablations.statistics.resampling import (
    RESAMPLED_METRICS,
    RESAMPLES,
    WEIGHTS_VERSION,
    Resamples,
    bootstrap,
    corner_bootstrap,
    image_weights,
    metrics_under,
)
from cornernet.config import ShapesSource
from cornernet.config.choices import Backend
from cornernet.data import open_dataset
from cornernet.evaluation.corners import CORNER_METRICS, match_corners
from cornernet.evaluation.evaluate import METRICS, coco_evaluation
from cornernet.evaluation.matching import Matches, match_boxes
from cornernet.inference.detect import CornersInView
from cornernet.model.heads.candidates import CornerPoints

EXACT = {"rtol": 0, "atol": 1e-9, "equal_nan": True}
BANDS = (300.0, 900.0)


@dataclass
class Scene:
    """Ground truth and results, with the parts of a data set that ``coco_evaluation`` needs."""

    truth: dict[str, Any]
    results: list[dict[str, Any]]
    category_ids: tuple[int, ...]
    area_bands: tuple[float, float] = BANDS

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(str(i) for i in self.category_ids)

    @property
    def titles(self) -> tuple[str, ...]:
        return self.classes

    def __len__(self) -> int:
        return len(self.truth["images"])

    def ground_truth(self) -> dict[str, Any]:
        return self.truth

    def match(self, backend: Backend = "pycocotools") -> Matches:
        bands, ids = self.area_bands, self.category_ids
        return match_boxes(self.truth, self.results, area_bands=bands, category_ids=ids, backend=backend).matches()

    def oracle(self) -> dict[str, float]:
        return coco_evaluation(self, self.results, "pycocotools").metrics

    def duplicated(self, weights: np.ndarray) -> Scene:
        """Return the scene that contains image i ``weights[i]`` times, the copies in succession."""
        images, annotations, results = [], [], []
        for image, weight in zip(sorted(self.truth["images"], key=lambda image: image["id"]), weights, strict=True):
            for copy in range(weight):
                new = 1000 * image["id"] + copy
                images.append({**image, "id": new})
                for annotation in self.truth["annotations"]:
                    if annotation["image_id"] == image["id"]:
                        annotations.append({**annotation, "id": len(annotations) + 1, "image_id": new})
                results += [{**r, "image_id": new} for r in self.results if r["image_id"] == image["id"]]
        truth = {**self.truth, "images": images, "annotations": annotations}
        return Scene(truth, results, self.category_ids, self.area_bands)


def random_scene(seed: int, images: int, ties: bool, crowds: bool, wild: int = 4) -> Scene:
    """Return a scene of three classes, one mostly without objects, whose results are hits, shifted or invented."""
    rng = np.random.default_rng(seed)
    category_ids = (1, 3, 7)
    ids = sorted(rng.choice(90, images, replace=False).tolist())
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []

    def score() -> float:
        return float(rng.integers(1, 4)) / 4 if ties else float(rng.random())

    for image in ids:
        for _ in range(int(rng.integers(0, 5))):
            x, y, w, h = rng.random(4) * 40 + 4
            category = int(rng.choice(category_ids, p=(0.6, 0.38, 0.02)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": int(crowds and rng.random() < 0.2),
                }
            )
            for _ in range(int(rng.integers(0, 3))):
                dx, dy, dw, dh = rng.normal(0, 2, 4)
                box = [x + dx, y + dy, max(w + dw, 1.0), max(h + dh, 1.0)]
                results.append({"image_id": image, "category_id": category, "bbox": box, "score": score()})
        for _ in range(int(rng.integers(0, wild))):
            box = (rng.random(4) * 40 + 1).tolist()
            category = int(rng.choice(category_ids))
            results.append({"image_id": image, "category_id": category, "bbox": box, "score": score()})
    truth = {
        "images": [{"id": i, "width": 96, "height": 96, "file_name": f"{i}.png"} for i in ids],
        "annotations": annotations,
        "categories": [{"id": i, "name": str(i)} for i in category_ids],
    }
    return Scene(truth, results, category_ids)


SCENES = {
    "seed": st.integers(0, 2**32 - 1),
    "images": st.integers(1, 12),
    "ties": st.booleans(),
    "crowds": st.booleans(),
}


def assert_same(found: dict[str, np.ndarray], row: int, expected: dict[str, float]) -> None:
    for name in METRICS:
        np.testing.assert_allclose(found[name][row], expected[name], err_msg=name, **EXACT)


@given(**SCENES)
def test_unit_weights_give_pycocotools_numbers(seed, images, ties, crowds) -> None:
    scene = random_scene(seed, images, ties, crowds)
    found = metrics_under(scene.match(), np.ones((1, images), np.int64), METRICS)
    assert_same(found, 0, scene.oracle())


@given(**SCENES)
def test_both_backends_give_the_same_matches(seed, images, ties, crowds) -> None:
    scene = random_scene(seed, images, ties, crowds)
    oracle, fast = scene.match("pycocotools"), scene.match("hotcoco")
    assert oracle.image_ids == fast.image_ids
    for ours, theirs in zip(oracle.classes, fast.classes, strict=True):
        for each in fields(ours):
            np.testing.assert_array_equal(getattr(ours, each.name), getattr(theirs, each.name), err_msg=each.name)


@given(**SCENES)
def test_weights_give_the_numbers_of_copied_images(seed, images, ties, crowds) -> None:
    scene = random_scene(seed, images, ties, crowds)
    weights = image_weights(str(seed), images, resamples=3)
    found = metrics_under(scene.match(), weights, METRICS)
    for row, weight in enumerate(weights):
        assert_same(found, row, scene.duplicated(weight).oracle())


def test_copies_of_images_with_more_detections_than_count() -> None:
    scene = random_scene(5, images=3, ties=True, crowds=True, wild=400)
    weights = np.array([[1, 1, 1], [3, 0, 2], [0, 7, 1]])
    found = metrics_under(scene.match(), weights, METRICS)
    assert len(scene.results) > 300
    for row, weight in enumerate(weights):
        assert_same(found, row, scene.duplicated(weight).oracle())


def test_the_generated_data_set_under_unit_weights() -> None:
    dataset = open_dataset(ShapesSource(train_images=2, val_images=12), "val")
    rng = np.random.default_rng(0)
    results = []
    for record in dataset.records:
        for box, label in zip(record.boxes, record.labels, strict=True):
            x1, y1, x2, y2 = (float(value) for value in box + rng.normal(0, 3, 4))
            category = dataset.category_ids[label]
            box = [x1, y1, max(x2 - x1, 1.0), max(y2 - y1, 1.0)]
            results.append(
                {"image_id": record.image_id, "category_id": category, "bbox": box, "score": float(rng.random())}
            )
    evaluation = coco_evaluation(dataset, results)
    assert evaluation.box_matching is not None
    found = metrics_under(evaluation.box_matching.matches(), np.ones((1, 12), np.int64), METRICS)
    expected = evaluation.metrics
    assert_same(found, 0, expected)
    resampled = bootstrap(dataset, evaluation.box_matching, resamples=200)
    assert resampled.fingerprint == dataset.fingerprint
    assert 0 < resampled.values["AP"].std() < 0.3
    assert abs(resampled.values["AP"].mean() - expected["AP"]) < 3 * resampled.values["AP"].std()


def test_no_detections_are_zero_where_there_are_objects_and_nan_where_there_are_none() -> None:
    scene = random_scene(1, images=6, ties=False, crowds=False)
    scene.results.clear()
    empty = int(
        np.argmin([sum(a["image_id"] == i["id"] for a in scene.truth["annotations"]) for i in scene.truth["images"]])
    )
    only_empty = np.zeros((1, 6), np.int64)
    only_empty[0, empty] = 6
    scene.truth["annotations"] = [
        a for a in scene.truth["annotations"] if a["image_id"] != scene.truth["images"][empty]["id"]
    ]
    matches = scene.match()
    assert metrics_under(matches, np.ones((1, 6), np.int64), ["AP", "AR100"]) == {"AP": [0.0], "AR100": [0.0]}
    assert all(np.isnan(values).all() for values in metrics_under(matches, only_empty, METRICS).values())


def test_a_resample_without_small_objects_has_no_aps() -> None:
    scene = random_scene(2, images=8, ties=False, crowds=False)
    with_small = {a["image_id"] for a in scene.truth["annotations"] if a["area"] <= BANDS[0]}
    ids = sorted(image["id"] for image in scene.truth["images"])
    weights = np.array([[0 if i in with_small else 2 for i in ids], [1] * 8])
    assert 0 < len(with_small) < 8
    found = metrics_under(scene.match(), weights, ["AP", "APs"])
    assert np.isnan(found["APs"]).tolist() == [True, False]
    assert np.isfinite(found["AP"]).all()


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_does_not_depend_on_which_others_are_asked_for(name) -> None:
    scene = random_scene(3, images=10, ties=True, crowds=True)
    weights = image_weights("f", 10, resamples=5)
    matches = scene.match()
    np.testing.assert_array_equal(
        metrics_under(matches, weights, [name])[name], metrics_under(matches, weights, METRICS)[name]
    )


def test_inputs_are_not_modified() -> None:
    scene = random_scene(4, images=5, ties=False, crowds=True)
    before = json.dumps([scene.truth, scene.results])
    scene.match()
    assert json.dumps([scene.truth, scene.results]) == before


# ----------------------------------------------------------------------------------------------------------- weights
def test_weights_are_those_of_the_data_the_version_and_the_index() -> None:
    weights = image_weights("data", 40, resamples=30)
    assert weights.sum(axis=1).tolist() == [40] * 30
    np.testing.assert_array_equal(weights[:7], image_weights("data", 40, resamples=7))
    for other in (image_weights("other data", 40, 30), image_weights("data", 40, 30, version=WEIGHTS_VERSION + 1)):
        assert (other != weights).any(axis=1).all()
    assert len({tuple(row) for row in weights.tolist()}) == 30


PINNED = [[0, 0, 0, 5, 1, 1, 0, 1], [1, 2, 3, 1, 0, 0, 0, 1], [0, 3, 3, 0, 0, 1, 1, 0]]


def test_weights_are_the_same_on_every_machine() -> None:
    """Published records hold values under these weights. If they change, WEIGHTS_VERSION must be increased."""
    assert WEIGHTS_VERSION == 1
    assert image_weights("0123abcd", 8, resamples=3).tolist() == PINNED


def test_weights_follow_the_law_of_drawing_with_replacement() -> None:
    weights = image_weights("data", 50, resamples=4000)
    # the count of one image is binomial(50, 1/50); there are 4,000 rows, and a row's images are nearly independent
    assert weights.mean() == 1
    assert weights.var() == pytest.approx(0.98, abs=0.02)
    assert np.abs(weights.mean(axis=0) - 1).max() < 5 * np.sqrt(0.98 / 4000)
    # the covariance of two images is -1/50
    assert np.cov(weights[:, 0], weights[:, 1])[0, 1] == pytest.approx(-0.02, abs=5 / np.sqrt(4000))


# ------------------------------------------------------------------------------------------------------------ record
def ten_metrics() -> Resamples:
    rng = np.random.default_rng(0)
    values = {name: 0.4 + 0.013 * rng.standard_normal(RESAMPLES) for name in RESAMPLED_METRICS}
    values["APs"][::3] = np.nan
    return Resamples(fingerprint="f" * 64, version=WEIGHTS_VERSION, values=values)


def test_a_record_reads_back_what_was_written_to_a_sixteenth_of_the_deviation_and_is_small() -> None:
    written = ten_metrics()
    stored = written.to_record()
    text = json.dumps(stored, allow_nan=False)
    assert len(text) < 10_000
    read = Resamples.from_record(json.loads(text))
    assert read.paired_with(written)
    assert set(read.values) == set(RESAMPLED_METRICS)
    for name, values in written.values.items():
        np.testing.assert_allclose(read.values[name], values, rtol=0, atol=stored["steps"][name] / 2 + 1e-12)
        assert stored["steps"][name] <= np.nanstd(values) / 8
        assert np.nanstd(read.values[name]) == pytest.approx(np.nanstd(values), rel=0.005)


@pytest.mark.parametrize(
    "values",
    [
        [0.25, 0.5, math.nan],
        [0.5, 0.5, 0.5],
        [math.nan] * 3,
        [0.0, 1.0, 0.0],
        [-7.0, 2e4, 3.0],
    ],
)
def test_any_values_are_read_back_even_if_one_metric_tells_the_other(values) -> None:
    one = np.array(values)
    stored = Resamples(fingerprint="f", version=1, values={"b": one, "a": 3 * one + 0.1, "c": np.zeros(3)}).to_record()
    read = Resamples.from_record(stored).values
    np.testing.assert_allclose(read["b"], one, rtol=0, atol=stored["steps"]["b"] / 2 + 1e-12)
    np.testing.assert_allclose(read["a"], 3 * one + 0.1, rtol=0, atol=stored["steps"]["a"] / 2 + 1e-12)
    assert read["c"].tolist() == [0, 0, 0]


def test_equal_values_stay_equal_so_that_arms_without_a_difference_have_no_spread() -> None:
    one, other = ten_metrics(), ten_metrics()
    pairs = zip(*(Resamples.from_record(each.to_record()).values.values() for each in (one, other)), strict=True)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


@pytest.mark.parametrize("values", [{}, {"a": np.zeros(2), "b": np.zeros(3)}, {"a": np.array([1.0, math.inf])}])
def test_what_has_no_packed_form_is_an_error(values) -> None:
    with pytest.raises(ValueError, match="resamples"):
        pack(values)


def test_resamples_are_read_as_records_held_them_before() -> None:
    text = base64.b64encode(np.array([0.5, math.nan, 0.25], "<f4").tobytes()).decode()
    read = Resamples.from_record({"fingerprint": "f", "version": 1, "resamples": 3, "values": {"AP": text}})
    np.testing.assert_array_equal(read.values["AP"], [0.5, math.nan, 0.25])


def test_values_under_other_weights_are_not_paired() -> None:
    one = ten_metrics()
    fewer = {name: values[:10] for name, values in one.values.items()}
    assert not one.paired_with(Resamples(fingerprint="e" * 64, version=1, values=one.values))
    assert not one.paired_with(Resamples(fingerprint="f" * 64, version=2, values=one.values))
    assert not one.paired_with(Resamples(fingerprint="f" * 64, version=1, values=fewer))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"values": {"AP": "?"}}, "the resamples of AP are not base64"),
        ({"values": {"AP": "AAAA"}}, "the resamples of AP are 3 bytes"),
        ({"values": {}}, "hold no metric"),
        ({"steps": {}}, "hold no metric"),
        ({"packed": None}, "lack the field 'packed'"),
        ({"packed": "?\n"}, "cannot be read: not packed values"),
        ({"packed": base64.b85encode(b"text").decode()}, "cannot be read: not packed values"),
        ({"resamples": 999}, "cannot be read: not 40090 bytes"),
        ({"resamples": 1001}, "cannot be read: not 40170 bytes"),
        ({"version": None}, "lack the field 'version'"),
    ],
)
def test_a_damaged_record_is_an_error_that_names_it(edit, message) -> None:
    tree = {name: value for name, value in {**ten_metrics().to_record(), **edit}.items() if value is not None}
    with pytest.raises(ValueError, match=f"record 7.*{message}"):
        Resamples.from_record(tree, "record 7")


# ------------------------------------------------------------------------------------------------------------ errors
def test_wrong_weights_and_metrics_are_errors() -> None:
    matches = random_scene(0, images=4, ties=False, crowds=False).match()
    with pytest.raises(ValueError, match="no metric 'mAP'"):
        metrics_under(matches, np.ones((1, 4), np.int64), ["mAP"])
    with pytest.raises(ValueError, match=r"must be \[resamples, 4 images\]"):
        metrics_under(matches, np.ones((1, 5), np.int64))
    with pytest.raises(ValueError, match="negative"):
        metrics_under(matches, -np.ones((1, 4), np.int64))
    with pytest.raises(ValueError, match="no images"):
        image_weights("data", 0)


def test_results_that_cannot_be_ranked_or_placed_are_errors() -> None:
    scene = random_scene(0, images=4, ties=False, crowds=False)
    scene.results[0]["score"] = float("nan")
    with pytest.raises(ValueError, match=r"result 0 .* has the score nan"):
        scene.match()
    scene.results[0] = {**scene.results[0], "score": 0.5, "image_id": 12345}
    with pytest.raises(ValueError, match="result 0 is on image 12345"):
        scene.match()


# ------------------------------------------------------------------------------------------------------------ corners
class OfImages:
    """The parts of a data set that ``corner_bootstrap`` needs."""

    fingerprint = "f"
    classes = ("only",)

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def image_id(self, index: int) -> int:
        return self.ids[index]


def corner_view(found: bool, score: float = 0.9) -> CornersInView:
    points = CornerPoints(torch.tensor([[3.0, 3.0]]), torch.tensor([score]), torch.tensor([0]))
    box = np.array([[3.0, 3.0, 19.0, 19.0]]) if found else np.array([[9.0, 9.0, 19.0, 19.0]])
    return CornersInView(Corners(points, points), box, np.array([0]), (10.0, 10.0))


def test_corners_are_resampled_with_the_weights_of_their_images_whatever_the_order_of_the_data_set() -> None:
    views = [corner_view(True, 0.5), corner_view(False, 0.9), corner_view(True, 0.8), corner_view(True, 0.4)]
    for ids in ([5, 6, 7, 8], [8, 5, 7, 6]):
        resampled = corner_bootstrap(OfImages(ids), match_corners(views, 1.5), 20)
        for b, row in enumerate(image_weights("f", 4, 20)):
            weights = [row[sorted(ids).index(i)] for i in ids]
            copies = [view for view, weight in zip(views, weights, strict=True) for _ in range(weight)]
            expected = match_corners(copies, 1.5)[0].mean_average_precision(1)
            assert resampled.values["corner_AP/top_left"][b] == pytest.approx(expected, abs=1e-6)


def test_resamples_of_boxes_and_corners_join_only_under_the_same_weights() -> None:
    matches = match_corners([corner_view(True)] * 3, 1.5)
    corners = corner_bootstrap(OfImages([1, 2, 3]), matches, 10)
    boxes = Resamples(fingerprint="f", version=WEIGHTS_VERSION, values={"AP": np.zeros(10)})
    assert set(boxes.joined(corners).values) == {"AP", *CORNER_METRICS}
    other = Resamples(fingerprint="g", version=WEIGHTS_VERSION, values={"AP": np.zeros(10)})
    with pytest.raises(ValueError, match="different weights"):
        other.joined(corners)
