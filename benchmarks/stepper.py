"""A process that takes training steps when it is told to: ``python -m benchmarks.stepper RECIPE BATCH``.

It prints ``ready``. Then each line on standard input holds two numbers of seconds: to run before counting, and to
count. It answers with the mean milliseconds of the steps that were counted.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch

from cornernet import build_detector, recipe
from cornernet.config import ShapesSource
from cornernet.data import open_dataset
from cornernet.training.timing import training_step

if __name__ == "__main__":
    name, batch = sys.argv[1], int(sys.argv[2])
    config = recipe(name).with_("training.batch_size", batch).with_("training.device", "cpu")
    height, width = config.data.input_size
    config = config.with_("data.source", ShapesSource(image_size=(height, width), train_images=batch, val_images=1))
    config = config.with_("model.num_classes", 3)
    torch.manual_seed(0)
    step = training_step(build_detector(config), open_dataset(config.data.source, "train"), config)
    for _ in range(3):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        settle, seconds = map(float, line.split())
        times: list[float] = []
        start = time.perf_counter()
        while (began := time.perf_counter()) < start + settle + seconds or not times:
            step()
            if began >= start + settle:
                times.append(time.perf_counter() - began)
        print(1e3 * statistics.fmean(times), flush=True)
