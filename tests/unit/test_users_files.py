"""No command changes or removes a file that it did not write, nor writes through a link.

Every command runs once into an empty folder, which tells the names that it writes. Then a file of the user's takes each
of these names, and each folder's, in turn: a file with other content, and a link to something outside.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from cornernet import build_detector, recipe, save_detector
from cornernet.ablations.__main__ import main as ablations
from cornernet.cli import main
from cornernet.cli.dispatch import COMMANDS
from tests.unit.data.folders import coco_folder, write_images
from tests.unit.data.test_cvat import BOX, cvat, image
from tests.unit.data.test_labelme import labelled, shape
from tests.unit.data.test_voc import thing, voc, xml
from tests.unit.data.test_yolo import yolo

USERS = b"the user's\n"
SMALL = ["--data.source.val-images", "3"]
TRAINING = [
    "--recipe", "tiny", "--training.iterations", "2",
    "--training.batch-size", "2", "--training.checkpoint-every", "1", "--training.evaluate-every", "1",
    "--training.log-every", "1", "--training.threads", "1", "--training.device", "cpu",
]  # fmt: skip
ON_SHAPES = [*TRAINING, "--data.source.train-images", "4", *SMALL]


WHOLE = "annotations/instances_all.json"
REPORT = ["--profile", "smoke", "--studies", "table1", "--seeds", "0", "--only-report", "--no-records"]


def weights(given: Path) -> str:
    return str(given / "w.safetensors")


def both_splits(root: Path) -> None:
    for split in ("train", "val"):
        coco_folder(root, file=f"annotations/instances_{split}.json")


class Made(NamedTuple):
    """How a command is called: ``argv`` after its name, and what its output folder holds before."""

    argv: Callable[[Path, Path], list[str]]
    """From the folder of inputs and that of the output."""
    before: Callable[[Path], object] = lambda out: None
    overwrites: bool = True
    """Whether it has --overwrite."""
    again: bool = True
    """Whether it replaces what it wrote itself without being told to."""


MADE = {
    "train": Made(
        lambda given, out: [*TRAINING, "--data", str(given / "coco"), "--out", str(out)], overwrites=False, again=False
    ),
    "evaluate": Made(
        lambda given, out: ["--weights", weights(given), *SMALL, "--save-results", str(out / "results.json")]
    ),
    "detect": Made(
        lambda given, out: [str(given / "photos"), "--weights", weights(given), "--heatmaps", "--out", str(out)]
    ),
    "convert": Made(lambda given, out: [weights(given), "--out", str(out / "c.safetensors")], again=False),
    "report": Made(lambda given, out: [str(given / "run"), "--out", str(out / "page.html"), "--images", "1"]),
    "export": Made(lambda given, out: [weights(given), "--out", str(out / "m.pt2")]),
    "data check": Made(lambda _, out: [str(out)], both_splits, overwrites=False),
    "data import-voc": Made(lambda given, out: [str(given / "voc"), "--out", str(out)], again=False),
    "data import-yolo": Made(lambda given, out: [str(given / "yolo"), "--out", str(out)], again=False),
    "data import-labelme": Made(lambda given, out: [str(given / "labelme"), "--out", str(out)], again=False),
    "data import-cvat": Made(lambda given, out: [str(given / "cvat"), "--out", str(out)], again=False),
    "data split": Made(
        lambda _, out: [str(out), "--file", WHOLE, "--val", "0.4"],
        lambda out: coco_folder(out, file=WHOLE),
        again=False,
    ),
    "data show": Made(lambda given, out: [str(given / "coco"), "--out", str(out / "shown.png"), "--count", "1"]),
    "ablate": Made(lambda given, out: [*REPORT, "--store", str(given / "store"), "--out", str(out)]),
}


def test_every_command_is_here() -> None:
    assert set(MADE) == {command.name for command in COMMANDS}


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """The inputs of all commands."""
    root = tmp_path_factory.mktemp("given")
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    detector = build_detector(recipe("tiny"))
    detector.classes, detector.category_ids = ("ellipse", "triangle", "cross"), (1, 2, 3)
    save_detector(detector, root / "w.safetensors")
    write_images(root / "photos", ("a.png",))
    voc(root / "voc", a=xml(thing()))
    yolo(root / "yolo", a="0 0.5 0.5 0.5 0.5\n")
    labelled(root / "labelme", shape((5, 5), (20, 20)))
    cvat(root / "cvat", image(BOX))
    both_splits(root / "coco")
    assert main(["train", *ON_SHAPES, "--out", str(root / "run")]) == 0
    torch.set_num_threads(threads)
    return root


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Iterator[None]:
    monkeypatch.setenv("CORNERNET_CACHE", str(tmp_path / "cache"))
    # tests/unit/test_export.py exports in earnest, which takes long
    monkeypatch.setattr("cornernet.weights.export.export_detector", exported)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def exported(
    _detector: object, path: Path, *_: object, write: Callable[[Path, bytes], object], **__: object
) -> list[str]:
    write(path, b"a program")
    return []


def state(*roots: Path) -> dict[Path, object]:
    """Every file, folder and link below some folders, with what it holds or points to."""
    found: dict[Path, object] = {}
    for root in roots:
        for path in root.rglob("*"):
            found[path] = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


def run(name: str, *argv: str) -> int:
    try:
        return main([*name.split(), *argv])
    except SystemExit as stop:
        return int(stop.code or 0)


def written(name: str, given: Path, out: Path) -> list[Path]:
    """Run a command into an empty folder and return what it made, below the folder."""
    out.mkdir()
    MADE[name].before(out)
    before = state(out)
    assert run(name, *MADE[name].argv(given, out)) == 0
    after = state(out)
    assert {path: after.get(path) for path in before} == before
    made = [path.relative_to(out) for path in after if path not in before]
    assert not [path for path in made if path.name.endswith((".part", ".tmp", ".partial"))]
    return made


@pytest.mark.parametrize("name", MADE)
def test_the_users_files_and_links_stay_as_they_are(name, given, tmp_path, capsys) -> None:
    made = written(name, given, tmp_path / "clean")
    assert bool(made) == (name != "data check")
    inputs = state(given)
    for number, path in enumerate(made):
        is_folder = (tmp_path / "clean" / path).is_dir()
        for kind in ("link",) if is_folder else ("file", "link", "dangling"):
            out, outside = tmp_path / f"{number}-{kind}", tmp_path / f"{number}-{kind}-outside"
            out.mkdir()
            MADE[name].before(out)
            outside.mkdir()
            target = outside / "precious"
            if is_folder:
                target.mkdir()
                for below in (each for each in made if each.is_relative_to(path) and each != path):
                    place = target / below.relative_to(path)
                    if (tmp_path / "clean" / below).is_file():
                        place.parent.mkdir(parents=True, exist_ok=True)
                        place.write_bytes(USERS)
            else:
                target.write_bytes(USERS)
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            if kind == "file":
                (out / path).write_bytes(USERS)
            elif (out / path).is_dir():  # the inputs lie in it
                continue
            else:
                (out / path).symlink_to(target if kind == "link" else outside / "nowhere")
            for user in ("notes.txt", ".x.abcdefgh.tmp", ".x.partial", ".cornernet-x.part"):
                ((out / path).parent / user if kind == "file" else out / user).write_bytes(USERS)
            before = state(out, outside)
            tries = [[]] if kind == "file" or not MADE[name].overwrites else [[], ["--overwrite"]]
            for more in tries:
                status = run(name, *MADE[name].argv(given, out), *more)
                said = capsys.readouterr().err
                after = state(out, outside)
                assert {each: after.get(each) for each in before} == before, (path, kind, more)
                assert set(state(outside)) <= set(before), (path, kind, more)
                # a lock is only held: its content does not matter
                if not (kind == "file" and path.name == ".training.lock"):
                    assert status == 2, (path, kind, more)
                    assert any(part in said for part in path.parts), (path, kind, said)
    assert state(given) == inputs


@pytest.mark.parametrize("name", [name for name, made in MADE.items() if made.again and name != "data check"])
def test_a_command_replaces_its_own_files(name, given, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    first = written(name, given, out)
    assert run(name, *MADE[name].argv(given, out)) == 0, capsys.readouterr().err
    assert {path.relative_to(out) for path in state(out)} == set(first)


@pytest.mark.parametrize("name", [name for name, made in MADE.items() if made.overwrites])
def test_overwrite_replaces_files(name, given, tmp_path, capsys) -> None:
    files = [path for path in written(name, given, tmp_path / "clean") if (tmp_path / "clean" / path).is_file()]
    out = tmp_path / "out"
    out.mkdir()
    MADE[name].before(out)
    for path in files:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(USERS)
    assert run(name, *MADE[name].argv(given, out), "--overwrite") == 0, capsys.readouterr().err
    assert not [path for path in files if (out / path).read_bytes() == USERS]


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_photographs_are_never_replaced_by_drawings(more, given, tmp_path, monkeypatch, capsys) -> None:
    photos = tmp_path / "photos"
    write_images(photos, ("a.png", "b.png"))
    flags = ["--weights", weights(given), *more]
    before = state(photos)
    monkeypatch.chdir(tmp_path)
    for inputs in (["photos"], ["photos/*.png"], ["photos/a.png"], ["photos/../photos/b.png"]):
        for out in ("photos", "photos/.", "."):
            if out == "." and inputs != ["photos"]:
                continue
            assert run("detect", *inputs, *flags, "--out", out) == 2
            assert "choose another" in capsys.readouterr().err
    assert state(photos) == before


def test_a_resumed_run_keeps_the_users_files_in_its_folder(tmp_path, capsys) -> None:
    out = tmp_path / "run"
    assert run("train", *ON_SHAPES, "--out", str(out), "--training.iterations", "1") == 0
    shutil.rmtree(out / "checkpoints")
    step = out / "checkpoints" / "step-0000000"
    step.mkdir(parents=True)
    users = [
        out / ".x.abcdefgh.tmp", out / "previews" / ".y.abcdefgh.tmp", out / ".training.lock", step / "notes.txt",
        out / "checkpoints" / "best.safetensors", out / ".cornernet-mine.part",
    ]  # fmt: skip
    for path in users:
        path.write_bytes(USERS)
    (out / "model.safetensors").unlink()
    shutil.rmtree(step.with_name("step-0000001"), ignore_errors=True)
    step.rename(step.with_name(".step-0000001.partial"))
    users[3] = step.with_name(".step-0000001.partial") / "notes.txt"
    run("train", "--out", str(out), "--resume")
    assert all(path.read_bytes() == USERS for path in users), capsys.readouterr().err


def test_a_folder_that_looks_like_a_run_but_has_no_configuration_is_left(tmp_path, capsys) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(USERS)
    assert run("train", *ON_SHAPES, "--out", str(tmp_path), "--resume") == 2
    assert "has metrics.jsonl but no config.json" in capsys.readouterr().err
    assert (tmp_path / "metrics.jsonl").read_bytes() == USERS


def test_images_that_were_copied_are_left_and_others_are_not_replaced(given, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert run("data import-yolo", str(given / "yolo"), "--out", str(out)) == 0
    shutil.rmtree(out / "annotations")  # as after a kill: the images were copied, the annotations not written
    (first, *_) = sorted((out / "images").rglob("*.png"))
    about = first.stat()
    assert run("data import-yolo", str(given / "yolo"), "--out", str(out)) == 0
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (about.st_ino, about.st_mtime_ns)
    shutil.rmtree(out / "annotations")
    first.write_bytes(USERS)
    capsys.readouterr()
    assert run("data import-yolo", str(given / "yolo"), "--out", str(out)) == 2
    assert "exists already; remove it or give --overwrite" in capsys.readouterr().err
    assert first.read_bytes() == USERS
    assert not (out / "annotations").exists()


def test_the_stores_lock_is_not_emptied_and_no_link(given, tmp_path) -> None:
    from cornernet.ablations.running.planner import Fingerprints, make_job
    from cornernet.ablations.running.store import Store
    from cornernet.files import OutputError

    store, job = Store(tmp_path / "store"), make_job(recipe("tiny"), Fingerprints("train", "val"))
    folder = store.training(job)
    folder.mkdir(parents=True)
    (folder / ".lock").write_bytes(USERS)
    lock = store.acquire(job)
    assert lock is not None
    assert store.acquire(job) is None
    lock.close()
    assert (folder / ".lock").read_bytes() == USERS
    (folder / ".lock").rename(tmp_path / "precious")
    (folder / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError, match="is a symbolic link"):
        store.acquire(job)
    assert (tmp_path / "precious").read_bytes() == USERS


def test_the_module_runs_as_the_command_does(given, tmp_path, capsys) -> None:
    (tmp_path / "README.md").write_bytes(USERS)
    os.link(tmp_path / "README.md", tmp_path / "other")
    assert ablations(MADE["ablate"].argv(given, tmp_path)) == 2
    assert "README.md exists already" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_bytes() == USERS
