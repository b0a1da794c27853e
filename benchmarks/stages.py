"""Rows of the suites ``inference`` and ``training``: their fields, and how two ways are timed alternately."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.measure import device_name, in_turn, peak_bytes, versions

STAGE_FIELDS = (
    "suite", "recipe", "stage", "way", "against", "size", "batch", "status", "reason", "milliseconds",
    "against_milliseconds", "ratio", "ratio_lower", "ratio_upper", "pairs", "images_per_second", "gigaflop",
    "gigaflop_per_second", "mm_gigaflop_per_second", "share_of_mm", "peak_bytes", "device", "threads", "versions",
)  # fmt: skip
"""``ratio`` is the time of ``against`` divided by the time of ``way``: above 1, ``way`` is faster."""


def blank(suite: str, recipe: str, stage: str, way: str, device: str, **fields: Any) -> dict[str, Any]:
    """Return a row without measurements."""
    row: dict[str, Any] = dict.fromkeys(STAGE_FIELDS)
    row.update(suite=suite, recipe=recipe, stage=stage, way=way, device=device_name(device))
    row.update(threads=torch.get_num_threads(), versions=versions(), **fields)
    return row


def timed(
    row: dict[str, Any], run: Callable[[], Any], against: Callable[[], Any], device: str, seconds: float = 8.0
) -> dict[str, Any]:
    """Return ``row`` with the times of ``run`` and ``against``, run alternately for about ``seconds``.

    Each runs once before, untimed: that run may compile.
    """
    run()
    against()
    times = in_turn(run, against, device, seconds)
    mine, other = (statistics.median(side) for side in zip(*times, strict=True))
    lower, middle, upper = statistics.quantiles([other / own for own, other in times], n=4)
    figures = {
        "status": "ok", "milliseconds": round(1e3 * mine, 4), "against_milliseconds": round(1e3 * other, 4),
        "ratio": round(middle, 4), "ratio_lower": round(lower, 4), "ratio_upper": round(upper, 4), "pairs": len(times),
    }  # fmt: skip
    if row["batch"]:
        figures["images_per_second"] = round(row["batch"] / mine, 3)
    return {**row, **figures}


def with_memory(row: dict[str, Any], run: Callable[[], Any], device: str) -> dict[str, Any]:
    """Return ``row`` with the peak memory of ``run`` beyond weights and inputs, in bytes."""
    return {**row, "peak_bytes": peak_bytes(run, device)}


def with_mm(row: dict[str, Any], run: Callable[[], Any], device: str, seconds: float = 8.0) -> dict[str, Any]:
    """Return ``row`` with the FLOP rate of ``run`` and of a large ``torch.mm``, run alternately in this process."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    flop = counter.get_total_flops()
    side = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    times = in_turn(run, lambda: torch.mm(a, b), device, seconds)
    mine, other = (statistics.median(part) for part in zip(*times, strict=True))
    share = statistics.median(flop / own / (2 * side**3 / product) for own, product in times)
    return {
        **row,
        "gigaflop": round(flop / 1e9, 4),
        "gigaflop_per_second": round(flop / mine / 1e9, 1),
        "mm_gigaflop_per_second": round(2 * side**3 / other / 1e9, 1),
        "share_of_mm": round(share, 4),
    }
