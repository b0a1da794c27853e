"""Runs on a local Ray of two workers: the numbers of sequential runs, and runs that lose their worker."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from cornernet import Config
from cornernet.ablations.__main__ import main
from cornernet.ablations.profiles import PROFILES
from cornernet.ablations.records.record import tree
from cornernet.ablations.running.planner import Fingerprints, Job, make_job
from cornernet.ablations.running.ray_executor import RayExecutor, on_ray
from cornernet.ablations.running.runner import run_jobs
from cornernet.ablations.running.store import Store
from cornernet.data import open_dataset

pytest.importorskip("ray", reason="Ray is not installed: pip install 'cornernet-lab[ray]', or nox -s ray")
# Ray leaves sockets and files to the end of the process
pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]


def job(**training: Any) -> Job:
    config: Config = PROFILES["smoke"].base(None).with_("training.device", "cpu")
    for name, value in training.items():
        config = config.with_(f"training.{name}", value)
    data = [open_dataset(config.data.source, split).fingerprint for split in ("train", "val")]
    return make_job(config, Fingerprints(*data))


@pytest.fixture(scope="module")
def executor() -> Iterator[RayExecutor]:
    # as where a script starts it in the background: interrupts are ignored, and what is started inherits that
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with on_ray(None, 2, 0) as started:
        signal.signal(signal.SIGINT, before)
        yield started


def numbers(record: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on where a run is made."""
    return {name: record[name] for name in ("training_key", "config", "data", "metrics", "per_class", "resamples")}


def test_a_cluster_that_is_not_there_is_an_error(tmp_path, capsys) -> None:
    # before the others start one
    argv = ["--profile", "smoke", "--studies", "table1", "--executor", "ray", "--address", "auto"]
    assert main([*argv, "--store", str(tmp_path)]) == 2
    assert "--address auto: cannot reach a Ray cluster" in capsys.readouterr().err


def test_a_study_has_the_numbers_of_sequential_runs_to_the_last_digit(tmp_path, capsys) -> None:
    found = {}
    for name, how in (("alone", ["--workers", "1"]), ("ray", ["--executor", "ray", "--workers", "2"])):
        places = ["--store", str(tmp_path / name), "--out", str(tmp_path / f"{name}-tables")]
        assert main(["--profile", "smoke", "--studies", "table1", "--seeds", "0", "1", *how, *places]) == 0
        records = (tmp_path / name / "evaluations").glob("*.json")
        found[name] = {path.stem: numbers(json.loads(path.read_text())) for path in records}
        weights = (tmp_path / name / "trainings").glob("*/model.safetensors")
        # not the files' bytes: the header's order is drawn anew for each
        found[name]["weights"] = {
            path.parent.name: {key: value.numpy().tobytes() for key, value in load_file(path).items()}
            for path in weights
        }
    assert len(found["ray"]["weights"]) == 4
    assert found["ray"] == found["alone"]
    assert "2 at a time" in capsys.readouterr().out


@pytest.mark.parametrize("lost", ["worker", "machine"])
def test_a_run_that_loses_its_worker_is_taken_up_again_with_the_same_numbers(lost, executor, tmp_path) -> None:
    wanted = job(iterations=150, checkpoint_every=5)
    alone, store = Store(tmp_path / "alone"), Store(tmp_path / "ray")
    assert run_jobs(alone, [wanted], 1, quiet=True).failed == ()
    killed: list[int] = []

    def kill() -> None:
        while store.iterations_done(wanted) < 10:
            time.sleep(0.02)
        (process,) = _processes_on(store)
        # a machine that is lost takes the training with it, and leaves no time for a checkpoint
        for victim in (process.parent(), *([process] if lost == "machine" else [])):
            killed.append(victim.pid)
            victim.kill()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    outcome = run_jobs(store, [wanted], 1, quiet=True, executor=executor)
    killer.join(60)
    assert len(killed) == (2 if lost == "machine" else 1)
    assert outcome.failed == outcome.left == ()
    assert store.log_path(wanted).read_text().count("shapes train: ") == 2, "it was started twice"
    ours, theirs = store.record(wanted), alone.record(wanted)
    assert ours is not None
    assert theirs is not None
    assert numbers(tree(ours)) == numbers(tree(theirs))
    assert not _processes_on(store), "nothing is left running"


def test_a_ray_that_is_started_here_listens_on_the_loopback_alone(executor) -> None:
    this = psutil.Process()
    found = [
        (process.name(), connection.laddr.ip)
        for process in (this, *this.children(recursive=True))
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(found) >= 3, "the store of the cluster, the node, and this process"
    places = {ipaddress.ip_address(ip.removeprefix("::ffff:")) for _, ip in found}
    assert all(place.is_loopback for place in places), found


def _processes_on(store: Store) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if {"cornernet.ablations.running.worker", str(store.root)} <= set(process.cmdline()):
                found.append(process)
    return found


def test_a_call_that_runs_out_of_time_leaves_checkpoints_and_no_process(executor, tmp_path) -> None:
    store, jobs = Store(tmp_path), [job(iterations=50_000, seed=seed) for seed in (0, 1, 2)]

    def late() -> float:
        while not all(store.iterations_done(each) for each in jobs[:2]):
            time.sleep(0.05)
        return time.monotonic()

    reached: list[float] = []
    watcher = threading.Thread(target=lambda: reached.append(late()), daemon=True)
    watcher.start()

    class Deadline(float):
        """Comes once both workers have begun to train."""

        def __le__(self, _now: object) -> bool:
            return bool(reached)

    outcome = run_jobs(store, jobs, 2, quiet=True, executor=executor, deadline=Deadline())
    assert len(outcome.left) == 3
    assert outcome.failed == ()
    assert [store.resumes_at(each) > 0 for each in jobs] == [True, True, False]
    assert not any(store.held(each) for each in jobs)
    assert not _processes_on(store)


def test_a_run_that_fails_is_told_as_locally_and_not_tried_again(executor, tmp_path) -> None:
    broken = job(learning_rate=1e30, warmup=0, iterations=20)
    config = broken.config.with_("training.clip_norm", None)
    data = [open_dataset(config.data.source, split).fingerprint for split in ("train", "val")]
    broken, store = make_job(config, Fingerprints(*data)), Store(tmp_path)
    outcome = run_jobs(store, [broken], 1, quiet=True, executor=executor)
    (failure,) = outcome.failed
    assert "the loss is not finite" in failure.last_line
    assert store.log_path(broken).read_text().count("shapes train: ") == 1
