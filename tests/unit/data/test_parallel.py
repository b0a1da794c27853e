"""Work on many files at once: in order, not far ahead, and over with the first error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from cornernet.config import CocoSource
from cornernet.data import DataError, open_dataset
from cornernet.data.formats.check import check_folder
from cornernet.data.images import Picture
from cornernet.data.parallel import in_order
from cornernet.data.survey import survey
from tests.unit.data.folders import coco_folder, tree


def test_results_come_in_order_whichever_is_ready_first() -> None:
    second_is_done = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert second_is_done.wait(60)
        if number == 1:
            second_is_done.set()
        return number * number

    assert list(in_order(work, range(50), 2)) == [number * number for number in range(50)]
    assert list(in_order(work, [], 2)) == []


def test_only_a_few_results_are_computed_ahead() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(10**9):
            taken.append(number)
            yield number

    results = in_order(lambda number: number, items(), 3)
    assert list(islice(results, 20)) == list(range(20))
    results.close()
    assert len(taken) <= 20 + 2 * 3


def test_an_error_comes_in_its_place_and_nothing_new_is_begun_after_it() -> None:
    begun = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 4:
            raise DataError("image 4 is damaged")
        return number

    results = in_order(work, range(1000), 2)
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(DataError, match="image 4 is damaged"):
        next(results)
    assert max(begun) <= 4 + 2 * 2


def test_a_picture_without_pixels_holds_no_memory_of_them() -> None:
    pixels = np.zeros((400, 300, 3), np.uint8)
    found = Picture(pixels, "it ends early", 1000).without_pixels()
    assert (found.doubt, found.largest, found.pixels.size) == ("it ends early", 1000, 0)
    assert found.pixels.base is None


def test_a_check_says_how_far_it_is_and_keeps_no_pixels_of_doubtful_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{**row, "file_name": row["file_name"].replace("png", "jpg")} for row in tree()["images"]]
    coco_folder(tmp_path, tree(images=rows), file="annotations/instances_train.json")
    for row in rows:
        path = tmp_path / "images" / row["file_name"]
        assert cv2.imwrite(str(path), np.full((row["height"], row["width"], 3), 90, np.uint8))
        path.write_bytes(path.read_bytes()[:-20])
    seen, kept = [], []
    monkeypatch.setattr(
        "cornernet.data.formats.check.doubts_of", lambda _, doubts: kept.extend(picture for _, picture in doubts) or []
    )
    check_folder(tmp_path, lambda *step: seen.append(step))
    total = len(rows)
    assert seen == [("annotations/instances_train.json", done + 1, total) for done in range(total)]
    assert len(kept) == total
    assert all(picture.pixels.size == 0 and picture.pixels.base is None for picture in kept)
    (warning,) = survey(open_dataset(CocoSource(root=str(tmp_path)), "train")).warnings
    assert f"{total} images ending early" in warning
