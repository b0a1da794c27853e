"""Processes that start together with a cold cache, call every compiled function, and write digests of the outputs."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cornernet import kernels
from cornernet.ablations.statistics import resampling
from cornernet.config import TestingConfig
from cornernet.evaluation.average_precision import average_precision_under
from cornernet.inference import suppression_compiled
from cornernet.kernels import cpu_kernels, norm_kernels
from cornernet.kernels.batch_norm import batch_norm, why_not
from cornernet.kernels.compiled import FUNCTIONS
from cornernet.model.heads.corner import decode_cpu
from cornernet.model.heads.corner.outputs import Corners, Predictions

IMPORTED = (cpu_kernels, norm_kernels)
"""Imported here because the package imports them when they are called first."""
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
COSTLY = ("cpu_kernels.", "decode_cpu._search", "norm_kernels.")
"""Compiling these takes seconds each; the others take less than a second each."""


def names(costly: bool) -> set[str]:
    """The names under which machine code is kept, of all compiled functions that are imported."""
    ours = [function for function in FUNCTIONS if function.__module__.startswith("cornernet.")]
    found = {f"{function.__module__.rpartition('.')[2]}.{function.__name__}" for function in ours}
    return {name for name in found if costly or not name.startswith(COSTLY)}


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def _pooled(dtype: torch.dtype, layout: torch.memory_format) -> list[Tensor]:
    a, b = (_random(2, channels, 21, 37)[:, :19].to(dtype).contiguous(memory_format=layout) for channels in (19, 20))
    a.requires_grad_()
    b.requires_grad_()
    result = kernels.corner_pool(a, b, "bottom_right", impl="cpu")
    return [result, *torch.autograd.grad(result, (a, b), torch.ones_like(result))]


def _decoded(layout: torch.memory_format) -> list[Any]:
    shapes = ((2, 8, 128, 128), (2, 1, 128, 128), (2, 2, 128, 128))
    maps = [
        Corners(*(_random(*shape).roll(kind).contiguous(memory_format=layout) for kind in range(2))) for shape in shapes
    ]
    images = decode_cpu.decode_large(Predictions(*maps), TestingConfig())
    assert images is not None
    return [column for image in images for column in (image.boxes, image.scores, image.corner_scores, image.labels)]


def _corners_and_pairs() -> list[Any]:
    """The parts of decoding that are compiled by themselves, for both layouts of the maps."""
    scores, logits = _random(300, 9).sigmoid().numpy(), _random(300).numpy()
    scores[:, 4] = scores.max(1)
    places = np.random.default_rng(0).permutation(5 * 16 * 16)[:300]
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        maps = [_random(1, channels, 16, 16).contiguous(memory_format=layout)[0] for channels in (1, 2)]
        found.append(decode_cpu._ranked(scores, places, logits, np.float32(-9), 50, 16, 16, *maps))
    assert found[0] is not None
    pairs = decode_cpu._pair(found[0], found[0] + np.float32(1), np.float32(3), False, 2000)
    assert pairs is not None
    return [*found, *pairs]


def _suppressed() -> list[Any]:
    corners = _random(600, 4).abs().numpy() * 40
    corners[:, 2:] += corners[:, :2]
    rows = np.concatenate([corners, _random(600, 3).sigmoid().numpy()], axis=1)
    labels = np.arange(600) % 3
    suppressed, kept_labels = suppression_compiled.suppress_classes(
        rows,
        labels,
        factor=lambda overlaps: np.exp(-(overlaps**2) * 2),
        weight=lambda overlaps, factors: (1 - factors) * (overlaps > 0),
        floor=np.float32(0.01),
        pixel_extent=np.float32(1),
        max_picks=40,
    )
    return [suppressed, kept_labels]


def _resampled() -> list[Any]:
    random_ = np.random.default_rng(0)
    images = np.sort(random_.integers(0, 9, 60))
    outcomes = random_.integers(0, 3, (4, 10, 60)).astype(np.uint8)
    weights = resampling.image_weights("a fingerprint", 9, 20)
    run_ends = np.arange(1, 61)
    objects = np.full((20, 4), 40)
    return [resampling._accumulate(weights, images, run_ends, outcomes, objects, np.linspace(0, 1, 101))]


def _average_precision() -> list[Any]:
    random_ = np.random.default_rng(0)
    images, positive = random_.integers(0, 9, 60), random_.random(60) < 0.4
    return [average_precision_under(random_.integers(0, 3, (20, 9)), images, positive, np.full(20, 40))]


def _normalised() -> list[Tensor]:
    norm = nn.BatchNorm2d(19).train()
    x, add = (_random(2, 19, 21, width).contiguous(memory_format=torch.channels_last)[..., :37] for width in (37, 38))
    x.requires_grad_()
    add = add.contiguous(memory_format=torch.channels_last).requires_grad_()
    assert why_not(x, norm) is None
    result = batch_norm(x, norm, add, relu=True)
    gradients = torch.autograd.grad(result, (x, add, norm.weight, norm.bias), torch.ones_like(result))
    assert norm.running_mean is not None
    return [result, *gradients, norm.running_mean]


def _digest(outputs: Iterable[Any]) -> str:
    total = hashlib.sha256()
    for each in outputs:
        array = each.detach().double().numpy() if isinstance(each, Tensor) else np.asarray(each)
        total.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def calls(costly: bool) -> dict[str, Callable[[], list[Any]]]:
    """Calls that need every compiled function, or every one that compiles quickly."""
    found: dict[str, Callable[[], list[Any]]] = {
        "corners and pairs": _corners_and_pairs,
        "suppression": _suppressed,
        "resampling": _resampled,
        "average precision": _average_precision,
    }
    if costly:
        found["batch norm"] = _normalised
        for layout in (torch.contiguous_format, torch.channels_last):
            found[f"decode {layout}"] = lambda layout=layout: _decoded(layout)
            for dtype in DTYPES:
                found[f"pool {dtype} {layout}"] = lambda dtype=dtype, layout=layout: _pooled(dtype, layout)
    return found


def race(cache: Path, out: Path, processes: int, seed: int, costly: bool) -> None:
    """Start ``processes`` forks at once, each with its own order of calls; each writes its digests below ``out``."""
    os.environ["CORNERNET_CACHE"] = str(cache)
    out.mkdir()
    start, go = os.pipe()
    children = []
    for number in range(processes):
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(start, 1)  # ends when the parent has closed the other side
            order = list(calls(costly).items())
            random.Random(seed * 1000 + number).shuffle(order)
            digests = {name: _digest(call()) for name, call in order}
            (out / f"{number}.json").write_text(json.dumps(digests, sort_keys=True))
            os._exit(0)
        children.append(child)
    os.close(go)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
