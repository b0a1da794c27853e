"""Training gives the same numbers however a run is cut, resumed, loaded or distributed; its folder; what stops it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cornernet import Config, ConfigError, build_detector, load_detector, recipe
from cornernet.config import CocoSource
from cornernet.data import DataError
from cornernet.training.devices import resolve_device
from cornernet.training.loop import Interrupted, TrainingError, learning_rate, train
from cornernet.training.revision import TRAINING_REVISION
from cornernet.weights.checkpoints import CheckpointError
from tests.unit.data.folders import coco_folder


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(**edits: object) -> Config:
    found = recipe("tiny").with_("data.source.train_images", 10).with_("data.source.val_images", 3)
    for path, value in {
        "training.iterations": 6,
        "training.batch_size": 4,
        "training.warmup": 2,
        "training.log_every": 1,
        "training.checkpoint_every": 2,
        "training.threads": 1,
        "training.device": "cpu",
        **{path.replace("__", "."): value for path, value in edits.items()},
    }.items():
        found = found.with_(path, value)
    return found


def losses(folder: Path, name: str = "total") -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["iteration"], line[f"loss/{name}"]) for line in lines if f"loss/{name}" in line]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_detector(folder).state_dict()


def assert_same_bits(a: Path, b: Path) -> None:
    ours, theirs = weights(a), weights(b)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_run_leaves_a_whole_folder(tmp_path) -> None:
    evaluation = train(config(training__evaluate_every=3), tmp_path / "run", quiet=True)
    folder = tmp_path / "run"
    names = {p.name for p in folder.iterdir()} - {".training.lock"}
    assert names == {"config.json", "metrics.jsonl", "checkpoints", "model.safetensors", "evaluation.json", "previews"}
    assert sorted(p.name for p in (folder / "previews").iterdir()) == ["step-0000003.png", "step-0000006.png"]
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["step-0000006"]
    assert Config.load(folder / "config.json") == config(training__evaluate_every=3)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2, 3, 3, 4, 5, 6]
    assert "val/AP" in lines[3]
    summary = json.loads((folder / "evaluation.json").read_text())
    assert summary["metrics"]["AP"] == pytest.approx(evaluation.metrics["AP"])
    assert summary["evaluator"] == evaluation.evaluator == "hotcoco"
    detector = load_detector(folder)
    assert detector.classes == ("ellipse", "triangle", "cross")


def test_float16_scales_the_loss_and_resumes_to_the_same_bits(tmp_path) -> None:
    # small: a CPU is slow in float16
    quick = config(training__iterations=3, training__batch_size=2, data__input_size=(31, 31), training__clip_norm=1.0)
    half = quick.with_("training.precision", "float16")
    train(half, tmp_path / "whole", quiet=True, final_evaluation=False)

    def stop(done: int) -> None:
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(half, tmp_path / "cut", quiet=True, on_iteration=stop)
    scaler = torch.load(tmp_path / "cut/checkpoints/step-0000002/training.pt", weights_only=True)["scaler"]
    assert scaler["scale"] > 1
    train(half, tmp_path / "cut", resume=True, quiet=True, final_evaluation=False)
    assert_same_bits(tmp_path / "whole", tmp_path / "cut")
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "whole").values())
    train(quick, tmp_path / "single", quiet=True, final_evaluation=False)
    (_, ours), (_, theirs) = losses(tmp_path / "whole")[0], losses(tmp_path / "single")[0]
    assert ours == pytest.approx(theirs, rel=0.02)
    assert ours != theirs


def test_on_record_gets_every_record_and_the_final_metrics(tmp_path) -> None:
    records: list[dict[str, object]] = []
    train(config(training__evaluate_every=4), tmp_path, quiet=True, on_record=records.append)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert records[:-1] == lines
    assert records[-1]["iteration"] == 6
    assert "val/AP" in records[-1]


def test_photographs_trained_on_are_listed_by_content(tmp_path) -> None:
    source = CocoSource(root=str(coco_folder(tmp_path / "data")), val_split="train")
    small = config(data__source=source, training__iterations=1, training__batch_size=2)
    train(small, tmp_path / "run", quiet=True, final_evaluation=False)
    assert len((tmp_path / "run" / "trained_on.txt").read_text().split()) == 3


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(config(training__seed=seed), tmp_path / name, quiet=True, final_evaluation=False)
    assert_same_bits(tmp_path / "a", tmp_path / "b")
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert losses(tmp_path / "a") != losses(tmp_path / "c")


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5])
def test_a_stopped_run_resumes_to_the_same_bits(stop_after, tmp_path) -> None:
    train(config(), tmp_path / "whole", quiet=True, final_evaluation=False)

    class Stop(Exception):
        pass

    def stop(done: int) -> None:
        if done == stop_after:
            raise Stop

    with pytest.raises(Stop):
        train(config(), tmp_path / "cut", quiet=True, on_iteration=stop)
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    train(config(), tmp_path / "cut", resume=True, quiet=True, final_evaluation=False)
    assert_same_bits(tmp_path / "whole", tmp_path / "cut")
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_continue(tmp_path) -> None:
    def interrupt(done: int) -> None:
        if done == 3:
            os.kill(os.getpid(), 2)

    with pytest.raises(Interrupted, match="--resume"):
        train(config(), tmp_path / "cut", quiet=True, on_iteration=interrupt)
    (checkpoint,) = (tmp_path / "cut" / "checkpoints").iterdir()
    assert checkpoint.name in ("step-0000003", "step-0000004")
    train(config(), tmp_path / "cut", resume=True, quiet=True, final_evaluation=False)
    train(config(), tmp_path / "whole", quiet=True, final_evaluation=False)
    assert_same_bits(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_loader_processes_change_nothing(tmp_path) -> None:
    for workers in (0, 2):
        train(config(training__workers=workers), tmp_path / str(workers), quiet=True, final_evaluation=False)
    assert_same_bits(tmp_path / "0", tmp_path / "2")


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path) -> None:
    train(config(), tmp_path, quiet=True, final_evaluation=False)
    with pytest.raises(ConfigError, match="already holds a run"):
        train(config(), tmp_path, quiet=True)
    with pytest.raises(ConfigError, match=r"training\.seed \(0 there, 1 here\)"):
        train(config(training__seed=1), tmp_path, resume=True, quiet=True)


def test_a_broken_checkpoint_is_named(tmp_path) -> None:
    train(config(), tmp_path, quiet=True, final_evaluation=False)
    (tmp_path / "checkpoints" / "step-0000006" / "training.pt").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match=r"cannot read the checkpoint .*step-0000006: "):
        train(config(), tmp_path, resume=True, quiet=True)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path) -> None:
    broken = config(training__learning_rate=1e30, training__warmup=0, training__clip_norm=None)
    with pytest.raises(TrainingError, match=r"at iteration \d+ the loss is not finite: total is (nan|inf)"):
        train(broken, tmp_path, quiet=True)


def test_weights_that_are_not_finite_never_replace_a_checkpoint(tmp_path) -> None:
    broken = config(
        training__learning_rate=1e30, training__clip_norm=None, training__checkpoint_every=1, training__log_every=100
    )
    with pytest.raises(TrainingError, match="not finite"):
        train(broken, tmp_path, quiet=True)
    for folder in (tmp_path / "checkpoints").glob("step-*"):
        state = load_file(folder / "model.safetensors")
        assert all(torch.isfinite(value).all() for value in state.values())


def test_other_files_beside_the_checkpoints_are_not_touched(tmp_path) -> None:
    (tmp_path / "checkpoints" / "mine").mkdir(parents=True)
    (tmp_path / "checkpoints" / "notes.txt").write_text("mine")
    train(config(), tmp_path, resume=True, quiet=True, final_evaluation=False)
    names = {p.name for p in (tmp_path / "checkpoints").iterdir()}
    assert names == {"mine", "notes.txt", "step-0000006"}


def test_a_stop_in_the_iteration_of_an_evaluation_loses_no_evaluation(tmp_path) -> None:
    def interrupt(done: int) -> None:
        if done == 2:
            os.kill(os.getpid(), 2)

    edited = config(training__evaluate_every=3)
    with pytest.raises(Interrupted):
        train(edited, tmp_path / "cut", quiet=True, on_iteration=interrupt)
    train(edited, tmp_path / "cut", resume=True, quiet=True, final_evaluation=False)
    lines = [json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "val/AP" in line] == [3]


def test_a_run_of_an_older_revision_says_so_when_it_is_resumed(tmp_path, capsys) -> None:
    class Stop(Exception):
        pass

    def stop(done: int) -> None:
        if done == 3:
            raise Stop

    with pytest.raises(Stop):
        train(config(), tmp_path, quiet=True, on_iteration=stop)
    (contents,) = tmp_path.glob("checkpoints/*/contents.json")
    written = json.loads(contents.read_text())
    assert written.pop("revision") == TRAINING_REVISION
    contents.write_text(json.dumps(written))  # as before revisions were kept
    capsys.readouterr()
    train(config(), tmp_path, resume=True, quiet=True, final_evaluation=False)
    said = capsys.readouterr().err
    assert "was trained by revision 1" in said
    assert str(contents.parent) in said


def test_settings_that_change_no_result_may_differ_when_a_run_is_resumed(tmp_path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int) -> None:
        if done == 3:
            raise Stop

    with pytest.raises(Stop):
        train(config(), tmp_path, quiet=True, on_iteration=stop)
    edited = config(training__checkpoint_every=5, training__log_every=3, training__evaluate_every=50)
    train(edited, tmp_path, resume=True, quiet=True, final_evaluation=False)
    assert Config.load(tmp_path / "config.json") == edited


@pytest.mark.parametrize("batch_size", [1, 3])
def test_small_and_odd_batches_train(batch_size, tmp_path) -> None:
    train(config(training__batch_size=batch_size), tmp_path, quiet=True, final_evaluation=False)
    assert len(losses(tmp_path)) == 6


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_photograph_that_cannot_be_read_is_named_without_a_trace(workers, tmp_path) -> None:
    root = coco_folder(tmp_path)
    (root / "annotations" / "instances_val.json").write_bytes(
        (root / "annotations" / "instances_train.json").read_bytes()
    )
    for path in root.rglob("a.png"):
        path.write_bytes(path.read_bytes()[:-200])
    edited = config(data__source=CocoSource(root=str(root)), training__workers=workers)
    with pytest.raises(DataError, match=r"a\.png") as error:
        train(edited, tmp_path / "run", quiet=True)
    assert "Traceback" not in str(error.value)


def test_images_in_both_train_and_val_give_a_warning(tmp_path, capsys) -> None:
    root = coco_folder(tmp_path)
    source = CocoSource(root=str(root), val_split="train")
    edited = config(data__source=source, training__iterations=1)
    train(edited, tmp_path / "run", quiet=True, final_evaluation=False)
    assert "warning: 3 of the 3 images" in capsys.readouterr().err


def test_the_loss_falls(tmp_path) -> None:
    train(config(training__iterations=60, training__batch_size=8), tmp_path, quiet=True, final_evaluation=False)
    found = [loss for _, loss in losses(tmp_path)]
    assert sum(found[-10:]) < 0.5 * sum(found[:10])


def windows(folder: Path, **edits: object) -> torch.Tensor:
    """The loss of 200 steps, as means over 25."""
    made = config(training__iterations=200, data__source__train_images=100, **edits)
    train(made, folder, quiet=True, final_evaluation=False)
    return torch.tensor([loss for _, loss in losses(folder)]).reshape(8, 25).mean(1)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> torch.Tensor:
    """The losses without any option for speed, for four seeds."""
    folder = tmp_path_factory.mktemp("plain")
    return torch.stack(
        [windows(folder / str(seed), training__channels_last=False, training__seed=seed) for seed in range(4)]
    )


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")  # torch.compile warns about its own internals
@pytest.mark.parametrize(
    "way",
    [{"training__compile": True}, {"training__checkpoint_activations": True}, {"training__precision": "bfloat16"}, {}],
    ids=["compile", "activations twice", "bfloat16", "channels_last"],
)
def test_options_for_speed_change_the_loss_no_more_than_another_seed_does(way, plain, tmp_path) -> None:
    spread = plain.amax(0) - plain.amin(0)
    off = (windows(tmp_path / "way", training__channels_last=True, training__seed=0, **way) - plain[0]).abs()
    # over all windows together: even a fifth seed would leave the range of four in some of them
    assert off.mean() <= spread.mean(), f"{off} against a spread of {spread}"
    assert (off <= 2 * spread).all(), f"{off} against a spread of {spread}"


def test_bfloat16_trains(tmp_path) -> None:
    train(config(training__precision="bfloat16"), tmp_path, quiet=True, final_evaluation=False)
    assert all(value.dtype != torch.bfloat16 for value in weights(tmp_path).values())


def test_schedules() -> None:
    step = config(
        training__schedule="step", training__decay_at=(3, 5), training__decay_factor=0.1, training__learning_rate=1.0
    ).training
    assert [learning_rate(step, i) for i in range(6)] == pytest.approx([0.5, 1, 1, 0.1, 0.1, 0.01])
    cosine = config(training__schedule="cosine", training__learning_rate=1.0).training
    rates = [learning_rate(cosine, i) for i in range(7)]
    assert rates[:3] == pytest.approx([0.5, 1, 1])
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[6] == pytest.approx(0)


def test_devices_that_do_not_exist_are_refused() -> None:
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="use auto, cpu, cuda"):
        resolve_device("warp")
    if not torch.cuda.is_available():
        assert resolve_device("auto").type == "cpu"
        with pytest.raises(ConfigError, match="finds 0 CUDA devices here"):
            resolve_device("cuda")
    with pytest.raises(ConfigError, match="use auto, cpu, cuda"):
        resolve_device("meta")
    with pytest.raises(ConfigError, match="CUDA devices here"):
        resolve_device(f"cuda:{torch.cuda.device_count()}")


@pytest.mark.usefixtures("forked")
@pytest.mark.slow
def test_two_processes_train_as_one_that_accumulates(tmp_path) -> None:
    """The parts of the batch are the same; their gradients are added over the network or in one process."""
    one = config(training__batch_size=8, training__accumulation=2, training__iterations=3)
    two = config(training__batch_size=8, training__accumulation=1, training__iterations=3)
    train(one, tmp_path / "one", quiet=True, final_evaluation=False)
    (tmp_path / "two.json").write_text(two.to_json())
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\n"
        "from cornernet import Config\n"
        "from cornernet.training.loop import train\n"
        "train(Config.load(sys.argv[1]), sys.argv[2], quiet=True, final_evaluation=False)\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, str(script), str(tmp_path / "two.json"), str(tmp_path / "two")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("total", "heatmap", "pull", "push", "offset"):
        expected, found = losses(tmp_path / "one", name), losses(tmp_path / "two", name)
        assert [i for i, _ in found] == [1, 2, 3]
        for (_, a), (_, b) in zip(expected, found, strict=True):
            assert b == pytest.approx(a, rel=1e-4), name
    ours, theirs = weights(tmp_path / "one"), weights(tmp_path / "two")
    for key, value in ours.items():
        if "running" not in key and "num_batches" not in key:  # each process has its own statistics
            torch.testing.assert_close(theirs[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("stacks", [1, 2])
def test_computing_activations_twice_gives_the_same_gradients_and_statistics(stacks) -> None:
    config = recipe("tiny").with_("model.backbone.stacks", stacks)
    images = torch.randn(2, 3, 31, 47, generator=torch.Generator().manual_seed(0))
    found = []
    for again in (False, True):
        torch.manual_seed(1)
        detector = build_detector(config.with_("training.checkpoint_activations", again)).train()
        loss = sum(tensor.square().mean() for one in detector(images) for pair in one for tensor in pair)
        loss.backward()
        found.append((detector.state_dict(), [parameter.grad for parameter in detector.parameters()]))
    (state, grads), (state_again, grads_again) = found
    assert all(torch.equal(value, state_again[key]) for key, value in state.items())
    assert all(torch.equal(a, b) for a, b in zip(grads, grads_again, strict=True))


def test_options_for_speed_do_not_change_the_keys_of_published_runs() -> None:
    plain = recipe("tiny").results_dict()
    assert not {"compile", "checkpoint_activations"} & set(plain["training"])
    assert not {"reject_empty", "nms_extent"} & set(plain["testing"])
    assert "padding" not in plain["data"]
    assert recipe("tiny").with_("training.compile", True).results_dict()["training"]["compile"] is True
