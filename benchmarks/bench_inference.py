"""Inference by stage: ``pytest benchmarks/bench_inference.py --benchmark-json=inference.json``.

The plain path and the fast one (``cornernet.model.fast``) are timed in turn in one process. The figures are in each
row's ``extra_info`` (``benchmarks.stages``). A run may be cut into slices, such as ``-k "network and small"``; ``python
-m benchmarks.results inference.json reports/benchmarks`` merges and publishes them. Weights are random: times do not
depend on them, except for soft-NMS, which is timed on generated boxes. BENCHMARK_PROFILE=smoke runs tiny sizes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from benchmarks.stages import blank, timed, with_memory, with_mm
from benchmarks.workloads import profile_name
from cornernet import Candidates, Corners, Detector, Predictions, build_detector, optimised, recipe
from cornernet.config import TestingConfig
from cornernet.data.images import decode as decode_image
from cornernet.inference.detect import decode, examine, network, prepare_inputs
from cornernet.inference.suppression import suppress
from cornernet.model.heads.corner.decode import decode_padded
from cornernet.model.heads.corner.targets import TargetBuilder
from tests.soft_nms_by_numpy import soft_nms

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SMOKE = profile_name() == "smoke"
RECIPES = ("tiny",) if SMOKE else ("small", "hourglass_104")
SIZES = {"tiny": (31, 31), "small": (191, 255), "hourglass_104": (511, 511)}
BATCHES = {"tiny": (1, 2), "small": (1, 2, 4, 8, 16, 32), "hourglass_104": (1, 2, 4) if DEVICE == "cpu" else (1, 8, 32)}
WAYS = ("fast", "fast-compile") if DEVICE == "cpu" else ("fast", "fast-bfloat16", "fast-bfloat16-compile")
WAYS = WAYS[:1] if SMOKE else WAYS  # compiling takes minutes
SECONDS = 0.2 if SMOKE else 8.0
pytestmark = pytest.mark.filterwarnings("ignore")  # torch.compile warns about its own internals


@functools.lru_cache(maxsize=1)
def plain(name: str) -> Detector:
    torch.manual_seed(0)
    return build_detector(recipe(name)).to(DEVICE).eval()


@functools.lru_cache(maxsize=1)
def fast(name: str, way: str) -> Detector:
    precision: Any = "bfloat16" if "bfloat16" in way else "float32"
    return optimised(plain(name), compile="compile" in way, precision=precision)


def finish(benchmark: Any, row: dict[str, Any], run: Callable[[], Any]) -> None:
    benchmark.extra_info.update(row)
    benchmark.pedantic(run, rounds=1)


@pytest.fixture(autouse=True)
def without_gradients() -> Any:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "batch"), [(name, batch) for name in RECIPES for batch in BATCHES[name]])
def test_network(benchmark: Any, name: str, batch: int, way: str) -> None:
    row = blank("inference", name, "network", way, DEVICE, against="plain", size=list(SIZES[name]), batch=batch)
    images = torch.randn(batch, 3, *SIZES[name])
    run = functools.partial(network, fast(name, way), images)
    row = timed(row, run, functools.partial(network, plain(name), images), DEVICE, SECONDS)
    row = with_memory(row, run, DEVICE)
    if batch == 1 and "compile" not in way:
        row = with_mm(row, run, DEVICE, SECONDS)
    finish(benchmark, row, run)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", RECIPES)
def test_photograph(benchmark: Any, name: str, way: str) -> None:
    """Time the path from a photograph in memory to boxes, with its mirror image."""
    height, width = SIZES[name]
    row = blank("inference", name, "photograph", way, DEVICE, against="plain", size=[height, width], batch=1)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    config = recipe(name)
    run = functools.partial(examine, fast(name, way), image, config)
    finish(benchmark, timed(row, run, functools.partial(examine, plain(name), image, config), DEVICE, SECONDS), run)


def stage_runs(name: str) -> dict[str, Callable[[], Any]]:
    """Return the calls of each stage of the fast path, on the results of the stage before it."""
    detector, config = fast(name, "fast"), recipe(name)
    height, width = SIZES[name]
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    content = cv2.imencode(".jpg", image)[1].tobytes()
    ((batch, _),) = prepare_inputs(image, config, detector.total_stride).views
    x = batch.to(DEVICE).contiguous(memory_format=torch.channels_last)
    stem = detector.backbone.stem(x)
    last = detector.backbone.num_stacks - 1
    maps = detector.backbone.stack(last, stem)
    branch = detector.head.stacks[last]["top_left"].pooling
    pooled = branch.vertical(maps[0]), branch.horizontal(maps[0])
    predictions = network(detector, batch)
    return {
        "read": lambda: decode_image(content),
        "resize and normalise": lambda: prepare_inputs(image, config, detector.total_stride),
        "backbone, stem": lambda: detector.backbone.stem(x),
        "backbone, one stack": lambda: detector.backbone.stack(last, stem),
        "pooling, one corner": lambda: branch.pool(*pooled),
        "head": lambda: detector.head(last, maps),
        "decode": lambda: decode(detector, predictions, config.testing),
        "soft-NMS": lambda: suppress([boxes()], config.testing),
    }


STAGES = (
    *("read", "resize and normalise", "backbone, stem", "backbone, one stack", "pooling, one corner", "head"),
    *("decode", "soft-NMS"),
)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", RECIPES)
def test_stage(benchmark: Any, name: str, stage: str) -> None:
    row = blank("inference", name, stage, "fast", DEVICE, against="the whole network", size=list(SIZES[name]), batch=2)
    images = torch.randn(2, 3, *SIZES[name])
    run = stage_runs(name)[stage]
    finish(benchmark, timed(row, run, functools.partial(network, fast(name, "fast"), images), DEVICE, SECONDS), run)


@functools.cache
def boxes() -> Candidates:
    """Return 1,000 boxes of 80 classes in a photograph of 640x480."""
    rng = np.random.default_rng(1)
    corners, sides = rng.random((1000, 2)) * (480, 360), rng.random((1000, 2)) * (160, 120)
    table = np.concatenate([corners, corners + sides, rng.random((1000, 3))], axis=1).astype(np.float32)
    rows = torch.from_numpy(table)
    return Candidates(rows[:, :4], rows[:, 4], rows[:, 5:], torch.from_numpy(rng.integers(0, 80, 1000)))


@functools.cache
def heatmaps(layout: str) -> Predictions:
    generator = torch.Generator().manual_seed(2)
    shape, memory_format = (2, -1, 32, 32) if SMOKE else (2, -1, 128, 128), getattr(torch, layout)

    def corners(channels: int, mean: float) -> Corners[torch.Tensor]:
        return Corners(
            *(
                (torch.randn(shape[0], channels, *shape[2:], generator=generator) + mean)
                .to(DEVICE)
                .contiguous(memory_format=memory_format)
                for _ in range(2)
            )
        )

    return Predictions(corners(80, -4.0), corners(1, 0.0), corners(2, 0.0))


@pytest.mark.parametrize("layout", ["contiguous_format", "channels_last"])
def test_decode_against_reading_once(benchmark: Any, layout: str) -> None:
    """Both heatmaps [2, 80, 128, 128] decoded, against ``torch.amax`` of one. The ratio should be at least 1/5."""
    predictions, detector = heatmaps(layout), plain("tiny")
    row = blank("inference", "", f"decode, {layout}", "fast", DEVICE, against="torch.amax", size=[128, 128], batch=2)
    run = functools.partial(decode, detector, [predictions], TestingConfig())
    finish(benchmark, timed(row, run, lambda: torch.amax(predictions.heatmaps.top_left), DEVICE, SECONDS / 4), run)


@pytest.mark.parametrize("layout", ["contiguous_format", "channels_last"])
def test_decode_against_the_plain_way(benchmark: Any, layout: str) -> None:
    """The same, against the sigmoid, max-pooling and top-k over whole maps that the compiled loops replace on a CPU."""
    predictions, detector, testing = heatmaps(layout), plain("tiny"), TestingConfig()
    against = "sigmoid, max-pooling, top-k"
    row = blank("inference", "", f"decode, {layout}", "fast", DEVICE, against=against, size=[128, 128], batch=2)
    run = functools.partial(decode, detector, [predictions], testing)
    finish(benchmark, timed(row, run, lambda: decode_padded(predictions, testing), DEVICE, SECONDS / 4), run)


@pytest.mark.parametrize("merge", [False, True])
def test_decode_and_suppress(benchmark: Any, merge: bool) -> None:
    """Decoding two heatmaps, then soft-NMS and merging of 1,000 boxes of 80 classes. Should take at most 10 ms."""
    predictions, detector, testing = heatmaps("contiguous_format"), plain("tiny"), TestingConfig(merge=merge)
    stage = "decode, soft-NMS" + (" and merging" if merge else "")
    row = blank("inference", "", stage, "fast", DEVICE, against="soft-NMS alone", size=[128, 128], batch=2)

    def run() -> None:
        decode(detector, [predictions], testing)
        suppress([boxes()], testing)

    finish(benchmark, timed(row, run, lambda: suppress([boxes()], testing), DEVICE, SECONDS / 4), run)


@functools.cache
def crowded() -> Candidates:
    """Return 1,000 boxes in each of 80 classes."""
    rng = np.random.default_rng(4)
    classes, each = (3, 40) if SMOKE else (80, 1000)
    count = classes * each
    corners, sides = rng.random((count, 2)) * (480, 360), rng.random((count, 2)) * (160, 120)
    table = np.concatenate([corners, corners + sides, rng.random((count, 3))], axis=1).astype(np.float32)
    rows = torch.from_numpy(table)
    return Candidates(rows[:, :4], rows[:, 4], rows[:, 5:], torch.arange(count) % classes)


def by_numpy(candidates: Candidates, testing: TestingConfig) -> list[Any]:
    """Suppress one class after another, as the authors' path was computed before the compiled loop."""
    rows = torch.cat([candidates.boxes, candidates.scores[:, None], candidates.corner_scores], dim=1).numpy()
    labels = candidates.labels.numpy()
    exponent = testing.merge_exponent if testing.merge else None
    return [
        soft_nms(rows[labels == label], merge_exponent=exponent, column_defect=True, stale_rows=True)
        for label in np.unique(labels)
    ]


@pytest.mark.parametrize(("candidates", "merge"), [(boxes, False), (boxes, True), (crowded, False)])
def test_the_authors_suppression(benchmark: Any, candidates: Callable[[], Candidates], merge: bool) -> None:
    """Soft-NMS with the authors' defects, of 1,000 boxes of 80 classes and of 1,000 boxes in each class.

    Their own loop takes 2.8 ms and 1.4 s, and 4.6 ms where it merges the 1,000 boxes.
    """
    testing = TestingConfig(merge=merge, authors_compatible=True)
    stage = f"soft-NMS{' and merging' if merge else ''} with the authors' defects, {len(candidates().scores):,} boxes"
    row = blank("inference", "", stage, "compiled loop", "cpu", against="numpy, box after box")
    run = functools.partial(suppress, [candidates()], testing)
    former = functools.partial(by_numpy, candidates(), testing)
    finish(benchmark, timed(row, run, former, "cpu", SECONDS / 4), run)


def test_targets(benchmark: Any) -> None:
    """Target heatmaps of an image with 10 objects. Should take at most 1 ms."""
    rng = np.random.default_rng(3)
    corners, sides = rng.uniform(0, 300, (10, 2)), rng.uniform(20, 200, (10, 2))
    truth = [torch.from_numpy(np.hstack([corners, corners + sides]))], [torch.from_numpy(rng.integers(0, 80, 10))]
    build = TargetBuilder(config=recipe("hourglass_104").model.head, num_classes=80)
    row = blank("inference", "", "targets", "plain", "cpu", against="two empty heatmaps", size=[511, 511], batch=1)
    run = functools.partial(build, *truth, (511, 511))
    finish(benchmark, timed(row, run, lambda: np.zeros((2, 80, 128, 128), np.float32), "cpu", SECONDS / 4), run)
