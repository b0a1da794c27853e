"""cornernet.files: whole files or none, nothing through links, nothing replaced that was not written."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cornernet.files import (
    Output,
    OutputError,
    atomic_copy,
    atomic_write,
    fitting_name,
    make_folder,
    new_file,
    open_log,
    open_unchanged,
    remove_unfinished,
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CORNERNET_CACHE", str(folder))
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_unless_it_must_be_new(tmp_path) -> None:
    path = tmp_path / "a"
    atomic_write(path, "one")
    atomic_write(path, b"two")
    with pytest.raises(OutputError, match="exists already"):
        atomic_write(path, "three", replace=False)
    atomic_write(tmp_path / "b", "new", replace=False)
    atomic_copy(path, tmp_path / "c", replace=False)
    assert [(tmp_path / name).read_text() for name in "abc"] == ["two", "new", "two"]
    assert names(tmp_path) == ["a", "b", "c"]


def test_without_hard_links_a_new_file_is_new_too(tmp_path, monkeypatch) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuses)
    atomic_write(tmp_path / "a", "one", replace=False)
    with pytest.raises(OSError, match="exists"):
        atomic_write(tmp_path / "a", "two", replace=False)
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "one"


@pytest.mark.parametrize("target", ["there", "nowhere"])
def test_nothing_is_written_through_a_link(target, tmp_path) -> None:
    (tmp_path / "there").write_text("the user's")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / target)
    for write in (atomic_write, lambda path, _: open_log(path), lambda path, _: open_unchanged(path)):
        with pytest.raises(OutputError, match=f"link is a symbolic link to .*{target}, and nothing is written through"):
            write(link, "ours")
    assert link.is_symlink()
    assert (tmp_path / "there").read_text() == "the user's"
    assert names(tmp_path) == ["link", "there"]


def test_a_folder_below_the_one_named_may_be_no_link_and_the_one_named_may(tmp_path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "named").symlink_to(tmp_path / "there")
    make_folder(tmp_path / "named" / "a" / "b", below=tmp_path / "named")
    (tmp_path / "named" / "inner").symlink_to(tmp_path)
    with pytest.raises(OutputError, match="inner is a symbolic link"):
        make_folder(tmp_path / "named" / "inner" / "b", below=tmp_path / "named")
    with pytest.raises(OutputError, match="inner is a symbolic link"):
        Output(tmp_path / "named", "detect", overwrite=True).write("inner/x.txt", "x")
    assert not (tmp_path / "b").exists()


def test_a_lock_keeps_the_content_of_its_file_and_a_log_grows(tmp_path) -> None:
    (tmp_path / "a").write_text("one\n")
    open_unchanged(tmp_path / "a").close()
    with open_log(tmp_path / "a") as file:
        file.write(b"two\n")
    assert (tmp_path / "a").read_text() == "one\ntwo\n"
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(OSError, match=name):
            open_log(tmp_path / name)


def test_the_umask_decides_on_permissions_and_is_never_switched(tmp_path, monkeypatch) -> None:
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", lambda _: pytest.fail("the umask belongs to all threads"))
        atomic_write(tmp_path / "a", "x")
        open_log(tmp_path / "b").close()
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"] == [0o640, 0o640]


@pytest.mark.parametrize("name", ["x" * 255, "ä" * 127, "x" * 251 + ".png"])
def test_the_longest_names_can_be_written(name, tmp_path) -> None:
    atomic_write(tmp_path / name, "x")
    assert names(tmp_path) == [name]


def test_a_longer_name_is_named_and_leaves_nothing(tmp_path) -> None:
    with pytest.raises(OSError, match=r"File name too long: .*xxx"):
        atomic_write(tmp_path / ("x" * 256), "x")
    assert names(tmp_path) == []


def test_a_name_is_shortened_only_if_it_must_be_and_stays_its_own() -> None:
    assert fitting_name("x" * 251, ".png") == "x" * 251
    first, second = (fitting_name("é" * 200 + end, ".png") for end in "ab")
    assert first != second
    assert {len(os.fsencode(each + ".png")) <= 255 for each in (first, second)} == {True}
    assert first.startswith("é" * 100)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), ValueError])
def test_whatever_stops_a_write_leaves_the_old_file_and_nothing_else(error, tmp_path) -> None:
    (tmp_path / "a").write_text("old")

    def write() -> None:
        with new_file(tmp_path / "a") as file:
            file.write(b"half")
            raise error

    with pytest.raises(BaseException) as told:
        write()
    assert isinstance(told.value, type(error) if isinstance(error, Exception) else error)
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"
    if isinstance(error, OSError):
        assert str(tmp_path / "a") in str(told.value)


KILLED = """
import os, signal, sys
from pathlib import Path
from cornernet.files import new_file
with new_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.usefixtures("forked")
def test_what_a_killed_process_left_is_removed_by_the_next_write_and_nothing_else_is(tmp_path) -> None:
    kept = (".cornernet-notes.part", ".a.abcdefgh.tmp", ".cornernet-0123456789ab-0123456789ab.part", "a.partial")
    for name in kept:
        (tmp_path / name).write_text("the user's")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a")], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = set(names(tmp_path)) - set(kept)
    (tmp_path / "other").symlink_to(tmp_path / kept[0])
    atomic_write(tmp_path / "b", "x")
    assert left not in names(tmp_path)
    assert names(tmp_path) == sorted([*kept, "b", "other"])
    assert all((tmp_path / name).read_text() == "the user's" for name in kept)


@pytest.mark.usefixtures("forked")
def test_a_command_that_has_nothing_new_to_write_cleans_up_too(tmp_path) -> None:
    Output(tmp_path, "data show").write("a", "x")
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a")], check=False)
    assert len(names(tmp_path)) == 2
    script = "import sys; from pathlib import Path; from cornernet.files import Output;"
    script += "Output(Path(sys.argv[1]), 'data show').write('a', 'x')"
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert names(tmp_path) == ["a"]


def test_what_is_being_written_is_not_removed(tmp_path) -> None:
    def writes() -> None:
        with new_file(tmp_path / "a") as file:
            file.write(b"whole")
            begun.set()
            go_on.wait()

    begun, go_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=writes)
    thread.start()
    begun.wait()
    remove_unfinished(tmp_path)
    go_on.set()
    thread.join()
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"whole"


# ------------------------------------------------------------------------------------------------- who wrote what


def test_a_command_replaces_what_it_wrote_and_nothing_else(tmp_path) -> None:
    folder = tmp_path / "out"
    Output(folder, "detect").write("sub/a.txt", "one")
    Output(folder, "detect").write("sub/a.txt", "two")
    (folder / "users.txt").write_text("mine")
    for command, name, why in (("show", "sub/a.txt", "exists already"), ("detect", "users.txt", "exists already")):
        output = Output(folder, command)
        for write in (lambda o, n: o.require([n]), lambda o, n: o.write(n, "three")):
            with pytest.raises(OutputError, match=f"{Path(name).name} {why}; .* --overwrite"):
                write(output, name)
    (folder / "sub" / "a.txt").write_text("edited by hand")
    with pytest.raises(OutputError, match="has changed since detect wrote it"):
        Output(folder, "detect").write("sub/a.txt", "three")
    Output(folder, "detect", overwrite=True).write("sub/a.txt", "three")
    assert (folder / "sub" / "a.txt").read_text() == "three"
    assert (folder / "users.txt").read_text() == "mine"


def test_files_that_are_read_are_never_replaced(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(b"a photograph")
    os.link(tmp_path / "a.png", tmp_path / "same.png")
    output = Output(tmp_path, "detect", overwrite=True, originals=[tmp_path / "a.png"])
    for name in ("a.png", "same.png"):
        with pytest.raises(OutputError, match="one of the files that are read, and is never replaced"):
            output.require([name])


def test_only_what_was_written_is_removed(tmp_path) -> None:
    output = Output(tmp_path, "ablations")
    output.write("ours.md", "x")
    (tmp_path / "mine.md").write_text("x")
    (tmp_path / "link.md").symlink_to(tmp_path / "mine.md")
    removed = [Output(tmp_path, "ablations").remove(name) for name in ("ours.md", "mine.md", "link.md", "absent.md")]
    assert removed == [True, False, False, False]
    assert names(tmp_path) == ["link.md", "mine.md"]


def test_without_a_cache_files_are_written_and_the_next_call_asks(tmp_path, cache, monkeypatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("CORNERNET_CACHE", str(tmp_path / "file"))
    Output(tmp_path, "detect").write("a", "one")
    assert (tmp_path / "a").read_text() == "one"
    with pytest.raises(OutputError, match="--overwrite"):
        Output(tmp_path, "detect").write("a", "two")


def test_a_damaged_list_of_written_files_asks_and_is_added_to(tmp_path, cache) -> None:
    Output(tmp_path, "detect").write("a", "one")
    (listed,) = cache.iterdir()
    listed.write_bytes(b"\xff{\n[1]\n{}\n")
    with pytest.raises(OutputError, match="--overwrite"):
        Output(tmp_path, "detect").write("a", "two")
    Output(tmp_path, "detect", overwrite=True).write("a", "two")
    Output(tmp_path, "detect").write("a", "three")
    assert (tmp_path / "a").read_text() == "three"
