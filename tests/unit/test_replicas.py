"""Replicas: what they exchange, that they train as one process does, and how they end."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from cornernet import Config, ConfigError, load_detector, recipe
from cornernet.cli import main
from cornernet.config import CocoSource
from cornernet.data import DataError, open_dataset
from cornernet.data.loader import BatchSampler
from cornernet.training.devices import chosen_replicas
from cornernet.training.exchange import Exchange, ReplicaGone, SharedFloats, exchange_bytes, pipes
from cornernet.training.loop import Interrupted, TrainingError, train
from tests.unit.data.folders import coco_folder


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# -------------------------------------------------------------------------------------------------- the exchange
def exchanges(count: int, capacity: int) -> list[Exchange]:
    memory = SharedFloats(exchange_bytes(count, capacity))
    ends = pipes(get_context("spawn"), count)
    return [Exchange(rank, memory, capacity, *ends[rank]) for rank in range(count)]


@pytest.mark.parametrize("count", [2, 3])
def test_every_replica_gets_all_rows_in_the_order_of_replicas(count) -> None:
    found: dict[int, list[torch.Tensor]] = {rank: [] for rank in range(count)}

    def replica(rank: int, exchange: Exchange) -> None:
        for turn in range(50):
            rows = turn % 4 + 1
            own = torch.full((rows, 2), 100.0 * turn + rank, dtype=torch.float64) + torch.arange(rows)[:, None] / 8
            if (turn + rank) % 7 == 0:
                time.sleep(0.003)  # the others sleep meanwhile
            found[rank].append(exchange(own))

    workers = [threading.Thread(target=replica, args=each) for each in enumerate(exchanges(count, 8))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for turn in range(50):
        rows = turn % 4 + 1
        expected = [[100.0 * turn + rank + row / 8] * 2 for rank in range(count) for row in range(rows)]
        for rank in range(count):
            assert found[rank][turn].tolist() == expected


def test_a_replica_that_waits_sleeps() -> None:
    first, second = exchanges(2, 4)
    late = threading.Timer(0.5, second, [torch.zeros(1, 4, dtype=torch.float64)])
    late.start()
    began = time.thread_time()
    first(torch.ones(1, 4, dtype=torch.float64))
    assert time.thread_time() - began < 0.1
    late.join()


def test_the_end_of_a_replica_ends_the_others() -> None:
    first, second = exchanges(2, 4)
    threading.Timer(0.05, second.close).start()
    with pytest.raises(ReplicaGone) as gone:
        first(torch.zeros(1, 4, dtype=torch.float64))
    assert gone.value.rank == 1
    with pytest.raises(ReplicaGone):
        first(torch.zeros(1, 4, dtype=torch.float64))


def test_rows_that_do_not_fit_are_refused() -> None:
    first, _ = exchanges(2, 4)
    with pytest.raises(ValueError, match=r"5 numbers of torch\.float64 were given; use up to 4"):
        first(torch.zeros(1, 5, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"torch\.float32"):
        first(torch.zeros(1, 4))


# -------------------------------------------------------------------------------------------------- the configuration
def config(replicas: int, **edits: object) -> Config:
    found = recipe("tiny").with_("data.source.train_images", 10).with_("data.source.val_images", 2)
    for path, value in {
        "data.input_size": (47, 47),
        "data.fit": (48, 48),
        "training.iterations": 20,
        "training.batch_size": 4,
        "training.warmup": 2,
        "training.log_every": 1,
        "training.checkpoint_every": 1,
        "training.threads": 1,
        "training.device": "cpu",
        "training.replicas": replicas,
        **{path.replace("__", "."): value for path, value in edits.items()},
    }.items():
        found = found.with_(path, value)
    return found


def test_one_replica_is_not_in_the_keys_of_records_and_two_are() -> None:
    assert "replicas" not in config(1).results_dict()["training"]
    assert config(2).results_dict()["training"]["replicas"] == 2


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"training__batch_size": 3}, r"batch_size 3 is not a multiple of training\.accumulation 1 times .*replicas 2"),
        ({"training__accumulation": 4}, r"batch_size 4 is not a multiple of training\.accumulation 4 times"),
        ({"training__precision": "bfloat16"}, r"replicas is 2; several train in float32"),
        ({"training__compile": True}, r"without training\.compile: use 1"),
    ],
)
def test_what_replicas_cannot_do_is_refused(edits, message) -> None:
    config(1, **({} if "training__accumulation" in edits or "training__batch_size" in edits else edits))
    with pytest.raises(ConfigError, match=message):
        config(2, **edits)


@pytest.mark.parametrize(
    ("cores", "batch_size", "expected"),
    [(1, 8, (1, 0)), (2, 8, (2, 1)), (2, 7, (1, 0)), (3, 8, (2, 1)), (4, 8, (4, 1)), (6, 9, (3, 2)), (64, 32, (8, 8))],
)
def test_replicas_are_chosen_by_the_machine_and_the_batch(cores, batch_size, expected, monkeypatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    left_open = config(0, training__batch_size=batch_size, training__threads=0).training
    chosen = chosen_replicas(left_open)
    assert (chosen.replicas, chosen.threads) == expected
    assert chosen_replicas(chosen) == chosen
    # whoever asks for threads gets those
    fixed = dataclasses.replace(left_open, threads=1)
    assert chosen_replicas(fixed) == dataclasses.replace(fixed, replicas=1)


def test_torchrun_has_no_replicas(monkeypatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setenv("RANK", "0")
    assert chosen_replicas(config(0, training__threads=0).training).replicas == 1
    with pytest.raises(ConfigError, match=r"torchrun's processes have no replicas; use --training\.replicas 1"):
        chosen_replicas(config(2).training)


# ------------------------------------------------------------------------------------------------------ the training
def losses(folder: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["iteration"], line["loss/total"]) for line in lines if "loss/total" in line]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_detector(folder).state_dict()


def same_bits(a: Path, b: Path) -> bool:
    ours, theirs = weights(a), weights(b)
    return losses(a) == losses(b) and all(torch.equal(ours[key], theirs[key]) for key in ours)


def others() -> list[psutil.Process]:
    """Return the replicas of trainings in this process."""
    return [each for each in psutil.Process().children() if "spawn_main" in " ".join(each.cmdline())]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of two replicas with two images each, evaluated on the way, and in ``first`` its first step."""
    folder = tmp_path_factory.mktemp("whole")
    edited = config(2, training__evaluate_every=10)
    train(edited, folder / "run", quiet=True, final_evaluation=False, on_iteration=keep_first(folder))
    return folder / "run"


def keep_first(folder: Path) -> Callable[[int], None]:
    """Return an ``on_iteration`` that keeps the checkpoint of the first step of the run in ``folder``."""

    def keep(done: int) -> None:
        if done == 2:
            shutil.copytree(folder / "run" / "checkpoints" / "step-0000001", folder / "first")

    return keep


def test_a_run_that_is_cut_and_resumed_has_the_same_bits(whole, tmp_path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int) -> None:
        assert len(others()) == 1
        if done == 7:
            raise Stop

    with pytest.raises(Stop):
        train(config(2), tmp_path / "cut", quiet=True, on_iteration=stop)
    assert not others()
    # whoever leaves the number open continues with that of the run, whatever the machine
    train(config(0), tmp_path / "cut", resume=True, quiet=True, final_evaluation=False)
    assert not others()
    assert Config.load(tmp_path / "cut" / "config.json").training.replicas == 2
    assert same_bits(whole, tmp_path / "cut")


def test_replicas_train_as_one_process_does(whole, tmp_path) -> None:
    train(config(1), tmp_path / "run", quiet=True, final_evaluation=False, on_iteration=keep_first(tmp_path))
    one, two = (load_file(folder / "first" / "model.safetensors") for folder in (tmp_path, whole.parent))
    statistics = {name for name in one if "running_" in name or "num_batches" in name}
    assert statistics
    for name in statistics:
        assert torch.equal(two[name], one[name]), name  # those of the whole batch, whoever has the images
    ours, theirs = (torch.cat([run[name].flatten() for name in one.keys() - statistics]) for run in (one, two))
    assert 0 < (theirs - ours).norm() < 1e-5 * ours.norm()
    differences = [abs(b - a) / a for (_, a), (_, b) in zip(losses(tmp_path / "run"), losses(whole), strict=True)]
    # rounding is all that differs; Adam makes it grow, as it does between numbers of threads
    assert max(differences[:2]) < 1e-6
    assert max(differences) < 2e-2


@pytest.mark.slow
def test_parts_and_loader_processes_change_nothing_beside_rounding(tmp_path) -> None:
    parts = {"training__batch_size": 8, "training__accumulation": 2, "training__iterations": 3}
    train(config(1, **parts), tmp_path / "one", quiet=True, final_evaluation=False)
    train(config(2, **parts), tmp_path / "two", quiet=True, final_evaluation=False)
    train(config(2, **parts, training__workers=1), tmp_path / "workers", quiet=True, final_evaluation=False)
    for (_, one), (_, two) in zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True):
        assert two == pytest.approx(one, rel=2e-5)
    assert same_bits(tmp_path / "two", tmp_path / "workers")


# ---------------------------------------------------------------------------------------------------- how they end
def test_an_image_that_another_replica_cannot_read_is_named(tmp_path) -> None:
    root = coco_folder(tmp_path)
    edited = config(2, data__source=CocoSource(root=str(root), val_split="train"), training__batch_size=2)
    dataset = open_dataset(edited.data, "train")
    ((_, index),) = next(iter(BatchSampler(len(dataset), 2, 0, 0, 1, rank=1, world_size=2)))
    broken = Path(dataset.records[index].path)
    broken.write_bytes(broken.read_bytes()[:-200])
    with pytest.raises(DataError, match=re.escape(broken.name)) as error:
        train(edited, tmp_path / "run", quiet=True)
    assert "Traceback" not in str(error.value)
    assert not others()


def test_a_replica_that_is_killed_stops_the_run_and_says_how_to_continue(tmp_path) -> None:
    def kill(done: int) -> None:
        if done == 2:
            others()[0].kill()

    with pytest.raises(TrainingError, match=r"replica 1 ended unexpectedly \(SIGKILL.*the last checkpoint.*--resume"):
        train(config(2), tmp_path, quiet=True, on_iteration=kill)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000002"]
    assert not others()


def test_ctrl_c_reaches_all_and_the_first_replica_writes_a_checkpoint(tmp_path) -> None:
    def interrupt(done: int) -> None:
        if done == 2:
            for pid in (others()[0].pid, os.getpid()):
                os.kill(pid, signal.SIGINT)

    with pytest.raises(Interrupted, match="--resume"):
        train(config(2), tmp_path, quiet=True, on_iteration=interrupt)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000003"]
    assert not others()


def test_a_loss_that_is_not_finite_names_the_images_of_all_replicas(tmp_path) -> None:
    broken = config(2, training__learning_rate=1e30, training__warmup=0, training__clip_norm=None)
    message = r"at iteration \d+ the loss is not finite: .* image ids (\d+, ){3}\d+; "
    with pytest.raises(TrainingError, match=message):
        train(broken, tmp_path, quiet=True)
    assert not others()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_the_run(number, tmp_path) -> None:
    command = [
        sys.executable, "-m", "cornernet.cli", "train", "--recipe", "tiny", "--out", str(tmp_path / "run"),
        "--training.replicas", "2", "--training.iterations", "100000", "--training.log-every", "1",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
        metrics = tmp_path / "run" / "metrics.jsonl"
        while not (metrics.exists() and metrics.stat().st_size):
            assert run.poll() is None, run.stderr.read()
            time.sleep(0.05)
        children = psutil.Process(run.pid).children(recursive=True)
        assert children
        run.send_signal(number)
        gone, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    assert len(gone) == len(children)


def test_the_plan_of_a_run_says_how_many_replicas(monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert main(["train", "--dry-run"]) == 0
    assert "on cpu, in 2 replicas of 1 thread each, and write" in capsys.readouterr().out
    assert main(["train", "--dry-run", "--training.batch-size", "7"]) == 0
    assert "on cpu, and write" in capsys.readouterr().out
