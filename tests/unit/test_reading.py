"""Whatever path a user names, a pipe or a device is refused at once instead of being read without end."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cornernet.cli import main
from cornernet.config import Config, ConfigError
from cornernet.data import DataError
from cornernet.data.formats.annotation_file import is_detection_file, read_columns
from cornernet.data.images import read_image
from cornernet.files import open_regular, read_regular, require_regular
from cornernet.weights.checkpoints import CheckpointError, load_detector
from tests.unit.data.folders import write_images

NO_FILE = "it is a folder, a device or a pipe"


@pytest.fixture(autouse=True)
def _ended_if_it_waits() -> Iterator[None]:
    """A test that waits for the end of a pipe is interrupted."""

    def stop(*_: object) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def folder(at: Path) -> None:
    at.mkdir()


def endless(at: Path) -> None:
    at.symlink_to("/dev/zero")


KINDS = [folder, os.mkfifo, endless]


@pytest.mark.parametrize("kind", KINDS)
def test_only_regular_files_are_read(kind: Callable[[Path], None], tmp_path: Path) -> None:
    kind(tmp_path / "x")
    for read in (read_regular, require_regular):
        with pytest.raises(OSError, match=NO_FILE) as caught:
            read(tmp_path / "x", 10)
        assert caught.value.filename == str(tmp_path / "x")


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    assert read_regular(path, 10) == b"0123456789"
    with pytest.raises(OSError, match="it has 10 bytes, and the limit is 9 bytes; is it really a list"):
        read_regular(path, 9, "a list")
    with path.open("r+b") as file:
        file.truncate(3 << 20)
    with pytest.raises(OSError, match="it has 3 MiB, and the limit is 1 KiB:"), open_regular(path, 1024):
        pass
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "y", 10)
    with pytest.raises(OSError, match="not a valid file name"):
        read_regular("a\0b", 10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("read", "error"),
    [
        (Config.load, ConfigError),
        (read_columns, DataError),
        (read_image, DataError),
    ],
)
def test_readers_refuse_what_is_no_file(
    read: Callable[[Path], object], error: type[Exception], kind: Callable[[Path], None], tmp_path: Path
) -> None:
    kind(tmp_path / "x")
    with pytest.raises(error, match=rf"/x: {NO_FILE}"):
        read(tmp_path / "x")
    assert is_detection_file(tmp_path / "x"), "it is reported, not passed over"


@pytest.mark.parametrize("kind", [os.mkfifo, endless])
@pytest.mark.parametrize("name", ["w.safetensors", "w.pkl"])
def test_weights_that_are_no_file_are_refused(name: str, kind: Callable[[Path], None], tmp_path: Path) -> None:
    kind(tmp_path / name)
    with pytest.raises(CheckpointError, match=rf"{re.escape(name)}: {NO_FILE}"):
        load_detector(tmp_path / name)


@pytest.mark.parametrize("kind", [os.mkfifo, endless])
@pytest.mark.parametrize(
    "command",
    [
        "train --config-file pipe --dry-run",
        "detect pipe --weights starter --out found",
        "detect --weights pipe photos",
        "data import-yolo yolo --names pipe",
        "data import-yolo piped --names piped/classes.txt",
        "data import-voc voc",
    ],
)
def test_commands_refuse_what_is_no_file(
    command: str,
    kind: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "yolo", "piped", "voc"):
        write_images(tmp_path / name, ("a.png",))
    (tmp_path / "piped" / "classes.txt").write_text("cat\n")
    for at in ("pipe", "piped/a.txt", "voc/a.xml"):
        kind(tmp_path / at)
    assert main(command.split()) == 2
    assert "pipe" in capsys.readouterr().err
