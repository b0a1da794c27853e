"""Records made up for tests: whole ones, of which a test says only what it is about."""

from __future__ import annotations

import json
from typing import Any

from cornernet import recipe
from cornernet.ablations.records.record import Record, decode

__all__ = ["made_record", "made_tree"]


def made_tree(**fields: Any) -> dict[str, Any]:
    """Return a record as JSON; ``fields`` replace its own, and those of ``latency`` and the like are merged."""
    tree: dict[str, Any] = {
        "training_key": "aa",
        "evaluation_key": "00ff",
        "config": json.loads(json.dumps(recipe("tiny").to_dict())),
        "data": {"train": "1" * 64, "val": "2" * 64, "images": 400},
        "area_bands": [1024.0, 9216.0],
        "metrics": {"AP": 0.5},
        "per_class": {},
        "true_corners": None,
        "latency": {"milliseconds": 40.0, "workers": 1},
        "resamples": None,
        "seconds": {"training": 3.0, "evaluation": 1.0},
        "provenance": {
            "date": "2026-01-01T00:00:00+00:00",
            "revision": "abc",
            "python": "3.11",
            "platform": "Linux x86_64",
            "processor": "a processor",
            "versions": {"torch": "2"},
        },
    }
    for name, value in fields.items():
        tree[name] = {**tree[name], **value} if name in ("data", "latency", "seconds", "provenance") else value
    return tree


def made_record(**fields: Any) -> Record:
    """Return a record; see :func:`made_tree`."""
    # as it comes from a file: numbers of numpy are plain ones there
    return decode(json.loads(json.dumps(made_tree(**fields))), "mend the test")
