"""How many objects a metric is measured on, and how many it takes for its value to be shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["MIN_OBJECTS", "few_objects"]

MIN_OBJECTS = 30
"""Over fewer objects no value is shown, and no claim is judged: a single object would move AP by several points."""


def few_objects(
    metrics: Iterable[str], areas: tuple[int, int, int] | None, true_corners: Mapping[str, int] | None
) -> dict[str, int]:
    """Return the metrics that are measured on fewer than :data:`MIN_OBJECTS` objects or corners, and on how many.

    ``areas`` are the small, medium and large objects, and ``true_corners`` the corners of each corner metric. A metric
    whose objects are not known is left out.
    """
    counts = {metric: _objects(metric, areas, true_corners or {}) for metric in metrics}
    return {metric: number for metric, number in counts.items() if number is not None and number < MIN_OBJECTS}


def _objects(metric: str, areas: tuple[int, int, int] | None, true_corners: Mapping[str, int]) -> int | None:
    if metric in true_corners:
        return true_corners[metric]
    if areas is None:
        return None
    band = "sml".find(metric[-1]) if metric[:2] in ("AP", "AR") and len(metric) == 3 else -1
    return sum(areas) if band < 0 else areas[band]
