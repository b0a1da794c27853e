"""The data of a run, found from any folder and never taken for other data; runs that are not finished; resuming."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
from pathlib import Path

import cv2
import pytest
import torch
from safetensors.torch import load_file, save_file

from cornernet import Config, load_detector, save_detector
from cornernet.cli import main
from cornernet.config import CocoSource
from cornernet.training.errors import Interrupted
from cornernet.training.loop import train
from cornernet.weights.checkpoints import CheckpointError
from cornernet.weights.unfinished import file_digest, newest, read_newest
from tests.faults.runs import config
from tests.unit.data.folders import annotation, coco_folder, tree

VAL = "annotations/instances_val.json"


@pytest.fixture(autouse=True)
def keep_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def photos(root: Path, *, moved: float = 0.0) -> Path:
    """A folder with train and val; ``moved`` shifts a box of val."""
    coco_folder(root)
    changed = tree()
    changed["annotations"][0] = annotation(11, 7, 13, [5.5 + moved, 6.0, 20.0, 10.25])
    (root / VAL).write_text(json.dumps(changed))
    return root


def on_photos(**edits: object) -> Config:
    """A training on the folder ``photos`` of wherever it is started."""
    short = config(training__iterations=4, training__batch_size=2, training__evaluate_every=0, **edits)
    return short.with_("data.source", CocoSource(root="photos"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``photos`` and ``run``, a finished training on them by a relative path."""
    home = tmp_path_factory.mktemp("home")
    photos(home / "photos")
    before, threads = Path.cwd(), torch.get_num_threads()
    os.chdir(home)
    try:
        train(on_photos(), "run", quiet=True)
    finally:
        os.chdir(before)
        torch.set_num_threads(threads)
    return home


@pytest.fixture
def home(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of :func:`finished` that says so itself, with another folder beside it, from which the test is run."""
    shutil.copytree(finished, tmp_path / "home")
    origin = tmp_path / "home" / "run" / "data.json"
    tree = json.loads(origin.read_text())
    origin.write_text(json.dumps({**tree, "root": str(tmp_path / "home" / "photos")}))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "home"


def evaluated(*argv: str) -> int:
    return main(["evaluate", *argv, "--dry-run"])


def test_a_run_is_evaluated_on_its_own_data_from_any_folder(home, capsys) -> None:
    photos(Path("photos"), moved=3.0)
    for weights in (home / "run", home / "run" / "model.safetensors"):
        assert evaluated("--weights", str(weights)) == 0
        said = capsys.readouterr().err
        assert f"note: the data is that in {home / 'photos'}, as at training" in said
        assert "other data" not in said
        assert "cannot be checked" not in said


def test_other_data_at_the_path_of_a_run_is_an_error_unless_it_is_allowed(home, capsys, monkeypatch) -> None:
    monkeypatch.chdir(home)
    assert evaluated("--weights", "run") == 0
    assert "note" not in capsys.readouterr().err
    photos(home / "photos", moved=3.0)
    assert evaluated("--weights", "run") == 2
    said = capsys.readouterr().err
    assert "photos val in photos is not the data that the weights are of" in said
    assert "--other-data" in said
    assert evaluated("--weights", "run", "--other-data") == 0
    assert "photos val in photos is other data than the weights are of" in capsys.readouterr().err
    # train has not changed
    assert evaluated("--weights", "run", "--split", "train") == 0
    assert "other data" not in capsys.readouterr().err


def test_a_picture_that_was_replaced_is_other_data(home, capsys, monkeypatch) -> None:
    monkeypatch.chdir(home)
    picture = cv2.imread("photos/images/a.png")
    cv2.imwrite("photos/images/a.png", picture // 2)
    assert evaluated("--weights", "run") == 2
    assert "is not the data that the weights are of" in capsys.readouterr().err


def test_data_that_is_named_is_used_and_said_to_be_other(home, capsys) -> None:
    photos(Path("photos"), moved=3.0)
    assert evaluated("--weights", str(home / "run"), "--data", "photos") == 0
    assert "note: photos val in photos is other data than the weights are of" in capsys.readouterr().err
    assert evaluated("--weights", str(home / "run"), "--data", str(home / "photos")) == 0
    assert "other data" not in capsys.readouterr().err


def test_data_that_was_moved_is_known_by_its_digest(home, capsys) -> None:
    (home / "photos").rename("photos")
    assert evaluated("--weights", str(home / "run")) == 0
    assert "other data" not in capsys.readouterr().err
    photos(Path("photos"), moved=3.0)
    assert evaluated("--weights", str(home / "run")) == 2
    assert "is not the data that the weights are of" in capsys.readouterr().err


def test_weights_without_their_folder_know_the_digest_too(home, capsys) -> None:
    shutil.copy(home / "run" / "model.safetensors", "mine.safetensors")
    shutil.copytree(home / "photos", "photos")
    assert evaluated("--weights", "mine.safetensors") == 0
    assert "cannot be checked" not in capsys.readouterr().err
    photos(Path("photos"), moved=3.0)
    assert evaluated("--weights", "mine.safetensors") == 2
    assert "is not the data that the weights are of" in capsys.readouterr().err


def as_before_digests(run: Path) -> None:
    """Turn a run into one of the time before weights and folders held digests of the data."""
    detector = load_detector(run)
    detector.data_digests = None
    save_detector(detector, run / "model.safetensors")
    (run / "data.json").unlink()


def test_an_older_run_is_checked_by_its_checkpoint_or_said_to_be_unchecked(home, capsys, monkeypatch) -> None:
    as_before_digests(home / "run")
    photos(Path("photos"))
    written = json.loads(Path("photos/annotations/instances_train.json").read_text(encoding="utf-8"))
    written["annotations"].pop()
    Path("photos/annotations/instances_train.json").write_text(json.dumps(written), encoding="utf-8")
    assert evaluated("--weights", str(home / "run")) == 2, "its checkpoint has the digest of train"
    assert "is not the data that the weights are of" in capsys.readouterr().err
    monkeypatch.chdir(home)
    assert evaluated("--weights", "run") == 0
    assert "cannot be checked" not in capsys.readouterr().err
    shutil.rmtree("run/checkpoints")
    assert evaluated("--weights", "run") == 0
    assert "whether photos val in photos is it cannot be checked" in capsys.readouterr().err


def test_a_report_shows_the_run_s_data_or_says_why_not(home, capsys, monkeypatch) -> None:
    page = home / "run" / "report.html"
    photos(Path("photos"), moved=3.0)
    assert main(["report", str(home / "run"), "--images", "1"]) == 0
    assert "F1 " in page.read_text()
    photos(home / "photos", moved=3.0)
    assert main(["report", str(home / "run"), "--images", "1"]) == 2
    assert "is not the data that the run is of" in capsys.readouterr().err
    assert main(["report", str(home / "run"), "--images", "1", "--other-data"]) == 0
    assert "These images are other data than the run is of" in page.read_text()
    assert main(["report", str(home / "run"), "--images", "0"]) == 0


def test_a_damaged_note_of_the_data_is_an_error_that_names_the_file(home, capsys) -> None:
    (home / "run" / "data.json").write_text("{}")
    assert evaluated("--weights", str(home / "run")) == 2
    assert "data.json does not say what data the run is of" in capsys.readouterr().err


def test_the_test_split_can_be_evaluated_and_drawn(home, capsys) -> None:
    data = home / "photos"
    argv = ["evaluate", "--weights", str(home / "run"), "--split", "test"]
    assert main(argv) == 2
    assert "matches the split 'test'" in capsys.readouterr().err
    (data / "annotations" / "instances_test.json").write_text(json.dumps(tree()))
    assert main(argv) == 0
    captured = capsys.readouterr()
    assert "photos test: 3 images" in captured.out
    assert "AP50" in captured.out
    assert "cannot be checked" not in captured.err, "the other splits tell"
    assert main(["data", "show", str(data), "--split", "test", "--dry-run"]) == 0
    assert "photos test: 3 images" in capsys.readouterr().out
    assert main(["evaluate", "--weights", "starter", "--split", "test"]) == 2
    assert "generated data has no test split" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ runs that are not finished


def stopped(out: Path, settings: Config | None = None) -> str:
    """Train into ``out`` until Ctrl-C comes, which stops after the next iteration, and return what is said."""

    def interrupt(iteration: int) -> None:
        if iteration == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted) as said:
        train(settings or on_photos(), out, quiet=True, on_iteration=interrupt)
    return str(said.value)


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


def test_a_stopped_run_can_be_evaluated_drawn_with_and_reported_on(here, capsys) -> None:
    stopped(Path("cut"))
    note = "note: the run in cut is not finished: using its newest checkpoint, of iteration 2 of 4"
    assert main(["evaluate", "--weights", "cut"]) == 0
    captured = capsys.readouterr()
    assert note in captured.err
    assert "toothbrush" in captured.out
    assert main(["detect", "photos/images/a.png", "--weights", "cut", "--min-score", "0", "--write", "json"]) == 0
    assert note in capsys.readouterr().err
    assert load_detector("cut").classes == ("person", "stop sign", "toothbrush")
    assert main(["report", "cut", "--images", "1"]) == 0
    assert note in capsys.readouterr().err
    page = Path("cut/report.html").read_text(encoding="utf-8")
    assert "the weights are the checkpoint of iteration 2 of 4" in page
    assert "F1 " in page
    assert main(["train", "--resume", "--out", "cut"]) == 0
    assert main(["evaluate", "--weights", "cut"]) == 0
    assert "not finished" not in capsys.readouterr().err


def test_a_checkpoint_of_before_it_held_the_classes_can_be_used(here) -> None:
    stopped(Path("cut"))
    (checkpoint,) = Path("cut/checkpoints").iterdir()
    save_file(load_file(checkpoint / "model.safetensors"), checkpoint / "model.safetensors")
    contents = json.loads((checkpoint / "contents.json").read_text())
    contents["sha256"]["model.safetensors"] = file_digest(checkpoint / "model.safetensors")
    (checkpoint / "contents.json").write_text(json.dumps(contents))
    detector = load_detector("cut")
    assert detector.unfinished == (2, 4)
    assert detector.classes is None
    assert detector.config.model.num_classes == 3


def test_a_run_can_be_evaluated_while_it_trains(here) -> None:
    seen = []
    train(
        on_photos(training__checkpoint_every=1).with_("training.iterations", 3), "run-2", quiet=True,
        on_iteration=lambda done: seen.append(load_detector("run-2").unfinished) if done > 1 else None,
    )  # fmt: skip
    assert seen == [(1, 3), (2, 3)]
    assert load_detector("run-2").unfinished is None


def test_a_checkpoint_that_is_removed_while_it_is_read_has_a_successor(tmp_path) -> None:
    (tmp_path / "step-0000001").mkdir()

    def read(path: Path) -> int:
        if path.name == "step-0000001":
            # as training does it: the next one is there before this one goes
            (tmp_path / "step-0000002").mkdir()
            path.rmdir()
            raise FileNotFoundError(path)
        return int(path.name[5:])

    assert read_newest(tmp_path, read) == 2

    def damaged(path: Path) -> int:
        raise ValueError(path.name)

    with pytest.raises(ValueError, match="step-0000002"):
        read_newest(tmp_path, damaged)
    (tmp_path / "step-0000002").rmdir()
    assert read_newest(tmp_path, read) is None


def test_a_damaged_checkpoint_of_a_stopped_run_is_refused(here) -> None:
    stopped(Path("cut"))
    path = newest(Path("cut/checkpoints"))
    assert path is not None
    content = bytearray((path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="the file is damaged"):
        load_detector("cut")


# -------------------------------------------------------------------------------------------------- resuming


def test_what_ctrl_c_says_is_a_whole_command_that_finishes_the_run(here, capsys) -> None:
    said = stopped(Path("my runs/cut"))
    command = shlex.split(said.rpartition("continue with: ")[2])
    assert command == ["cornernet", "train", "--resume", "--out", "my runs/cut"]
    assert main(command[1:]) == 0
    assert Path("my runs/cut/evaluation.json").exists()


def test_a_run_is_resumed_on_its_own_data_from_any_folder(here, capsys, monkeypatch) -> None:
    stopped(Path("cut"))
    monkeypatch.chdir(here.parent / "elsewhere")
    photos(Path("photos"), moved=3.0)
    assert main(["train", "--resume", "--out", str(here / "cut")]) == 0
    captured = capsys.readouterr()
    assert f"note: the data is that in {here / 'photos'}, as at training" in captured.err
    assert "has changed" not in captured.err
    assert "toothbrush" in captured.out


def test_resuming_on_changed_evaluation_data_is_said(here, capsys) -> None:
    stopped(Path("cut"))
    photos(here / "photos", moved=3.0)
    assert main(["train", "--resume", "--out", "cut"]) == 0
    assert "photos val has changed since the run in cut began" in capsys.readouterr().err


def age(run: Path, seconds: int) -> None:
    for path in [run, *run.rglob("*")]:
        os.utime(path, (1_700_000_000 - seconds,) * 2)


def test_resume_finds_the_newest_unfinished_run_of_the_data(here, capsys) -> None:
    photos(here / "others", moved=1.0)
    for name, root, old in (("a-1", "photos", 300), ("a-2", "photos", 200), ("b-1", "others", 100)):
        stopped(Path("runs") / name, settings=on_photos().with_("data.source.root", root))
        age(Path("runs") / name, old)
    shutil.copytree("run", "runs/done")
    age(Path("runs/done"), 50)

    def said(*argv: str) -> str:
        assert main(["train", "--resume", *argv, "--dry-run"]) == 0
        return capsys.readouterr().out

    assert (
        "resuming runs/b-1, the newest unfinished run in runs, from iteration 2 of 4 (runs/done is newer and finished)"
        in said()
    )
    assert "resuming runs/a-2, the newest unfinished run on photos in runs" in said("--data", "photos")
    assert "runs/a-2" in said("--data", str(here / "photos"))
    assert main(["train", "--resume", "--data", "photos"]) == 0
    assert "the run is in runs/a-2" in capsys.readouterr().out
    assert "resuming runs/a-1," in said("--data", "photos")
    assert main(["train", "--resume", "--data", "home"]) == 2
    assert re.search(r"there is no unfinished run on home in .*runs; name the folder", capsys.readouterr().err)


def test_a_run_that_cannot_be_read_is_passed_over_and_named(here, capsys) -> None:
    Path("runs/broken").mkdir(parents=True)
    Path("runs/broken/config.json").write_text("[", encoding="utf-8")
    assert main(["train", "--resume"]) == 2
    assert "warning: passed over runs/broken" in capsys.readouterr().err
