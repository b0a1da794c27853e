"""The test path gives the authors' network inputs, boxes and result file, from photograph to JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from cornernet import Candidates
from cornernet.config import DataConfig, TestingConfig
from cornernet.inference.detections import Detections
from cornernet.inference.placement import Placement, prepare, to_photo
from cornernet.inference.suppression import suppress
from tests.parity import recipe
from tests.parity.goldens import load

GOLDEN: dict[str, Any] = load("pipeline.npz")
CASES: list[dict[str, Any]] = json.loads(str(GOLDEN["cases"]))
COCO_IDS = tuple(i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
NMS = {"exp_soft_nms": "gaussian", "linear_soft_nms": "linear", "nms": "hard"}
each_case = pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])


def settings_of(case: dict[str, Any]) -> TestingConfig:
    config = case["config"]
    nms: Any = NMS[config["nms_algorithm"]]
    return TestingConfig(
        scales=tuple(config["test_scales"]),
        top_k=config["top_k"],
        peak_kernel=config["nms_kernel"],
        embedding_threshold=config["ae_threshold"],
        nms=nms,
        nms_iou=config["nms_threshold"],
        merge=config["merge_bbox"],
        merge_exponent=config["weight_exp"],
        max_detections=config["max_per_image"],
        authors_compatible=True,
    )


def prepared(case: dict[str, Any]) -> list[tuple[npt.NDArray[np.float32], Placement]]:
    draw: Any = recipe.photo
    photo = draw(case["seed"], case["height"], case["width"])
    pairs = [prepare(photo, DataConfig(), s, flip=True, total_stride=128) for s in case["config"]["test_scales"]]
    return [(batch.numpy(), placement) for batch, placement in pairs]


def in_photo(case: dict[str, Any]) -> list[Candidates]:
    found = []
    for i, (_, placement) in enumerate(prepared(case)):
        for flip, rows in enumerate(torch.from_numpy(GOLDEN[f"{case['name']}/scale{i}_raw_dets"])):
            candidates = Candidates(rows[:, :4], rows[:, 4], rows[:, 5:7], rows[:, 7].long())
            found.append(to_photo(candidates, placement, mirrored=flip == 1))
    return found


def as_rows(found: Detections) -> npt.NDArray[np.float64]:
    return np.column_stack([found.labels + 1, found.boxes, found.scores])


@each_case
def test_network_inputs_are_the_authors_at_every_scale(case: dict[str, Any]) -> None:
    for i, (batch, _) in enumerate(prepared(case)):
        key = f"{case['name']}/scale{i}_net_input"
        assert batch.shape == tuple(GOLDEN[f"{key}_shape"])
        np.testing.assert_allclose(batch[:, :, ::8, ::8], GOLDEN[f"{key}_sub8"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(batch.sum((2, 3), dtype=np.float64), GOLDEN[f"{key}_sum"], rtol=0, atol=1e-2)
        lines = (batch[:, :, 0], batch[:, :, -1], batch[:, :, :, 0], batch[:, :, :, -1])
        edges = np.stack([line.sum((1, 2), dtype=np.float64) for line in lines], axis=1)
        np.testing.assert_allclose(edges, GOLDEN[f"{key}_edges"], rtol=0, atol=1e-3)


@each_case
def test_authors_compatible_reports_the_authors_boxes_in_their_order(case: dict[str, Any]) -> None:
    found = suppress(in_photo(case), settings_of(case))
    expected = GOLDEN[f"{case['name']}/top_bboxes"]
    assert len(found) == len(expected)
    np.testing.assert_allclose(as_rows(found), expected, rtol=0, atol=1e-3)


@each_case
def test_without_stale_rows_the_reported_boxes_are_the_kept_ones(case: dict[str, Any]) -> None:
    found = suppress(in_photo(case), settings_of(case), stale_rows=False)
    expected = GOLDEN[f"{case['name']}/top_bboxes_kept_only"]
    assert len(found) == len(expected)
    np.testing.assert_allclose(as_rows(found), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("case", [c for c in CASES if not c["config"]["merge_bbox"]], ids=lambda case: case["name"])
def test_our_default_without_merging_reports_the_kept_boxes_best_first(case: dict[str, Any]) -> None:
    found = suppress(in_photo(case), replace(settings_of(case), authors_compatible=False))
    expected = GOLDEN[f"{case['name']}/top_bboxes_kept_only"]
    expected = expected[np.argsort(-expected[:, 5], kind="stable")]
    np.testing.assert_allclose(as_rows(found), expected, rtol=0, atol=1e-3)


def test_our_default_merges_to_other_boxes_but_the_authors_scores() -> None:
    case = next(case for case in CASES if case["config"]["merge_bbox"])
    found = as_rows(suppress(in_photo(case), replace(settings_of(case), authors_compatible=False)))
    expected = GOLDEN[f"{case['name']}/top_bboxes_kept_only"]
    expected = expected[np.argsort(-expected[:, 5], kind="stable")]
    np.testing.assert_allclose(found[:, 5], expected[:, 5], rtol=0, atol=1e-5)
    assert 0.1 < np.abs(found[:, 1:5] - expected[:, 1:5]).max() < 20


@each_case
def test_result_file_with_two_decimals_is_the_authors(case: dict[str, Any]) -> None:
    found = replace(suppress(in_photo(case), settings_of(case)), category_ids=COCO_IDS)
    results = found.to_coco(image_id=42, decimals=2)
    expected = json.loads(str(GOLDEN[f"{case['name']}/coco_json"]))
    assert len(results) == len(expected)
    # merged coordinates agree only to 1e-3, so one can round to the other side
    slack = 0.0101 if case["config"]["merge_bbox"] else 0.0
    for mine, theirs in zip(results, expected, strict=True):
        assert {k: mine[k] for k in ("image_id", "category_id")} == {k: theirs[k] for k in ("image_id", "category_id")}
        np.testing.assert_allclose(mine["bbox"], theirs["bbox"], rtol=0, atol=slack)
        assert mine["score"] == theirs["score"]
