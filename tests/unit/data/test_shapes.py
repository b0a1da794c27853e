"""Generated pictures: the same each time, exact boxes with empty corners, a cache that cannot mislead."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cornernet.config import ShapesSource
from cornernet.data import DataError, open_dataset
from cornernet.data.shapes import KINDS, draw_picture
from cornernet.files import cache_folder

SMALL = ShapesSource(image_size=(48, 64), train_images=6, val_images=4)
ALL_KINDS = ShapesSource(classes=KINDS, max_objects=5)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CORNERNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_pictures_depend_on_seed_and_split_and_not_on_their_number() -> None:
    train = open_dataset(SMALL, "train")
    more = open_dataset(replace(SMALL, train_images=8, val_images=2), "train")
    other = open_dataset(replace(SMALL, seed=1), "train")
    val = open_dataset(SMALL, "val")
    assert (len(train), len(more), len(val)) == (6, 8, 4)
    for index in range(4):
        np.testing.assert_array_equal(train.read(index), more.read(index))
        np.testing.assert_array_equal(train.records[index].boxes, more.records[index].boxes)
        assert (train.read(index) != val.read(index)).mean() > 0.5
        assert (train.read(index) != other.read(index)).mean() > 0.5
    assert len({train.fingerprint, more.fingerprint, other.fingerprint, val.fingerprint}) == 4


def test_cache_gives_the_same_as_generation(cache: Path) -> None:
    first = open_dataset(SMALL, "train")
    (file,) = cache.iterdir()
    written = file.stat().st_mtime_ns
    second = open_dataset(SMALL, "train")
    assert file.stat().st_mtime_ns == written
    assert first.fingerprint == second.fingerprint
    assert first.ground_truth() == second.ground_truth()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_cache_is_made_again(cache: Path, share: float) -> None:
    first = open_dataset(SMALL, "train")
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    assert open_dataset(SMALL, "train").fingerprint == first.fingerprint
    assert file.read_bytes() == whole


def test_flipped_byte_in_the_cache_is_noticed(cache: Path) -> None:
    first = open_dataset(SMALL, "train")
    (file,) = cache.iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(bytes(content))
    assert open_dataset(SMALL, "train").fingerprint == first.fingerprint


def test_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("CORNERNET_CACHE", str(tmp_path / "file" / "cache"))
    assert len(open_dataset(SMALL, "val")) == 4
    assert (tmp_path / "file").read_text() == "not a folder"


def test_cache_lies_in_the_users_cache_folder_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CORNERNET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "cornernet-lab"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "cornernet-lab"


@pytest.mark.usefixtures("forked")
@pytest.mark.slow
def test_processes_that_fill_the_cache_at_once_agree(cache: Path) -> None:
    program = (
        "from cornernet.config import ShapesSource; from cornernet.data import open_dataset;"
        "print(open_dataset(ShapesSource(image_size=(48, 64), train_images=6, val_images=4), 'train').fingerprint)"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
        )
        for _ in range(3)
    ]
    printed = {run.communicate(timeout=600)[0].strip() for run in runs}
    assert printed == {open_dataset(SMALL, "train").fingerprint}
    assert [path.suffix for path in cache.iterdir()] == [".npz"]


def test_boxes_are_the_extent_of_the_masks() -> None:
    for index in range(60):
        drawn = draw_picture(ALL_KINDS, "train", index)
        for box, mask, area in zip(drawn.boxes.astype(int), drawn.masks, drawn.areas, strict=True):
            x1, y1, x2, y2 = box
            inside = mask[y1:y2, x1:x2]
            assert inside.sum() == mask.sum() == area
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()


def test_corners_of_boxes_hold_nothing_of_the_object() -> None:
    kinds = set()
    for index in range(150):
        drawn = draw_picture(ALL_KINDS, "train", index)
        kinds |= set(drawn.labels.tolist())
        for (x1, y1, x2, y2), mask in zip(drawn.boxes.astype(int), drawn.masks, strict=True):
            assert not mask[[y1, y1, y2 - 1, y2 - 1], [x1, x2 - 1, x1, x2 - 1]].any()
    assert kinds == set(range(len(KINDS)))


def test_objects_have_the_sides_asked_for_and_stay_visible() -> None:
    low, high = (side * 95 for side in ALL_KINDS.object_size)
    overlapping = 0
    for index in range(100):
        drawn = draw_picture(ALL_KINDS, "train", index)
        assert 1 <= len(drawn.boxes) <= 5
        sides = drawn.boxes[:, 2:] - drawn.boxes[:, :2]
        assert sides.min() >= low - 1.5
        assert sides.max() <= high + 1.5
        assert drawn.boxes.min() >= 0
        assert drawn.boxes.max() <= 95
        above = np.zeros((95, 95), bool)
        for mask in drawn.masks[::-1]:
            assert (mask & ~above).sum() >= 0.6 * mask.sum()
            overlapping += bool((mask & above).any())
            above |= mask
    assert overlapping > 10


def test_objects_stand_out_from_what_is_behind_them() -> None:
    """On the last object of a picture, the only one never hidden, the mean colour differs from that around it."""
    away = []
    for index in range(60):
        drawn = draw_picture(ShapesSource(max_objects=1), "train", index)
        image = drawn.image.astype(float) / 255
        away.append(np.sqrt(((image[drawn.masks[0]].mean(0) - image[~drawn.masks[0]].mean(0)) ** 2).mean()))
    assert min(away) > 0.1
    assert np.median(away) > 0.25


def test_pictures_in_the_data_set_are_those_drawn() -> None:
    dataset = open_dataset(SMALL, "val")
    for index, record in enumerate(dataset.records):
        drawn = draw_picture(SMALL, "val", index)
        np.testing.assert_array_equal(dataset.read(index), drawn.image)
        np.testing.assert_array_equal(record.boxes, drawn.boxes)
        np.testing.assert_array_equal(record.labels, drawn.labels)
        assert (record.height, record.width) == drawn.image.shape[:2] == (48, 64)
    areas = [row["area"] for row in dataset.ground_truth()["annotations"]]
    np.testing.assert_array_equal(areas, np.concatenate([draw_picture(SMALL, "val", i).areas for i in range(4)]))


def test_writing_to_a_picture_leaves_the_data_set_alone() -> None:
    dataset = open_dataset(SMALL, "val")
    before = dataset.read(0)
    dataset.read(0)[:] = 0
    np.testing.assert_array_equal(dataset.read(0), before)


def test_area_bands_are_scaled_to_the_picture_and_said_so() -> None:
    dataset = open_dataset(SMALL, "val")
    assert dataset.area_bands == pytest.approx(((32 * 48 / 511) ** 2, (96 * 48 / 511) ** 2))
    assert "sides scaled to this image by 48/511" in dataset.summary()


def test_unknown_kind_of_shape_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"data\.source\.classes has 'circle'; shapes can be ellipse, .*ring"):
        open_dataset(replace(SMALL, classes=("ellipse", "circle")), "train")


@pytest.mark.parametrize(
    "source",
    [
        ShapesSource(image_size=(16, 16), classes=KINDS, object_size=(0.01, 0.05), train_images=5),
        ShapesSource(image_size=(16, 200), classes=KINDS, object_size=(1.0, 1.0), max_objects=9, train_images=5),
        ShapesSource(image_size=(40, 30), classes=KINDS, object_size=(0.5, 0.5), train_images=5, seed=-3),
    ],
)
def test_extreme_settings_still_give_boxes_inside_the_picture(source: ShapesSource) -> None:
    dataset = open_dataset(source, "train")
    for record in dataset.records:
        assert (record.boxes[:, 2:] > record.boxes[:, :2]).all()
        assert (record.boxes >= 0).all()
        assert (record.boxes <= [record.width, record.height] * 2).all()
    assert sum(len(record.boxes) for record in dataset.records) > 0


def test_no_objects_at_all_are_possible() -> None:
    dataset = open_dataset(replace(SMALL, max_objects=0), "val")
    assert all(record.boxes.shape == (0, 4) for record in dataset.records)
    assert "4 without objects" in dataset.summary()


def test_a_pixel_belongs_to_a_box_only_if_the_object_covers_half_of_it() -> None:
    """Objects 50 pixels wide lie at fractions of pixels: they touch 51, and cover 50 or 51 of them by half."""
    source = ShapesSource(image_size=(100, 100), object_size=(0.5, 0.5), max_objects=1, classes=("cross", "rhombus"))
    boxes = np.concatenate([draw_picture(source, "train", index).boxes for index in range(80)])
    sides = boxes[:, 2:] - boxes[:, :2]
    assert set(sides.ravel().tolist()) == {50, 51}
    assert sides.mean() < 50.6
