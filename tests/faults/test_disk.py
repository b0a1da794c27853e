"""A full disk, a folder that cannot be written to, and a folder in use."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cornernet.ablations.__main__ import main
from cornernet.training.loop import TrainingError, train
from tests.faults.conftest import rounds
from tests.faults.runs import config, results

pytestmark = pytest.mark.xdist_group("faults")

SMOKE = ["--profile", "smoke", "--studies", "table1", "--seeds", "0"]


def test_a_full_disk_stops_the_run_with_its_last_checkpoint_and_it_resumes_once_there_is_space(
    zygote,
    whole,
    tmp_path,
    tally,
) -> None:
    sizes = [path.stat().st_size for path in whole.folder.rglob("*") if path.is_file()]
    largest = max(sizes)
    argv = ["train", "--out", str(tmp_path / "run"), "--resume"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(whole.config.read_text())
    for share in (0.001, 0.2, 0.5, 0.9, 0.999) if rounds(2) > 2 else (0.2, 0.9):
        log = tmp_path / f"log-{share}"
        # no file may grow beyond this size, as if the disk were full
        status, _ = zygote.run("cornernet", log, argv=argv, file_bytes=int(share * largest))
        said = log.read_text()
        assert status == 2, said
        assert "Traceback" not in said
        assert "cornernet: error: " in said
        assert re.search(r"free some disk space, then continue with: cornernet train --resume --out \S+\n$", said), said
        assert not list((tmp_path / "run").rglob("*.partial")), "an unfinished checkpoint takes no space"
        assert not list((tmp_path / "run").rglob("*.tmp"))
        tally("full disks")
    status, _ = zygote.run("train", tmp_path / "log", config=whole.config, out=tmp_path / "run")
    assert status == 0, (tmp_path / "log").read_text()
    assert results(tmp_path / "run") == whole.results


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT], ids=["full", "quota"])
def test_a_disk_that_is_full_or_over_quota_stops_the_run_and_it_resumes(number, whole, tmp_path, tally) -> None:
    run, left, fsync = tmp_path / "run", 9, os.fsync  # beyond the first checkpoint

    def answers(file: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(number, os.strerror(number))
        fsync(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", answers)
        with pytest.raises(
            TrainingError,
            match=rf"{os.strerror(number)}.*free some disk space, then continue with: cornernet train --resume --out ",
        ):
            train(config(), run, quiet=True)
    assert not list(run.rglob("*.partial")), "an unfinished checkpoint takes no space"
    assert len(list((run / "checkpoints").glob("step-*"))) == 1
    train(config(), run, resume=True, quiet=True)
    assert results(run) == whole.results
    tally("full disks")


@pytest.mark.thorough
def test_a_full_disk_during_a_study_is_reported_and_leaves_no_partial_record(zygote, tmp_path, tally) -> None:
    store, out, log = tmp_path / "store", tmp_path / "out", tmp_path / "log"
    argv = [*SMOKE, "--store", str(store), "--out", str(out), "--workers", "1"]
    status, _ = zygote.run("ablate", log, argv=argv, file_bytes=20_000)
    said = log.read_text()
    assert status in (1, 2), said
    assert "Traceback" not in said
    assert "ablations: error: " in said
    for path in store.glob("evaluations/*"):
        json.loads(path.read_text())
    assert not list(out.rglob("*.tmp"))
    tally("full disks")


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that this process may not write to; root drops its privileges meanwhile."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "store"
        folder.mkdir()
        Path(name).chmod(0o755)
        folder.chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o755)


def test_a_store_that_cannot_be_written_to_is_named(read_only, capsys) -> None:
    argv = [*SMOKE, "--store", str(read_only / "runs"), "--out", str(read_only / "out")]
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert "ablations: error: [Errno 13] Permission denied" in said
    assert str(read_only) in said
    assert main(["status", *SMOKE, "--store", str(read_only / "runs")]) == 0, "status needs no permission to write"


def test_a_run_folder_that_cannot_be_written_to_is_named(read_only) -> None:
    with pytest.raises(PermissionError, match=str(read_only)):
        train(config(), read_only / "run", quiet=True)
    assert list(read_only.iterdir()) == []


def test_two_trainings_do_not_share_a_folder(tmp_path) -> None:
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / ".training.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TrainingError, match=r"another process is training in .*run; wait for it"):
            train(config(), tmp_path / "run", resume=True, quiet=True)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
