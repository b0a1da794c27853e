from __future__ import annotations

import io
import os
import sys

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
