"""Corner pooling, every implementation: ``pytest benchmarks/bench_corner_pool.py --benchmark-json=out.json``.

The figures are in each row's ``extra_info`` (``benchmarks.measure`` says how they are taken); the plugin's own
statistics, three more runs of the candidate, are secondary. BENCHMARK_PROFILE=smoke runs one tiny workload.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

import kernels
from benchmarks.measure import blank_row, measure, prepare, unmeasured
from benchmarks.workloads import MODES, Workload, workloads
from kernels import registry

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KEEPS_RECORDS = ("cpu",)

# Plain torch takes seconds where the operators take milliseconds, and its larger workloads would fill an afternoon
_PLAIN_LARGEST = 128**3
_WIDE_DTYPES = ("float32", "bfloat16")


def why_not_timed(row: registry.Implementation, workload: Workload) -> tuple[str, str] | None:
    """Return the status and the reason of a row without figures, or None where there is something to measure."""
    reason = row.why_not(DEVICE, getattr(torch, workload.dtype), auto=row.operators)
    if reason is not None:
        return "unavailable", reason
    if row.name == "reference" and torch.Size(workload.shape).numel() > 10_000:
        return "not measured", "the oracle of the tests, brute force in Python"
    size = torch.Size(workload.shape).numel()
    if DEVICE == "cpu" and not row.operators and (size > _PLAIN_LARGEST or workload.dtype not in _WIDE_DTYPES):
        return "not measured", "plain torch on a CPU: minutes a row"
    if workload.name == "batch-32" and workload.dtype not in _WIDE_DTYPES:
        return "not measured", "gigabytes a tensor"
    return None


def cases() -> list[Any]:
    """Return each implementation, workload and mode; one workload where an implementation has nothing to measure."""
    params = []
    for row in registry.ROWS:
        timed = [workload for workload in workloads() if why_not_timed(row, workload) is None]
        for workload in timed or workloads()[:1]:
            params += [pytest.param(row, workload, mode, id=f"{row.name}-{mode}-{workload}") for mode in MODES]
    return params


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
        benchmark.pedantic(prepare(pool, workload, mode, DEVICE)[0], rounds=3)
    else:
        benchmark.pedantic(lambda: None, rounds=1)  # the plugin writes no row for what it has not run
        if result["status"] == "error":
            pytest.fail(result["reason"])


def _pool(impl: str, vertical: torch.Tensor, horizontal: torch.Tensor, corner: Any) -> torch.Tensor:
    return kernels.corner_pool(vertical, horizontal, corner, impl=impl)
