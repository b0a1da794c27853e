"""What image files contain is known before a training starts, and how they are read goes with the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from cornernet import Config, load_detector, recipe
from cornernet.cli import main
from cornernet.config import CocoSource, DataConfig
from cornernet.data import DataError, open_dataset
from cornernet.data.formats.check import check_folder
from cornernet.data.survey import survey
from cornernet.training.loop import train
from tests.unit.data.folders import annotation, coco_folder, tree, write_json

FORMATS = {"jpg": {"quality": 95}, "png": {}, "webp": {"lossless": True}, "tif": {}}


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def turned_folder(root: Path, pixels: np.ndarray, *, stored: bool, form: str = "png", orientation: int = 6) -> Path:
    """Train and val of two images each with an EXIF orientation, annotated as stored or as turned upright."""
    size = (40, 60) if stored or orientation < 5 else (60, 40)
    for split in ("train", "val"):
        images = []
        for number in (1, 2):
            name = f"{split}{number}.{form}"
            images.append({"id": number, "file_name": name, "height": size[0], "width": size[1]})
            (root / "images").mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(np.roll(pixels, number, axis=0))
            exif = Image.Exif()
            exif[0x0112] = orientation
            how: dict[str, Any] = {"tiffinfo": exif} if form == "tif" else {"exif": exif}
            image.save(root / "images" / name, **FORMATS[form], **how)
        rows = [annotation(1, 1, 1, [5, 6, 20, 15]), annotation(2, 2, 1, [10, 3, 12, 20])]
        content = {"images": images, "categories": [{"id": 1, "name": "thing"}], "annotations": rows}
        write_json(root / f"annotations/instances_{split}.json", content)
    return root


def short(root: Path) -> Config:
    config = recipe("tiny").with_("data.source", CocoSource(root=str(root)))
    return config.with_("training.iterations", 1).with_("training.batch_size", 2).with_("training.workers", 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["png", "webp", "tif"])
def test_every_format_and_orientation_is_read_as_stored_and_upright(
    tmp_path: Path, pixels: np.ndarray, form: str, orientation: int
) -> None:
    root = turned_folder(tmp_path, pixels, stored=True, form=form, orientation=orientation)
    source = CocoSource(root=str(root))
    stored = open_dataset(DataConfig(source=source, orientation="stored"), "train").read(0)
    expected = np.roll(pixels, 1, axis=0)[:, :, ::-1]
    np.testing.assert_array_equal(stored, expected)
    upright = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, 1),
    }[orientation](expected)
    root = turned_folder(tmp_path / "upright", pixels, stored=False, form=form, orientation=orientation)
    upright_set = open_dataset(DataConfig(source=CocoSource(root=str(root)), orientation="upright"), "train")
    np.testing.assert_array_equal(upright_set.read(0), upright)


@pytest.mark.parametrize("form", FORMATS)
def test_orientation_that_the_annotations_follow_is_found(tmp_path: Path, pixels: np.ndarray, form: str) -> None:
    stored, upright = (
        open_dataset(CocoSource(root=str(turned_folder(tmp_path / str(at), pixels, stored=at, form=form))), "train")
        for at in (True, False)
    )
    assert (survey(stored).stored, survey(stored).orientation) == (2, "stored")
    assert (survey(upright).upright, survey(upright).orientation) == (2, "annotations")
    both = survey(stored, upright)
    assert both.orientation == "annotations"
    assert "annotate them in one way" in both.warnings[0]


def test_a_run_reads_photographs_as_its_annotations_say(tmp_path: Path, pixels: np.ndarray, capsys) -> None:
    root = turned_folder(tmp_path / "data", pixels, stored=True)
    assert "2 images with an EXIF orientation are for the image as stored" in check_folder(root).to_text()
    train(short(root), tmp_path / "run")
    assert "EXIF orientation: images are used as stored" in capsys.readouterr().out
    assert load_detector(tmp_path / "run").config.data.orientation == "stored"
    # the run is resumed with the configuration it was started with
    train(short(root), tmp_path / "run", resume=True, quiet=True)
    # data whose sizes are for turned images is not taken for it
    other = turned_folder(tmp_path / "other", pixels, stored=False)
    with pytest.raises(DataError, match=r"data\.orientation 'stored'"):
        open_dataset(DataConfig(source=CocoSource(root=str(other)), orientation="stored"), "val").read(0)


def cut_short(root: Path) -> Path:
    """A folder with a whole JPEG file, one that ends early, and one that is no image."""
    rows = [{**row, "file_name": row["file_name"].replace("png", "jpg")} for row in tree()["images"]]
    for split in ("train", "val"):
        coco_folder(root, tree(images=rows), file=f"annotations/instances_{split}.json")
    for at, row in enumerate(rows):
        smooth = np.full((row["height"], row["width"], 3), 40 * at + 60, np.uint8)
        assert cv2.imwrite(str(root / "images" / row["file_name"]), smooth)
    early = root / "images" / "b.jpg"
    early.write_bytes(early.read_bytes()[:-20])
    return root


def test_a_jpeg_that_ends_early_is_read_as_opencv_reads_it_and_it_is_said(tmp_path: Path) -> None:
    root = cut_short(tmp_path)
    dataset = open_dataset(CocoSource(root=str(root)), "train")
    np.testing.assert_array_equal(dataset.read(1), cv2.imread(str(root / "images" / "b.jpg")))
    (warning,) = survey(dataset).warnings
    assert "1 image ending early, first b.jpg" in warning
    report = check_folder(root)
    assert report.usable
    assert report.to_text().count("1 image ending early, first b.jpg") == 2  # train and val


def test_unreadable_images_can_be_skipped_before_the_start(tmp_path: Path) -> None:
    root = cut_short(tmp_path)
    (root / "images" / "c.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"--data\.unreadable skip"):
        open_dataset(CocoSource(root=str(root)), "train").read(2)
    dataset = open_dataset(DataConfig(source=CocoSource(root=str(root)), unreadable="skip"), "train")
    assert [record.path.name for record in dataset.records] == ["a.jpg"]
    assert {(item.image, item.reason) for item in dataset.dropped} == {
        ("b.jpg", "it ends early"),
        ("c.jpg", "it cannot be read"),
    }
    assert "2 images that cannot be read left out: data.unreadable is 'skip'" in dataset.notes
    assert [row["id"] for row in dataset.ground_truth()["annotations"]] == [11, 13, 14]
    for name in "ab":
        (root / "images" / f"{name}.jpg").unlink()
    with pytest.raises(DataError, match=r"no image of .* can be read"):
        open_dataset(DataConfig(source=CocoSource(root=str(root)), unreadable="skip"), "train")


def deep_folder(root: Path, largest: int) -> Path:
    for split in ("train", "val"):
        coco_folder(root, file=f"annotations/instances_{split}.json")
    for row in tree()["images"]:
        ramp = np.linspace(0, largest, row["height"] * row["width"]).reshape(row["height"], row["width"])
        assert cv2.imwrite(str(root / "images" / row["file_name"]), ramp.astype(np.uint16))
    return root


def test_12_bits_in_16_are_said_and_scaled_when_asked_for(tmp_path: Path) -> None:
    root = deep_folder(tmp_path, 4095)
    source = CocoSource(root=str(root))
    (warning,) = survey(open_dataset(source, "train")).warnings
    assert "values up to 4095 only" in warning
    assert "--data.bits 12" in warning
    assert "--data.bits 12" in check_folder(root).to_text()
    assert open_dataset(source, "train").read(0).max() == 15
    scaled = open_dataset(DataConfig(source=source, bits=12), "train")
    assert (scaled.read(0).max(), int(scaled.read(0)[20, 0, 0])) == (255, 128)
    assert survey(scaled).warnings == ()
    with pytest.raises(DataError, match=r"values up to 4095, which need 12 bits, and data.bits is 10"):
        open_dataset(DataConfig(source=source, bits=10), "train").read(0)


def test_16_bits_in_use_are_not_doubted(tmp_path: Path) -> None:
    root = deep_folder(tmp_path, 65535)
    assert survey(open_dataset(CocoSource(root=str(root)), "train")).warnings == ()
    assert "--data.bits" not in check_folder(root).to_text()


def test_a_training_without_a_box_is_refused_before_it_starts(tmp_path: Path) -> None:
    rows = [annotation(1, 7, 13, [5, 5, 0, 0])]
    for split in ("train", "val"):
        coco_folder(tmp_path / "data", tree(annotations=rows), file=f"annotations/instances_{split}.json")
    with pytest.raises(DataError, match="has no box: 1 dropped because its bbox has no width"):
        train(short(tmp_path / "data"), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_images_without_annotations_serve_to_save_results(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = tree()
    del content["annotations"]
    coco_folder(Path("data"), file="annotations/instances_train.json")
    write_json(Path("data/annotations/image_info_test-dev.json"), content)
    argv = ["evaluate", "--weights", "random", "--recipe", "tiny", "--data", "data"]
    argv += ["--data.source.val-split", "test-dev"]
    assert main(argv) == 2
    assert "--save-results" in capsys.readouterr().err
    assert main([*argv, "--save-results", "found.json", "--testing.min-score", "0"]) == 0
    assert {row["image_id"] for row in json.loads(Path("found.json").read_text(encoding="utf-8"))} == {7, 3, 1000}
    assert "AP" not in capsys.readouterr().out
