"""CVAT for images 1.1: every shape's box, where the pictures are, what is dropped, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cornernet.cli import main
from cornernet.data import DataError
from cornernet.data.formats.cvat import read_cvat
from cornernet.data.formats.voc import read_voc
from tests.unit.data.folders import write_images

BOX = '<box label="cell" xtl="5.5" ytl="6" xbr="25" ybr="26" occluded="0"><attribute name="x">1</attribute></box>'


def image(*shapes: str, name: str = "a.png", size: str = 'width="60" height="40"', more: str = "") -> str:
    return f'<image id="0" name="{name}" {size} {more}>{"".join(shapes)}</image>'


def xml(*images: str) -> str:
    return f'<?xml version="1.0"?><annotations><version>1.1</version><meta/>{"".join(images)}</annotations>'


def cvat(root: Path, *images: str) -> Path:
    write_images(root / "images", ("a.png", "b.png"))
    (root / "annotations.xml").write_text(xml(*images))
    return root


@pytest.mark.parametrize(
    ("given", "box"),
    [
        (BOX, (5.5, 6, 25, 26)),
        ('<box label="cell" xtl="10" ytl="18" xbr="30" ybr="22" rotation="90"/>', (18, 10, 22, 30)),
        ('<polygon label="cell" points="5,6;25.5,10;12,30"/>', (5, 6, 25.5, 30)),
        ('<ellipse label="cell" cx="20" cy="20" rx="10" ry="4"/>', (10, 16, 30, 24)),
        ('<ellipse label="cell" cx="20" cy="20" rx="10" ry="4" rotation="90"/>', (16, 10, 24, 30)),
        ('<ellipse label="cell" cx="20" cy="20" rx="10" ry="10" rotation="45"/>', (10, 10, 30, 30)),
        ('<mask label="cell" rle="3, 5" left="5" top="6" width="20" height="4"/>', (5, 6, 25, 10)),
        (
            '<cuboid label="cell" xtl1="5" ytl1="6" xbl1="5" ybl1="20" xtr1="20" ytr1="6" xbr1="20" ybr1="20" '
            'xtl2="9" ytl2="2" xbl2="9" ybl2="16" xtr2="24" ytr2="2" xbr2="24" ybr2="16"/>',
            (5, 2, 24, 20),
        ),
    ],
)
def test_every_shape_with_an_area_becomes_its_box(given, box, tmp_path) -> None:
    (found,) = read_cvat(cvat(tmp_path, image(given))).images
    assert [item.name for item in found.boxes] == ["cell"]
    assert found.boxes[0].box == pytest.approx(box)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ('<points label="cell" points="5,6"/>', "a points has no area"),
        ('<polyline label="cell" points="5,6;8,9"/>', "a polyline has no area"),
        ('<skeleton label="cell"><points label="nose" points="5,6"/></skeleton>', "a skeleton has no area"),
        ('<tag label="cell"/>', "a tag has no area"),
        ('<star label="cell"/>', "the shape <star> is unknown"),
        ('<box label="cell" xtl="9" ytl="6" xbr="9" ybr="9"/>', "its box has no width or no height"),
    ],
)
def test_what_has_no_area_is_dropped_with_its_reason(given, reason, tmp_path) -> None:
    found = read_cvat(cvat(tmp_path, image(BOX, given)))
    assert len(found.images[0].boxes) == 1
    assert [(item.image, item.reason) for item in found.dropped] == [("annotations.xml a.png shape 2", reason)]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("a.png", "images/a.png"),
        ("a.png", "a.png"),
        ("cam1/a.png", "images/cam1/a.png"),
        (r"cam1\a.png", "cam1/a.png"),
        ("a.png", "images/Train/a.png"),
        ("dataset/cam1/a.png", "images/a.png"),
    ],
)
def test_pictures_are_found_where_cvat_puts_them(name, place, tmp_path) -> None:
    write_images(tmp_path, (place,))
    subset = 'subset="Train"'
    (tmp_path / "annotations.xml").write_text(xml(image(BOX, name=name, more=subset)))
    (found,) = read_cvat(tmp_path).images
    assert (found.path.relative_to(tmp_path).as_posix(), found.split) == (place, "train")


def test_a_path_tells_pictures_of_one_name_apart(tmp_path) -> None:
    write_images(tmp_path / "images", ("cam1/a.png", "cam2/a.png"))
    rod = BOX.replace("cell", "rod")
    (tmp_path / "annotations.xml").write_text(xml(image(BOX, name="cam1/a.png"), image(rod, name="cam2/a.png")))
    found = {each.path.parent.name: each.boxes[0].name for each in read_cvat(tmp_path).images}
    assert found == {"cam1": "cell", "cam2": "rod"}
    (tmp_path / "annotations.xml").write_text(xml(image(BOX, name="cam3/a.png")))
    assert read_cvat(tmp_path).images == ()


@pytest.mark.parametrize(("choice", "images"), [("keep", 2), ("drop", 1)])
def test_images_without_shapes_are_kept_or_dropped(choice, images, tmp_path) -> None:
    root = cvat(tmp_path, image(BOX), image(name="b.png"))
    found = read_cvat(root, unlabelled=choice)
    assert len(found.images) == images
    assert "(--unlabelled" in found.to_text()


def test_what_is_missing_unnamed_or_of_another_size_is_said(tmp_path) -> None:
    root = cvat(tmp_path, image(BOX, size='width="40" height="60"'), image(BOX, name="gone.png"))
    (root / "other.xml").write_text("<project/>")
    found = read_cvat(root)
    assert found.images[0].size == (40, 60)
    text = found.to_text()
    assert "1 image of another size than the annotations state" in text
    assert "its image is missing (1): annotations.xml gone.png" in text
    assert "1 xml file without <annotations>: not read (first: other.xml)" in text
    assert "1 image named in no xml file: left out (first: images/b.png)" in text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (xml('<track id="0" label="cell"/>'), "export the task again as 'CVAT for images 1.1'"),
        (xml(image(BOX, name="")), "image 1 has no name"),
        (xml(image(BOX), image(BOX)), "both annotate"),
        (xml(image(BOX, size='width="6x" height="40"')), "height and width are ['40', '6x']"),
        (xml(image(BOX.replace("cell", ""))), "shape 1 <box> has no label"),
        (xml(image(BOX.replace("5.5", "wide"))), "xtl is 'wide'; write a number"),
        (xml(image('<polygon label="cell" points="5;6"/>')), "points are not x,y;x,y"),
        ("<annotation/>", "data import-voc"),
        ('<!DOCTYPE a [<!ENTITY l "lol">]><annotations/>', "declares a document type"),
    ],
)
def test_what_is_not_cvats_format_is_refused_by_file_and_place(given, message, tmp_path, capsys) -> None:
    root = cvat(tmp_path)
    (root / "annotations.xml").write_text(given)
    assert main(["data", "import-cvat", str(root)]) == 2
    assert message in capsys.readouterr().err


def test_the_voc_importer_names_the_one_for_cvat(tmp_path) -> None:

    (tmp_path / "annotations").mkdir()
    write_images(tmp_path, ("a.png",))
    (tmp_path / "annotations" / "a.xml").write_text(xml(image(BOX)))
    with pytest.raises(DataError, match="data import-cvat"):
        read_voc(tmp_path)
