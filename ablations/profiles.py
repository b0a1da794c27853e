"""Profiles: how much a whole study run may cost. A row each; budgets are iterations, never seconds.

Recipes and budgets are set on the arm with corner pooling alone, before any contrast is looked at.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cornernet.config import CocoSource, Config, HourglassConfig, ShapesSource
from cornernet.recipes import small, tiny

__all__ = ["PROFILES", "Profile", "find_profile"]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A budget: seeds, the studies that are run unless others are named, and the base configuration.

    The latter on the generated data and on a folder of photographs.
    """

    name: str
    purpose: str
    seeds: tuple[int, ...]
    studies: tuple[str, ...]
    on_shapes: Callable[[], Config]
    on_photographs: Callable[[], Config]

    def base(self, data: Path | None) -> Config:
        """Return the base configuration on a COCO folder, or on ``shapes`` for None.

        A training run on a CPU has one thread, so that its bits do not depend on how many run side by side.
        """
        if data is None:
            config = self.on_shapes()
        else:
            config = self.on_photographs().with_("data.source", CocoSource(root=str(data)))
        return config.with_("training.threads", 1)


def _smoke_shapes() -> Config:
    config = tiny().with_("training.iterations", 8).with_("training.warmup", 2).with_("training.checkpoint_every", 4)
    config = config.with_("training.log_every", 1).with_("training.batch_size", 2)
    return config.with_("data.source.train_images", 16).with_("data.source.val_images", 8)


def _smoke_photographs() -> Config:
    return _quick_photographs().with_("training.iterations", 4).with_("training.warmup", 2)


def _quick_shapes() -> Config:
    return tiny().with_("training.iterations", 1500)


def _quick_photographs() -> Config:
    config = small().with_("data.input_size", (127, 159)).with_("data.fit", (128, 160))
    return config.with_("training.iterations", 300)


def _standard_shapes() -> Config:
    """Return 48x48 heatmaps with objects from 3 to 36 cells: corners in all quadrants, small and large radii."""
    config = tiny().with_(
        "model.backbone", HourglassConfig(stacks=1, stem_channels=16, channels=(16, 32, 32), blocks=(1, 1, 1))
    )
    source = ShapesSource(
        image_size=(191, 191), object_size=(0.05, 0.75), max_objects=4, train_images=800, val_images=400
    )
    config = config.with_("data.input_size", (191, 191)).with_("data.source", source)
    return config.with_("training.batch_size", 4).with_("training.iterations", 2000)


def _standard_photographs() -> Config:
    return small().with_("training.batch_size", 4).with_("training.iterations", 800)


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="smoke",
            purpose="every code path in seconds; its numbers mean nothing",
            seeds=(0, 1),
            studies=("table1", "table2", "table3", "table6", "table7"),
            on_shapes=_smoke_shapes,
            on_photographs=_smoke_photographs,
        ),
        Profile(
            name="quick",
            purpose="a first look within minutes on two CPU cores; two seeds, no verdicts",
            seeds=(0, 1),
            studies=("table1",),
            on_shapes=_quick_shapes,
            on_photographs=_quick_photographs,
        ),
        Profile(
            name="standard",
            purpose="the paper's tables with verdicts, about an hour on two CPU cores (docs/protocol.md)",
            seeds=(1, 2, 3, 4, 5),
            studies=("table1", "table2", "table3", "table6", "table7"),
            on_shapes=_standard_shapes,
            on_photographs=_standard_photographs,
        ),
    )
}


def find_profile(name: str) -> Profile:
    """Return a profile by name. Raises ``ValueError`` that names the nearest for an unknown one."""
    if name not in PROFILES:
        near = difflib.get_close_matches(name, PROFILES, n=1) or list(PROFILES)
        raise ValueError(f"there is no profile {name!r}; did you mean {', '.join(near)}?")
    return PROFILES[name]
