"""A configuration that suits a folder of images, with reasons: what ``cornernet train --data FOLDER`` starts from.

The rules of thumb are scaled from one measurement: recipe ``small`` on 205 photographs of blood cells (AP 52 after 2400
iterations of 8 images of 255x191 pixels). They give a first run that learns something, not the best one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cornernet.config import CocoSource, Config, Size
from cornernet.config.recipes import recipe
from cornernet.console import count
from cornernet.data.dataset import DetectionDataset

__all__ = ["Machine", "Suggestion", "machine", "suggest"]

MEASURED_IMAGES, MEASURED_ITERATIONS, MEASURED_PIXELS = 205, 2400, 191 * 255
"""The measurement that budgets are scaled from."""
SMALLEST_SIDE = 12.0
"""Pixels that the shorter side of nine in ten boxes should have in the input: three heatmap cells."""
LARGE_SET = 5000
"""Number of images from which the suggestion for a GPU is the paper's network with one stack."""


@dataclass(frozen=True)
class Machine:
    """The hardware for training."""

    cuda: bool = False
    bfloat16: bool = False
    memory_gib: float = 0.0
    """Memory of the GPU."""


def machine() -> Machine:
    """Return the hardware of this machine."""
    if not torch.cuda.is_available():
        return Machine()
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return Machine(True, torch.cuda.is_bf16_supported(including_emulation=False), memory)


@dataclass(frozen=True)
class Suggestion:
    """A configuration, the recipe that it modifies, and a reason for every choice."""

    recipe: str
    config: Config
    reasons: tuple[tuple[str, str, str], ...]
    """(field or flag, value, why)."""

    def to_text(self) -> str:
        """Return one line per choice."""
        lines = ["chosen from the data (override any of them with its flag):"]
        lines += [f"  --{field} {value}: {why}" for field, value, why in self.reasons]
        return "\n".join(lines)


def suggest(source: CocoSource, train: DetectionDataset, val: DetectionDataset, on: Machine) -> Suggestion:
    """Return a configuration for the splits ``train`` and ``val`` of ``source``, for the machine ``on``."""
    reasons: list[tuple[str, str, str]] = []
    sizes = np.array([train.size(index) for index in range(len(train))], np.float64)
    name, why = _recipe(len(train), sizes, on)
    reasons.append(("recipe", name, why))
    config = recipe(name).with_("data.source", source).with_("model.num_classes", len(train.classes))
    if name != "hourglass_52":
        size, why = _input_size(train, sizes, config, on)
        reasons.append(("data.input-size", f"{size[0]} {size[1]}", why))
        config = config.with_("data.input_size", size).with_("data.fit", (size[0] + 1, size[1] + 1))
        border = max(8, round(min(size) / 3))
        config = config.with_("data.augmentation.crop_border", border)
    config, why = _iterations(config, len(train), on)
    reasons.append(("training.iterations", str(config.training.iterations), why))
    every = max(1, config.training.iterations // 4)
    if len(val) <= 500:
        config = config.with_("training.evaluate_every", every)
        reasons.append(
            (
                "training.evaluate-every",
                str(every),
                f"four times in the run, on the {count(len(val), 'image')} of val; drawn in previews/",
            )
        )
    if on.cuda:
        precision = "bfloat16" if on.bfloat16 else "float16"
        config = config.with_("training.precision", precision)
        reasons.append(("training.precision", precision, "takes half the memory of float32 on this GPU"))
    return Suggestion(name, config, tuple(reasons))


def _recipe(images: int, sizes: NDArray[np.float64], on: Machine) -> tuple[str, str]:
    if on.cuda and images >= LARGE_SET:
        return "hourglass_52", f"{count(images, 'image')} and a GPU: the paper's network with one stack"
    if sizes.max() <= 128:
        return "tiny", f"no image is larger than {sizes.max():.0f} pixels"
    where = "a GPU" if on.cuda else "a CPU"
    return "small", f"{count(images, 'image')} and {where}: half a million parameters train in minutes"


def _input_size(train: DetectionDataset, sizes: NDArray[np.float64], config: Config, on: Machine) -> tuple[Size, str]:
    """Return the smallest input in which nine in ten objects are large enough, within the machine's limits, and why."""
    stride = config.model.backbone.total_stride
    ratio = float(np.exp(np.median(np.log(sizes[:, 0] / sizes[:, 1]))))
    longest = float(np.median(sizes.max(1)))
    shorter = np.concatenate([_shorter_sides(train, index) for index in range(len(train))])
    smallest = float(np.quantile(shorter, 0.1)) if len(shorter) else longest
    most = 767 if on.cuda else 383
    wanted = min(longest, max(min(longest, 255.0), longest * SMALLEST_SIDE / max(smallest, 1e-6)))
    long_side = min(most, wanted)

    def whole(side: float) -> int:
        return max(1, round((side + 1) / stride)) * stride - 1

    size = (whole(long_side * ratio), whole(long_side)) if ratio <= 1 else (whole(long_side), whole(long_side / ratio))
    # batch norm cannot learn from a coarsest map of one cell
    size = (max(size[0], 2 * stride - 1), max(size[1], 2 * stride - 1))
    seen = smallest * max(size) / longest
    why = f"images of about {np.median(sizes[:, 1]):.0f}x{np.median(sizes[:, 0]):.0f} pixels (width x height)"
    if len(shorter):
        why += f"; nine in ten boxes keep {seen:.0f} pixels or more on their shorter side"
        if seen < 0.9 * SMALLEST_SIDE and max(size) < longest - stride:
            why += f", fewer than the recommended {SMALLEST_SIDE:.0f}: a larger input finds more and takes longer"
    return size, why


def _shorter_sides(train: DetectionDataset, index: int) -> NDArray[np.float64]:
    boxes = train.records[index].boxes
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).min(1), np.float64)


def _iterations(config: Config, images: int, on: Machine) -> tuple[Config, str]:
    """Return the configuration with iterations that grow with the root of the number of images, and why."""
    if config.training.schedule != "cosine":
        # the paper's schedule, shortened, with the decay at the same fraction
        iterations = int(np.clip(250_000 * images / 118_000, 20_000, 250_000))
        batch = max(1, min(16, int(on.memory_gib // 4)))
        config = config.with_("training.batch_size", batch).with_("training.decay_at", [round(0.9 * iterations)])
    else:
        grown = float(np.clip(MEASURED_ITERATIONS * np.sqrt(images / MEASURED_IMAGES), 800, 12_000))
        iterations = 100 * round(grown / 100)
    config = config.with_("training.iterations", iterations)
    passes = iterations * config.training.batch_size / images
    why = (
        f"{count(round(passes), 'pass', 'passes')} over {count(images, 'image')} in batches of "
        f"{config.training.batch_size}"
    )
    height, width = config.data.input_size
    if not on.cuda and config.training.schedule == "cosine":
        minutes = 9.5 * iterations / MEASURED_ITERATIONS * height * width / MEASURED_PIXELS
        why += f"; about {count(round(minutes), 'minute')} on two cores, scaled from one measured run"
    return config, why
