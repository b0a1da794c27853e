"""Limits of the configuration's numbers: far above what anybody trains, and low enough that nothing hangs.

A configuration may come from a stranger's weights. Without limits, a file of a kilobyte could ask for 10^8 stacks, and
building them would take days and all memory. The numbers are checked when a configuration is made, before anything is
built from it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import typing
from typing import Any

from cornernet.config.checks import ConfigError, require

__all__ = ["LIMITS", "MOST_BLOCKS", "MOST_ENTRIES", "MOST_PARAMETERS", "MOST_PIXELS", "require_numbers", "require_size"]

LIMITS: dict[str, float] = {
    "model.num_classes": 100_000,
    "model.backbone.stacks": 64,
    "model.backbone.stem_channels": 16_384,
    "model.backbone.channels": 16_384,
    "model.backbone.blocks": 1_000,
    "model.backbone.fpn_channels": 16_384,
    "model.head.pool_channels": 16_384,
    "model.head.embedding_dim": 1_024,
    "model.head.finest_stride": 8_192,
    "model.head.octave_scales": 32,
    "model.head.channels": 16_384,
    "model.head.depth": 256,
    "data.source.image_size": 16_384,
    "data.source.max_objects": 4_096,
    "data.source.train_images": 10_000_000,
    "data.source.val_images": 10_000_000,
    "data.input_size": 16_384,
    "data.fit": 1_000_000,
    "data.augmentation.crop_scales": 100,
    "data.augmentation.crop_border": 1_000_000,
    "training.iterations": 1_000_000_000,
    "training.batch_size": 100_000,
    "training.accumulation": 100_000,
    "training.threads": 4_096,
    "training.replicas": 256,
    "training.workers": 1_024,
    "testing.scales": 100,
    "testing.top_k": 10_000,
    "testing.peak_kernel": 1_023,
    "testing.num_candidates": 1_000_000,
    "testing.max_detections": 1_000_000,
}
"""The largest value of a field, by its path; for a list, of each entry."""

MOST_ENTRIES: dict[str, int] = {
    # a total stride of 8192
    "model.backbone.channels": 12,
    "model.backbone.blocks": 12,
    "model.head.ratios": 100,
    "data.augmentation.crop_scales": 1_000,
    "training.decay_at": 1_000,
    "testing.scales": 100,
}
"""The most entries of a list, by the field's path."""

MOST_BLOCKS = 5_000
"""Residual blocks of a backbone. Hourglass-104 has 70."""
MOST_PARAMETERS = 4_000_000_000
"""Parameters of a network: 16 GB of weights. Hourglass-104 has 201 million."""
MOST_PIXELS = 2**33
"""Pixels of a generated split: 24 GiB."""

# what JSON readers of other languages, and arrays of 64-bit integers, can hold
_LARGEST = 2**63 - 1
_SEEDS = (-(2**63), 2**64 - 1)


def require_numbers(part: Any, path: str) -> None:
    """Raise ``ConfigError`` for a number of a part of the configuration that is above its limit, or no number.

    ``path`` is the part's, such as ``model.backbone``. Whole numbers must be whole, and others finite.
    """
    kind: Any = type(part)
    for name, field, whole in _numeric(kind, path):
        value = getattr(part, name)
        if isinstance(value, tuple | list):
            most = MOST_ENTRIES.get(field)
            require(most is None or len(value) <= most, f"{field} has {len(value):,} entries; use {most} or fewer")
            for each in value:
                _require_number(field, each, whole)
        else:
            _require_number(field, value, whole)


def _require_number(field: str, value: Any, whole: bool) -> None:
    # by far the most: looking at abstract kinds would take most of the time that a configuration takes
    if value is None or (type(value) is int and 0 <= value <= LIMITS.get(field, _LARGEST)):
        return
    if not whole and type(value) is float and math.isfinite(value) and value <= LIMITS.get(field, math.inf):
        return
    kind: Any = numbers.Integral if whole else numbers.Real
    low, high = _SEEDS if field == "training.seed" else (-_LARGEST, _LARGEST)
    if not isinstance(value, kind) or isinstance(value, bool):
        fix = "a whole number" if whole else "a number"
    elif not isinstance(value, numbers.Integral) and not math.isfinite(value):
        fix = "a finite number"
    elif value > (most := LIMITS.get(field, high if whole else math.inf)):
        fix = f"{most:,} or less"
    elif whole and value < low:
        fix = f"{low:,} or more"
    else:
        return
    raise ConfigError(f"{field} is {_shown(value)}; use {fix}")


def require_size(blocks: int, parameters: int) -> None:
    """Raise ``ConfigError`` for a network with too many residual blocks or parameters to be built."""
    require(
        blocks <= MOST_BLOCKS,
        f"model.backbone has {blocks:,} residual blocks, and the limit is {MOST_BLOCKS:,}: lower "
        "model.backbone.stacks or .blocks",
    )
    require(
        parameters <= MOST_PARAMETERS,
        f"the model has about {parameters / 1e9:,.1f} billion parameters, and the limit is "
        f"{MOST_PARAMETERS / 1e9:g} billion: lower the widths, .blocks and .stacks in model.backbone, those in "
        "model.head, or model.num_classes",
    )


def _shown(value: Any) -> str:
    """Return a value for a message. Python refuses to print a number of thousands of digits, and nobody reads it."""
    if isinstance(value, int) and abs(value) >= 10**20:
        return f"a number of about {int(value.bit_length() * math.log10(2)) + 1:,} digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


@functools.cache
def _numeric(kind: Any, path: str) -> tuple[tuple[str, str, bool], ...]:
    """Return the fields of a dataclass at ``path`` that hold numbers, their paths, and whether they must be whole."""
    hints = typing.get_type_hints(kind)
    found = []
    for field in dataclasses.fields(kind):
        leaves = set(_leaves(hints[field.name]))
        if leaves & {int, float} and not leaves & {str, bool}:
            found.append((field.name, f"{path}.{field.name}", float not in leaves))
    return tuple(found)


def _leaves(hint: Any) -> list[Any]:
    inside = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return [str]
    return [leaf for each in inside for leaf in _leaves(each)] if inside else [hint]
