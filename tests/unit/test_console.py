from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cornernet.console import count, printable, survive_any_encoding


@pytest.mark.parametrize(
    ("number", "noun", "plural", "text"),
    [
        (1, "image", None, "1 image"),
        (0, "image", None, "0 images"),
        (2, "image", None, "2 images"),
        (1, "box", "boxes", "1 box"),
        (12_000, "box", "boxes", "12000 boxes"),
    ],
)
def test_a_count_has_its_noun_in_the_right_number(number: int, noun: str, plural: str | None, text: str) -> None:
    assert count(number, noun, plural) == text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("wire loop", "wire loop"),
        ("貓, Größe, می‌خواهم", "貓, Größe, می‌خواهم"),
        ("a\nsplit val: 9 images", "a\\nsplit val: 9 images"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("cat\u202etac", "cat\\u202etac"),
        ("\ud800", "\\ud800"),
        ("a\u2028b\x85c", "a\\u2028b\\x85c"),
        ("narrow\u00a0space", "narrow\u00a0space"),
    ],
)
def test_a_name_is_printed_as_one_line_that_no_terminal_obeys(name: str, shown: str) -> None:
    assert printable(name) == shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_console_without_the_letters_ends_nothing(encoding, monkeypatch) -> None:
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding=encoding, write_through=True))
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("é 猫\n".encode()), encoding=encoding))
    survive_any_encoding()
    print("± 猫 \udcff")
    shown = content.getvalue().decode(encoding)
    expected = "± 猫 \udcff\n".encode(encoding, "backslashreplace").decode(encoding)
    assert shown == expected
    # a path on standard input is decoded as file names are
    assert os.fsencode(sys.stdin.readline().strip()) == "é 猫".encode()


ROOT = Path(__file__).parents[2]


def unread(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program whose standard output nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [sys.executable, "-c", program],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            check=False,
        )
    finally:
        os.close(writer)


@pytest.mark.parametrize(
    "run",
    [
        "from cornernet.cli import main; sys.exit(main(['--help']))",
        "from cornernet.cli import main; sys.exit(main(['train', '--recipe', 'tiny', '--dry-run']))",
        "from cornernet.cli import main; sys.exit(main(['data', 'split', '--help']))",
        "from cornernet.ablations.__main__ import main; sys.exit(main(['--help']))",
        "from cornernet.ablations.__main__ import main; sys.exit(main(['status', '--profile', 'smoke']))",
    ],
)
def test_a_program_that_nobody_reads_any_more_ends_quietly(run) -> None:
    ended = unread(f"import sys; {run}")
    assert (ended.returncode, ended.stderr) == (141, "")


def test_the_broken_pipe_of_another_process_is_no_quiet_end() -> None:
    run = """
import sys
from cornernet.console import ended_by_its_reader

@ended_by_its_reader
def main():
    raise BrokenPipeError("of a loader process")

sys.exit(main())
"""
    ended = subprocess.run([sys.executable, "-c", run], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "BrokenPipeError: of a loader process" in ended.stderr
