"""A process that trains when it is told to: ``python -m benchmarks.paced RECIPE BATCH THREADS REPLICAS``.

It prints ``ready`` after a few iterations. Then each line on standard input holds a number of iterations to train for,
and it answers with the mean milliseconds of one.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from cornernet import recipe
from cornernet.training.loop import train

WARMUP = 3


def main() -> None:
    """Train for ever, in pieces."""
    name, (batch, threads, replicas) = sys.argv[1], map(int, sys.argv[2:])
    config = recipe(name).with_("training.replicas", 1)
    for field, value in {
        "batch_size": batch, "threads": threads, "replicas": replicas, "device": "cpu",
        "iterations": 1_000_000, "checkpoint_every": 1_000_000, "log_every": 20,
    }.items():  # fmt: skip
        config = config.with_(f"training.{field}", value)
    began, left, steps = 0.0, WARMUP, 0

    def pace(_done: int) -> None:
        nonlocal began, left, steps
        left -= 1
        if left:
            return
        if steps:
            print(1e3 * (time.perf_counter() - began) / steps, flush=True)
        else:
            print("ready", flush=True)
        line = sys.stdin.readline()
        if not line:
            raise SystemExit
        steps = left = int(line)
        began = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder) / "run", quiet=True, on_iteration=pace)


if __name__ == "__main__":
    main()
