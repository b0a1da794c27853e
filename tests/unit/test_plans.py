"""Plans, time limits, states and failures of study runs, and stores that several processes share."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from cornernet import Config, recipe
from cornernet.ablations.__main__ import main
from cornernet.ablations.profiles import PROFILES
from cornernet.ablations.running.estimates import Speeds, calibrate, speeds_of_store
from cornernet.ablations.running.planner import Fingerprints, Job, grouped, in_order, make_job, plan
from cornernet.ablations.running.runner import run_jobs
from cornernet.ablations.running.store import Store, StoreError
from cornernet.ablations.studies import STUDIES
from cornernet.config import SourceConfig
from cornernet.data import open_dataset
from cornernet.training.revision import TRAINING_REVISION
from tests.unit.data.folders import coco_folder
from tests.unit.made_records import made_record

ROOT = Path(__file__).parents[2]
SMOKE = ["--profile", "smoke", "--studies", "table1", "--seeds", "0"]


@pytest.fixture(autouse=True)
def _short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """All speeds are measured, each in the fewest steps, however busy the machine is."""
    monkeypatch.setattr("cornernet.ablations.running.estimates.SECONDS_EACH", 0.01)
    monkeypatch.setattr("cornernet.ablations.running.work.calibrate", functools.partial(calibrate, seconds=math.inf))


def fingerprints(source: SourceConfig) -> Fingerprints:
    return Fingerprints(f"train of {source}", f"val of {source}")


def smoke_config() -> Config:
    return PROFILES["smoke"].base(None).with_("training.device", "cpu")


def smoke_job(config: Config | None = None) -> Any:
    config = smoke_config() if config is None else config
    data = [open_dataset(config.data.source, split).fingerprint for split in ("train", "val")]
    return make_job(config, Fingerprints(*data))


def places(tmp_path: Path) -> list[str]:
    return ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]


def rows_of(printed: str, study: str = "table1") -> list[str]:
    return [line for line in printed.splitlines() if re.match(rf"(\w{{16}}  )?{study} ", line)]


def spawn(tmp_path: Path, *argv: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "ablations", *argv],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def in_the_middle(profile: str = "smoke", iterations: int = 50_000) -> Any:
    """Return a profile whose trainings do not end while a test looks on."""
    base = PROFILES[profile].on_shapes().with_("training.iterations", iterations)
    return replace(PROFILES[profile], on_shapes=lambda: base)


def test_all_that_a_seed_needs_over_all_studies_comes_before_the_next_seed() -> None:
    seeds = (3, 1)
    jobs = plan([STUDIES["table1"], STUDIES["table2"], STUDIES["table7"]], recipe("tiny"), seeds, fingerprints)
    groups = grouped(in_order(jobs, seeds))
    assert [group[0].seed for group in groups] == [3] * 7 + [1] * 7
    assert sum(map(len, groups)) == len({job.evaluation_key for job in jobs.values()})
    assert all(len({job.training_key for job in group}) == 1 for group in groups)


@pytest.mark.slow
def test_a_plan_names_trainings_and_evaluations_and_the_time_and_does_nothing(tmp_path, capsys) -> None:
    argv = ["--profile", "smoke", "--studies", "table1", "table6", "--seeds", "0", *places(tmp_path)]
    assert main([*argv, "--plan"]) == 0
    printed = capsys.readouterr().out
    trainings, evaluations = printed.split("Trainings, ")[1].split("Evaluations, ")
    assert len(re.findall(r"^\w{16} .* to do ", trainings, re.MULTILINE)) == 2
    assert len(re.findall(r"^\w{16} .* to do ", evaluations, re.MULTILINE)) == 2 + 5
    assert re.search(r"estimated time: [\d.]+ minutes, 2 at a time \(speeds of 9 .*measured now", printed)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("forked")
@pytest.mark.slow
def test_a_plan_goes_by_finished_runs_of_the_same_kind_and_knows_what_is_finished(tmp_path, capsys) -> None:
    assert main([*SMOKE, *places(tmp_path)]) == 0
    assert "estimated time: unknown" in capsys.readouterr().out
    assert main([*SMOKE, *places(tmp_path), "--plan"]) == 0
    printed = capsys.readouterr().out
    assert "estimated time: 0 minutes, everything is finished" in printed
    assert len(rows_of(printed)) == 4
    assert all(" finished" in row for row in rows_of(printed))
    more = ["--profile", "smoke", "--studies", "table1", "--seeds", "0", "1", *places(tmp_path)]
    assert main([*more, "--plan"]) == 0
    assert "(speeds of 4 trainings and evaluations: 4 from runs in this store)" in capsys.readouterr().out
    assert main([*more, "--only-report"]) == 0
    # a call that runs says it at once as well
    assert "(speeds of 4 trainings and evaluations: 4 from runs in this store)" in capsys.readouterr().out


def test_speeds_are_of_the_same_model_data_and_batch_whatever_the_seed_and_length() -> None:
    speeds = Speeds()
    base = recipe("tiny")
    speeds.add("training", base.to_dict(), 1.0)
    speeds.add("training", base.with_("training.seed", 4).with_("training.iterations", 7).to_dict(), 3.0)
    assert speeds.exactly("training", base.with_("training.learning_rate", 1e-5).to_dict()) == 2.0
    assert speeds.exactly("testing", base.to_dict()) is None
    for path, value in (("training.batch_size", 4), ("data.input_size", (127, 127)), ("training.device", "cuda")):
        assert speeds.nearly("training", base.with_(path, value).to_dict()) is None
    other = base.with_("model.head.pooling", "none").to_dict()
    assert speeds.exactly("training", other) is None
    assert speeds.nearly("training", other) == 2.0


def test_speeds_of_a_store_are_seconds_by_iteration_and_image_and_skip_what_was_resumed(tmp_path) -> None:
    store, config = Store(tmp_path), smoke_config()
    for seed, seconds in ((0, 4.0), (1, None)):
        job = make_job(config.with_("training.seed", seed), Fingerprints("train", "val"))
        record = made_record(
            evaluation_key=job.evaluation_key,
            config=job.config.to_dict(),
            data={"images": 8},
            seconds={"training": seconds, "evaluation": 2.0 + 2 * seed},
        )
        store.write_record(job, record)
    speeds = speeds_of_store(store)
    assert speeds.exactly("training", config.to_dict()) == 4.0 / 8
    assert speeds.exactly("testing", config.to_dict()) == 3.0 / 8


@pytest.mark.usefixtures("forked")
@pytest.mark.slow
def test_a_call_that_is_stopped_at_its_limit_leaves_a_checkpoint_and_the_next_goes_on(
    tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setitem(PROFILES, "smoke", in_the_middle())
    argv = [*SMOKE, *places(tmp_path), "--max-minutes", "0.00001"]

    def reached_by_a_call() -> int:
        assert main(argv) == 3
        captured = capsys.readouterr()
        assert "2 trainings and 2 evaluations are left" in captured.err
        assert "the limit was too short to keep anything, so the call went on" in captured.err
        assert f"resume with: python -m ablations {' '.join(argv)}" in captured.err
        assert captured.out.count("not run") > 0
        assert "jobs failed" not in captured.err  # a progress line says "0 failed"
        (checkpoint,) = tmp_path.glob("store/trainings/*/checkpoints/step-*")
        return int(checkpoint.name[5:])

    first = reached_by_a_call()
    assert main(["status", *SMOKE, "--store", str(tmp_path / "store")]) == 0
    assert f"stopped at iteration {first} of 50000" in capsys.readouterr().out
    assert main([*argv, "--plan"]) == 0
    assert f"resumes at {first} " in capsys.readouterr().out
    assert reached_by_a_call() > first
    assert not (tmp_path / "store" / "failures").exists()


@pytest.mark.usefixtures("forked")
@pytest.mark.slow
def test_calls_without_time_finish_a_study_in_the_end(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(PROFILES, "smoke", in_the_middle(iterations=1))
    # each call keeps one thing more at least: a training's only iteration, its weights, or the record; there are two
    statuses = [3]
    while statuses[-1] == 3 and len(statuses) <= 2 * 3:
        statuses.append(main([*SMOKE, *places(tmp_path), "--max-minutes", "0.00001"]))
    assert statuses[-1] == 0
    assert len(list((tmp_path / "store" / "evaluations").glob("*.json"))) == 2


class Told:
    """An executor whose runs do what they are told, for what a run seldom does."""

    def __init__(self, work: Any) -> None:
        self.work, self.asked = work, 0

    def slots(self) -> int:
        return 2

    def start(self, store: Store, group: Any, lock: Any) -> Any:
        executor = self

        class Run:
            returncode: int | None = None

            def poll(self) -> int | None:
                executor.work(store, group[0])
                return self.returncode

            def terminate(self) -> None:
                executor.asked += 1

            def wait(self, timeout: float | None = None) -> int:
                if timeout is not None and not store.resumes_at(group[0]):
                    # it is slow: its checkpoint comes after it was waited for
                    checkpoint(store, group[0], 2)
                    raise subprocess.TimeoutExpired("run", timeout)
                self.returncode = 130
                return 130

        return Run()


def checkpoint(store: Store, job: Job, iteration: int) -> None:
    (store.training(job) / "checkpoints" / f"step-{iteration:07d}").mkdir(parents=True, exist_ok=True)


def logged(store: Store, job: Job, iteration: int) -> None:
    (store.training(job) / "metrics.jsonl").write_text(json.dumps({"iteration": iteration}) + "\n")


def test_at_the_limit_one_training_goes_on_until_it_is_further_and_is_asked_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("cornernet.ablations.running.runner.POLL_SECONDS", 0)
    jobs = [smoke_job(smoke_config().with_("training.seed", seed)) for seed in (0, 1)]
    store, polls = Store(tmp_path), []

    def work(store: Store, job: Job) -> None:
        polls.append(job)
        # what a call before this one had logged after its checkpoint is not further
        logged(store, job, 3 if len(polls) < 5 else 4)

    store.training(jobs[0]).mkdir(parents=True)
    logged(store, jobs[0], 3)
    executor = Told(work)
    outcome = run_jobs(store, jobs, 2, quiet=True, executor=executor, deadline=time.monotonic())
    assert outcome.overran
    assert len(outcome.left) == 2
    assert polls[:5] == [jobs[0]] * 5, "the second is not started any more"
    assert executor.asked == 1, "it is asked again only where nothing would be lost"
    assert store.resumes_at(jobs[0]) == 2


def test_at_the_limit_a_call_that_is_further_stops_at_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("cornernet.ablations.running.runner.POLL_SECONDS", 0)
    store, job, reached = Store(tmp_path), smoke_job(), []

    def work(store: Store, job: Job) -> None:
        checkpoint(store, job, 4)
        reached.append(True)

    class Deadline(float):
        """Comes once there is a checkpoint."""

        def __le__(self, _now: object) -> bool:
            return bool(reached)

    outcome = run_jobs(store, [job], 1, quiet=True, executor=Told(work), deadline=Deadline())
    assert not outcome.overran
    assert outcome.left == (job,)
    assert len(reached) <= 2, "it is collected once more after it has stopped"


def test_a_call_without_time_leaves_what_others_hold_to_them(tmp_path) -> None:
    store, job = Store(tmp_path), smoke_job()
    with store.acquire(job) as lock:
        assert lock is not None
        outcome = run_jobs(store, [job], 1, quiet=True, deadline=time.monotonic())
    assert outcome.left == (job,)
    assert not outcome.overran


@pytest.mark.usefixtures("forked")
@pytest.mark.slow
def test_a_failure_is_kept_and_shown_and_forgotten_once_the_job_succeeds(tmp_path, capsys) -> None:
    store = tmp_path / "store"
    job = smoke_job(smoke_config().with_("model.head.pooling", "corner"))
    broken = store / "trainings" / job.training_key / "checkpoints" / "step-0000004"
    broken.mkdir(parents=True)
    (broken.parents[1] / "config.json").write_text(job.training_config.to_json(), encoding="utf-8")
    assert main([*SMOKE, *places(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert "1 of 2 jobs failed" in err
    assert "cannot read the checkpoint" in err
    (path,) = (store / "failures").iterdir()
    failure = json.loads(path.read_text())
    assert failure["evaluation_key"] == path.stem == job.evaluation_key
    assert failure["traceback"].startswith("Traceback")
    assert "cannot read the checkpoint" in (store / failure["log"]).read_text()

    assert main(["status", *SMOKE, "--store", str(store)]) == 0
    printed = capsys.readouterr().out
    states = {row.split("  ")[1].strip(): row.split()[-1] for row in rows_of(printed)}
    assert states == {"w/o corner pooling": "finished", "w/ corner pooling": "failed"}
    assert "CheckpointError: cannot read the checkpoint" in printed
    assert str(store / failure["log"]) in printed

    shutil.rmtree(broken)
    assert main([*SMOKE, *places(tmp_path)]) == 0
    assert list((store / "failures").iterdir()) == []


@pytest.mark.slow
def test_a_process_that_is_killed_is_a_failure_that_says_so(tmp_path, monkeypatch) -> None:
    store, job = Store(tmp_path), smoke_job(smoke_config().with_("training.iterations", 50_000))
    popen = subprocess.Popen
    seen: dict[str, str] = {}

    def start_and_kill(*args: Any, **kwargs: Any) -> Any:
        process = popen(*args, **kwargs)
        if "cornernet.ablations.running.worker" in args[0]:
            seen.update(kwargs["env"])
            process.kill()
        return process

    monkeypatch.setattr(subprocess, "Popen", start_and_kill)
    outcome = run_jobs(store, [job], workers=3, quiet=True)
    assert [failure.evaluation_key for failure in outcome.failed] == [job.evaluation_key]
    assert "ended by signal 9" in outcome.failed[0].last_line
    assert outcome.left == ()
    assert seen["CORNERNET_WORKERS"] == "3", "a record says how many ran side by side"


@pytest.mark.usefixtures("forked")
@pytest.mark.slow
def test_two_processes_on_one_store_run_each_training_once_and_both_end_with_whole_tables(tmp_path) -> None:
    argv = ["--profile", "smoke", "--studies", "table1", "--seeds", "0", "1", "--workers", "1", "--store", "store"]
    processes = [spawn(tmp_path, *argv, "--out", out) for out in ("one", "two")]
    for process in processes:
        _, said = process.communicate(timeout=900)
        assert process.returncode == 0, said
    logs = [path.read_text() for path in (tmp_path / "store" / "logs").iterdir()]
    assert len(logs) == 4
    assert [log.count("train 8/8") for log in logs] == [1] * 4
    assert [log.count("shapes train: ") for log in logs] == [1] * 4
    results = [json.loads((tmp_path / out / "results.json").read_text()) for out in ("one", "two")]
    assert len(results[0]["runs"]) == 4
    assert results[0] == results[1]


@pytest.mark.usefixtures("forked")
@pytest.mark.slow
@pytest.mark.thorough
def test_what_another_process_holds_is_shown_as_running_and_left_to_it(tmp_path, capsys) -> None:
    store, job = Store(tmp_path / "store"), smoke_job()
    lock = store.acquire(job)
    assert lock is not None
    assert store.acquire(job) is None
    with lock:
        assert main(["status", *SMOKE, "--store", str(store.root)]) == 0
        states = [row.rsplit("  ", 1)[1] for row in rows_of(capsys.readouterr().out)]
        assert states == ["waiting", "running now, at iteration 0 of 8"]
        # the others are taken first; then this one is waited for
        limited = [*SMOKE, *places(tmp_path), "--max-minutes", "0.25"]
        while main(limited) == 3 and len(list((store.root / "evaluations").glob("*.json"))) < 1:
            pass
        assert store.record(job) is None
        assert not store.log_path(job).exists()
    assert not store.held(job)
    assert main([*SMOKE, *places(tmp_path)]) == 0
    assert store.record(job) is not None


@pytest.mark.usefixtures("forked")
@pytest.mark.slow
def test_a_job_whose_process_outlived_the_one_that_started_it_is_still_held(tmp_path) -> None:
    # the profile's own trainings end too soon to be caught
    code = (
        "from tests.unit.test_plans import *\n"
        "config = smoke_config().with_('training.iterations', 50_000)\n"
        "run_jobs(Store(Path('store')), [smoke_job(config)], workers=1, quiet=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    store, job = Store(tmp_path / "store"), smoke_job(smoke_config().with_("training.iterations", 50_000))
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment) as parent:
        deadline = time.monotonic() + 600
        while not store.iterations_done(job):
            assert parent.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (worker,) = psutil.Process(parent.pid).children()
        parent.kill()
    try:
        assert store.held(job)
    finally:
        worker.send_signal(signal.SIGTERM)
        psutil.wait_procs([worker], timeout=600)
    assert not store.held(job)
    assert store.resumes_at(job) > 0


@pytest.mark.slow
@pytest.mark.thorough
def test_a_training_can_be_shared_by_several_processes_under_torchrun(tmp_path) -> None:
    store, job = Store(tmp_path), smoke_job()
    assert run_jobs(store, [job], workers=1, processes=2, quiet=True).failed == ()
    record = store.record(job)
    assert record is not None
    assert record.evaluation_key == job.evaluation_key
    assert store.log_path(job).read_text().count("train 8/8") == 1


@pytest.mark.usefixtures("forked")
@pytest.mark.slow
def test_records_of_a_publishing_profile_are_committed_and_found_by_an_empty_store(
    tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setitem(PROFILES, "smoke", replace(PROFILES["smoke"], publish=True))
    records = tmp_path / "records"
    assert main([*SMOKE, *places(tmp_path), "--records", str(records)]) == 0
    published = sorted((records / "smoke-shapes").iterdir())
    assert len(published) == 2
    capsys.readouterr()

    empty = ["--store", str(tmp_path / "empty"), "--out", str(tmp_path / "again"), "--records", str(records)]
    assert main([*SMOKE, *empty]) == 0
    assert "2 of them finished" in capsys.readouterr().out
    assert not (tmp_path / "empty").exists()
    tables = [(tmp_path / out / "tables" / "table1.csv").read_bytes() for out in ("out", "again")]
    assert tables[0] == tables[1]
    assert main(["status", *SMOKE, *empty[:2], *empty[4:]]) == 0
    assert capsys.readouterr().out.count("finished, published") == 2
    assert main([*SMOKE, *empty, "--no-records", "--only-report"]) == 0
    assert "0 of them finished" in capsys.readouterr().out

    published[0].write_text("{")
    assert main([*SMOKE, *empty, "--plan"]) == 0
    captured = capsys.readouterr()
    assert f"warning: the published record {published[0]} is left out" in captured.err
    assert "1 of them finished" in captured.out


def test_a_profile_of_an_older_revision_is_read_and_not_run(tmp_path, capsys, monkeypatch) -> None:
    old = TRAINING_REVISION - 1
    monkeypatch.setitem(PROFILES, "smoke", replace(PROFILES["smoke"], revision=old))
    assert main([*SMOKE, *places(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"was trained by revision {old} of the training code, and 2 records of it are missing (seeds 0)" in said
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "store").glob("trainings/*"))

    store = Store(tmp_path / "store")
    data = [open_dataset(smoke_config().data.source, split).fingerprint for split in ("train", "val")]
    for variant in STUDIES["table1"].variants:
        config = STUDIES["table1"].configure(smoke_config(), variant).with_("training.seed", 0)
        job = make_job(config, Fingerprints(*data), old)
        keys = {"training_key": job.training_key, "evaluation_key": job.evaluation_key, "config": job.config.to_dict()}
        store.write_record(job, made_record(metrics=dict.fromkeys(STUDIES["table1"].metrics, 0.5), **keys))
    assert main([*SMOKE, *places(tmp_path)]) == 0
    assert (tmp_path / "out" / "results.json").exists()


def test_the_gpu_s_profile_is_planned_and_refused_without_a_gpu(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    base = PROFILES["gpu"].on_shapes()
    assert base.training.device == "cuda"
    assert base.data.input_size == (255, 255)
    assert base.model.backbone.stacks == 2
    for name in ("train_images", "val_images"):
        base = base.with_(f"data.source.{name}", 4)
    monkeypatch.setitem(PROFILES, "gpu", replace(PROFILES["gpu"], on_shapes=lambda: base))
    argv = ["--profile", "gpu", "--no-records", *places(tmp_path)]
    assert main([*argv, "--plan"]) == 0
    printed = capsys.readouterr().out
    assert "trainings of 600 iterations" in printed
    assert "not measured, it takes a CUDA device" in printed
    assert main(argv) == 2
    assert "profile gpu takes 1 CUDA device for a training, and torch finds 0 here" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_paper_s_profile_is_planned_on_a_folder_and_refuses_shapes(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    folder = coco_folder(tmp_path / "coco")
    coco_folder(folder, file="annotations/instances_val.json")
    argv = ["--profile", "paper", "--no-records", *places(tmp_path)]
    assert main([*argv, "--data", str(folder), "--plan"]) == 0
    printed = capsys.readouterr().out
    assert "trainings of 250000 iterations" in printed
    assert "a training takes 7 GPUs together" in printed
    assert main([*argv, "--data", str(folder)]) == 2
    assert "profile paper takes 7 CUDA devices for a training, and torch finds 1 here" in capsys.readouterr().err
    assert main([*argv, "--plan"]) == 2
    assert "give COCO's folder with --data" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("value", ["0", "-1", "nan"])
def test_a_limit_that_is_no_time_is_refused(value, tmp_path, capsys) -> None:
    assert main([*SMOKE, *places(tmp_path), f"--max-minutes={value}"]) == 2
    assert "use more than 0" in capsys.readouterr().err


def test_an_address_is_of_a_ray_cluster(tmp_path, capsys) -> None:
    assert main([*SMOKE, *places(tmp_path), "--address", "auto"]) == 2
    assert "--address is of a Ray cluster: it needs --executor ray" in capsys.readouterr().err


def test_without_ray_the_extra_is_named(tmp_path, capsys, monkeypatch) -> None:
    # what an import of a missing package comes to
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*SMOKE, *places(tmp_path), "--executor", "ray"]) == 2
    assert "pip install 'cornernet-lab[ray]'" in capsys.readouterr().err
    assert not list((tmp_path / "store").glob("trainings/*"))


def test_a_broken_file_of_the_store_is_named_with_the_fix(tmp_path, capsys) -> None:
    store, job = Store(tmp_path / "store"), smoke_job()
    for path in (store.failure_path(job), store.record_path(job)):
        path.parent.mkdir(parents=True)
        path.write_text("{")
        with pytest.raises(StoreError, match=rf"{path.name} cannot be read"):
            (store.failure if "failures" in str(path) else store.record)(job)
    assert main(["status", *SMOKE, "--store", str(store.root)]) == 2
    assert "remove it to evaluate again" in capsys.readouterr().err
