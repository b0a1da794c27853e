"""Rows of inference and training: two ways timed in turn, published in files of their own."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.results import publish, read_rows
from benchmarks.stages import blank, timed, with_memory, with_mm
from cornernet.ablations.reporting.__main__ import render_all

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
    # the milliseconds have four decimals
    assert 2000 / made["images_per_second"] == pytest.approx(made["milliseconds"], abs=1e-4)
    assert made["peak_bytes"] == 4000
    assert made["gigaflop"] == pytest.approx(2 * 400**3 / 1e9)


def test_each_suite_is_published_in_a_file_of_its_own_and_read_back(tmp_path) -> None:
    made = row("inference")
    path = publish([raw(tmp_path / "a.json", [made])], tmp_path / "out")
    assert path.name.endswith("-inference.json")
    assert read_rows(path) == [made]
    with pytest.raises(ValueError, match="publish each by itself"):
        publish([raw(tmp_path / "b.json", [made, {**made, "suite": "training"}])], tmp_path / "out")


def test_published_rows_are_rendered_as_a_page_and_what_has_no_figures_says_why(tmp_path) -> None:
    made = row("inference")
    without = {**blank("inference", "tiny", "network", "bf16 <b>", "cpu", against="plain", size=[8, 8], batch=1)}
    without |= {"status": "unavailable", "reason": "no GPU"}
    folder = tmp_path / "reports" / "benchmarks"
    path = publish([raw(tmp_path / "a.json", [made, without])], folder)
    files, notes = render_all(tmp_path / "reports")
    assert not notes
    text = files[folder][f"{path.stem}.md"].decode()
    assert f"{made['ratio']:.2f} [{made['ratio_lower']:.2f}, {made['ratio_upper']:.2f}]" in text
    assert "unavailable: no GPU" in text
    page = files[folder][f"{path.stem}.html"].decode()
    assert "<b>" not in page
    assert f"benchmarks/{path.stem}.md" in files[tmp_path / "reports"]["README.md"].decode()


def test_a_broken_file_of_rows_is_named_and_left_out(tmp_path) -> None:
    folder = tmp_path / "reports" / "benchmarks"
    folder.mkdir(parents=True)
    (folder / "some-cpu-training.json").write_text('{"common": {}, "benchmarks": [{"extra_info": {"suite": 1}}]}')
    files, notes = render_all(tmp_path / "reports")
    assert "some-cpu-training.json" in notes[0]
    assert "python -m benchmarks.results" in notes[0]
    assert folder not in files
