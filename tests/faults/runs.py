"""Small trainings and their complete results."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cornernet import Config, load_detector, recipe
from cornernet.config import HourglassConfig
from cornernet.data import open_dataset
from cornernet.evaluation.evaluate import evaluate


def config(**edits: object) -> Config:
    found = recipe("tiny")
    for path, value in {
        "model.backbone": HourglassConfig(stacks=1, stem_channels=8, channels=(8, 16), blocks=(1, 1)),
        "model.head.pool_channels": 8,
        "data.input_size": (63, 63),
        "data.source.image_size": (63, 63),
        "data.source.train_images": 10,
        "data.source.val_images": 3,
        "training.iterations": 8,
        "training.batch_size": 4,
        "training.warmup": 2,
        "training.log_every": 1,
        "training.checkpoint_every": 2,
        "training.evaluate_every": 3,
        "training.threads": 1,
        "training.device": "cpu",
        **{path.replace("__", "."): value for path, value in edits.items()},
    }.items():
        found = found.with_(path, value)
    return found


@dataclass
class Whole:
    """A run without a fault."""

    config: Path
    folder: Path
    seconds: float
    operations: int
    results: dict[str, Any]


def results(folder: Path) -> dict[str, Any]:
    """All results of a run: weights, the lines of metrics without times, the final metrics, and every detection."""
    detector = load_detector(folder)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = evaluate(detector, open_dataset(detector.config.data.source, "val"), detector.config)
    finally:
        torch.set_num_threads(before)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    moments = ("time", "images_per_second", "memory_gib")
    return {
        "weights": {name: value.numpy().tobytes() for name, value in detector.state_dict().items()},
        "lines": [{name: value for name, value in line.items() if name not in moments} for line in lines],
        "evaluation": (folder / "evaluation.json").read_bytes(),
        "detections": found.results,
        "files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*")),
    }
