"""Every field of the configuration is part of a key or declared not to change results, so runs cannot be confused."""

from __future__ import annotations

import dataclasses
import itertools
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cornernet import Config, ConfigError, load_detector, recipe
from cornernet import config as module
from cornernet.ablations.running.planner import Fingerprints, Job, make_job
from cornernet.config import (
    WITHOUT_EFFECT,
    AnchorHeadConfig,
    CocoSource,
    CornerHeadConfig,
    HourglassConfig,
    ResNetFPNConfig,
    ShapesSource,
)
from cornernet.data import open_dataset
from cornernet.training.loop import train
from tests.unit.data.folders import annotation, coco_folder, tree

BACKBONES = {
    "hourglass": HourglassConfig(stacks=2, stem_channels=8, channels=(8, 8), blocks=(1, 1)),
    "resnet_fpn": ResNetFPNConfig(block="basic", stem_channels=8, channels=(8, 8), blocks=(1, 1), fpn_channels=8),
}
HEADS = {"corner": CornerHeadConfig(), "anchor": AnchorHeadConfig()}
SHAPES = ShapesSource(image_size=(31, 31), train_images=5, val_images=4)

DECLARED = {".".join(path) for path in WITHOUT_EFFECT} | {"data.source.root"}
"""Fields that do not change results. Of a data folder, the content counts and the path does not."""

VAL_ALONE = {"data.source.val_images", "data.source.val_split"}
"""Fields of the evaluation data, on which trainings do not depend."""

OTHERS: dict[str, tuple[Any, ...]] = {
    "model.head.pooling_impl": ("eager",),
    "model.head.heatmap_loss": ("mse",),
    "model.head.finest_stride": (8,),
    "data.input_size": ((63, 95),),
    "data.fit": ((64, 64),),
    "data.source.train_split": ("other",),
    "data.source.val_split": ("other",),
    "data.source.max_objects": (1,),
    "data.source.classes": (("ellipse", "star", "cross"),),
    "training.device": ("cpu",),
    "testing.pooling_impl": ("eager",),
    "testing.peak_kernel": (5,),
}
"""Other values for fields for which their type does not give any."""


def leaves(part: Any, path: str = "") -> Iterator[tuple[str, type, dataclasses.Field[Any]]]:
    """Yield the path, the class and the dataclass field of every field in a part of the configuration."""
    for each in dataclasses.fields(part):
        value, name = getattr(part, each.name), f"{path}.{each.name}" if path else each.name
        if dataclasses.is_dataclass(value):
            yield from leaves(value, name)
        elif each.name != "kind":  # changes only with the whole part
            yield name, type(part), each


def others(value: Any, hint: Any) -> Iterator[Any]:
    """Yield other values of a field's type."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        for each in typing.get_args(hint):
            yield from others(value, each)
    elif typing.get_origin(hint) is typing.Literal:
        yield from (each for each in typing.get_args(hint) if each != value)
    elif hint is bool:
        yield not value
    elif hint in (int, float):
        start = 0.0 if value is None else value
        found = (start + 1, start * 2, start * 0.5, start - 1, start + 0.125)
        yield from (hint(each) for each in found if hint is float or float(each).is_integer())
    elif isinstance(value, tuple):
        (item, *_) = typing.get_args(hint)
        if not value:
            yield from ((each,) for each in others(None, item))
        for at, each in enumerate(value):
            yield from ((*value[:at], other, *value[at + 1 :]) for other in others(each, item))
        if value:
            yield value[:-1]


def edited(config: Config, path: str, owner: type, field: dataclasses.Field[Any]) -> Config | None:
    """Return the configuration with another valid value at a path; None if there is no other."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    hint = typing.get_type_hints(owner)[field.name]
    for other in OTHERS.get(path) or others(value, hint):
        if other == value:
            continue
        try:
            return config.with_(path, other)
        except ConfigError:
            continue
    return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for where in (root / "here", root / "there"):
        for split, left in (("train", 1.0), ("val", 2.0), ("other", 3.0)):
            content = tree()
            content["annotations"][0] = annotation(11, 7, 13, [left, 6.0, 20.0, 10.0])
            coco_folder(where, content, f"annotations/instances_{split}.json")
    return root


def job(config: Config) -> Job:
    source = config.data.source
    return make_job(config, Fingerprints(*(open_dataset(source, split).fingerprint for split in ("train", "val"))))


def bases(folder: Path) -> dict[str, Config]:
    """Return a configuration for each combination of backbone, head and data."""
    sources = {"shapes": SHAPES, "coco": CocoSource(root=str(folder / "here"))}
    found = {}
    for (b, backbone), (h, head), (s, source) in itertools.product(BACKBONES.items(), HEADS.items(), sources.items()):
        config = recipe("tiny").with_("model.backbone", backbone).with_("model.head", head)
        found[f"{b}, {h}, {s}"] = config.with_("data.input_size", (63, 63)).with_("data.source", source)
    return found


@pytest.mark.parametrize("combined", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_every_field_is_part_of_a_key_or_declared_not_to_change_results(combined, folder, monkeypatch) -> None:
    monkeypatch.setitem(OTHERS, "data.source.root", (str(folder / "there"),))
    visited = set()
    every = bases(folder)
    for name in every if combined else ("hourglass, corner, shapes", "resnet_fpn, anchor, coco"):
        config = every[name]
        base = job(config)
        for path, owner, field in leaves(config):
            changed = edited(config, path, owner, field)
            if changed is None:
                continue
            visited.add((owner, field.name))
            other = job(changed)
            training, evaluation = (
                getattr(other, key) != getattr(base, key) for key in ("training_key", "evaluation_key")
            )
            expected = (False, False) if path in DECLARED else (True, True)
            if path.startswith("testing.") or path in VAL_ALONE:
                expected = (False, True)
            assert (training, evaluation) == expected, f"{name}: {path}"
    parts = [each for each in vars(module).values() if dataclasses.is_dataclass(each)]
    fields = {(part, field.name) for part in parts for field in dataclasses.fields(part) if field.name != "kind"}
    whole = {(part, name) for part, name in fields if dataclasses.is_dataclass(getattr(Config(), name, None))}
    nested = {(owner, name) for owner, name in fields if name in ("backbone", "head", "source", "augmentation")}
    assert fields - whole - nested == visited, "of some field no other value is known here: add one to OTHERS"


def test_every_kind_of_part_has_keys_of_its_own(folder) -> None:
    jobs = [job(config) for config in bases(folder).values()]
    assert len({each.training_key for each in jobs}) == len({each.evaluation_key for each in jobs}) == len(jobs) == 8


def test_fields_declared_not_to_change_results_change_no_bit(tmp_path) -> None:
    before = torch.get_num_threads()
    base = recipe("tiny").with_("data.source", SHAPES).with_("data.input_size", (31, 31))
    for path, value in (("iterations", 4), ("batch_size", 2), ("threads", 1), ("device", "cpu")):
        base = base.with_(f"training.{path}", value)
    other = base
    for path, value in (("log_every", 1), ("evaluate_every", 2), ("checkpoint_every", 3)):
        assert f"training.{path}" in DECLARED
        other = other.with_(f"training.{path}", value)
    for name, config in (("one", base), ("other", other)):
        train(config, tmp_path / name, quiet=True, final_evaluation=False)
    torch.set_num_threads(before)
    one, another = (load_detector(tmp_path / name).state_dict() for name in ("one", "other"))
    assert all(torch.equal(value, another[key]) for key, value in one.items())
