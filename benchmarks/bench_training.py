"""Benchmarks of a training step: ``pytest benchmarks/bench_training.py --benchmark-json=training.json``.

Each option for speed is compared with the plain step (NCHW, eager, float32). Both run alternately in one process, over
the same batch. Measured are images per second, the ratio of the two times, and the peak memory beyond the weights. On a
GPU this is Hourglass-104 at 511x511 for several batch sizes, with and without bfloat16, torch.compile and activation
checkpointing. BENCHMARK_DATA=FOLDER adds the throughput of the loader on that COCO-format folder, decoding included.
``bench_inference`` says how to run a slice and how to publish.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.stages import blank, timed, with_memory
from benchmarks.workloads import profile_name
from cornernet import Config, build_detector, recipe
from cornernet.config import CocoSource, HourglassConfig, ShapesSource
from cornernet.data import open_dataset
from cornernet.data.loader import training_loader
from cornernet.kernels.batch_norm import fusing
from cornernet.training.timing import training_step

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SMOKE = profile_name() == "smoke"
SECONDS = 0.5 if SMOKE else 20.0
WAYS: dict[str, dict[str, Any]] = {
    "channels_last": {"channels_last": True},
    "channels_last, activations twice": {"channels_last": True, "checkpoint_activations": True},
    "channels_last, compile": {"channels_last": True, "compile": True},
    "channels_last, bfloat16": {"channels_last": True, "precision": "bfloat16"},
    "channels_last, bfloat16, compile": {"channels_last": True, "precision": "bfloat16", "compile": True},
    "channels_last, bfloat16, compile, activations twice": {
        "channels_last": True, "precision": "bfloat16", "compile": True, "checkpoint_activations": True,
    },
}  # fmt: skip
if SMOKE:
    WAYS = {way: settings for way, settings in WAYS.items() if "compile" not in settings}
pytestmark = pytest.mark.filterwarnings("ignore")  # torch.compile warns about its own internals
CASES: list[tuple[str, int]] = (
    [("tiny", 2)]
    if SMOKE
    else [("small", 8)]
    if DEVICE == "cpu"
    else [("hourglass_104", n) for n in (1, 8, 16, 32, 49)]
)


def configured(name: str, batch: int, **training: Any) -> Config:
    config = recipe(name).with_("training.batch_size", batch).with_("training.device", DEVICE)
    height, width = config.data.input_size
    config = config.with_("data.source", ShapesSource(image_size=(height, width), train_images=batch, val_images=1))
    config = config.with_("model.num_classes", 3)
    for field, value in training.items():
        config = config.with_(f"training.{field}", value)
    return config


@functools.lru_cache(maxsize=2)
def step(name: str, batch: int, way: str) -> Callable[[], None]:
    """Return a function that takes one training step (``cornernet.training.step.TrainStep``)."""
    config = configured(name, batch, **({"channels_last": False} if way == "plain" else WAYS[way]))
    torch.manual_seed(0)
    detector = build_detector(config).to(DEVICE)
    return training_step(detector, open_dataset(config.data.source, "train"), config)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "batch"), CASES)
def test_step(benchmark: Any, name: str, batch: int, way: str) -> None:
    size = list(recipe(name).data.input_size)
    row = blank("training", name, "step", way, DEVICE, against="plain", size=size, batch=batch)
    try:
        run = step(name, batch, way)
        row = timed(row, run, step(name, batch, "plain"), DEVICE, SECONDS)
        row = with_memory(row, run, DEVICE)
    except torch.OutOfMemoryError as error:
        step.cache_clear()
        row = {**row, "status": "not measured", "reason": f"out of memory: {str(error)[:200]}"}
        run = len
    benchmark.extra_info.update(row)
    benchmark.pedantic(run if row["status"] == "ok" else (lambda: None), rounds=1)


@pytest.mark.skipif(DEVICE != "cpu", reason="the fused operators run on the CPU")
@pytest.mark.parametrize("name", ["tiny"] if SMOKE else ["small", "two stacks"])
def test_fused_on_one_thread(benchmark: Any, name: str) -> None:
    """A step on one thread, against torch's operators for batch norm, addition, ReLU and 1x1 convolution."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        config = two_stacks() if name == "two stacks" else configured(name, 2 if SMOKE else 8)
        fused, plain = (_built(config) for _ in range(2))

        def by_torch() -> None:
            with fusing(False):
                plain()

        row = blank(
            "training", name, "step", "fused batch norm, one thread", DEVICE, against="torch's operators",
            size=list(config.data.input_size), batch=config.training.batch_size,
        )  # fmt: skip
        benchmark.extra_info.update(timed(row, fused, by_torch, DEVICE, SECONDS))
        benchmark.pedantic(fused, rounds=1)
    finally:
        torch.set_num_threads(threads)


def two_stacks() -> Config:
    """Return the network of the ablations' standard profile with two stacks: 6.8 GFLOP per step."""
    backbone = HourglassConfig(stacks=2, stem_channels=16, channels=(16, 32, 32), blocks=(1, 1, 1))
    config = configured("tiny", 4).with_("model.backbone", backbone).with_("data.input_size", (191, 191))
    return config.with_("data.source", ShapesSource(image_size=(191, 191), train_images=4, val_images=1))


def _built(config: Config) -> Callable[[], None]:
    torch.manual_seed(0)
    return training_step(build_detector(config), open_dataset(config.data.source, "train"), config)


@pytest.mark.parametrize("workers", [0, 2] if DEVICE == "cpu" else [4, 8, 16])
def test_loader(benchmark: Any, workers: int) -> None:
    """Batches of decoded, augmented photographs with targets, in the paper's input size."""
    folder = os.environ.get("BENCHMARK_DATA")
    if folder is None:
        pytest.skip("BENCHMARK_DATA is not set to a folder of photographs")
    config = recipe("hourglass_104").with_("data.source", CocoSource(root=folder)).with_("training.workers", workers)
    config = config.with_("training.batch_size", 8)
    dataset = open_dataset(config.data.source, "train")
    config = config.with_("model.num_classes", len(dataset.classes))
    head = build_detector(recipe("tiny").with_("model.num_classes", len(dataset.classes))).head
    # loader processes receive it by pickle, which excludes a lambda
    loader = training_loader(dataset, config, functools.partial(head.targets, image_size=(511, 511)))
    batches = iter(loader)
    next(batches)
    row = blank(
        "training", "hourglass_104", "loader", f"{workers} workers", "cpu", against="", size=[511, 511], batch=8
    )

    def run() -> None:
        for _ in itertools.repeat(None, 4):
            next(batches)

    row = timed(row, run, lambda: None, "cpu", SECONDS)
    row["milliseconds"], row["images_per_second"] = row["milliseconds"] / 4, 4 * row["images_per_second"]
    benchmark.extra_info.update(row)
    benchmark.pedantic(run, rounds=1)
