"""A checkpoint or weights that a disk or a copy has damaged give an error that names them, never wrong numbers."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cornernet import load_detector
from cornernet.config import CocoSource
from cornernet.data import DataError
from cornernet.training.checkpoints import newest, read_checkpoint, write_checkpoint
from cornernet.training.loop import train
from cornernet.weights.checkpoints import CheckpointError
from tests.faults.conftest import rounds
from tests.faults.runs import config
from tests.unit.data.folders import annotation, coco_folder, tree, write_json

FILES = ("model.safetensors", "training.pt", "contents.json")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    train(config(training__iterations=2, training__evaluate_every=0), folder, quiet=True, final_evaluation=False)
    torch.set_num_threads(before)
    return folder


@pytest.fixture
def checkpoint(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run, tmp_path / "copy")
    found = newest(tmp_path / "copy" / "checkpoints")
    assert found is not None
    return found


def offsets(size: int, rng: random.Random) -> list[int]:
    """The first and last bytes, which hold headers and tables, and some in between."""
    return sorted({0, 1, 7, 8, 9, size // 2, size - 1, *(rng.randrange(size) for _ in range(rounds(20)))})


@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint_cut_short_anywhere_is_refused(name, checkpoint, tally) -> None:
    whole = (checkpoint / name).read_bytes()
    for size in offsets(len(whole), random.Random(name)):
        (checkpoint / name).write_bytes(whole[:size])
        with pytest.raises(
            CheckpointError, match=r"cannot read the checkpoint .*step-0000002: .*remove it to start again"
        ):
            read_checkpoint(checkpoint)
        tally("cut short")
    (checkpoint / name).write_bytes(whole)
    assert read_checkpoint(checkpoint).iteration == 2


@pytest.mark.parametrize("name", FILES[:2])
def test_a_flipped_bit_anywhere_is_refused(name, checkpoint, tally) -> None:
    whole = (checkpoint / name).read_bytes()
    rng = random.Random(f"flipped {name}")
    for at in offsets(len(whole), rng):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << rng.randrange(8)
        (checkpoint / name).write_bytes(bytes(flipped))
        with pytest.raises(CheckpointError, match=rf"cannot read .*: {name} differs from what was written"):
            read_checkpoint(checkpoint)
        tally("bits flipped")


def test_a_checkpoint_mixed_from_two_or_renamed_is_refused(checkpoint) -> None:
    state = load_file(checkpoint / "model.safetensors")
    name = next(iter(state))
    save_file({**state, name: state[name] + 1}, checkpoint / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors differs from what was written"):
        read_checkpoint(checkpoint)
    with pytest.raises(CheckpointError, match=r"model\.safetensors differs from what was written"):
        read_checkpoint(checkpoint.rename(checkpoint.with_name("step-0000004")))


@pytest.mark.parametrize("lost", FILES)
def test_a_checkpoint_that_lacks_a_file_or_has_another_name_is_refused(checkpoint, lost) -> None:
    renamed = checkpoint.rename(checkpoint.with_name("step-0000004"))
    with pytest.raises(CheckpointError, match=r"training\.pt belongs to iteration 2"):
        read_checkpoint(renamed)
    (renamed / lost).unlink()
    with pytest.raises(CheckpointError, match=re.escape(lost)):
        read_checkpoint(renamed)


def test_a_step_is_written_once(checkpoint) -> None:
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    write_checkpoint(checkpoint.parent, 2, {"other": torch.zeros(1)}, {}, "other data")
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before
    assert read_checkpoint(checkpoint).iteration == 2


class Code:
    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, ("code-of-a-pickle-ran",)


def test_code_in_a_checkpoint_is_not_run(checkpoint, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)

    def refused() -> None:
        # with a correct digest, which an attacker would supply
        contents = json.loads((checkpoint / "contents.json").read_text())
        contents["sha256"]["training.pt"] = hashlib.sha256((checkpoint / "training.pt").read_bytes()).hexdigest()
        (checkpoint / "contents.json").write_text(json.dumps(contents))
        with pytest.raises(
            CheckpointError, match=r"cannot read the checkpoint \S+: (?!training\.pt differs from what was written)"
        ):
            read_checkpoint(checkpoint)

    (checkpoint / "training.pt").write_bytes(pickle.dumps({"iteration": 2, "optimiser": Code()}))
    refused()
    torch.save({"iteration": 2, "optimiser": Code()}, checkpoint / "training.pt")
    refused()
    assert not Path("code-of-a-pickle-ran").exists()


def test_weights_cut_short_anywhere_are_refused(run, tmp_path, tally) -> None:
    whole = (run / "model.safetensors").read_bytes()
    path = tmp_path / "model.safetensors"
    for size in offsets(len(whole), random.Random("weights")):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"model\.safetensors is not a complete \.safetensors file"):
            load_detector(path)
        tally("cut short")


def test_a_flipped_bit_in_finished_weights_is_refused(run, tmp_path, tally) -> None:
    whole = (run / "model.safetensors").read_bytes()
    path, rng = tmp_path / "model.safetensors", random.Random("finished")
    header = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(rounds(20)):
        flipped = bytearray(whole)
        flipped[rng.randrange(header, len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(flipped))
        with pytest.raises(CheckpointError, match=r"is damaged: its weights do not match the stored checksum"):
            load_detector(path)
        tally("bits flipped")
    path.write_bytes(whole)
    assert load_detector(path).classes == load_detector(run).classes


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_and_named(value, run, tmp_path) -> None:
    detector = load_detector(run)
    state = detector.state_dict()
    key = next(name for name in state if name.endswith("running_var"))
    state[key].fill_(value)
    with pytest.raises(CheckpointError, match=rf"not finite, in 1 entry: {key}"):
        load_detector(state, detector.config)


@pytest.mark.parametrize("classes", [None, "[", '["a"]', "3"])
def test_weights_without_their_classes_are_refused(classes, run, tmp_path) -> None:
    state = load_file(run / "model.safetensors")
    detector = load_detector(run)
    metadata = {"config": detector.config.to_json(), "category_ids": json.dumps([1, 2, 3])}
    save_file(state, tmp_path / "x.safetensors", {**metadata, **({} if classes is None else {"classes": classes})})
    with pytest.raises(CheckpointError, match=r"x\.safetensors.* classes "):
        load_detector(tmp_path / "x.safetensors")


def test_a_run_does_not_resume_with_other_data(tmp_path) -> None:
    root = coco_folder(tmp_path / "data")
    source = CocoSource(root=str(root), val_split="train")
    edited = config(data__source=source, training__iterations=2, training__evaluate_every=0, training__batch_size=2)

    def stop(done: int) -> None:
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(edited.with_("training.checkpoint_every", 1), tmp_path / "run", quiet=True, on_iteration=stop)
    moved = annotation(11, 7, 13, [4.5, 6.0, 20.0, 10.25])
    path, content = root / "annotations/instances_train.json", tree()
    write_json(path, {**content, "annotations": [moved, *content["annotations"][1:]]})
    with pytest.raises(DataError, match=r"training data has changed since .*step-0000001 was written"):
        train(edited, tmp_path / "run", resume=True, quiet=True)
    write_json(path, content)
    train(edited, tmp_path / "run", resume=True, quiet=True, final_evaluation=False)
