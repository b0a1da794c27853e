"""cornernet detect: folders, patterns and lists in; drawings, JSON, COCO and CSV out; and inspecting heatmaps."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from cornernet import Detections, build_detector, detect, load_detector, recipe, save_detector
from cornernet.cli import main
from cornernet.cli.photos import find_photos
from cornernet.config import CocoSource, ConfigError
from cornernet.data import DataError, open_dataset
from cornernet.visualization.inspection import inspect
from tests.unit.data.folders import write_images


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_images(Path("photos"), ("a.png", "deep/b.PNG", "deep/a.png"))
    Path("photos/notes.txt").write_text("no picture", encoding="utf-8")
    return tmp_path


@pytest.fixture
def weights(tmp_path) -> str:
    torch.manual_seed(0)
    detector = build_detector(recipe("tiny"))
    detector.classes, detector.category_ids = ("ellipse", "triangle", "cross"), (1, 2, 7)
    save_detector(detector, tmp_path / "w.safetensors")
    return str(tmp_path / "w.safetensors")


def names(*inputs: str, stdin: str = "") -> list[str]:
    return [photo.name for photo in find_photos(inputs, Path("photos/out"), io.StringIO(stdin))]


def test_files_folders_patterns_and_lists_name_photographs(here) -> None:
    assert names("photos/a.png") == ["a"]
    assert names("photos") == ["a", "deep/a", "deep/b"]
    assert names("photos/**/b.*") == ["b"]
    assert names("-", stdin="photos/a.png\n\nphotos/deep/b.PNG\n") == ["a", "b"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_with_a_byte_order_mark_is_read_as_it_is_encoded(here, encoding, end) -> None:
    write_images(Path("photos"), ("é 猫.png",))
    content = f"photos/é 猫.png{end}photos/a.png{end}".encode(encoding)
    found = find_photos(["-"], Path("out"), io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))
    assert [photo.name for photo in found] == ["é 猫", "a"]


def test_what_was_drawn_before_is_not_detected_in(here) -> None:
    write_images(Path("photos/out"), ("a.png",))
    assert names("photos") == ["a", "deep/a", "deep/b"]


def test_drawings_keep_their_names_unless_two_would_be_the_same_file(here) -> None:
    write_images(Path("mixed"), ("a.jpg", "a.png", "a-png.bmp", "b.jpg", "b-heatmaps.jpg", "c.png", "sub/a.tif"))
    photos = find_photos(["mixed"], Path("out"), io.StringIO())
    assert {photo.path.relative_to("mixed").as_posix(): photo.name for photo in photos} == {
        "a.jpg": "a-jpg",
        "a.png": "a-png-png",
        "a-png.bmp": "a-png",
        "b.jpg": "b",
        "b-heatmaps.jpg": "b-heatmaps-jpg",
        "c.png": "c",
        "sub/a.tif": "sub/a",
    }
    files = [file for photo in photos for file in (photo.drawing, photo.heatmaps)]
    assert len({file.casefold() for file in files}) == len(files)


def test_photographs_with_the_longest_names_have_drawings(here, weights) -> None:
    longest = ["x" * 251 + ".png", "x" * 250 + "y.png"]
    write_images(Path("long"), tuple(longest))
    assert main(["detect", "long", "--weights", weights, "--heatmaps", "--write", "images", "--out", "found"]) == 0
    drawn = sorted(path.name for path in Path("found").iterdir())
    assert len(drawn) == 4
    assert all(len(name) <= 255 and name.endswith(".png") for name in drawn)


@pytest.mark.parametrize("out", ["photos", ".", "photos/deep/.."])
def test_a_folder_of_photographs_is_no_place_for_drawings(out, here) -> None:
    with pytest.raises(DataError, match="among the photographs of photos; choose another --out than"):
        find_photos(["photos"], Path(out), io.StringIO())


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ((), ConfigError, "there are no photographs to detect in"),
        (("photo/a.png",), DataError, "did you mean photos?"),
        (("photos/b.png",), DataError, "did you mean photos/a.png?"),
        (("photos/*.txt",), DataError, "it matches 1 file without the ending of an image"),
        (("photos/*.gif",), DataError, "no image matches photos/*.gif"),
        (("photos/a.png", "photos/deep/a.png"), ConfigError, "would overwrite each other"),
        (("-",), DataError, "the list on stdin is empty"),
        (("empty",), DataError, "no image in the folder empty: looked for .jpg"),
    ],
)
def test_what_is_not_there_says_what_was_looked_for(inputs, error, message, here) -> None:
    Path("empty").mkdir()
    with pytest.raises(error) as told:
        names(*inputs)
    assert message in str(told.value)


def test_a_folder_is_detected_in_and_written_in_every_form(here, weights, capsys) -> None:
    argv = ["detect", "photos", "--weights", weights, "--min-score", "0", "--heatmaps"]
    assert main([*argv, "--dry-run"]) == 0
    assert not Path("out").exists()
    assert main(argv) == 0
    drawn = {path.relative_to("out").as_posix() for path in Path("out").rglob("*.png")}
    stems = ("a", "deep/a", "deep/b")
    assert drawn == {f"{stem}.png" for stem in stems} | {f"{stem}-heatmaps.png" for stem in stems}
    tree = json.loads(Path("out/coco.json").read_text(encoding="utf-8"))
    rows = list(csv.DictReader(Path("out/detections.csv").read_text(encoding="utf-8").splitlines()))
    entries = json.loads(Path("out/detections.json").read_text(encoding="utf-8"))
    assert [f"photos/{image['file_name']}" for image in tree["images"]] == [entry["image"] for entry in entries]
    assert {(image["height"], image["width"]) for image in tree["images"]} == {(40, 60)}
    assert [c["id"] for c in tree["categories"]] == [1, 2, 7]
    assert len(rows) == sum(len(entry["detections"]) for entry in entries) > 0
    rows = [row for row in rows if float(row["x2"]) > float(row["x1"]) and float(row["y2"]) > float(row["y1"])]
    assert len(rows) == len(tree["annotations"]) > 0
    assert [float(row["score"]) for row in rows] == pytest.approx([a["score"] for a in tree["annotations"]], abs=1e-4)
    x1, y1, x2, y2 = (float(rows[0][key]) for key in ("x1", "y1", "x2", "y2"))
    assert [x1, y1, x2 - x1, y2 - y1] == pytest.approx(tree["annotations"][0]["bbox"], abs=0.02)


def test_coco_output_can_be_read_as_annotations(here, weights) -> None:
    assert main(["detect", "photos", "--weights", weights, "--min-score", "0", "--write", "coco"]) == 0
    assert {path.name for path in Path("out").iterdir()} == {"coco.json"}
    Path("coco.json").write_text(Path("out/coco.json").read_text(encoding="utf-8"), encoding="utf-8")
    dataset = open_dataset(CocoSource(root=".", train_split="coco.json"), "train")
    assert len(dataset) == 3
    assert dataset.category_ids == (1, 2, 7)
    assert dataset.dropped == ()
    # and in the folder of the photographs, as documented
    Path("photos/coco.json").write_text(Path("out/coco.json").read_text(encoding="utf-8"), encoding="utf-8")
    assert main(["data", "split", "photos", "--val", "0.4"]) == 0
    assert main(["data", "check", "photos"]) == 0
    assert len(open_dataset(CocoSource(root="photos"), "train")) == 2


def test_detection_reads_photographs_as_the_weights_were_trained(here, capsys) -> None:
    torch.manual_seed(0)
    config = recipe("tiny").with_("data.orientation", "stored").with_("data.bits", 12)
    save_detector(build_detector(config), Path("w.safetensors"))
    image = Image.new("RGB", (60, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save("turned.jpg", exif=exif)
    argv = ["detect", "turned.jpg", "--weights", "w.safetensors", "--write", "coco"]
    for flags, size in ([], (40, 60)), (["--data.orientation", "upright"], (60, 40)):
        assert main([*argv, *flags]) == 0
        (found,) = json.loads(Path("out/coco.json").read_text(encoding="utf-8"))["images"]
        assert (found["height"], found["width"]) == size


def test_doubtful_pixels_are_said(here, weights, capsys) -> None:
    assert cv2.imwrite("deep.png", np.full((40, 60), 4000, np.uint16))
    whole = cv2.imencode(".jpg", np.full((40, 60, 3), 90, np.uint8))[1].tobytes()
    Path("short.jpg").write_bytes(whole[:-30])
    argv = ["detect", "deep.png", "short.jpg", "--weights", weights, "--write", "json"]
    assert main(argv) == 0
    said = capsys.readouterr().err
    assert "deep.png: it has 16 bits and values up to 4000 only" in said
    assert "--data.bits 12" in said
    assert "short.jpg: it ends early" in said
    assert main([*argv, "--data.bits", "12"]) == 0
    assert "deep.png" not in capsys.readouterr().err
    assert main([*argv, "--data.bits", "11"]) == 2
    assert "values up to 4000, which need 12 bits" in capsys.readouterr().err


def test_the_demo_draws_something_without_data_or_weights(here, capsys) -> None:
    assert main(["detect", "--demo", "--heatmaps"]) == 0
    sheet = cv2.imread("out/demo.png")
    assert sheet is not None
    assert len(json.loads(Path("out/detections.json").read_text(encoding="utf-8"))) == 6
    entries = json.loads(Path("out/detections.json").read_text(encoding="utf-8"))
    assert sum(len(entry["detections"]) for entry in entries) >= 6
    assert main(["detect", "photos", "--demo"]) == 2
    assert "leave out the photographs" in capsys.readouterr().err


def test_boxes_without_area_and_larger_than_the_photograph_are_left_out() -> None:
    boxes = [
        [1, 1, 9, 9],
        [1, 1, 1, 9],
        [1, 5, 9, 5.004],
        [-1, 0, 10.5, 9],
        [0, 0, 10, 20],
        [0, -1, 5, 19.5],
        [5, 5, 4, 9],
    ]
    found = Detections(boxes, np.linspace(0.9, 0.3, 7), [0] * 7, size=(20, 10))
    assert found.with_area().boxes.tolist() == [[1, 1, 9, 9], [0, 0, 10, 20]]
    assert len(found) == 7, "evaluation counts all of them"


def test_what_detect_writes_and_draws_has_an_area(here, weights, capsys) -> None:
    assert main(["detect", "photos/a.png", "--weights", weights, "--min-score", "0"]) == 0
    rows = list(csv.DictReader(Path("out/detections.csv").read_text(encoding="utf-8").splitlines()))
    assert rows
    assert all(float(row["x1"]) < float(row["x2"]) and float(row["y1"]) < float(row["y2"]) for row in rows)
    said = capsys.readouterr().out
    left_out = int(said.partition("(")[2].split()[0])
    detector = load_detector(weights)
    (found,) = detect(detector, "photos/a.png", detector.config)
    assert left_out + len(rows) == len(found) > len(rows)


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 1.5)])
@pytest.mark.parametrize("merge", [False, True])
def test_the_boxes_drawn_over_heatmaps_are_those_reported_with_the_pass_that_they_come_from(scales, merge) -> None:
    detector = load_detector("starter")
    config = detector.config.with_("testing.scales", scales).with_("testing.merge", merge)
    image = open_dataset(config.with_("data.source.val_images", 6).data.source, "val").read(4)
    (reported,) = detect(detector, image, config)
    kept = reported.filter(0.3).with_area()
    found = inspect(detector, image, config, 0.3)
    assert found.pairs.boxes.tolist() == kept.boxes.tolist()
    assert len(found.passes) == len(kept) > 0
    expected = {1: {"", "mirrored"}, 2: {"", "scale 1, mirrored", "scale 1.5, not mirrored", "scale 1.5, mirrored"}}
    assert set(found.passes) <= expected[len(scales)]
    assert any(found.passes), "the mirrored pass finds boxes of its own"
    assert found.shown == ("not mirrored" if len(scales) == 1 else "scale 1, not mirrored")
    plain = replace(found, passes=("",) * len(kept), shown="")
    assert (found.plot(image) != plain.plot(image)).any(), "the picture says where they come from"
    # without the mirrored pass, the same boxes are those of the pass that is shown
    if len(scales) == 1 and not merge:
        (alone,) = detect(detector, image, config.with_("testing.flip", False).with_("testing.nms", "hard"))
        own = [box.tolist() for box, name in zip(kept.boxes, found.passes, strict=True) if not name]
        distances = np.abs(alone.boxes[None] - np.array(own, np.float32)[:, None]).max(-1).min(1)
        assert (distances < 1e-2).all()


def test_pairs_are_the_boxes_of_the_test_path_and_lone_corners_are_in_none() -> None:
    detector = load_detector("starter")
    config = detector.config.with_("testing.flip", False)
    image = open_dataset(config.with_("data.source.val_images", 6).data.source, "val").read(0)
    found = inspect(detector, image, config, 0.1)
    assert found.top_left.shape == (3, 24, 24)
    assert len(found.pairs) > 0
    # corners lie in the picture, lone ones are no box's
    for lone, own in ((found.unpaired_top_left, found.pairs.boxes[:, :2]),):
        assert all((np.abs(own - point).max(1) > 1e-2).all() for point in lone)
    drawn = found.plot(image)
    assert drawn.shape[0] >= 480
    plain = inspect(detector, image, config, 1.0).plot(image)
    assert (drawn != plain).any()


def test_the_starter_model_is_small_says_how_it_was_made_and_fits_its_recipe() -> None:
    from cornernet.training.starter import made_from, starter_config
    from cornernet.weights.checkpoints import STARTER

    made = made_from()
    assert STARTER.stat().st_size < 1_000_000
    assert {"command", "recipe", "edits", "seed", "revision", "shapes_version", "metrics"} <= set(made)
    assert made["revision"] != "unknown"
    detector = load_detector("starter")
    assert detector.config == starter_config().with_("model.num_classes", 3)
    assert all(parameter.dtype == torch.float32 for parameter in detector.parameters())


def test_detections_show_themselves_in_a_notebook(here) -> None:
    found = Detections(
        np.array([[5, 5, 30, 30]]), np.array([0.9]), np.array([0]), ("<b>cell",), image_id="photos/a.png", size=(40, 60)
    )
    page = found._repr_html_()
    assert "&lt;b&gt;cell" in page
    assert "data:image/png;base64," in page
    picture = found._repr_png_()
    assert picture is not None
    assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR) is not None
    nowhere = Detections(found.boxes, found.scores, found.labels, image_id=3)
    assert nowhere._repr_png_() is None
    assert "<img" not in nowhere._repr_html_()


def test_supervision_gets_boxes_scores_labels_and_names() -> None:
    supervision = pytest.importorskip("supervision", reason="the extra cornernet-lab[supervision] is not installed")
    found = Detections(np.array([[5, 5, 30, 30]]), np.array([0.9]), np.array([1]), ("cell", "rod"))
    theirs = found.to_supervision()
    assert isinstance(theirs, supervision.Detections)
    assert theirs.xyxy.tolist() == [[5, 5, 30, 30]]
    assert theirs.class_id.tolist() == [1]
    assert theirs.data["class_name"].tolist() == ["rod"]


def test_supervision_that_is_not_installed_is_named_with_its_extra(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(ImportError, match=r"cornernet-lab\[supervision\]"):
        Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)).to_supervision()


def test_the_command_that_makes_the_starter_model_trains_halves_and_records(tmp_path, monkeypatch, capsys) -> None:
    from cornernet.training import starter

    few = {"data.source.train_images": 4, "data.source.val_images": 2, "training.iterations": 2}
    monkeypatch.setattr(starter, "EDITS", {**starter.EDITS, **few})
    before = torch.get_num_threads()
    try:
        assert starter.main(["--out", str(tmp_path / "run"), "--weights", str(tmp_path / "new.safetensors")]) == 0
    finally:
        torch.set_num_threads(before)
    assert starter.made_from(tmp_path / "new.safetensors")["edits"] == starter.EDITS
    whole, half = load_detector(tmp_path / "run"), load_detector(tmp_path / "new.safetensors")
    assert half.config == whole.config
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(half.state_dict()[key], value, rtol=1e-3, atol=1e-6)
