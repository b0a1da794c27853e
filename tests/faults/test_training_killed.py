"""A training that is killed at any point resumes to the same bits as one that was not."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cornernet.training.loop import Interrupted, train
from tests.faults.conftest import Running, rounds
from tests.faults.runs import config, results

pytestmark = pytest.mark.xdist_group("faults")


def kill_while_a_checkpoint_is_written(run: Running, out: Path, rng: random.Random) -> None:
    """Kill the run while it writes a checkpoint, unless it ends before."""
    skip = rng.randrange(3)
    seen: set[str] = set()
    while run.alive():
        seen |= {path.name for path in (out / "checkpoints").glob(".step-*.partial")}
        if len(seen) > skip:
            time.sleep(rng.random() * 0.004)
            break
        time.sleep(0.0002)
    run.kill()


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("time", marks=pytest.mark.thorough, id="at-a-random-time"),
        pytest.param("file", id="before-a-random-file-operation"),
        pytest.param("write", marks=pytest.mark.thorough, id="while-a-checkpoint-is-written"),
    ],
)
def test_a_training_that_is_killed_resumes_to_the_same_bits(how, zygote, whole, tmp_path, tally) -> None:
    rng = random.Random(f"killed {how}, {rounds(1)} times")
    wanted, kills, story, seconds = rounds(1), 0, 0, whole.seconds
    while kills < wanted:
        story += 1
        out, log = tmp_path / f"run-{story}", tmp_path / f"log-{story}"
        for _ in range(min(rng.randint(1, 4), wanted - kills)):
            at = rng.randint(1, whole.operations) if how == "file" else None
            run = zygote.start("train", log, config=whole.config, out=out, watch=out, kill_at=at)
            if how == "time":
                time.sleep(rng.random() * seconds)
                run.kill()
            elif how == "write":
                kill_while_a_checkpoint_is_written(run, out, rng)
            status, _ = run.wait()
            assert status in (0, -signal.SIGKILL), log.read_text()
            kills += status != 0
        if status == 0:  # the kill came too late: the machine is faster now
            seconds *= 0.7
        assert zygote.run("train", log, config=whole.config, out=out)[0] == 0, log.read_text()
        assert results(out) == whole.results, f"story {story}"
    tally("kills", kills)
    tally("runs that ended", story)


def tree_of(run: Running) -> list[psutil.Process]:
    return psutil.Process(run.pid).children(recursive=True)


def wait_for(condition: Callable[[], object], run: Running, log: Path) -> None:
    end = time.monotonic() + 600
    while not condition():
        assert run.alive(), log.read_text(encoding="utf-8")
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.thorough
def test_a_training_with_loader_processes_is_killed_and_resumes_to_the_same_bits(
    zygote, whole, tmp_path, tally
) -> None:
    rng = random.Random("loaders")
    path = tmp_path / "config.json"
    for story in range(max(1, rounds(1) // 20)):
        out, log = tmp_path / f"run-{story}", tmp_path / f"log-{story}"
        path.write_text(config(training__workers=1 + story % 3).to_json())
        run = zygote.start("train", log, config=path, out=out)
        wait_for((out / "metrics.jsonl").exists, run, log)
        time.sleep(rng.random())
        others = tree_of(run) if run.alive() else []
        if story % 2:
            run.kill()
        elif run.alive():
            # only the process that trains: its loader processes must notice
            psutil.Process(run.pid).kill()
        run.wait()
        _, left = psutil.wait_procs(others, timeout=600)
        assert not left, "a loader process outlived the run"
        assert zygote.run("train", log, config=path, out=out)[0] == 0, log.read_text()
        assert results(out) == whole.results
        tally("kills")


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_to_the_whole_group_leaves_the_loader_processes_to_finish_the_iteration(
    number, zygote, whole, tmp_path, tally
) -> None:
    path, out, log = tmp_path / "config.json", tmp_path / "run", tmp_path / "log"
    path.write_text(config(training__workers=2, training__iterations=400, training__checkpoint_every=400).to_json())
    run = zygote.start("train", log, config=path, out=out)
    wait_for((out / "metrics.jsonl").exists, run, log)
    began = time.monotonic()
    run.signal(number)
    status, _ = run.wait()
    assert status == 130, log.read_text()
    assert f"continue with: cornernet train --resume --out {out}\n" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert len(list((out / "checkpoints").glob("step-*"))) == 1
    tally("seconds to stop", round(time.monotonic() - began))


@pytest.mark.thorough
def test_a_loader_process_that_is_killed_ends_the_run_with_a_reason_and_its_checkpoint(
    zygote, whole, tmp_path, tally
) -> None:
    path, out, log = tmp_path / "config.json", tmp_path / "run", tmp_path / "log"
    path.write_text(config(training__workers=2, training__iterations=400).to_json())
    run = zygote.start("cornernet", log, argv=["train", "--config-file", str(path), "--out", str(out)])
    wait_for(lambda: list((out / "checkpoints").glob("step-*")), run, log)
    loader = next(each for each in tree_of(run) if "spawn_main" in " ".join(each.cmdline()))
    loader.kill()
    status, _ = run.wait()
    said = log.read_text()
    assert status == 2, said
    assert "Traceback" not in said
    assert "cornernet: error: a loader process died (out of memory?): DataLoader worker" in said
    assert f"use fewer --training.workers; continue with: cornernet train --resume --out {out}\n" in said
    assert len(list((out / "checkpoints").glob("step-*"))) == 1
    tally("loader processes killed")


def test_ctrl_c_during_an_evaluation_stops_it_and_resuming_makes_up_for_it(zygote, tmp_path) -> None:
    """The evaluation would take minutes. It ends at once, and the checkpoint is the one of its iteration."""
    path, out, log = tmp_path / "config.json", tmp_path / "run", tmp_path / "log"
    long = config(data__source__val_images=2000, training__checkpoint_every=100, training__evaluate_every=2)
    path.write_text(long.to_json())
    run = zygote.start("cornernet", log, argv=["train", "--config-file", str(path), "--out", str(out)])
    wait_for((out / "metrics.jsonl").exists, run, log)
    wait_for(lambda: len((out / "metrics.jsonl").read_text().splitlines()) >= 2, run, log)
    time.sleep(0.3)
    run.signal(signal.SIGINT)
    assert run.wait()[0] == 130, log.read_text()
    said = log.read_text()
    assert "stopping after this iteration; press Ctrl-C again to stop at once" in said
    resume = f"cornernet train --resume --out {out}\n"
    assert f"stopped after iteration 2 of 8; a checkpoint is in {out}; continue with: {resume}" in said
    assert [line for line in (out / "metrics.jsonl").read_text().splitlines() if "val/AP" in line] == []
    # training does not depend on the data of val
    path.write_text(long.with_("data.source.val_images", 3).with_("training.iterations", 3).to_json())
    (out / "config.json").write_text(path.read_text())
    assert zygote.run("train", log, config=path, out=out)[0] == 0, log.read_text()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [(line["iteration"], "val/AP" in line) for line in lines] == [(1, False), (2, False), (2, True), (3, False)]


def interrupt_after(last: int) -> Callable[[int], None]:
    def interrupt(done: int) -> None:
        if done == last:
            signal.raise_signal(signal.SIGINT)

    return interrupt


def test_ctrl_c_in_the_last_iteration_leaves_the_final_evaluation_to_the_next_call(tmp_path) -> None:
    short = config(training__iterations=2, training__evaluate_every=0)
    with pytest.raises(
        Interrupted, match=r"stopped after iteration 2 of 2; .*continue with: cornernet train --resume --out "
    ):
        train(short, tmp_path, quiet=True, on_iteration=interrupt_after(2))
    assert not (tmp_path / "evaluation.json").exists()
    assert train(short, tmp_path, resume=True, quiet=True) is not None
    assert (tmp_path / "evaluation.json").exists()


@pytest.mark.thorough
def test_ctrl_c_outside_the_loop_says_how_to_continue(tmp_path, monkeypatch) -> None:
    short = config(training__iterations=1, training__evaluate_every=0)

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cornernet.training.loop.open_dataset", stopped)
        with pytest.raises(Interrupted, match="stopped before the run began; start it with the same command"):
            train(short, tmp_path / "run", quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr("cornernet.training.loop.build_detector", stopped)
        with pytest.raises(
            Interrupted,
            match=r"stopped before the first checkpoint in .*; start again with: cornernet train --resume --out ",
        ):
            train(short, tmp_path / "run", quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr("cornernet.training.loop.evaluate", stopped)
        with pytest.raises(
            Interrupted, match="has the checkpoint of iteration 1; continue with: cornernet train --resume --out "
        ):
            train(short, tmp_path / "run", resume=True, quiet=True)
    assert train(short, tmp_path / "run", resume=True, quiet=True) is not None
