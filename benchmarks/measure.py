"""How corner pooling is measured: check correctness, time candidate and floor in turn, give one row for each case.

The floor is the time that memory allows. ``torch.add(a, b)`` reads two maps, writes one and allocates it, as the fused
forward must. Backward writes two gradients, so its floor is two additions, and that of both together is three. On a GPU
the floor is a device copy of the same number of bytes. Candidate and floor run in turn in one process, so that other
work on the machine affects both. A row gives the median and the quartiles of the ratios of neighbouring runs.
"""

from __future__ import annotations

import functools
import importlib.metadata
import math
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.workloads import Workload

ADDITIONS = {"forward": 1, "backward": 2, "both": 3}
# Maps of bytes that must move. Forward: two read, one written. Backward: the gradient read, two written, and the two
# inputs read unless forward left records (two bits per element, not counted)
MAPS_MOVED = {"forward": 3, "backward": 5, "both": 8}
MAPS_MOVED_WITH_RECORDS = {"forward": 3, "backward": 3, "both": 6}
FIELDS = (
    "implementation", "mode", "shape", "dtype", "layout", "status", "reason", "bytes_moved", "gigabytes_per_second",
    "ratio", "ratio_lower", "ratio_upper", "pairs", "milliseconds", "floor_milliseconds", "peak_bytes", "held_bytes",
    "device", "threads", "versions",
)  # fmt: skip

Pool = Callable[[Tensor, Tensor, str], Tensor]


def device_name(device: str) -> str:
    """Return the name of the processor with its number of cores, or the name of the GPU."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    names = [
        line.partition(":")[2].strip()
        for line in (
            Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
        )
        if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.processor()} ({len(names) or torch.get_num_threads()} cores)"


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of the software that affects the figures."""
    found = {"python": platform.python_version()}
    for package in ("torch", "numba", "llvmlite", "triton", "cuda-core"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def blank_row(implementation: str, workload: Workload, mode: str, device: str) -> dict[str, Any]:
    """Return a row without figures."""
    row: dict[str, Any] = dict.fromkeys(FIELDS)
    row.update(
        implementation=implementation, mode=mode, shape=list(workload.shape), dtype=workload.dtype,
        layout=workload.layout, device=device_name(device), threads=torch.get_num_threads(), versions=versions(),
    )  # fmt: skip
    return row


def unmeasured(row: dict[str, Any], status: str, reason: str) -> dict[str, Any]:
    """Return ``row`` without figures, but with the reason: status is 'error', 'unavailable' or 'not measured'."""
    return {**row, "status": status, "reason": reason}


def prepare(pool: Pool, workload: Workload, mode: str, device: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return the two functions to time: the candidate and its floor."""
    vertical, horizontal, grad = workload.maps(device)
    leaves = vertical.clone().requires_grad_(), horizontal.clone().requires_grad_()

    def forward() -> Tensor:
        with torch.no_grad():
            return pool(vertical, horizontal, "top_left")

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(pool(*leaves, "top_left"), leaves, grad)

    result = pool(*leaves, "top_left") if mode == "backward" else vertical

    def backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(result, leaves, grad, retain_graph=True)

    additions = ADDITIONS[mode]
    if device == "cuda":
        source = torch.empty(additions * 3 * workload.nbytes // 2, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        return {"forward": forward, "backward": backward, "both": both}[mode], lambda: target.copy_(source)

    def add() -> list[Tensor]:  # all outputs are alive at once, like the gradients
        return [torch.add(vertical, horizontal) for _ in range(additions)]

    return {"forward": forward, "backward": backward, "both": both}[mode], add


def mistake(pool: Pool, judge: Pool, workload: Workload, mode: str, device: str, ties_to_first: bool) -> str | None:
    """Compare the first and the last image of the result with ``judge``; return what is wrong, or None."""
    vertical, horizontal, grad = workload.maps(device)
    for image in {0, workload.shape[0] - 1}:
        results = []
        for function, part in ((pool, slice(None)), (judge, slice(image, image + 1))):
            leaves = vertical[part].detach().requires_grad_(), horizontal[part].detach().requires_grad_()
            if mode == "forward":
                with torch.no_grad():
                    results.append([function(*leaves, "top_left")])
            else:
                result = function(*leaves, "top_left")
                results.append([result.detach(), *torch.autograd.grad(result, leaves, grad[part])])
        compared = zip(("result", "vertical gradient", "horizontal gradient"), *results, strict=False)
        for what, actual, expected in compared:
            if what != "result" and not ties_to_first:
                continue  # its gradients differ where values tie; the row's note says so
            here = actual[image : image + 1]
            if not torch.equal(here, expected):
                wrong = int((here != expected).sum())
                return f"the {what} of image {image} differs in {wrong} of {expected.numel()} elements"
    return None


def _seconds(function: Callable[[], Any], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    kept = function()
    if device == "cuda":
        torch.cuda.synchronize()
    elapsed = time.perf_counter() - start
    del kept
    return elapsed


def in_turn(
    candidate: Callable[[], Any], floor: Callable[[], Any], device: str, seconds: float
) -> list[tuple[float, float]]:
    """Run candidate and floor in turn for about ``seconds``; return the times of each pair, 3 to 400 pairs."""

    def pair() -> tuple[float, float]:
        return _seconds(candidate, device), _seconds(floor, device)

    for _ in range(2):  # the first run compiles and touches memory; a slow one counts as one of the few pairs
        first = pair()
        if sum(first) > seconds:
            return [first, pair(), pair()]
    return [pair() for _ in range(min(400, max(3, math.ceil(seconds / sum(first)))))]


def memory(pool: Pool, workload: Workload, mode: str, device: str) -> tuple[int, int]:
    """Return the peak of allocated bytes beyond the inputs, and the bytes that autograd holds until backward."""
    held: dict[int, int] = {}
    vertical, horizontal, grad = workload.maps(device)
    leaves = vertical.requires_grad_(), horizontal.requires_grad_()

    def note(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def run() -> None:
        with torch.set_grad_enabled(mode != "forward"), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            result = pool(*leaves, "top_left")
        if mode != "forward":
            torch.autograd.grad(result, leaves, grad)

    return peak_bytes(run, device), sum(held.values())


def peak_bytes(run: Callable[[], Any], device: str) -> int:
    """Return the peak of bytes that torch allocates during ``run``, beyond those allocated before."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    now = most = 0
    events = profile.profiler.kineto_results.events()
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def measure(
    row: dict[str, Any], pool: Pool, judge: Pool, workload: Workload, mode: str, device: str,
    seconds: float = 0.7, ties_to_first: bool = True, keeps_records: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Return ``row`` with figures, or with status 'error' and no time if the result is wrong or an error is raised."""
    try:
        wrong = mistake(pool, judge, workload, mode, device, ties_to_first)
        if wrong is not None:
            return unmeasured(row, "error", wrong)
        peak, held = memory(pool, workload, mode, device)
        times = in_turn(*prepare(pool, workload, mode, device), device, seconds)
    except (RuntimeError, ValueError, TypeError) as error:
        return unmeasured(row, "error", f"{type(error).__name__}: {error}")
    lower, ratio, upper = statistics.quantiles([candidate / floor for candidate, floor in times], n=4)
    candidate, floor = (statistics.median(side) for side in zip(*times, strict=True))
    moved = (MAPS_MOVED_WITH_RECORDS if keeps_records else MAPS_MOVED)[mode] * workload.nbytes
    figures = {
        "status": "ok", "bytes_moved": moved, "gigabytes_per_second": round(moved / candidate / 1e9, 3),
        "ratio": round(ratio, 4), "ratio_lower": round(lower, 4), "ratio_upper": round(upper, 4), "pairs": len(times),
        "milliseconds": round(candidate * 1e3, 5), "floor_milliseconds": round(floor * 1e3, 5),
        "peak_bytes": peak, "held_bytes": held,
    }  # fmt: skip
    return {**row, **figures}
