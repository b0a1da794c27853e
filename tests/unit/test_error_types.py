"""TIDE's error types: an error counts in its own type, by the AP that correcting it would gain."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cornernet import build_detector, recipe
from cornernet.ablations.profiles import find_profile
from cornernet.ablations.running.planner import Fingerprints, make_job
from cornernet.ablations.studies import find_study
from cornernet.config import CocoSource
from cornernet.data import DetectionDataset, open_dataset
from cornernet.evaluation.evaluate import ERROR_TYPES, METRICS, coco_evaluation, error_types, evaluate
from tests.unit.data.folders import annotation, coco_folder, tree

MAIN_TYPES = ERROR_TYPES[:6]
PERSON, SIGN = 1, 13
PERSONS = [[0.0, 0.0, 10.0, 10.0], [15.0, 0.0, 10.0, 10.0], [30.0, 0.0, 10.0, 10.0]]
SIGNS = [[0.0, 25.0, 10.0, 10.0], [15.0, 25.0, 10.0, 10.0]]
CROWD = [45.0, 0.0, 15.0, 15.0]


def photographs(root: Path, **changes: Any) -> DetectionDataset:
    """Return a data set of one picture, 7, with three persons, a crowd and two signs; a third class has no objects."""
    boxes = [(PERSON, box) for box in PERSONS] + [(SIGN, box) for box in SIGNS]
    rows = [annotation(100 + index, 7, category, box) for index, (category, box) in enumerate(boxes)]
    rows.append(annotation(200, 7, PERSON, CROWD, iscrowd=1))
    content = tree(**{"annotations": rows, **changes})
    return open_dataset(CocoSource(root=str(coco_folder(root, content))), "train")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> DetectionDataset:
    return photographs(tmp_path_factory.mktemp("photographs"))


def found(category: int, box: list[float], score: float = 0.9) -> dict[str, Any]:
    return {"image_id": 7, "category_id": category, "bbox": box, "score": score}


def all_found() -> list[dict[str, Any]]:
    return [found(PERSON, box) for box in PERSONS] + [found(SIGN, box) for box in SIGNS]


def main_types(costs: dict[str, float]) -> dict[str, float]:
    return {name: costs[name] for name in MAIN_TYPES if costs[name] != 0}


def test_no_error_costs_nothing(dataset) -> None:
    costs = error_types(dataset, all_found())
    assert tuple(costs) == ERROR_TYPES
    assert all(cost == 0 for cost in costs.values())


def test_an_evaluations_own_matching_gives_the_same_costs(dataset) -> None:
    results = [*all_found()[1:], found(PERSON, [30.0, 25.0, 10.0, 10.0], 0.95)]
    expected = error_types(dataset, results)
    assert any(expected.values())
    for backend in ("pycocotools", "hotcoco"):
        evaluation = coco_evaluation(dataset, results, backend)
        assert error_types(dataset, results, evaluation.box_matching) == expected
    with pytest.raises(ValueError, match="this one is by pycocotools"):
        coco_evaluation(dataset, results, "pycocotools").box_matching.ap50_gains()


def test_a_background_box_costs_only_background(dataset) -> None:
    costs = error_types(dataset, [*all_found(), found(PERSON, [30.0, 25.0, 10.0, 10.0], 0.95)])
    # ranked above three correct boxes of one class of two, it lowers their precision to 3 in 4
    assert main_types(costs) == pytest.approx({"dAP_Bkg": 0.25 / 2})
    assert costs["dAP_FP"] == pytest.approx(costs["dAP_Bkg"])
    assert costs["dAP_FN"] == 0


def test_a_duplicate_costs_only_duplicates(dataset) -> None:
    best, *others = [found(PERSON, box) for box in PERSONS]
    results = [{**best, "score": 0.99}, {**best, "score": 0.95}, *others, *(found(SIGN, box) for box in SIGNS)]
    costs = error_types(dataset, results)
    # precision 1 up to a third of the recall, then 3 in 4, over 101 points of recall
    assert main_types(costs) == pytest.approx({"dAP_Dupe": 0.25 * 67 / 101 / 2})
    assert costs["dAP_FP"] == pytest.approx(costs["dAP_Dupe"])
    assert costs["dAP_FN"] == 0


def test_a_missed_object_costs_only_misses(dataset) -> None:
    costs = error_types(dataset, all_found()[1:])
    assert main_types(costs) == pytest.approx({"dAP_Miss": (1 - 67 / 101) / 2})
    assert costs["dAP_FN"] == pytest.approx(costs["dAP_Miss"])
    assert costs["dAP_FP"] == 0


def test_a_shifted_box_costs_only_localisation(dataset) -> None:
    results = all_found()
    results[0] = found(PERSON, [5.0, 0.0, 10.0, 10.0], 0.5)  # an IoU of 1 in 3
    assert main_types(error_types(dataset, results)) == pytest.approx({"dAP_Loc": (1 - 67 / 101) / 2})


def test_a_wrong_class_costs_only_classes(dataset) -> None:
    results = all_found()
    results[0] = found(SIGN, PERSONS[0], 0.95)
    # corrected, it is a person again; the signs below it had a precision of 2 in 3
    assert main_types(error_types(dataset, results)) == pytest.approx({"dAP_Cls": (1 - 67 / 101 + 1 / 3) / 2})


def test_a_shifted_box_of_a_wrong_class_costs_only_both(dataset) -> None:
    results = [*all_found()[:-1], found(PERSON, [20.0, 25.0, 10.0, 10.0], 0.95), found(SIGN, SIGNS[1], 0.5)]
    assert main_types(error_types(dataset, results)) == pytest.approx({"dAP_Both": 0.25 / 2})


def test_what_is_found_in_a_crowd_is_no_error(dataset) -> None:
    costs = error_types(dataset, [*all_found(), found(PERSON, [46.0, 1.0, 12.0, 12.0], 0.95)])
    assert all(cost == 0 for cost in costs.values())


def test_mending_background_and_duplicates_gives_the_ap50_of_pycocotools_without_them(dataset) -> None:
    rng = np.random.default_rng(0)
    right = [{**result, "score": float(rng.random())} for result in all_found()]
    background = [found(PERSON, [30.0, 25.0, 10.0, 10.0], 0.6), found(SIGN, [45.0, 20.0, 8.0, 8.0], 0.7)]
    costs = error_types(dataset, [*right, *background])
    before = coco_evaluation(dataset, [*right, *background]).metrics["AP50"]
    assert costs["dAP_Bkg"] > 0
    assert before + costs["dAP_Bkg"] == pytest.approx(coco_evaluation(dataset, right).metrics["AP50"])


def test_objects_of_every_size_cost_alike(tmp_path) -> None:
    sizes = [[0.0, 0.0, 2.0, 2.0], [15.0, 0.0, 40.0, 30.0]]
    rows = [annotation(index, 7, PERSON, box) for index, box in enumerate(sizes, start=1)]
    of_two_sizes = photographs(tmp_path, annotations=rows)
    small, large = (error_types(of_two_sizes, [found(PERSON, box)])["dAP_Miss"] for box in sizes)
    assert small == large > 0


def test_without_detections_every_object_is_missed_and_nothing_else_is_wrong(dataset) -> None:
    # without its missed objects the class has none left, so correcting gains nothing
    assert all(cost == 0 for cost in error_types(dataset, []).values())


def test_without_objects_nothing_is_measured(tmp_path) -> None:
    empty = photographs(tmp_path, annotations=[])
    assert all(math.isnan(cost) for cost in error_types(empty, [found(PERSON, PERSONS[0])]).values())


def test_an_evaluation_reports_error_types_only_on_request(dataset) -> None:
    config = recipe("tiny").with_("model.num_classes", 3)
    torch.manual_seed(0)
    detector = build_detector(config)
    plain = evaluate(detector, dataset, config)
    typed = evaluate(detector, dataset, config.with_("testing.error_types", True))
    assert tuple(plain.metrics) == METRICS
    assert tuple(typed.metrics) == (*METRICS, *ERROR_TYPES)
    assert {name: typed.metrics[name] for name in ERROR_TYPES} == error_types(dataset, typed.results)


def test_the_study_of_error_types_needs_no_training_beside_those_of_table_1() -> None:
    base, data = find_profile("smoke").base(None), Fingerprints("train", "val")

    def trainings(name: str) -> list[str]:
        study = find_study(name)
        return [make_job(study.configure(base, variant), data).training_key for variant in study.variants]

    assert trainings("table6_error_types") == trainings("table1")
    assert find_study("table6_error_types").metrics == ERROR_TYPES
