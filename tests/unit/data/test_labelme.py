"""labelme: every shape's box, the picture of each file, what is dropped, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cornernet.cli import main
from cornernet.data import DataError
from cornernet.data.formats.labelme import read_labelme
from tests.unit.data.folders import write_images, write_json


def shape(*points: tuple[float, float], kind: str | None = "rectangle", label: Any = "cell", **more: Any) -> Any:
    fields = {"label": label, "points": [list(point) for point in points], "group_id": None, "flags": {}, **more}
    return fields if kind is None else {**fields, "shape_type": kind}


SQUARE = shape((5, 6), (25, 26))


def content(*shapes: Any, **more: Any) -> dict[str, Any]:
    about = {"version": "5.2", "flags": {}, "imagePath": "a.png", "imageData": None}
    return {**about, "imageHeight": 40, "imageWidth": 60, "shapes": list(shapes), **more}


def labelled(root: Path, *shapes: Any, **more: Any) -> Path:
    write_images(root, ("a.png",))
    write_json(root / "a.json", content(*shapes, **more))
    return root


@pytest.mark.parametrize(
    ("given", "box"),
    [
        (shape((25, 26), (5, 6)), (5, 6, 25, 26)),
        (shape((5, 6), (25, 6), (25, 26), (5, 26)), (5, 6, 25, 26)),
        (shape((5, 6), (25.5, 10), (12, 30), kind="polygon"), (5, 6, 25.5, 30)),
        (shape((5, 6), (25, 10), (12, 30), kind=None), (5, 6, 25, 30)),
        (shape((20, 20), (23, 24), kind="circle"), (15, 15, 25, 25)),
        (shape((5, 6), (25, 26), kind="mask", mask="iVBORw0="), (5, 6, 25, 26)),
        (shape((10, 5), (20, 15), (10, 25), (0, 15), kind="rotation"), (0, 5, 20, 25)),
        (shape((50, 30), (70, 50)), (50, 30, 60, 40)),
    ],
)
def test_every_shape_with_an_area_becomes_its_box(given, box, tmp_path) -> None:
    (image,) = read_labelme(labelled(tmp_path, given)).images
    assert [(item.name, item.box) for item in image.boxes] == [("cell", box)]
    assert image.size == (40, 60)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (shape((5, 6), kind="point"), "a point has no area"),
        (shape((5, 6), (9, 9), kind="line"), "a line has no area"),
        (shape((5, 6), (9, 9), (12, 3), kind="linestrip"), "a linestrip has no area"),
        (shape((5, 6), (9, 9), kind="star"), "the shape_type 'star' is unknown"),
        (shape((5, 6), (9, 9), kind="polygon"), "a polygon needs 3 points or more"),
        (shape((5, 6), (5, 9)), "its box has no width or no height"),
        (shape((65, 6), (75, 9)), "its box lies outside the image"),
    ],
)
def test_what_has_no_area_is_dropped_with_its_reason(given, reason, tmp_path) -> None:
    found = read_labelme(labelled(tmp_path, SQUARE, given))
    assert len(found.images[0].boxes) == 1
    assert [(item.image, item.reason) for item in found.dropped] == [("a.json shape 1", reason)]


def test_shapes_of_one_label_and_group_are_one_object(tmp_path) -> None:
    parts = [shape((5, 6), (10, 10), group_id=1), shape((20, 20), (30, 25), group_id=1)]
    other = [shape((40, 6), (50, 10), group_id=1, label="rod"), shape((1, 1), (4, 4), group_id=2), SQUARE]
    found = read_labelme(labelled(tmp_path, *parts, *other))
    assert [item.box for item in found.images[0].boxes] == [
        (5, 6, 30, 25),
        (40, 6, 50, 10),
        (1, 1, 4, 4),
        (5, 6, 25, 26),
    ]
    assert "1 shape with the label and group_id of an earlier one" in found.to_text()


def test_the_picture_is_that_of_the_files_name_and_its_size_counts(tmp_path) -> None:
    write_images(tmp_path / "images", ("a.png", "b.png"))
    stated = content(SQUARE, imagePath=r"..\images\b.png", imageHeight=60, imageWidth=40)
    write_json(tmp_path / "json" / "a.json", stated)
    write_json(tmp_path / "json" / "renamed.json", content(SQUARE, imagePath="../images/b.png"))
    found = read_labelme(tmp_path)
    assert {image.path.name: image.size for image in found.images} == {"a.png": (40, 60), "b.png": (40, 60)}
    assert "the file's own name decides (first: a.png, not b.png)" in found.to_text()
    assert "1 image of another size than the annotations state" in found.to_text()


def test_other_json_hidden_files_and_pictures_without_a_file_are_passed_over_and_said(tmp_path) -> None:
    root = labelled(tmp_path, SQUARE)
    write_images(root, ("a.png", "b.png"))
    write_json(root / "package.json", {"name": "x"})
    write_json(root / "._a.json", "damaged")
    write_json(root / ".ipynb_checkpoints" / "a-checkpoint.json", content(SQUARE))
    text = read_labelme(root).to_text()
    assert "1 json file without 'shapes': not read (first: package.json)" in text
    assert "1 image without a json file: left out (first: b.png)" in text
    assert "dropped: nothing" in text


def test_a_picture_that_only_the_json_file_has_is_dropped_with_advice(tmp_path) -> None:
    root = labelled(tmp_path, SQUARE, imageData="iVBORw0=")
    write_json(root / "b.json", content(SQUARE, imagePath="b.png", imageData="iVBORw0="))
    assert "its image is missing (the first is b.png); its imageData has it" in read_labelme(root).to_text()


def test_folders_are_the_splits_and_the_import_can_be_repeated(tmp_path, capsys) -> None:
    labelled(tmp_path / "train", SQUARE)
    labelled(tmp_path / "Valid", SQUARE, shape((1, 1), (9, 9), label="rod"))
    assert main(["data", "import-labelme", str(tmp_path), "--classes", "rod", "cell"]) == 0
    assert main(["data", "import-labelme", str(tmp_path), "--classes", "cell", "--overwrite"]) == 0
    said = capsys.readouterr().out
    assert "val: 1 image (0 without objects), 2 boxes" in said
    assert "classes: rod 1, cell 2" in said
    assert "dropped because its class rod is not among --classes (1): " in said


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('{"shapes": [', "a.json is not JSON"),
        ("[" * 100_000, "a.json is not JSON"),
        (content(7), "shapes[0] is not an object"),
        (content(shape((1, 1), (9, 9), label="")), "shapes[0] has no label"),
        (content(shape((1, 1), (9, 9), label=3)), "shapes[0] has no label"),
        (content({"label": "a"}), "shapes[0] has no list of points"),
        (content({**SQUARE, "points": [[1, 2], [3, "x"]]}), "points[1] is not [x, y]"),
        (content({**SQUARE, "points": [[1, 2], [3, 10**400]]}), "points[1] is not [x, y]"),
        (content({**SQUARE, "points": [[1, 2], [3, float("nan")]]}), "points[1] is not [x, y]"),
        (content(SQUARE, shapes="none"), "'shapes' is not a list"),
        (content(SQUARE, imageHeight="tall"), "imageHeight and imageWidth are ['tall', 60]"),
    ],
)
def test_what_is_not_labelmes_format_is_refused_by_file_and_place(given, message, tmp_path, capsys) -> None:
    root = labelled(tmp_path)
    write_json(root / "a.json", given)
    assert main(["data", "import-labelme", str(root)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "a.json" in said


def test_a_folder_without_labelmes_files_says_what_was_looked_for(tmp_path) -> None:
    write_json(tmp_path / "package.json", {})
    with pytest.raises(DataError, match=r"no json file of labelme .*1 json file without"):
        read_labelme(tmp_path)
