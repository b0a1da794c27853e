"""From studies to the distinct jobs they need: trainings and evaluations, each with a key.

The key of a training covers the configuration of model, data and training with the seed, and the fingerprint of the
data. The key of an evaluation covers the training, the configuration of testing, and the fingerprint of the data that
is evaluated on. Tables that need the same training share it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cornernet.config import Config, SourceConfig, TestingConfig
from cornernet.training.revision import TRAINING_REVISION

from ..studies.study import Study

__all__ = ["EVALUATION_REVISION", "TIMING_REVISION", "Fingerprints", "Job", "grouped", "in_order", "plan", "timing_key"]

# Raised by hand when the same weights would give other results, so that old ones are not taken for new ones.
EVALUATION_REVISION = 1
# The same for the way times are taken.
TIMING_REVISION = 1


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of the data that a job is run on."""

    train: str
    val: str


@dataclass(frozen=True)
class Job:
    """One training and its evaluation: an arm of one or more studies under one seed."""

    config: Config
    training_key: str
    evaluation_key: str

    @property
    def seed(self) -> int:
        """The seed of the training."""
        return self.config.training.seed

    @property
    def training_config(self) -> Config:
        """The configuration of the training; the same for all evaluations that share it."""
        return dataclasses.replace(self.config, testing=TestingConfig())


def plan(
    studies: Iterable[Study],
    base: Config,
    seeds: Sequence[int],
    data: Callable[[SourceConfig], Fingerprints],
    revision: int = TRAINING_REVISION,
) -> dict[tuple[str, str, int], Job]:
    """Return the job of each (study, variant, seed). Equal jobs have equal keys, so the set of keys is the work to do.

    ``data`` gives the fingerprints of a source, because a study may generate its own data. ``revision`` is that of the
    code that trains, or that trained.
    """
    jobs = {}
    for study in studies:
        configs = {variant.name: study.configure(base, variant) for variant in study.variants}
        for seed in seeds:
            for name, config_of_any_seed in configs.items():
                config = config_of_any_seed.with_("training.seed", seed)
                jobs[study.name, name, seed] = make_job(config, data(config.data.source), revision)
    return jobs


def in_order(jobs: Mapping[tuple[str, str, int], Job], seeds: Sequence[int]) -> list[Job]:
    """Return the distinct jobs in the order to run them: all jobs of a seed, over all studies, then the next seed.

    Whenever a run is stopped, it leaves complete pairs of arms and at most a few that are not.
    """
    ordered = sorted(jobs, key=lambda name: seeds.index(name[2]))
    return list({jobs[name].evaluation_key: jobs[name] for name in ordered}.values())


def grouped(jobs: Iterable[Job]) -> list[list[Job]]:
    """Return the distinct jobs as groups that share a training, in the order in which each training first occurs."""
    groups: dict[str, dict[str, Job]] = {}
    for job in jobs:
        groups.setdefault(job.training_key, {})[job.evaluation_key] = job
    return [list(group.values()) for group in groups.values()]


def make_job(config: Config, data: Fingerprints, revision: int = TRAINING_REVISION) -> Job:
    """Return the job of a configuration on data with these fingerprints, trained by code of this revision."""
    tree = config.results_dict()
    # the fingerprint identifies the data
    tree["data"]["source"] = None
    training = _hash(
        {
            "revision": revision,
            "model": tree["model"],
            "data": tree["data"],
            "training": tree["training"],
            "fingerprint": data.train,
        }
    )
    evaluation = _hash(
        {
            "revision": EVALUATION_REVISION,
            "training": training,
            "testing": tree["testing"],
            "fingerprint": data.val,
        }
    )
    return Job(config, training, evaluation)


def timing_key(jobs: Sequence[Job]) -> str:
    """Return the key of the times of a study's variants under one seed, from the jobs of all of them, in order."""
    return _hash({"revision": TIMING_REVISION, "evaluations": [job.evaluation_key for job in jobs]})


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
