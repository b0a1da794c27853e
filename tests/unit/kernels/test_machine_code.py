"""The folder for machine code: whose files are loaded, and what processes do to each other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cornernet.kernels import machine_code
from cornernet.kernels.machine_code import folder, load, save, turn

DAY = 86400


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CORNERNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(machine_code, "_warned", set())
    return tmp_path / "cache" / f"machine-code-{os.geteuid()}"


def code_files(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.code"))


def test_code_is_found_under_its_own_key_only(cache) -> None:
    save("loop", "float32", b"code of float32")
    save("loop", "float64", b"code of float64")
    assert load("loop", "float32") == b"code of float32"
    assert load("loop", "float64") == b"code of float64"
    assert load("loop", "float16") is None
    assert load("other", "float32") is None
    assert folder() == cache


def test_the_folder_is_private_whatever_the_umask(cache) -> None:
    before = os.umask(0)
    try:
        save("loop", "key", b"code")
    finally:
        os.umask(before)
    (file,) = code_files(cache)
    assert cache.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_file_of_another_key_is_not_served(cache) -> None:
    save("loop", "one", b"code of one")
    (one,) = code_files(cache)
    save("loop", "two", b"code of two")
    (two,) = set(code_files(cache)) - {one}
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    assert load("loop", "one") is None
    assert load("loop", "two") is None


def test_a_damaged_file_is_not_served(cache) -> None:
    save("loop", "key", b"code")
    (file,) = code_files(cache)
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole[:at])
        assert load("loop", "key") is None
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert load("loop", "key") is None
    file.write_bytes(whole + b"\0")
    assert load("loop", "key") is None
    file.write_bytes(whole)
    assert load("loop", "key") == b"code"


def test_saves_that_interleave_keep_each_its_own(monkeypatch) -> None:
    """The second save begins and ends between the writing and the renaming of the first."""
    replace = os.replace

    def interrupted(*arguments, **options) -> None:
        monkeypatch.setattr(os, "replace", replace)
        save("loop", "two", b"code of two")
        replace(*arguments, **options)

    monkeypatch.setattr(os, "replace", interrupted)
    save("loop", "one", b"code of one")
    assert load("loop", "one") == b"code of one"
    assert load("loop", "two") == b"code of two"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720, 0o1777])
def test_a_folder_that_others_can_write_is_not_used(cache, mode) -> None:
    save("loop", "key", b"code")
    cache.chmod(mode)
    with pytest.warns(RuntimeWarning, match=r"can be written by other users .* CORNERNET_CACHE"):
        assert load("loop", "key") is None
    save("loop", "more", b"code")
    assert len(code_files(cache)) == 1


def test_a_folder_of_another_user_is_not_used(cache, monkeypatch) -> None:
    """The process seems to belong to another user, for whom somebody has prepared the folder."""
    save("loop", "key", b"code")
    me = os.geteuid()
    prepared = cache.rename(cache.with_name(f"machine-code-{me + 1}"))
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.warns(RuntimeWarning, match=f"belongs to user {me}"):
        assert load("loop", "key") is None
    save("loop", "more", b"code")
    assert len(code_files(prepared)) == 1


def test_a_link_in_place_of_the_folder_is_not_used(cache, tmp_path) -> None:
    save("loop", "key", b"code")
    elsewhere = cache.rename(tmp_path / "elsewhere")
    cache.symlink_to(elsewhere)
    with pytest.warns(RuntimeWarning, match="is a link"):
        assert load("loop", "key") is None
    save("loop", "more", b"code")
    assert len(code_files(elsewhere)) == 1


def test_a_file_that_others_can_write_or_a_link_is_replaced(cache, tmp_path) -> None:
    save("loop", "key", b"code")
    (file,) = code_files(cache)
    file.chmod(0o620)
    assert load("loop", "key") is None
    save("loop", "key", b"code")
    target = file.rename(tmp_path / "target")
    file.symlink_to(target)
    assert load("loop", "key") is None
    before = target.read_bytes()
    save("loop", "key", b"other code")
    assert not file.is_symlink()
    assert target.read_bytes() == before
    assert load("loop", "key") == b"other code"


def test_without_a_folder_nothing_is_kept_and_nothing_fails(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CORNERNET_CACHE", str(tmp_path / "file" / "cache"))
    save("loop", "key", b"code")
    with turn("loop"):
        assert load("loop", "key") is None


def test_code_that_nobody_used_for_a_month_is_removed_and_nothing_else(cache) -> None:
    save("loop", "old", b"code")
    save("loop", "used", b"code")
    (tmp_old, tmp_new), now = (f".loop-{'0' * 32}.code.{x * 16}.tmp" for x in "ab"), time.time()
    for name in (tmp_old, tmp_new, "note.txt"):
        (cache / name).write_text("")
    for path in cache.iterdir():
        if path.name != tmp_new:
            os.utime(path, (now - 40 * DAY,) * 2)
    assert load("loop", "used") == b"code"  # which makes it young again
    save("loop", "new", b"code")
    assert load("loop", "old") is None
    assert load("loop", "used") == load("loop", "new") == b"code"
    assert not (cache / tmp_old).exists()
    assert (cache / tmp_new).exists()
    assert (cache / "note.txt").exists()


HOLD = """
import runpy, sys
with runpy.run_path(sys.argv[1])["turn"]("loop"):  # not imported, because its package imports torch
    print("held", flush=True)
    sys.stdin.read()
"""


def holder() -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, machine_code.__file__]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_turn_ends_with_its_holder_even_if_that_is_killed() -> None:
    process, taken = holder(), threading.Event()

    def take() -> None:
        with turn("loop"):
            taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not taken.wait(0.2)
    with turn("other"):  # that nobody compiles
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    thread.join(60)
    assert taken.is_set()


def test_waiting_for_a_turn_has_an_end(monkeypatch) -> None:
    monkeypatch.setattr(machine_code, "_LONGEST_TURN", 0.0)
    process = holder()
    with turn("loop"):
        assert process.poll() is None
    process.communicate()
