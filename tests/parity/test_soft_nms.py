"""Soft-NMS with both defects gives the same array as the authors' code."""

from __future__ import annotations

import json
from typing import Any, Literal

import numpy as np
import pytest

from cornernet.inference.suppression import soft_nms
from tests.parity.goldens import load

GOLDEN: dict[str, Any] = load("soft_nms.npz")
CALLS: list[list[Any]] = json.loads(str(GOLDEN["calls"]))
METHODS: tuple[Literal["hard", "linear", "gaussian"], ...] = ("hard", "linear", "gaussian")


@pytest.mark.parametrize("call", CALLS, ids=[call[0] for call in CALLS])
def test_every_row_of_the_array_is_the_authors_with_both_defects(call: list[Any]) -> None:
    name, _, given, method, iou, merge_exponent, _ = call
    found = soft_nms(
        GOLDEN[given],
        method=METHODS[method],
        iou=iou,
        merge_exponent=merge_exponent,
        column_defect=True,
        stale_rows=True,
    )
    assert found.shape == GOLDEN[name].shape
    np.testing.assert_allclose(found, GOLDEN[name], rtol=0, atol=1e-3)


@pytest.mark.parametrize("call", CALLS, ids=[call[0] for call in CALLS])
def test_without_stale_rows_the_survivors_are_the_authors(call: list[Any]) -> None:
    name, _, given, method, iou, merge_exponent, survivors = call
    found = soft_nms(GOLDEN[given], method=METHODS[method], iou=iou, merge_exponent=merge_exponent, column_defect=True)
    assert len(found) == survivors
    np.testing.assert_allclose(found, GOLDEN[name][:survivors], rtol=0, atol=1e-3)


@pytest.mark.parametrize("call", [c for c in CALLS if c[1] == "soft_nms"], ids=[c[0] for c in CALLS if c[5] is None])
def test_our_default_has_the_authors_survivors_where_nothing_is_merged(call: list[Any]) -> None:
    name, _, given, method, iou, _, survivors = call
    found = soft_nms(GOLDEN[given], method=METHODS[method], iou=iou)
    np.testing.assert_allclose(found[:, :5], GOLDEN[name][:survivors, :5], rtol=0, atol=1e-3)


def test_the_column_defect_moves_merged_boxes_by_pixels() -> None:
    rows = GOLDEN["boxes_n200"]
    sound = soft_nms(rows, merge_exponent=10)
    defect = soft_nms(rows, merge_exponent=10, column_defect=True)
    assert np.array_equal(sound[:, 4], defect[:, 4])
    assert np.abs(sound[:, :4] - defect[:, :4]).max() > 1
