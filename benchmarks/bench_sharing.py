"""Benchmarks of a training step beside a rival: ``pytest benchmarks/bench_sharing.py --benchmark-json=sharing.json``.

The rival wants all cores too: a second process that takes the same steps, on as many threads. Each way runs in a
process of its own, and they take turns, two seconds each, so that what else the machine does affects all. Threads that
wait spin (GOMP_SPINCOUNT=300000, the library's own number), or they make way (``kernels.openmp``, what every command
does). In a fair division a rival leaves half of the speed. It takes about two and a half minutes and prints the shares.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from benchmarks.stages import blank
from benchmarks.workloads import profile_name
from cornernet import recipe
from cornernet.kernels.openmp import VARIABLES

SMOKE = profile_name() == "smoke"
NAME, BATCH = ("tiny", 2) if SMOKE else ("small", 4)
SECONDS, SETTLE, ROUNDS = (0.1, 0.0, 2) if SMOKE else (2.0, 0.6, 9)
SPINNING = {"GOMP_SPINCOUNT": "300000"}

ALONE, ALONE_SPINNING = "alone", "alone, threads spin"
BESIDE, BESIDE_SPINNING = "beside a rival that makes way", "beside a rival that spins"
BOTH_SPINNING = "beside a rival, threads of both spin"
PAIRS = {ALONE: ALONE_SPINNING, BESIDE: ALONE, BESIDE_SPINNING: ALONE, BOTH_SPINNING: ALONE_SPINNING}
"""What each way is compared with. The ratios are shares of the other's speed."""


class Stepper:
    """A process of ``benchmarks.stepper``."""

    def __init__(self, variables: dict[str, str]) -> None:
        inherited = {name: value for name, value in os.environ.items() if name not in (*VARIABLES, "OMP_NUM_THREADS")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.stepper", NAME, str(BATCH)], env={**inherited, **variables},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def begin(self, settle: float, seconds: float) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{settle} {seconds}\n")
        self.process.stdin.flush()

    def milliseconds(self, rival: Stepper | None = None) -> float:
        """Take steps for a while, beside ``rival`` from before the first to after the last; return the mean."""
        if rival is not None:
            rival.begin(0.0, SETTLE + SECONDS + 0.5)
            time.sleep(0.2)
        self.begin(SETTLE, SECONDS)
        mine = float(self.answer())
        if rival is not None:
            rival.answer()
        return mine


@contextmanager
def steppers(*variables: dict[str, str]) -> Iterator[list[Stepper]]:
    started: list[Stepper] = []
    try:
        for each in variables:  # one after another: each compiles, or loads what the first compiled
            started.append(Stepper(each))
            assert started[-1].answer() == "ready"
        yield started
    finally:
        for stepper in started:
            stepper.process.kill()
            stepper.process.communicate()


@pytest.fixture(scope="module")
def times() -> dict[str, list[float]]:
    """Return the milliseconds of a step in every round, by way."""
    found: dict[str, list[float]] = {way: [] for way in (ALONE, BESIDE, ALONE_SPINNING, BESIDE_SPINNING, BOTH_SPINNING)}
    with steppers({}, {}, SPINNING, SPINNING) as (ours, ours_too, spinning, spinning_too):
        # in this order ours is at rest before it runs alone: it makes way for a second after others have gone
        runs = {
            ALONE: (ours, None), BESIDE: (ours, ours_too), ALONE_SPINNING: (spinning, None),
            BESIDE_SPINNING: (ours, spinning), BOTH_SPINNING: (spinning, spinning_too),
        }  # fmt: skip
        for _ in range(ROUNDS):
            for way, (candidate, rival) in runs.items():
                found[way].append(candidate.milliseconds(rival))
    return found


@pytest.mark.parametrize("way", PAIRS)
def test_step(benchmark: Any, times: dict[str, list[float]], way: str, capsys: pytest.CaptureFixture[str]) -> None:
    against = PAIRS[way]
    size = list(recipe(NAME).data.input_size)
    row = blank("training", NAME, "step on shared cores", way, "cpu", against=against, size=size, batch=BATCH)
    mine, other = statistics.median(times[way]), statistics.median(times[against])
    pairs = [theirs / own for own, theirs in zip(times[way], times[against], strict=True)]
    lower, ratio, upper = statistics.quantiles(pairs, n=4)
    row |= {
        "status": "ok", "milliseconds": round(mine, 4), "against_milliseconds": round(other, 4), "pairs": len(pairs),
        "ratio": round(ratio, 4), "ratio_lower": round(lower, 4), "ratio_upper": round(upper, 4),
        "images_per_second": round(1e3 * BATCH / mine, 3),
    }  # fmt: skip
    with capsys.disabled():
        print(f"\n{way}: {ratio:.3f} [{lower:.3f}, {upper:.3f}] of the speed {against}; {1e3 / mine:.2f} steps/s")
    benchmark.extra_info.update(row)
    benchmark.pedantic(lambda: None, rounds=1)
