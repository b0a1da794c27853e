"""The cache of annotation files: it saves time, and is never believed where it could be wrong."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest

from cornernet.config import CocoSource
from cornernet.data import DetectionDataset, open_dataset
from cornernet.data.formats.annotation_file import is_detection_file, read_columns
from tests.unit.data.folders import annotation, coco_folder, tree, write_json


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose annotations are cached whatever their size and however new."""
    monkeypatch.setenv("CORNERNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("cornernet.data.formats.annotation_file.CACHED_FROM", 0)
    monkeypatch.setattr("cornernet.data.formats.annotation_file._SETTLED", -1.0)
    odd = {"id": 60, "image_id": [7], "category_id": 1, "bbox": [1, 1, 5, 5]}
    bad = annotation(61, 7, 1, [1, 1, float("nan"), 5])
    unnamed = {"id": 8, "file_name": "\ud800", "height": 40, "width": 60}
    content = tree(images=[*tree()["images"], unnamed], annotations=[*tree()["annotations"], odd, bad])
    return coco_folder(tmp_path / "data", content)


def opened(root: Path) -> DetectionDataset:
    return open_dataset(CocoSource(root=str(root)), "train")


def cached(root: Path) -> Path:
    (path,) = (root.parent / "cache").glob("annotations-*.npz")
    return path


def same(a: DetectionDataset, b: DetectionDataset) -> bool:
    return (a.ground_truth(), a.dropped, a.notes, a.fingerprint) == (
        b.ground_truth(),
        b.dropped,
        b.notes,
        b.fingerprint,
    )


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on nothing can be decoded."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the annotations were decoded")

    monkeypatch.setattr("cornernet.data.formats.annotation_file._read", fail)


def test_what_comes_from_the_cache_is_what_was_read(root: Path, request: pytest.FixtureRequest) -> None:
    first = opened(root)
    assert [item.reason for item in first.dropped] == [
        "its file_name is not valid Unicode",
        "its image_id is not in 'images'",
        "its bbox is not four finite numbers",
    ]
    assert first.dropped[1].image == "image id [7]"
    request.getfixturevalue("unread")
    assert same(opened(root), first)


def test_images_are_looked_for_anew_each_time(root: Path, request: pytest.FixtureRequest) -> None:
    opened(root)
    request.getfixturevalue("unread")
    (root / "images" / "b.png").unlink()
    assert "its file is missing" in [item.reason for item in opened(root).dropped]


def test_a_file_that_was_changed_under_its_old_size_and_time_is_read_again(root: Path) -> None:
    opened(root)
    path = root / "annotations" / "instances_train.json"
    before = path.stat()
    path.write_text(path.read_text().replace("toothbrush", "hairbrush_"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert opened(root).classes == ("person", "stop sign", "hairbrush_")


def test_a_file_that_was_replaced_by_another_is_read_again(root: Path) -> None:
    opened(root)
    path = root / "annotations" / "instances_train.json"
    before = path.stat()
    other = path.with_name("other")
    other.write_text(path.read_text().replace("toothbrush", "hairbrush_"))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    assert opened(root).classes[2] == "hairbrush_"


def _flipped(content: bytes) -> bytes:
    at = content.index(b"toothbrush")
    return content[:at] + b"hairbrush_" + content[at + 10 :]


def _pickled(content: bytes) -> bytes:
    with np.load(io.BytesIO(content)) as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays["crowd"] = np.array([print], dtype=object)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _of_another_version(content: bytes) -> bytes:
    with np.load(io.BytesIO(content)) as stored:
        arrays = {name: stored[name] for name in stored.files}
    identity = json.loads(arrays["identity"].tobytes())
    arrays["identity"] = np.frombuffer(json.dumps({**identity, "version": 0}).encode(), np.uint8)
    arrays["category_names.content"] = np.frombuffer(_flipped(arrays["category_names.content"].tobytes()), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _lacking(content: bytes) -> bytes:
    with np.load(io.BytesIO(content)) as stored:
        arrays = {name: stored[name] for name in stored.files if name != "xywh"}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"no archive",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        _flipped,
        _pickled,
        _of_another_version,
        _lacking,
    ],
    ids=["empty", "other", "half", "a byte short", "bits flipped", "pickled", "another version", "lacking a column"],
)
def test_a_damaged_or_foreign_cache_is_not_believed_and_is_replaced(root: Path, damage, request) -> None:
    first = opened(root)
    path = cached(root)
    path.write_bytes(damage(path.read_bytes()))
    assert same(opened(root), first)
    request.getfixturevalue("unread")
    assert same(opened(root), first)


def test_where_no_cache_can_be_written_annotations_are_read_all_the_same(root: Path, monkeypatch) -> None:
    (root.parent / "file").write_text("")
    monkeypatch.setenv("CORNERNET_CACHE", str(root.parent / "file" / "below"))
    assert len(opened(root)) == 3


def test_a_file_that_changed_a_moment_ago_is_not_cached(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cornernet.data.formats.annotation_file._SETTLED", 60.0)
    opened(root)
    assert not list((root.parent / "cache").glob("*"))


def test_small_files_are_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORNERNET_CACHE", str(tmp_path / "cache"))
    opened(coco_folder(tmp_path / "data"))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (tree(), True),
        ({"annotations": [], "images": []}, False),
        ({"epochs": 3}, False),
        ([1, 2], False),
        ('{"annotations": [NaN], "categories": []}', True),
        ('{"epochs": NaN}', False),
        ("{", True),
    ],
)
def test_json_that_holds_no_boxes_is_told_from_what_should(tmp_path: Path, content: object, expected: bool) -> None:
    write_json(tmp_path / "x.json", content)
    assert is_detection_file(tmp_path / "x.json") == expected


@pytest.mark.parametrize("number", ["1" + "0" * 5000, "1" + "0" * 400, "NaN", "1e999", "-1e999"])
def test_a_polygon_with_an_impossible_number_gives_no_box(number: str, tmp_path: Path) -> None:
    polygon = {"segmentation": [[1, 1, 5, 1, 5, 77777]], "bbox": []}
    rows = [annotation(1, 7, 1, [1, 1, 5, 5]), {**annotation(2, 7, 1, [1, 1, 5, 5]), **polygon}]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(tree(annotations=rows)).replace("77777", number))
    assert read_columns(path).no_box.tolist() == [False, True]
