"""Evaluating on training images gives a warning, whatever the images are called now."""

from __future__ import annotations

from pathlib import Path

import cv2

from cornernet import recipe
from cornernet.config import CocoSource, Config
from cornernet.data import DetectionDataset, open_dataset
from cornernet.data.leakage import TRAINED_ON, leakage_warning, write_training_digests
from tests.unit.data.folders import coco_folder, picture


def opened(root: Path) -> tuple[Config, DetectionDataset]:
    source = CocoSource(root=str(root))
    return recipe("small").with_("data.source", source), open_dataset(source, "train")


def test_a_run_that_lists_its_images_knows_them_again_under_other_names(tmp_path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    config, dataset = opened(coco_folder(tmp_path / "a"))
    write_training_digests(run, dataset)
    assert len((run / TRAINED_ON).read_text().split()) == 3
    (tmp_path / "a").rename(tmp_path / "moved")
    other = coco_folder(tmp_path / "b")
    cv2.imwrite(str(other / "images" / "a.png"), picture(77))
    _, evaluated = opened(other)
    assert "2 of the 3 images" in leakage_warning(run, config, evaluated)
    assert "2 of the 3 images" in leakage_warning(run / "model.safetensors", config, evaluated)


def test_without_the_list_the_training_folder_is_looked_at_and_then_it_is_not_known(tmp_path) -> None:
    config, dataset = opened(coco_folder(tmp_path / "a"))
    weights = tmp_path / "w.safetensors"
    assert "3 of the 3 images" in leakage_warning(weights, config, dataset)
    fresh = coco_folder(tmp_path / "b")
    for seed, name in enumerate(("a.png", "b.png"), start=50):
        cv2.imwrite(str(fresh / "images" / name), picture(seed))
    cv2.imwrite(str(fresh / "images" / "c.png"), picture(60, 30, 20))
    _, evaluated = opened(fresh)
    assert leakage_warning(weights, config, evaluated) == ""
    (tmp_path / "a").rename(tmp_path / "moved")
    assert "is not known" in leakage_warning(weights, config, evaluated)


def test_generated_pictures_are_never_warned_about() -> None:
    config = recipe("tiny").with_("data.source.val_images", 2)
    assert leakage_warning(Path("w"), config, open_dataset(config.data.source, "val")) == ""
