"""YOLO folders: fractions become pixels, names from where they are, what is dropped, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cornernet.cli import main
from cornernet.config import CocoSource
from cornernet.data import DataError, open_dataset
from cornernet.data.formats.yolo import read_yolo
from cornernet.data.formats.yolo_set import read_set
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
        "labels/train/a.txt line 1": "its box has no width or no height",
        "labels/train/a.txt line 2": "its class rod is not among --classes",
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
    assert read_set(tmp_path).names == ("cell", "stop sign")


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
        read_set(tmp_path)
    assert message in str(error.value)


def test_a_folder_that_is_not_there_or_has_no_labels_is_told_what_was_looked_for(tmp_path, capsys) -> None:
    root = yolo(tmp_path / "photos")
    assert main(["data", "import-yolo", str(tmp_path / "photo")]) == 2
    assert f"did you mean {root}?" in capsys.readouterr().err
    assert main(["data", "import-yolo", str(root)]) == 2
    assert str(root / "labels" / "train" / "a.txt") in capsys.readouterr().err
    assert main(["data", "import-yolo", str(root), "--names", str(root / "data.yml")]) == 2
    assert f"did you mean {root / 'data.yaml'}?" in capsys.readouterr().err


# ------------------------------------------------------------------------------ keypoints and polygons

POSE = "0 0.6 0.6 0.2 0.3 0.55 0.5 0.65 0.7\n"
VISIBLE = "0 0.6 0.6 0.2 0.3 0.55 0.5 2 0.65 0.7 1\n"
ORIENTED = "0 0.6 0.5 0.7 0.6 0.6 0.7 0.5 0.6\n"


@pytest.mark.parametrize(("shape", "line"), [("[2, 2]", POSE), ("[2, 3]", VISIBLE)])
def test_keypoints_are_left_out_where_the_yaml_has_their_shape(shape, line, tmp_path) -> None:
    root = yolo(tmp_path, NAMES + f"kpt_shape: {shape}\n", a=line + "1 0.5 0.5 0.5 0.25\n")
    found = read_yolo(root)
    assert found.images[0].boxes[0].box == pytest.approx((30, 18, 42, 30))
    assert found.images[0].boxes[1].box == pytest.approx((15, 15, 45, 25))
    assert "1 line with a box and keypoints: the keypoints were left out" in found.to_text()


@pytest.mark.parametrize("line", [POSE, VISIBLE])
def test_keypoints_without_a_shape_are_never_read_as_polygons(line, tmp_path, capsys) -> None:
    root = yolo(tmp_path, a=line * 2, b=line)
    assert main(["data", "import-yolo", str(root)]) == 2
    said = capsys.readouterr().err
    assert "a.txt line 1" in said
    assert "kpt_shape in data.yaml" in said
    assert main(["data", "import-yolo", str(root), "--points", "keypoints"]) == 0
    boxes = open_dataset(CocoSource(root=str(root)), "train").records[1].boxes
    assert boxes == pytest.approx(np.array([[30, 18, 42, 30]]))


def test_a_line_that_can_be_both_is_asked_about(tmp_path) -> None:
    root = yolo(tmp_path, a="0 0.5 0.5 0.7 0.5 0.7 0.7 0.5 0.7\n")
    with pytest.raises(DataError, match="can be a box and keypoints, or a polygon"):
        read_yolo(root)
    polygon, pose = (read_yolo(root, points=points).images[0].boxes[0].box for points in ("polygon", "keypoints"))
    assert polygon == pytest.approx((30, 20, 42, 28))
    assert pose == pytest.approx((9, 10, 51, 30))


def test_oriented_boxes_become_upright_ones(tmp_path) -> None:
    found = read_yolo(yolo(tmp_path, a=ORIENTED, b="0 0.9 0.1 0.95 0.1 0.95 0.3 0.9 0.3\n"))
    assert found.images[0].boxes[0].box == pytest.approx((30, 20, 42, 28))
    assert "2 polygons: replaced by the bounding box" in found.to_text()


def test_polygons_of_many_lengths_are_polygons(tmp_path) -> None:
    small = "0 0.3 0.3 0.31 0.3 0.31 0.31 0.3 0.31\n"
    found = read_yolo(yolo(tmp_path, a=small, b="0 0.3 0.3 0.31 0.3 0.31 0.31\n"))
    assert [len(image.boxes) for image in found.images] == [1, 1, 0]


def test_boxes_and_polygons_in_one_file_are_each_read_as_written_and_said(tmp_path) -> None:
    found = read_yolo(yolo(tmp_path, a="0 0.5 0.5 0.5 0.5\n0 0.1 0.5 0.6 0.25 0.5 0.75\n"))
    assert [box.box for box in found.images[0].boxes] == [
        pytest.approx((15, 10, 45, 30)),
        pytest.approx((6, 10, 36, 30)),
    ]
    assert "1 text file with boxes and polygons" in found.to_text()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.6 0.6 0.2 0.3 0.5 0.5\n", "a.txt line 1 has 6 numbers after the class; write 4 for the box and 4 for"),
        ("0 0.6 0.6 0.2 0.3 x 0.5 0.5 0.5\n", "a.txt line 1: 'x' is not a number"),
    ],
)
def test_keypoints_that_do_not_fit_the_shape_are_refused(line, message, tmp_path) -> None:
    with pytest.raises(DataError) as error:
        read_yolo(yolo(tmp_path, NAMES + "kpt_shape: [2, 2]\n", a=line))
    assert message in str(error.value)


# ------------------------------------------------------------------------------- lines, files, endings


@pytest.mark.parametrize("word", ["1", "1.0", "1.", "01", "1.000000e+00"])
def test_a_class_may_be_written_as_a_whole_fraction(word, tmp_path) -> None:
    assert read_yolo(yolo(tmp_path, a=f"{word} 0.5 0.5 0.5 0.5\n")).images[0].boxes[0].name == "rod"


@pytest.mark.parametrize("word", ["0.5", "1_0", "nan", "-1.0", "\u0661"])
def test_a_class_that_is_no_whole_number_is_refused(word, tmp_path) -> None:
    with pytest.raises(DataError, match="line 1: the class is"):
        read_yolo(yolo(tmp_path, a=f"{word} 0.5 0.5 0.5 0.5\n"))


def test_repeated_lines_are_dropped_and_counted(tmp_path) -> None:
    text = "0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.5 0.5\n0 .5 0.50 0.5 0.500000\n0 0.5 0.5 0.5 0.5\n"
    found = read_yolo(yolo(tmp_path, a=text, b="0 0.5 0.5 0.5 0.5\n"))
    assert [len(image.boxes) for image in found.images] == [2, 1, 0]
    assert [item.image for item in found.dropped] == ["labels/train/a.txt line 3", "labels/train/a.txt line 4"]
    assert "dropped because it repeats an earlier line of its file (2)" in found.to_text()


def test_marks_line_ends_tabs_and_blanks_do_not_matter(tmp_path) -> None:
    root = yolo(tmp_path, a="\ufeff0\t0.5 0.5  0.5\t0.5 \r\n\r\n  1 0.5 0.5 0.25 0.25\t\r\n", b=" \n")
    assert [[box.name for box in image.boxes] for image in read_yolo(root).images] == [["cell", "rod"], [], []]


def test_names_in_capitals_are_found(tmp_path) -> None:
    write_images(tmp_path / "Images")
    (tmp_path / "Labels").mkdir()
    (tmp_path / "Images" / "a.png").rename(tmp_path / "Images" / "a.PNG")
    (tmp_path / "Labels" / "a.TXT").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text(NAMES)
    found = read_yolo(tmp_path)
    assert {image.path.name: len(image.boxes) for image in found.images} == {"a.PNG": 1, "b.png": 0, "c.png": 0}
    assert found.dropped == ()


def test_two_pictures_with_one_text_file_are_an_error(tmp_path) -> None:
    root = yolo(tmp_path, a="0 0.5 0.5 0.5 0.5\n")
    write_image = root / "images" / "train"
    (write_image / "a.jpg").write_bytes((write_image / "a.png").read_bytes())
    (write_image / "b.jpg").write_bytes((write_image / "b.png").read_bytes())
    with pytest.raises(DataError) as error:
        read_yolo(root)
    assert "a.jpg and " in str(error.value)
    assert "b.jpg" not in str(error.value)
    (write_image / "a.jpg").unlink()
    assert len(read_yolo(root).images) == 4


@pytest.mark.parametrize("suffix", [".jfif", ".JPE", ".jpeg", ".dib", ".pbm"])
def test_endings_that_opencv_reads_are_read(suffix, tmp_path) -> None:
    root = yolo(tmp_path, a="0 0.5 0.5 0.5 0.5\n")
    path = root / "images" / "train" / "a.png"
    path.rename(path.with_suffix(suffix))
    found = read_yolo(root)
    assert [len(image.boxes) for image in found.images] == [1, 0, 0]
    assert found.dropped == ()


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("suffix", [".heic", ".CR2", ".xyz", ""])
def test_pictures_that_cannot_be_read_are_listed(suffix, named, beside, tmp_path) -> None:
    text = NAMES + ("train: images/train\n" if named else "")
    root = yolo(tmp_path, text, a="0 0.5 0.5 0.5 0.5\n", b="")
    (root / "images" / "train" / f"z{suffix}").write_bytes(b"a picture of a camera")
    (root / ("images" if beside else "labels") / "train" / "z.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    if beside:
        (root / "labels" / "train" / "a.txt").rename(root / "images" / "train" / "a.txt")
        (root / "labels" / "train" / "b.txt").rename(root / "images" / "train" / "b.txt")
    found = read_yolo(root)
    what = suffix.lower() or "nothing"
    assert [(item.image, item.reason) for item in found.dropped] == [
        (f"images/train/z{suffix}", f"pictures that end in {what} cannot be read; convert them to .png or .jpg")
    ]


def test_text_files_that_are_no_labels_are_passed_over(tmp_path) -> None:
    root = yolo(tmp_path, a="0 0.5 0.5 0.5 0.5\n")
    for name in ("classes.txt", "README.txt", "notes.txt", "._a.txt"):
        (root / "labels" / "train" / name).write_text("cell\nrod\n")
    (root / "labels" / "train" / ".hidden").mkdir()
    (root / "labels" / "train" / ".hidden" / "x.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    assert read_yolo(root).dropped == ()


def test_labels_without_a_picture_are_listed_beside_pictures_too(tmp_path) -> None:
    write_images(tmp_path / "train")
    (tmp_path / "data.yaml").write_text(NAMES)
    for stem in ("a", "z"):
        (tmp_path / "train" / f"{stem}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    assert [(item.image, item.reason) for item in read_yolo(tmp_path).dropped] == [("train/z.txt", "it has no image")]
