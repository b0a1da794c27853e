"""Published records made up for tests, under the keys that the planner asks for: no training, no data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from cornernet.ablations.profiles import find_profile
from cornernet.ablations.records.published import publish
from cornernet.ablations.records.record import decode
from cornernet.ablations.running.planner import Fingerprints, plan
from cornernet.ablations.statistics.resampling import Resamples
from cornernet.ablations.studies import find_study
from cornernet.config import CocoSource
from cornernet.evaluation.evaluate import METRICS

EVIL = "<script>alert(1)</script>"
EVIL_TEX = r"\input{secret}$x_1$ & 50%"
RESAMPLES = 40


def curves(rng: np.random.Generator) -> dict[str, Any]:
    """Return what a record keeps for figures."""
    return {
        "ap_by_iou": [round(0.6 - 0.05 * step, 3) for step in range(10)],
        "precision": {iou: [round(1 - at / 101, 4) for at in range(101)] for iou in ("50", "75")},
        "training": {
            "iteration": [20, 40, 60],
            "loss": {name: [round(float(value), 3) for value in 3 - rng.random(3)] for name in ("total", "heatmap")},
        },
    }


def publish_runs(
    reports: Path,
    data: str,
    studies: tuple[str, ...] = ("table1",),
    seeds: tuple[int, ...] = (1, 2, 3),
    classes: tuple[str, ...] = ("cell", EVIL, EVIL_TEX),
    old: bool = False,
    without: tuple[str, ...] = (),
) -> list[Path]:
    """Write records of the profile ``standard`` on ``shapes`` or a folder of photographs, and return their files.

    ``old`` ones have no curves, no sizes of objects and no stages, as records had before these were kept. Rows gain
    five points each over the one before; nothing is written of the variants ``without``.
    """
    profile = find_profile("standard")
    base = profile.base(None if data == "shapes" else Path(data))
    base = base.with_("model.num_classes", len(classes)).with_("training.device", "cpu")
    if data != "shapes":
        base = base.with_("data.source", CocoSource(root=data))
    declared = [find_study(name, profile.declarations).on(data) for name in studies]
    jobs = plan(declared, base, seeds, lambda _: Fingerprints("train data", "val data"), profile.revision)
    paths: dict[str, Path] = {}
    for number, ((study, variant, seed), job) in enumerate(jobs.items()):
        if variant in without:
            continue
        rng = np.random.default_rng(number)
        at = next(
            i for i, each in enumerate(v.name for v in declared[studies.index(study)].variants) if each == variant
        )
        values = dict.fromkeys(METRICS, 0.4 + 0.05 * at + 0.004 * seed)
        noise = 0.01 * rng.standard_normal(RESAMPLES)
        record: dict[str, Any] = {
            "training_key": job.training_key,
            "evaluation_key": job.evaluation_key,
            "config": json.loads(json.dumps(job.config.to_dict())),
            "data": {"train": "train data", "val": "val data", "images": 10},
            "area_bands": [1024.0, 9216.0],
            "metrics": values,
            "per_class": {name: {"AP": 0.5} for name in classes},
            "true_corners": None,
            "latency": {"milliseconds": 20.0 + 10 * at + seed, "workers": 1},
            "seconds": {"training": 100.0, "evaluation": 5.0},
            "resamples": Resamples(
                fingerprint="val data", version=1, values={name: value + noise for name, value in values.items()}
            ).to_record(),
            "provenance": {
                "date": f"2026-01-0{seed}T00:00:00+00:00",
                "revision": "abcdef",
                "python": "3.11",
                "platform": "Linux x86_64",
                "processor": "a processor",
                "versions": {"torch": "2"},
                "evaluator": "hotcoco",
            },
        }
        if not old:
            record |= {"objects": [31, 32, 33], "curves": curves(rng)}
            record["latency"]["stages"] = [["read", 1.0], ["backbone", 12.0], ["suppression", 3.5]]
        made = decode(record, "mend the test")
        paths.setdefault(job.evaluation_key, publish(reports / "records" / f"standard-{data}", made))
    return list(paths.values())
