"""The configuration suggested for a folder: an input size that keeps objects visible, a budget, and the reasons."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from cornernet import recipe
from cornernet.cli.suggest import Machine, Suggestion, suggest
from cornernet.config import CocoSource
from cornernet.data.dataset import AnnotationTable, DetectionDataset, ImageTable


def dataset(count: int, size: tuple[int, int], side: float) -> DetectionDataset:
    """``count`` pictures of (height, width) with one square object each."""
    ids = np.arange(1, count + 1)
    return DetectionDataset(
        name="photos",
        split="train",
        classes=("cell", "rod"),
        category_ids=(1, 2),
        images=ImageTable(ids, np.tile([size], (count, 1)), tuple(f"{n}.png" for n in ids)),
        annotations=AnnotationTable(
            ids, ids - 1, ids % 2, np.tile([[1.0, 1.0, side, side]], (count, 1)), np.full(count, side**2), ids < 0
        ),
    )


def suggested(count: int = 205, size: tuple[int, int] = (480, 640), side: float = 40.0, on: Machine | None = None):
    data = dataset(count, size, side)
    return suggest(CocoSource(root="photos"), data, data, on or Machine())


def test_the_measured_set_gets_what_it_was_measured_with() -> None:
    config, small = suggested().config, recipe("small")
    ours, theirs = config.to_dict(), small.to_dict()
    for tree in (ours, theirs):
        tree["data"].pop("source")
        tree["training"].pop("evaluate_every")
        tree["model"].pop("num_classes")
    assert ours == theirs
    assert config.model.num_classes == 2
    assert config.training.evaluate_every == 600


@pytest.mark.parametrize(
    ("case", "holds"),
    [
        (suggested(side=16), lambda s: max(s.config.data.input_size) == 383),
        (suggested(side=8), lambda s: "a larger input finds more" in s.to_text()),
        (suggested(size=(640, 480)), lambda s: s.config.data.input_size == (255, 191)),
        (suggested(size=(90, 120)), lambda s: s.recipe == "tiny" and max(s.config.data.input_size) <= 127),
        (suggested(count=20), lambda s: s.config.training.iterations == 800),
        (suggested(count=820), lambda s: s.config.training.iterations == 4800),
        (suggested(count=10**4), lambda s: s.config.training.iterations == 12_000),
        (suggested(count=2000), lambda s: s.config.training.evaluate_every == 0),
        (suggested(on=Machine(True, True, 80)), lambda s: s.config.training.precision == "bfloat16"),
        (suggested(on=Machine(True, False, 11)), lambda s: s.config.training.precision == "float16"),
        (suggested(6000, on=Machine(True, True, 80)), lambda s: s.recipe == "hourglass_52"),
        (suggested(6000), lambda s: s.recipe == "small"),
        (suggested(size=(30, 900), side=20), lambda s: s.config.data.input_size[0] == 63),
    ],
)
def test_sizes_counts_and_the_machine_decide(case: Suggestion, holds: Callable[[Suggestion], bool]) -> None:
    assert holds(case), case.to_text()


def test_every_choice_is_a_flag_with_a_reason() -> None:
    for field, value, why in suggested().reasons:
        assert f"--{field} {value}: {why}" in suggested().to_text()
        assert why
    fields = {field.name for field in dataclasses.fields(suggested().config.training)}
    assert {"iterations", "precision"} <= fields
