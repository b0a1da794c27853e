"""The runner of a study and the renderer are killed at any point: nothing is lost, nothing runs twice."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from cornernet.ablations.records.record import Record
from cornernet.ablations.reporting.folder import stale, write_files
from cornernet.ablations.running.store import Store, StoreError
from tests.faults.conftest import Zygote, rounds
from tests.faults.test_training_killed import wait_for
from tests.unit.made_records import made_record
from tests.unit.test_plans import smoke_job

pytestmark = pytest.mark.xdist_group("faults")

TABLE = ["--profile", "smoke", "--studies", "table1", "--seeds", "0"]
MOMENTS = ("latency", "seconds", "memory", "provenance")
"""Fields of a record that depend on the process that made it."""


def argv(root: Path, store: str = "store", out: str = "out") -> list[str]:
    return [*TABLE, "--store", str(root / store), "--out", str(root / out)]


def records(store: Path) -> dict[str, dict[str, Any]]:
    found = (json.loads(path.read_text()) for path in (store / "evaluations").glob("*.json"))
    return {tree["evaluation_key"]: {k: v for k, v in tree.items() if k not in MOMENTS} for tree in found}


def tables(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "tables").iterdir()}


@dataclass
class StudyRun:
    records: dict[str, dict[str, Any]]
    tables: dict[str, bytes]
    seconds: float
    folder: Path


@pytest.fixture(scope="module")
def study(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> StudyRun:
    root = tmp_path_factory.mktemp("study")
    began = time.monotonic()
    status, _ = zygote.run("ablate", root / "log", argv=argv(root))
    assert status == 0, (root / "log").read_text()
    found = StudyRun(records(root / "store"), tables(root / "out"), time.monotonic() - began, root / "out")
    assert len(found.records) == 2
    assert {"table1.md", "table1.csv", "table1.tex"} <= found.tables.keys()
    return found


def once(seen: dict[str, bytes], store: Path) -> None:
    """Assert that every record from before is unchanged: it has its date and its seconds, so it was not made again."""
    now = {path.name: path.read_bytes() for path in (store / "evaluations").glob("*.json")}
    assert {name: now.get(name) for name in seen} == seen
    seen.update(now)


@pytest.mark.parametrize("what", ["the-whole-tree", pytest.param("only-the-runner", marks=pytest.mark.thorough)])
def test_a_study_that_is_killed_resumes_to_the_same_tables_and_repeats_nothing(
    what, zygote, study, tmp_path, tally
) -> None:
    rng = random.Random(what)
    wanted, kills, story, seconds = max(1, rounds(1) // 4), 0, 0, study.seconds
    while kills < wanted:
        story += 1
        root = tmp_path / f"story-{story}"
        root.mkdir()
        seen: dict[str, bytes] = {}
        for _ in range(min(rng.randint(1, 4), wanted - kills)):
            run = zygote.start("ablate", root / "log", argv=argv(root))
            time.sleep(rng.random() * seconds)
            if what == "the-whole-tree":
                run.kill()
            elif run.alive():
                psutil.Process(run.pid).kill()
            status, _ = run.wait()
            kills += status == -signal.SIGKILL
            seconds *= 1 if status else 0.7  # the kill came too late: the machine is faster now
            once(seen, root / "store")
        status, _ = zygote.run("ablate", root / "log", argv=argv(root))
        assert status == 0, (root / "log").read_text()
        once(seen, root / "store")
        assert records(root / "store") == study.records
        assert tables(root / "out") == study.tables
    tally("kills", kills)
    tally("studies that ended", story)


def of_size(key: str, size: int) -> Record:
    return made_record(evaluation_key=key, config={"size": size, "text": "x" * size})


def test_a_reader_sees_whole_records_while_they_are_being_rewritten(tmp_path, tally) -> None:
    store, job = Store(tmp_path), smoke_job()
    stop = threading.Event()

    def write() -> None:
        size = 0
        while not stop.is_set():
            size = (size + 7_919) % 60_000
            store.write_record(job, of_size(job.evaluation_key, size))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        sizes = set()
        began = time.monotonic()
        # however slow the machine, some records are read
        while (spent := time.monotonic() - began) < min(10.0, 0.2 * rounds(2)) or (len(sizes) < 2 and spent < 600):
            record = store.record(job)
            if record is not None:
                assert len(record.config["text"]) == record.config["size"]
                sizes.add(record.config["size"])
                tally("records read")
    finally:
        stop.set()
        writer.join()
    assert len(sizes) > 1


def test_a_record_of_another_job_and_a_file_that_is_no_record_are_refused(tmp_path) -> None:
    store, job = Store(tmp_path), smoke_job()
    store.write_record(job, made_record(evaluation_key="another"))
    with pytest.raises(StoreError, match=rf"{job.evaluation_key}\.json is the record of another; remove it"):
        store.record(job)
    store.record_path(job).write_text("[1]")
    with pytest.raises(StoreError, match="holds no JSON object; remove it to evaluate again"):
        store.record(job)


def test_a_renderer_that_is_killed_leaves_whole_files_and_the_next_call_writes_the_rest(
    zygote, tmp_path, tally
) -> None:
    files = {name: f"{name}\n".encode() * 999 for name in ("README.md", "index.html", "results.json")}
    files |= {f"tables/table{number}.{end}": b"1 & 2" for number in range(3) for end in ("md", "csv", "tex")}
    for name, content in files.items():
        (tmp_path / "new" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "new" / name).write_bytes(content)
    old = dict.fromkeys(files, b"written by an earlier call")
    rng, kills = random.Random("renderer"), 0
    while kills < rounds(1):
        out = tmp_path / f"out-{kills}"
        out.mkdir(exist_ok=True)
        write_files(out, {**old, "tables/gone.md": b"a table that no longer exists"})
        status, _ = zygote.run(
            "write",
            tmp_path / "log",
            source=tmp_path / "new",
            out=out,
            watch=out,
            kill_at=rng.randint(1, 8 * len(files)),
        )
        assert status in (0, -signal.SIGKILL), (tmp_path / "log").read_text()
        kills += status != 0
        found = {path: (out / path).read_bytes() for path in files}
        assert all(content in (old[path], files[path]) for path, content in found.items())
        write_files(out, files)
        assert stale(out, files) == []
        there = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file() and not p.name.startswith(".")}
        assert there == set(files)
    tally("kills", kills)


@pytest.mark.thorough
def test_ctrl_c_stops_a_study_within_seconds_and_says_how_to_continue(zygote, study, tmp_path, tally) -> None:
    rng, stopped, stories, story, longest = random.Random("stopped"), 0, max(3, rounds(3) // 20), 0, 1.0
    while story < stories or not stopped:
        story += 1
        root = tmp_path / f"story-{story}"
        root.mkdir()
        run = zygote.start("ablate", root / "log", argv=argv(root))
        wait_for((root / "store").exists, run, root / "log")
        time.sleep(rng.random() * longest)
        began = time.monotonic()
        if run.alive():
            run.signal(signal.SIGINT)
        status, _ = run.wait()
        assert status in (0, 130), (root / "log").read_text()
        if status == 130:
            stopped += 1
            assert "ablations: stopped; the same command resumes" in (root / "log").read_text()
            tally("stopped")
            tally("seconds to stop, in all", round(time.monotonic() - began))
        else:
            longest *= 0.7  # it was faster than its signal
        status, _ = zygote.run("ablate", root / "log", argv=argv(root))
        assert status == 0, (root / "log").read_text()
        assert tables(root / "out") == study.tables


@pytest.mark.thorough
def test_two_runners_on_one_store_give_the_same_tables_though_one_is_killed(zygote, study, tmp_path, tally) -> None:
    rng, other = random.Random("two"), Zygote()
    try:
        for story in range(max(1, rounds(1) // 20)):
            root = tmp_path / f"story-{story}"
            root.mkdir()
            running = [
                each.start("ablate", root / f"log-{name}", argv=argv(root, out=name))
                for each, name in ((zygote, "one"), (other, "two"))
            ]
            time.sleep(rng.random() * study.seconds)
            victim = rng.randrange(2)
            running[victim].kill()
            statuses = [each.wait()[0] for each in running]
            assert statuses[1 - victim] in (0, 1), (root / "log-one").read_text() + (root / "log-two").read_text()
            seen: dict[str, bytes] = {}
            once(seen, root / "store")
            assert zygote.run("ablate", root / "log-one", argv=argv(root, out="one"))[0] == 0
            once(seen, root / "store")
            assert records(root / "store") == study.records
            assert tables(root / "one") == study.tables
            tally("runners killed")
    finally:
        other.close()


@pytest.mark.thorough
@pytest.mark.parametrize("workers", [1, 3])
def test_records_do_not_depend_on_the_number_of_workers(workers, zygote, study, tmp_path) -> None:
    status, _ = zygote.run("ablate", tmp_path / "log", argv=[*argv(tmp_path), "--workers", str(workers)])
    assert status == 0, (tmp_path / "log").read_text()
    assert records(tmp_path / "store") == study.records
    assert tables(tmp_path / "out") == study.tables


@pytest.mark.thorough
def test_a_killed_worker_is_a_failure_that_the_next_call_retries(zygote, study, tmp_path, tally) -> None:
    rng = random.Random("worker")
    for story in range(max(1, rounds(1) // 10)):
        root = tmp_path / f"story-{story}"
        root.mkdir()
        run = zygote.start("ablate", root / "log", argv=argv(root))
        workers: list[psutil.Process] = []
        wait_for(
            lambda run=run, found=workers: found.extend(psutil.Process(run.pid).children()) or found, run, root / "log"
        )
        time.sleep(rng.random() * 0.5)
        with contextlib.suppress(psutil.NoSuchProcess):  # it may have finished
            workers[0].kill()
        status, _ = run.wait()
        said = (root / "log").read_text()
        if status:
            tally("workers killed")
            assert status == 1, said
            assert "ended by signal 9" in said
            assert "FAILED: " in (root / "out" / "tables" / "table1.md").read_text()
            assert "failed" in (root / "out" / "tables" / "table1.md").read_text()
        seen: dict[str, bytes] = {}
        once(seen, root / "store")
        status, _ = zygote.run("ablate", root / "log", argv=argv(root))
        assert status == 0, (root / "log").read_text()
        once(seen, root / "store")
        assert records(root / "store") == study.records
        assert tables(root / "out") == study.tables
