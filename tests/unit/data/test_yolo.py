"""YOLO folders: fractions become pixels, names from where they are, what is dropped, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cornernet.cli import main
from cornernet.config import CocoSource
from cornernet.data import DataError, open_dataset
from cornernet.data.formats.yolo import read_names, read_yolo
from tests.unit.data.folders import write_images

NAMES = "names:\n  0: cell\n  1: rod  # thin\n"


def yolo(root: Path, names: str = NAMES, file: str = "data.yaml", **labels: str) -> Path:
    """Pictures a, b (60x40) and c (20x30) in images/train, with labels/train/STEM.txt for each of ``labels``."""
    write_images(root / "images" / "train")
    (root / "labels" / "train").mkdir(parents=True)
    (root / file).write_text(names)
    for stem, text in labels.items():
        (root / "labels" / "train" / f"{stem}.txt").write_text(text)
    return root


def test_fractions_become_pixels_of_the_picture(tmp_path) -> None:
    root = yolo(tmp_path, a="1 0.5 0.5 0.5 0.25\n", c="0 0.5 0.5 1 1\n\n")
    assert main(["data", "import-yolo", str(root)]) == 0
    dataset = open_dataset(CocoSource(root=str(root)), "train")
    assert dataset.classes == ("cell", "rod")
    assert [record.boxes.tolist() for record in dataset.records] == [[[15, 15, 45, 25]], [], [[0, 0, 20, 30]]]
    assert [record.labels.tolist() for record in dataset.records] == [[1], [], [0]]


def test_pictures_without_a_file_are_kept_as_empty_or_dropped(tmp_path) -> None:
    root = yolo(tmp_path, a="0 0.5 0.5 0.5 0.5\n", b="")
    assert "1 image without a text file" in read_yolo(root).to_text()
    assert len(read_yolo(root).images) == 3
    assert [image.path.name for image in read_yolo(root, unlabelled="drop").images] == ["a.png", "b.png"]


def test_a_polygon_becomes_the_box_around_it(tmp_path) -> None:
    found = read_yolo(yolo(tmp_path, a="0 0.1 0.5 0.6 0.25 0.5 0.75\n"))
    assert found.images[0].boxes[0].box == pytest.approx((6, 10, 36, 30))
    assert "1 polygon: replaced by the bounding box" in found.to_text()


def test_what_cannot_be_used_is_dropped_with_its_reason(tmp_path) -> None:
    root = yolo(tmp_path, a="0 0.5 0.5 0 0.1\n1 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1\n", b="", z="0 0.5 0.5 1 1\n")
    (root / "images" / "train" / "b.png").write_bytes(b"no picture")
    found = read_yolo(root, classes=("cell",))
    assert {item.image: item.reason for item in found.dropped} == {
        "images/train/a.png line 1": "its box has no width or no height",
        "images/train/a.png line 2": "its class rod is not among --classes",
        "images/train/b.png": "it cannot be read as an image",
        "labels/train/z.txt": "it has no image",
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 320 240 10 10", "320 is outside 0..1; YOLO's numbers are fractions"),
        ("0 0.5 0.5 0.1", "has 3 numbers after the class"),
        ("0 0.5 0.5 0.1 0.1 0.9", "are detections, not labels"),
        ("2 0.5 0.5 0.1 0.1", "there are 2 names (0 to 1: cell, rod)"),
        ("-1 0.5 0.5 0.1 0.1", "the class is '-1'"),
        ("cell 0.5 0.5 0.1 0.1", "the class is 'cell'"),
        ("0 0.5 nan 0.1 0.1", "'nan' is not a number"),
    ],
)
def test_what_is_not_yolo_is_refused_by_file_and_line(line, message, tmp_path, capsys) -> None:
    root = yolo(tmp_path, a=f"0 0.5 0.5 0.1 0.1\n{line}\n")
    assert main(["data", "import-yolo", str(root)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "a.txt line 2" in said


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("data.yaml", "names: [cell, 'stop sign']\n"),
        ("data.yaml", 'path: ..\nnames:\n- cell\n- "stop sign"\n'),
        ("my.yml", "nc: 2\nnames: {0: cell, 1: stop sign}\n"),
        ("classes.txt", "cell\nstop sign\n\n"),
        ("obj.names", "cell\r\nstop sign\r\n"),
    ],
)
def test_names_are_found_in_every_usual_file(file, text, tmp_path) -> None:
    (tmp_path / file).write_text(text)
    assert read_names(tmp_path) == ("cell", "stop sign")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("data.yaml", "names: &a [cell]\nother: *a\n", "yaml aliases"),
        ("data.yaml", "names: {1: cell}\n", "the numbers 0, 1, ..."),
        ("data.yaml", "names: [cell\n", "is not yaml"),
        ("classes.txt", "cell\ncell\n", "'cell' twice"),
        ("classes.txt", "cell\n\nrod\n", "no name for class 1"),
        ("other.txt", "cell\n", "no file with the class names: looked for data.yaml"),
    ],
)
def test_names_that_cannot_be_used_are_refused(file, text, message, tmp_path) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(DataError) as error:
        read_names(tmp_path)
    assert message in str(error.value)


def test_a_folder_that_is_not_there_or_has_no_labels_is_told_what_was_looked_for(tmp_path, capsys) -> None:
    root = yolo(tmp_path / "photos")
    assert main(["data", "import-yolo", str(tmp_path / "photo")]) == 2
    assert f"did you mean {root}?" in capsys.readouterr().err
    assert main(["data", "import-yolo", str(root)]) == 2
    assert str(root / "labels" / "train" / "a.txt") in capsys.readouterr().err
    assert main(["data", "import-yolo", str(root), "--names", str(root / "data.yml")]) == 2
    assert f"did you mean {root / 'data.yaml'}?" in capsys.readouterr().err
