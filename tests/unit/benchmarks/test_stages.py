"""Rows of inference and training: two ways timed in turn, published in files of their own."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.results import publish, read_rows
from benchmarks.stages import blank, timed, with_memory, with_mm

SMALL, LARGE = torch.ones(8, 8), torch.ones(400, 400)


def row(suite: str):
    made = timed(
        blank(suite, "tiny", "network", "fast", "cpu", against="plain", size=[8, 8], batch=2),
        lambda: torch.mm(SMALL, SMALL), lambda: torch.mm(LARGE, LARGE), "cpu", 0.05,
    )  # fmt: skip
    return with_mm(with_memory(made, lambda: torch.zeros(1000), "cpu"), lambda: torch.mm(LARGE, LARGE), "cpu", 0.05)


def raw(path, rows):
    content = [
        {"name": f"row {n}", "extra_info": each, "stats": {"min": 1.0, "median": 1.0, "rounds": 1}}
        for n, each in enumerate(rows)
    ]
    path.write_text(json.dumps({"datetime": "2026-01-01T00:00:00", "benchmarks": content}))
    return path


def test_a_row_says_how_many_times_as_fast_and_how_much_memory() -> None:
    made = row("inference")
    assert made["status"] == "ok"
    assert made["ratio_lower"] <= made["ratio"] <= made["ratio_upper"]
    assert made["against_milliseconds"] > made["milliseconds"] > 0
    assert made["ratio"] > 1
    assert made["images_per_second"] == pytest.approx(2000 / made["milliseconds"], rel=0.02)
    assert made["peak_bytes"] == 4000
    assert made["gigaflop"] == pytest.approx(2 * 400**3 / 1e9)


def test_each_suite_is_published_in_a_file_of_its_own_and_read_back(tmp_path) -> None:
    made = row("inference")
    path = publish([raw(tmp_path / "a.json", [made])], tmp_path / "out")
    assert path.name.endswith("-inference.json")
    assert read_rows(path) == [made]
    with pytest.raises(ValueError, match="publish each by itself"):
        publish([raw(tmp_path / "b.json", [made, {**made, "suite": "training"}])], tmp_path / "out")
