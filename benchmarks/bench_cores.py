"""Benchmarks of a training on all cores: ``pytest benchmarks/bench_cores.py --benchmark-json=cores.json``.

The same training on one thread, on as many threads as there are cores, and in as many replicas of one thread. Each is a
whole one (``cornernet.training.loop.train``, loading and augmentation included) in a process of its own, and they take
turns, ten iterations each, so that what else the machine does affects all. It takes about three minutes and prints the
images per second, which mean something on a quiet machine only.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from benchmarks.stages import blank
from benchmarks.workloads import profile_name
from cornernet import recipe

SMOKE = profile_name() == "smoke"
NAME, BATCH = ("tiny", 2) if SMOKE else ("small", 8)
STEPS, ROUNDS = (1, 2) if SMOKE else (10, 14)
CORES = 2 if SMOKE else torch.get_num_threads()
ONE = "1 thread"
WAYS = {f"{CORES} threads": (CORES, 1), f"{CORES} replicas": (1, CORES)}
"""Threads of a process, and processes."""


class Training:
    """A process of ``benchmarks.paced``."""

    def __init__(self, threads: int, replicas: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.paced", NAME, str(BATCH), str(threads), str(replicas)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def milliseconds(self) -> float:
        """Train for some iterations; return the mean of one."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{STEPS}\n")
        self.process.stdin.flush()
        return float(self.answer())


@contextmanager
def trainings() -> Iterator[dict[str, Training]]:
    started: dict[str, Training] = {}
    try:
        for way, (threads, replicas) in {ONE: (1, 1), **WAYS}.items():
            started[way] = Training(threads, replicas)
            assert started[way].answer() == "ready"
        yield started
    finally:
        for training in started.values():
            training.process.communicate()  # the end of its input ends it


@pytest.fixture(scope="module")
def times() -> dict[str, list[float]]:
    """Return the milliseconds of an iteration in every round, by way."""
    with trainings() as ways:
        rounds = [{way: training.milliseconds() for way, training in ways.items()} for _ in range(ROUNDS)]
    return {way: [each[way] for each in rounds] for way in (ONE, *WAYS)}


@pytest.mark.parametrize("way", WAYS)
def test_training(benchmark: Any, times: dict[str, list[float]], way: str, capsys: pytest.CaptureFixture[str]) -> None:
    size = list(recipe(NAME).data.input_size)
    row = blank("training", NAME, "training on a CPU", way, "cpu", against=ONE, size=size, batch=BATCH)
    mine, other = statistics.median(times[way]), statistics.median(times[ONE])
    pairs = [theirs / own for own, theirs in zip(times[way], times[ONE], strict=True)]
    lower, ratio, upper = statistics.quantiles(pairs, n=4)
    row |= {
        "status": "ok", "milliseconds": round(mine, 4), "against_milliseconds": round(other, 4), "pairs": len(pairs),
        "ratio": round(ratio, 4), "ratio_lower": round(lower, 4), "ratio_upper": round(upper, 4),
        "images_per_second": round(1e3 * BATCH / mine, 3),
    }  # fmt: skip
    with capsys.disabled():
        print(
            f"\n{way}: {ratio:.3f} [{lower:.3f}, {upper:.3f}] times the speed of {ONE}; "
            f"{1e3 * BATCH / mine:.1f} and {1e3 * BATCH / other:.1f} images/s"
        )
    benchmark.extra_info.update(row)
    benchmark.pedantic(lambda: None, rounds=1)
