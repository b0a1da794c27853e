"""The command line: from training to drawn boxes, with errors that say what to do."""

from __future__ import annotations

import errno
import json
import re

import cv2
import numpy as np
import pytest
import torch

import cornernet
from cornernet import Config, build_detector, load_detector, recipe, save_detector
from cornernet.checkout import revision
from cornernet.cli import main
from cornernet.cli.dispatch import COMMANDS
from cornernet.cli.errors import describe
from cornernet.data import open_dataset
from tests.unit.data.folders import coco_folder

SMALL_DATA = ["--data.source.train-images", "6", "--data.source.val-images", "2"]
SHORT = [*SMALL_DATA, "--training.iterations", "3", "--training.batch-size", "2", "--training.threads", "1"]


@pytest.fixture(autouse=True)
def keep_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    detector = build_detector(recipe("tiny"))
    detector.classes, detector.category_ids = ("ellipse", "triangle", "cross"), (1, 2, 3)
    save_detector(detector, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


@pytest.fixture
def photo(tmp_path):
    image = open_dataset(recipe("tiny").data.source, "val").read(0)
    cv2.imwrite(str(tmp_path / "photo.png"), image)
    return tmp_path / "photo.png"


def status(argv) -> object:
    """The exit status; the parser of flags raises SystemExit."""
    try:
        return main(argv)
    except SystemExit as stop:
        return stop.code


def test_training_then_evaluation_agree(here, capsys) -> None:
    assert main(["train", *SHORT]) == 0
    out = capsys.readouterr().out
    assert "the run is in runs/tiny-shapes-1" in out
    run = here / "runs" / "tiny-shapes-1"
    assert Config.load(run / "config.json").training.iterations == 3
    assert main(["evaluate", "--weights", str(run), "--save-results", "results.json"]) == 0
    again = capsys.readouterr().out
    table = out[out.index("metric") : out.index("the run is in")]
    assert table in again
    assert isinstance(json.loads((here / "results.json").read_text()), list)


def test_the_next_run_gets_a_folder_of_its_own(here, capsys) -> None:
    for number in (1, 2):
        assert main(["train", *SHORT]) == 0
        assert f"runs/tiny-shapes-{number}" in capsys.readouterr().out


def test_a_run_can_be_started_from_a_configuration_file(here) -> None:
    config = recipe("tiny").with_("training.iterations", 2).with_("data.source.train_images", 4)
    (here / "mine.json").write_text(config.with_("data.source.val_images", 2).to_json())
    assert main(["train", "--config-file", "mine.json", "--out", "run", "--model.head.pooling", "none"]) == 0
    assert Config.load(here / "run" / "config.json").model.head.pooling == "none"


def test_a_run_is_resumed_as_it_was_configured(here, capsys) -> None:
    assert main(["train", *SHORT, "--out", "run", "--model.head.pooling", "none", "--testing.no-flip"]) == 0
    assert main(["train", "--out", "run", "--resume"]) == 0
    config = Config.load(here / "run" / "config.json")
    assert (config.model.head.pooling, config.testing.flip, config.training.iterations) == ("none", False, 3)


def test_a_folder_of_photographs_is_trained_evaluated_and_detected_on(here, capsys) -> None:
    root = coco_folder(here)
    same_for_both = ["--data", str(root), "--data.source.val-split", "train"]
    small = ["--data.input-size", "63", "63", "--data.fit", "64", "64", "--training.batch-size", "2"]
    assert main(["train", *same_for_both, *small, "--training.iterations", "2", "--out", "run"]) == 0
    assert main(["evaluate", "--weights", "run", "--data", str(root), "--split", "train"]) == 0
    assert "toothbrush" in capsys.readouterr().out
    photos = sorted(str(path) for path in (root / "images").rglob("*.png"))
    assert main(["detect", *photos, "--weights", "run", "--min-score", "0"]) == 0
    assert len(json.loads((here / "out" / "detections.json").read_text())) == 3


def test_one_photograph_that_cannot_be_read_does_not_stop_the_others(here, weights, photo, capsys) -> None:
    (here / "broken.png").write_bytes(b"no picture")
    assert main(["detect", "broken.png", str(photo), "--weights", str(weights)]) == 2
    assert "broken.png" in capsys.readouterr().err
    assert [entry["image"] for entry in json.loads((here / "out" / "detections.json").read_text())] == [str(photo)]


def test_fresh_weights_can_be_evaluated(here, capsys) -> None:
    assert main(["evaluate", "--weights", "random", "--recipe", "tiny", *SMALL_DATA, "--backend", "hotcoco"]) == 0
    assert "AP50" in capsys.readouterr().out


def test_another_pooling_implementation_gives_the_same_table(here, weights, capsys) -> None:
    tables = []
    for impl in ("auto", "eager"):
        assert main(["evaluate", "--weights", str(weights), "--model.head.pooling-impl", impl, *SMALL_DATA]) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]


def test_detect_draws_photographs_and_writes_boxes(here, weights, photo, capsys) -> None:
    assert (
        main(["detect", str(photo), "--weights", str(weights), "--out", "drawn", "--heatmaps", "--min-score", "0"]) == 0
    )
    assert "photo.png: " in capsys.readouterr().out
    drawn = {p.name: cv2.imread(str(p)) for p in (here / "drawn").glob("*.png")}
    assert set(drawn) == {"photo.png", "photo-heatmaps.png"}
    assert all(image is not None and image.std() > 0 for image in drawn.values())
    (entry,) = json.loads((here / "drawn" / "detections.json").read_text())
    assert entry["image"] == str(photo)
    assert entry["detections"]
    boxes = np.array([d["bbox"] for d in entry["detections"]])
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 95 + 1e-3).all()


def test_weights_go_to_the_authors_names_and_come_back_with_equal_bits(here, weights, capsys) -> None:
    assert main(["convert", str(weights), "--out", "theirs.pkl", "--to", "authors"]) == 0
    assert main(["convert", "theirs.pkl", "--out", "back.safetensors", "--recipe", "tiny"]) == 0
    assert "3 classes" in capsys.readouterr().out
    before, after = load_detector(weights), load_detector(here / "back.safetensors")
    assert all(torch.equal(value, after.state_dict()[key]) for key, value in before.state_dict().items())
    assert after.config == before.config
    assert after.classes is None


def test_conversion_takes_classes_from_a_folder(here, weights) -> None:
    root = coco_folder(here)
    assert main(["convert", str(weights), "--out", "named.safetensors", "--data", str(root)]) == 0
    assert load_detector(here / "named.safetensors").category_ids == (1, 13, 90)


NAMES = [
    "train",
    "evaluate",
    "detect",
    "convert",
    "export",
    "report",
    "data check",
    "data import-voc",
    "data import-yolo",
    "data import-labelme",
    "data import-cvat",
    "data split",
    "data show",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_with_a_summary_and_an_example(name, capsys) -> None:
    (command,) = (row for row in COMMANDS if row.name == name)
    with pytest.raises(SystemExit) as stop:
        main([*name.split(), "--help"])
    assert stop.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.startswith(f"usage: cornernet {name}")
    assert command.summary in out
    assert f"Example: {command.example}" in out
    assert command.example.startswith(f"cornernet {name} ")


def test_help_lists_the_commands(capsys) -> None:
    assert {row.name for row in COMMANDS} == {*NAMES, "ablate"}
    for argv in ([], ["-h"], ["--help"]):
        assert main(argv) == 0
        out = capsys.readouterr().out
        assert all(f"  {row.name} " in out and row.summary in out for row in COMMANDS)


def test_the_version_is_printed_with_the_commit_of_a_checkout(capsys) -> None:
    assert main(["--version"]) == 0
    commit = revision()
    expected = f"cornernet {cornernet.__version__}" + ("" if commit == "unknown" else f" ({commit})")
    assert capsys.readouterr().out == f"{expected}\n"


def test_ablate_runs_the_command_line_of_the_ablations(here, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["ablate", "--help"])
    assert stop.value.code == 0
    assert "--max-minutes" in capsys.readouterr().out
    assert main(["ablate", "status", "--profile", "quikc"]) == 2
    assert "did you mean" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "did you mean train"),
        (["train", "--recipe", "tinny"], "did you mean tiny"),
        (["train", "--resume"], "name the folder of the run to resume with --out"),
        (["train", "--data", "nowhere"], "nowhere"),
        (["train", "--recipe", "tiny", "--config-file", "x.json"], "give one"),
        (["train", "--config-file", "absent.json"], "absent.json"),
        (["train", "--data.input-size", "96", "96"], "use 95"),
        (["evaluate", "--weights", "absent"], "there is no file"),
        (["evaluate", "--weights", "WEIGHTS", "--save-results", "nowhere/r.json"], "there is no folder nowhere"),
        (["evaluate", "--weights", "WEIGHTS", "--model.head.pooling-impl", "egaer"], "did you mean eager"),
        (["evaluate", "--weights", "WEIGHTS", "--model.num-classes", "4"], "do not fit the model"),
        (["detect", "absent.jpg", "--weights", "WEIGHTS"], "there is no file absent.jpg"),
        (["detect", "PHOTO", "PHOTO", "--weights", "WEIGHTS"], "is given twice"),
        (["convert", "absent.pkl", "--out", "x.safetensors"], "there is no file absent.pkl"),
        (["convert", "WEIGHTS", "--out", "x.safetensors", "--to", "authors"], "must end in .pkl"),
        (["convert", "WEIGHTS", "--out", "WEIGHTS"], "--overwrite"),
        (["detect", "PHOTO"], "--weights is missing"),
        (["evaluate", "--weights", "weight.safetensors"], "did you mean weights.safetensors?"),
        (["data", "import-voc", "nowhere"], "there is no folder nowhere"),
        (["export", "WEIGHTS", "--out", "model.pb"], "must end in .onnx"),
        (["export", "WEIGHTS", "--out", "model.onnx", "--to", "inductor"], "must end in .onnx"),
        (["export", "WEIGHTS", "--out", "model.onnx", "--largest", "23"], "use 31 or more"),
        (["data", "check", "nowhere"], "nowhere"),
        (["data", "chekc", "nowhere"], "did you mean data check"),
    ],
)
def test_what_cannot_be_done_is_one_line_that_says_why(argv, message, here, weights, photo, capsys) -> None:
    paths = {"WEIGHTS": str(weights), "PHOTO": str(photo)}
    assert status([paths.get(a, a) for a in argv]) == 2
    captured = capsys.readouterr()
    # data check prints its findings, errors among them, as its result
    said = captured.out if argv[:2] == ["data", "check"] else captured.err
    assert message in " ".join(said.split())  # the parser of flags wraps its lines
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("error", "flags"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            ("accumulation", "checkpoint-activations", "precision", "input-size"),
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), ("accumulation",)),
        (MemoryError(), ("accumulation",)),
    ],
)
def test_out_of_memory_names_three_flags_that_help(error, flags, here, capsys, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("cornernet.training.loop.train", fail)
    assert main(["train", *SHORT]) == 2
    said = capsys.readouterr().err
    assert all(f"--{part}" in said or f".{part}" in said for part in flags)
    assert said.count("  --") == 3
    given = re.findall(r"--[\w.-]+(?: (?:\d+|bfloat16))*", said)
    assert len(given) == 5  # smaller inputs take two
    assert main(["train", *SHORT, *" ".join(given).split(), "--dry-run"]) == 0
    monkeypatch.setattr("cornernet.training.loop.train", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["train", *SHORT])


@pytest.mark.parametrize("command", ["evaluate", "detect"])
def test_out_of_memory_in_testing_names_flags_of_testing(command, here, weights, photo, capsys, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    room = {"evaluate": "evaluation", "detect": "inference"}[command]
    monkeypatch.setattr(f"cornernet.{room}.{command}.{command}", fail)
    argv = [command, *([str(photo)] if command == "detect" else SMALL_DATA), "--weights", str(weights)]
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert all(f"  {flag} " in said for flag in ("--testing.no-flip", "--testing.scales", "--data.fit"))
    assert "--training" not in said


def test_a_folder_without_a_recipe_is_trained_as_suits_it_and_says_why(here, capsys) -> None:
    root = coco_folder(here / "cells")
    flags = ["train", "--data", str(root), "--data.source.val-split", "train"]
    assert main([*flags, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "--recipe tiny: no image is larger than 60 pixels" in out
    assert "--training.iterations 800: 2133 passes over 3 images" in out
    assert "would train" in out
    assert "runs/tiny-cells-1" in out
    assert not (here / "runs").exists()
    assert main([*flags, "--training.iterations", "1", "--training.batch-size", "2", "--tensorboard"]) == 0
    assert list((here / "runs/tiny-cells-1/tensorboard").glob("events.out.tfevents.*"))
    assert main(["evaluate", "--weights", "runs/tiny-cells-1", "--dry-run"]) == 0
    assert "3 of the 3 images" in capsys.readouterr().err


def test_a_folder_without_default_splits_is_suggested_for_with_the_splits_that_flags_name(here, capsys) -> None:
    root = coco_folder(here / "cells")
    (root / "annotations" / "instances_train.json").rename(root / "annotations" / "instances_all.json")
    assert main(["train", "--data", str(root), "--dry-run"]) == 2
    assert "cornernet data split" in capsys.readouterr().err
    both = ["--data.source.train-split", "all", "--data.source.val_split=all"]
    assert main(["train", "--data", str(root), *both, "--dry-run"]) == 0
    assert "--recipe tiny" in capsys.readouterr().out


def test_an_unknown_flag_is_answered_with_the_nearest(here, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "--training.iteratoins", "3"])
    assert stop.value.code == 2
    assert "--training.iterations" in capsys.readouterr().err


def test_data_check_reports_a_folder(tmp_path, capsys) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((20, 30, 3), np.uint8))
    tree = {
        "images": [{"id": 5, "file_name": "a.png", "height": 20, "width": 30}],
        "categories": [{"id": 9, "name": "thing"}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 9, "bbox": [1, 2, 10, 10], "iscrowd": 0, "area": 100},
            {"id": 2, "image_id": 5, "category_id": 9, "bbox": [1, 2, 0, 10], "iscrowd": 0, "area": 0},
        ],
    }
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(tree))
    assert main(["data", "check", str(tmp_path)]) in (0, 2)
    out = capsys.readouterr().out
    assert "thing" in out
    assert "a.png" in out


def test_too_many_open_files_names_the_limit() -> None:
    text = describe(OSError(errno.EMFILE, "Too many open files", "x.png"), "data check")
    assert text is not None
    assert text.endswith("raise the limit of open files: ulimit -n 1024")
