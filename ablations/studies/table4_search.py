"""The search before table 4: learning rate and prior of each arm, with the same number of trainings.

The paper trains all arms by one procedure. Here the procedure was set on corners, so the others may be trained worse
than they could be. Each arm is therefore trained with five settings, under the seeds of the profile ``tuning``, which
no claim uses. The setting with the highest mean AP is written into ``CHOSEN`` of table 4, on shapes and on photographs
separately, before table 4 is run. Where the best learning rate is the highest or the lowest tried, the next factor of
two is tried too, on all arms.
"""

from __future__ import annotations

from collections.abc import Mapping

from .study import Contrast, Study, Variant
from .table4_backbone_and_head import ANCHORS, ARMS, CORNERS, PYRAMID, TWO_STACKS, Setting

__all__ = ["SETTINGS", "STUDY", "best"]

_CORNER_SETTINGS = {
    "as corners": Setting(),
    "half the learning rate": Setting(rate=0.5),
    "twice the learning rate": Setting(rate=2.0),
    "prior 0.03": Setting(prior=0.03),
    "prior 0.01": Setting(prior=0.01),
}

SETTINGS: dict[str, dict[str, Setting]] = {
    PYRAMID: _CORNER_SETTINGS,
    ANCHORS: {
        "as corners, prior 0.01": Setting(),
        "half the learning rate": Setting(rate=0.5),
        "twice the learning rate": Setting(rate=2.0),
        "prior 0.03": Setting(prior=0.03),
        "prior 0.1": Setting(prior=0.1),
    },
    CORNERS: _CORNER_SETTINGS,
}
"""The settings of each arm. The first is the head's own prior with the profile's learning rate."""


def _name(arm: str, setting: str) -> str:
    return f"{arm}, {setting}"


def best(found: Mapping[str, float]) -> dict[str, Setting]:
    """Return the setting of each arm with the highest AP; the first of equals.

    ``found`` has the mean AP of each variant of :data:`STUDY` by name. Raises ``ValueError`` for one that is missing:
    arms are compared only after the same number of trainings.
    """
    missing = [variant.name for variant in STUDY.variants if variant.name not in found]
    if missing:
        raise ValueError(f"the search lacks {missing[0]!r}; run it before a setting is chosen")
    return {
        arm: settings[max(settings, key=lambda setting: found[_name(arm, setting)])]
        for arm, settings in SETTINGS.items()
    }


STUDY = Study(
    name="table4_search",
    title="Learning rate and prior of the arms of table 4",
    question=(
        "Which learning rate and which prior suit each arm of table 4? Five trainings of each, under seeds that no "
        "claim uses. Two stacks."
    ),
    table=None,
    exploratory=True,
    base_edits=TWO_STACKS,
    variants=tuple(
        Variant(name=_name(arm, name), edits=(*ARMS[arm], *setting.edits()))
        for arm, settings in SETTINGS.items()
        for name, setting in settings.items()
    ),
    contrasts=tuple(
        Contrast(variant=_name(arm, name), base=_name(arm, next(iter(settings))))
        for arm, settings in SETTINGS.items()
        for name in list(settings)[1:]
    ),
    metrics=("AP", "AP50", "AP75", "APs", "APm", "APl"),
)
