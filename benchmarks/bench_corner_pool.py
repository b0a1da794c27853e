"""Corner pooling, every implementation: ``pytest benchmarks/bench_corner_pool.py --benchmark-json=out.json``.

The figures are in each row's ``extra_info``; ``benchmarks.measure`` says how they are measured. The plugin's own
statistics, from a few more runs of the candidate, are secondary. Every implementation has a row for every workload and
mode; a row without figures says why. BENCHMARK_PROFILE=thorough also measures the rows that take plain torch minutes
each on a CPU. BENCHMARK_PROFILE=smoke measures one tiny workload.

You can split a run into slices, such as ``-k "eager and paper-4"``. ``benchmarks.results`` merges their files.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from benchmarks.measure import blank_row, measure, prepare, unmeasured
from benchmarks.workloads import MODES, Workload, profile_name, workloads
from cornernet import kernels
from cornernet.kernels import registry

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KEEPS_RECORDS = ("cpu",)

# Plain torch takes seconds where the operators take milliseconds. Beyond the first number of elements it is measured
# only in float32, and beyond the second not at all
_PLAIN_ALL_DTYPES, _PLAIN_LARGEST = 128**3, 4 * 128**3
_BATCH_32_DTYPES = ("float32", "bfloat16")


def why_not_timed(row: registry.Implementation, workload: Workload) -> tuple[str, str] | None:
    """Return the status and the reason of a row without figures, or None if the case is measured."""
    reason = row.why_not(DEVICE, getattr(torch, workload.dtype), auto=row.operators)
    if reason is not None:
        return "unavailable", reason
    if row.name == "reference" and torch.Size(workload.shape).numel() > 10_000:
        return "not measured", "the oracle of the tests, brute force in Python"
    if workload.name == "batch-32" and workload.dtype not in _BATCH_32_DTYPES:
        return "not measured", "gigabytes of memory, and float32 and bfloat16 tell the rest"
    if DEVICE == "cpu" and not row.operators and profile_name() != "thorough":
        size = torch.Size(workload.shape).numel()
        if size > (_PLAIN_LARGEST if workload.dtype == "float32" else _PLAIN_ALL_DTYPES):
            return "not measured", "plain torch on a CPU takes up to minutes a row; BENCHMARK_PROFILE=thorough"
    return None


def cases() -> list[Any]:
    """Return each implementation, workload and mode, grouped by workload, whose maps are then made only once."""
    return [
        pytest.param(row, workload, mode, id=f"{row.name}-{mode}-{workload}")
        for workload in workloads()
        for row in registry.ROWS
        for mode in MODES
    ]


@pytest.mark.parametrize(("row", "workload", "mode"), cases())
def test_corner_pool(benchmark: Any, row: registry.Implementation, workload: Workload, mode: str) -> None:
    result = blank_row(row.name, workload, mode, DEVICE)
    without = why_not_timed(row, workload)
    if without is not None:
        result = unmeasured(result, *without)
    else:
        pool = functools.partial(_pool, row.name)
        judge = functools.partial(_pool, "logstep" if row.name == "eager" else "eager")
        result = measure(
            result, pool, judge, workload, mode, DEVICE,
            ties_to_first=row.ties_to_first, keeps_records=row.name in KEEPS_RECORDS,
        )  # fmt: skip
    benchmark.extra_info.update(result)
    if result["status"] == "ok":
        benchmark.pedantic(prepare(pool, workload, mode, DEVICE)[0], rounds=3 if result["milliseconds"] < 100 else 1)
    else:
        benchmark.pedantic(lambda: None, rounds=1)  # the plugin writes no row for a case that it has not run
        if result["status"] == "error":
            pytest.fail(result["reason"])


def _pool(impl: str, vertical: torch.Tensor, horizontal: torch.Tensor, corner: Any) -> torch.Tensor:
    return kernels.corner_pool(vertical, horizontal, corner, impl=impl)
