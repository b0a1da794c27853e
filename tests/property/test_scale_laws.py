"""Costs that must not grow with a data set's size; ``python -m benchmarks.scale`` measures them at COCO's size."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.scale import Size, generate, measure, run
from cornernet.config import CocoSource
from cornernet.data import DetectionDataset, open_dataset
from cornernet.data.shared import Texts

SIZE = Size(images=4_000, boxes=400_000, categories=80, photographs=50, evaluated=200, steps=400, points=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("large"), SIZE)


@pytest.mark.thorough
@pytest.mark.slow
def test_the_loader_holds_no_more_memory_after_many_steps(folder: Path) -> None:
    found = measure("steps", folder, SIZE)
    # an image takes 0.9 MiB: keeping the four of every step would add 1,400
    assert found["growth_mib"] < 64


@pytest.mark.thorough
@pytest.mark.slow
def test_a_loader_process_does_not_copy_the_index(folder: Path) -> None:
    found = measure("workers", folder, SIZE)
    assert found["index_mib"] > 20
    assert found["copied_mib"] < found["index_mib"] / 2


@pytest.mark.thorough
@pytest.mark.slow
def test_reading_takes_memory_of_the_files_size_and_not_of_its_objects(folder: Path) -> None:
    small = measure("load", generate(folder / "small", Size(images=10, boxes=10, photographs=2)), SIZE_OF_TEN)
    found = measure("load", folder, SIZE)
    # the standard library's dictionaries and lists would take twelve times the file's size
    assert found["peak_mib"] - small["peak_mib"] < 6 * found["file_mib"]


SIZE_OF_TEN = Size(images=10, boxes=10, photographs=2)


def _seen_from(dataset: DetectionDataset, answers: Any) -> None:
    answers.put((dataset.fingerprint, dataset.ground_truth(), dataset.records[3].boxes.tolist()))


@pytest.mark.thorough
@pytest.mark.slow
def test_a_process_that_is_spawned_sees_the_same_data_set_in_the_same_memory(tmp_path: Path) -> None:
    root = generate(tmp_path, Size(images=10, boxes=60, photographs=2))
    dataset = open_dataset(CocoSource(root=str(root)), "train")
    expected = (dataset.fingerprint, dataset.ground_truth(), dataset.records[3].boxes.tolist())
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    for _ in range(2):
        process = context.Process(target=_seen_from, args=(dataset, answers))
        process.start()
        assert answers.get(timeout=600) == expected
        process.join()
    assert (dataset.fingerprint, dataset.ground_truth()) == expected[:2]


def test_a_stage_that_was_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Size(images=4, boxes=9, photographs=2)
    asked: list[str] = []

    def measured(name: str, folder: Path, size: Size) -> dict[str, float]:
        asked.append(name)
        return {"seconds": 1.0, "growth_mib": 0.0}

    monkeypatch.setattr("benchmarks.scale.measure", measured)
    for _ in range(2):
        run(tmp_path / "data", small, tmp_path / "out.json", ["cached", "steps"])
    assert asked == ["cached", "steps"]
    run(tmp_path / "data", Size(images=5, boxes=9, photographs=2), tmp_path / "out.json", ["steps"])
    assert asked == ["cached", "steps", "steps"]


def test_texts_in_one_array_are_the_texts() -> None:
    texts = ["", "a.png", "写真 😀.png", "x" * 300, ""]
    packed = Texts.of(texts)
    assert list(packed) == texts == [packed[at] for at in range(5)] == packed[:5]
    assert packed[-1] == ""
    assert list(packed.take(np.array([2, 0]))) == ["写真 😀.png", ""]
    assert "a.png" in packed
    with pytest.raises(IndexError):
        packed[5]
    with pytest.raises(UnicodeEncodeError):
        Texts.of(["\ud800"])
