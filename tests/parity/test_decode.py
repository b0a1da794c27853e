"""Decoding gives the boxes that the authors' decode gives."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from cornernet import Corners, Predictions
from cornernet.config import TestingConfig
from cornernet.model.heads.corner.decode import decode
from tests.parity import recipe
from tests.parity.goldens import load
from tests.parity.rows import assert_same_rows

GOLDEN = load("decode.npz")
CASES: list[dict[str, Any]] = json.loads(str(GOLDEN["cases"]))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("case", CASES, ids=[c["name"] for c in CASES])
def test_decode(case: dict[str, Any], layout: torch.memory_format) -> None:
    inputs = recipe.decode_inputs(*(case[k] for k in ("seed", "style", "n", "classes", "height", "width")))
    tensors = [torch.from_numpy(a).contiguous(memory_format=layout) for a in inputs]
    predictions = Predictions(*(Corners(*tensors[i : i + 2]) for i in (0, 2, 4)))
    testing = TestingConfig(
        top_k=case["K"],
        peak_kernel=case["kernel"],
        embedding_threshold=case["ae_threshold"],
        num_candidates=case["num_dets"],
    )
    found = decode(predictions, testing)
    name = case["name"]
    assert len(found) == case["n"]
    for candidates, rows, valid in zip(found, GOLDEN[f"{name}_dets"], GOLDEN[f"{name}_n_valid"], strict=True):
        assert_same_rows(candidates, rows[:valid], tolerance=1e-5)
