"""The benchmark of corner pooling: its rows can be read back, and a wrong kernel gets no time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.measure import blank_row, measure
from benchmarks.results import publish, read_rows
from benchmarks.workloads import MODES, Workload
from cornernet import kernels

ROOT = Path(__file__).parents[3]
TINY = Workload("tiny", (2, 3, 8, 9), "float32", "channels_last")


def eager(vertical, horizontal, corner):
    return kernels.corner_pool(vertical, horizontal, corner, impl="eager")


@pytest.mark.slow
def test_a_run_writes_a_row_for_every_implementation_and_mode_and_reads_them_back_as_published(tmp_path):
    out = tmp_path / "out.json"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "benchmarks/bench_corner_pool.py",
        f"--benchmark-json={out}",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    # pytest-benchmark measures nothing in what it takes for a worker of pytest-xdist
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment = {**inherited, "BENCHMARK_PROFILE": "smoke"}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_rows(out)
    expected = {(row["name"], mode) for row in kernels.implementations() for mode in MODES}
    assert {(row["implementation"], row["mode"]) for row in rows} == expected
    for row in rows:
        if row["status"] == "ok":
            assert row["ratio_lower"] <= row["ratio"] <= row["ratio_upper"]
            assert row["peak_bytes"] >= 4 * torch.Size(row["shape"]).numel()
    assert {row["status"] for row in rows if row["implementation"] == "eager"} == {"ok"}
    assert read_rows(publish([out], tmp_path / "published")) == rows


@pytest.mark.parametrize("mode", MODES)
def test_a_wrong_kernel_gets_an_error_and_no_time(mode):
    def wrong(vertical, horizontal, corner):
        return eager(vertical, horizontal.flip(3), corner)

    row = measure(blank_row("wrong", TINY, mode, "cpu"), wrong, eager, TINY, mode, "cpu")
    assert row["status"] == "error"
    assert "differs in" in row["reason"]
    assert row["ratio"] is None
    assert row["milliseconds"] is None


def test_a_kernel_with_a_wrong_gradient_gets_an_error_and_no_time():
    def splits_ties(vertical, horizontal, corner):
        return kernels.corner_pool(vertical, horizontal, corner, impl="cummax")

    row = measure(blank_row("cummax", TINY, "both", "cpu"), splits_ties, eager, TINY, "both", "cpu")
    assert row["status"] == "error"
    assert "gradient" in row["reason"]


def test_a_kernel_that_raises_gets_an_error_with_its_words():
    def raises(vertical, horizontal, corner):
        raise RuntimeError("out of registers")

    row = measure(blank_row("broken", TINY, "forward", "cpu"), raises, eager, TINY, "forward", "cpu")
    assert row["status"] == "error"
    assert row["reason"] == "RuntimeError: out of registers"


def test_held_memory_is_what_autograd_keeps():
    row = measure(blank_row("eager", TINY, "both", "cpu"), eager, eager, TINY, "both", "cpu", seconds=0)
    assert row["held_bytes"] > 0
    forward = measure(blank_row("eager", TINY, "forward", "cpu"), eager, eager, TINY, "forward", "cpu", seconds=0)
    assert forward["held_bytes"] == 0


def test_a_malformed_row_is_refused_by_name(tmp_path):
    path = tmp_path / "bad.json"
    row = blank_row("cpu", TINY, "forward", "cpu")
    for change, message in (({"status": "fine"}, "status must be one of"), ({"status": "ok"}, "contradict")):
        path.write_text(json.dumps({"benchmarks": [{"extra_info": {**row, **change}}]}))
        with pytest.raises(ValueError, match=message):
            read_rows(path)


def raw(path: Path, *ids: str, **info: object) -> Path:
    """Write a file as pytest-benchmark does, with one row without figures for each of ``ids``."""
    row = blank_row("cpu", TINY, "forward", "cpu") | {"status": "unavailable", "reason": path.stem} | info
    benchmarks = [{"name": name, "extra_info": row, "stats": {"min": 0, "median": 0, "rounds": 1}} for name in ids]
    path.write_text(json.dumps({"datetime": "2026-01-01T00:00:00", "benchmarks": benchmarks}), encoding="utf-8")
    return path


def test_slices_of_a_run_are_merged_and_the_later_of_two_equal_rows_counts(tmp_path):
    slices = [raw(tmp_path / "first.json", "a", "b"), raw(tmp_path / "second.json", "b", "c")]
    published = json.loads(publish(slices, tmp_path / "published").read_text())
    reasons = {each["name"]: each["extra_info"]["reason"] for each in published["benchmarks"]}
    assert reasons == {"a": "first", "b": "second", "c": "second"}


def test_slices_of_different_runs_are_refused_by_name(tmp_path):
    slices = [raw(tmp_path / "first.json", "a"), raw(tmp_path / "second.json", "b", threads=99)]
    with pytest.raises(ValueError, match=r"second\.json: threads is 99"):
        publish(slices, tmp_path / "published")


@pytest.mark.parametrize("path", sorted((ROOT / "reports" / "benchmarks").glob("*.json")), ids=lambda path: path.stem)
def test_published_rows_read_back_and_none_is_an_error(path):
    rows = read_rows(path)
    assert rows
    assert not [row for row in rows if row["status"] == "error"]
